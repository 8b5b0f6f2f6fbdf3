"""What the recipes of the shipped model share: the descent, and a state file that survives kill -9."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
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


def linear_lr(step: int, *, num_steps: int, peak: float, num_warmup: int) -> float:
    """Learning rate at a step: linear warm-up towards a straight line from `peak` at step 0 to 0 at the end."""
    return peak * min(1.0, (step + 1) / num_warmup) * (num_steps - step) / num_steps


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


class Descent:
    """Muon for hidden weights, each seen as a matrix [out, everything else], and AdamW for the rest, at one rate.

    Muon's update is scaled to AdamW's root mean square, so that both can share the schedule.

    Args:
        hidden: says by name and tensor which parameters Muon takes.
        schedule: the learning rate of a step.
        orthogonal_steps: Newton-Schulz iterations of Muon's update.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        *,
        hidden: Callable[[str, torch.nn.Parameter], bool],
        schedule: Callable[[int], float],
        orthogonal_steps: int = 5,
    ) -> None:
        self.module = module
        self.schedule = schedule
        named = dict(module.named_parameters())
        # a view shares the parameter's memory: Muon takes matrices only, and convolutions are not
        self.views = [(p, torch.nn.Parameter(p.data.view(len(p), -1))) for k, p in named.items() if hidden(k, p)]
        others = [p for k, p in named.items() if not hidden(k, p)]
        matrices = [view for _, view in self.views]
        self.optimizers = {
            "muon": torch.optim.Muon(
                matrices, lr=0.0, weight_decay=0.01, ns_steps=orthogonal_steps, adjust_lr_fn="match_rms_adamw"
            ),
            "adamw": torch.optim.AdamW(others, lr=0.0, betas=(0.9, 0.99), weight_decay=0.0),
        }

    def step(self, loss: torch.Tensor, step: int) -> None:
        """One step down a loss, the gradient's norm clipped to 1."""
        self.module.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
        for parameter, view in self.views:
            view.grad = None if parameter.grad is None else parameter.grad.view_as(view)
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = self.schedule(step)
            optimizer.step()

    def state(self) -> dict[str, torch.Tensor]:
        """The module and both optimizers as flat tensors."""
        tensors = {f"model.{k}": v for k, v in self.module.state_dict().items()}
        for name, optimizer in self.optimizers.items():
            tensors |= {f"{name}.{k}": v for k, v in optimizer_tensors(optimizer).items()}
        return tensors

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        """Puts `state` back; an empty state is a fresh start."""
        if not tensors:
            return
        self.module.load_state_dict(below(tensors, "model"))
        for name, optimizer in self.optimizers.items():
            restore_optimizer(optimizer, below(tensors, name))


def below(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The tensors whose key begins with `prefix.`, without it."""
    return {k.removeprefix(f"{prefix}."): v for k, v in tensors.items() if k.startswith(f"{prefix}.")}
