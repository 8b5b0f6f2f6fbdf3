"""What both recipes of the shipped model share: a cosine schedule and a state file that survives kill -9."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file


def cosine_lr(step: int, *, num_steps: int, peak: float, num_warmup: int, floor: float = 0.02) -> float:
    """Learning rate at a step: linear warm-up, then half a cosine down to `floor` of the peak."""
    if step < num_warmup:
        return peak * (step + 1) / num_warmup
    progress = min(1.0, (step - num_warmup) / max(1, num_steps - num_warmup))
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress)))


def save_state(path: Path, tensors: dict[str, torch.Tensor], *, step: int) -> None:
    """Writes tensors and the step to one safetensors file by rename, so that a cut leaves the last one whole."""
    part = path.with_suffix(".part")
    save_file(
        {k: v.detach().contiguous().clone() for k, v in tensors.items()}, part, metadata={"step": json.dumps(step)}
    )
    part.replace(path)


def load_state(path: Path) -> tuple[dict[str, torch.Tensor], int]:
    """The tensors and the step of `save_state`; an absent file is step 0."""
    if not path.exists():
        return {}, 0
    with safe_open(path, framework="pt") as file:
        step = json.loads((file.metadata() or {})["step"])
        return {key: file.get_tensor(key) for key in file.keys()}, step  # noqa: SIM118


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The optimizer's state as flat tensors, keyed `optimizer.<parameter index>.<name>`."""
    flat = {}
    for index, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            flat[f"optimizer.{index}.{name}"] = torch.as_tensor(value)
    return flat


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    """Puts the tensors of `optimizer_tensors` back."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".", 2)
            state.setdefault(int(index), {})[name] = value
    if state:
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def resume(path: Path, module: torch.nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Puts the state of `save_training` back and returns the step to go on from; an absent file is a fresh start."""
    tensors, step = load_state(path)
    if tensors:
        module.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
        restore_optimizer(optimizer, tensors)
    return step


def save_training(path: Path, module: torch.nn.Module, optimizer: torch.optim.Optimizer, *, step: int) -> None:
    """Writes a module, its optimizer and the number of steps that are done."""
    state = {f"model.{k}": v for k, v in module.state_dict().items()} | optimizer_tensors(optimizer)
    save_state(path, state, step=step)


def descend(loss: torch.Tensor, module: torch.nn.Module, optimizer: torch.optim.Optimizer, *, lr: float) -> None:
    """One step down a loss at a learning rate, the gradient's norm clipped to 1."""
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
    optimizer.step()
