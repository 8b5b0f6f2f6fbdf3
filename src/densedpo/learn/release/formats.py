"""A finished run's adapter in the formats of others: diffusers, PEFT, ComfyUI, or merged into the base weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Literal, assert_never

from densedpo.adapters import catalogue
from densedpo.adapters.comfyui import comfyui_name
from densedpo.adapters.trained import (
    ADAPTER_FILE,
    CHOSEN_FILE,
    DENOISER_FOLDER,
    load_trained,
    started_from,
    trained_file,
)
from densedpo.core.errors import BadInput
from densedpo.core.files import naming_disk_errors, write_atomic
from densedpo.core.workspace import read_stamp
from densedpo.learn.course import RUN_FILE
from densedpo.learn.release.card import model_card

if TYPE_CHECKING:
    from torch import Tensor

    from densedpo.core.workspace import Project

ReleaseFormat = Literal["diffusers", "peft", "comfyui", "merged"]


def release(project: Project, name: str, format_: ReleaseFormat) -> Path:
    """Writes a finished run's adapter for others, with a model card; an earlier one is replaced.

    Returns:
        The folder, `runs/<name>/release/<format>`.

    Raises:
        BadInput: no such run, it is not finished, it has no adapter, or ComfyUI does not know the model's layers.
    """
    run = project.run(name)
    if not (run / RUN_FILE).is_file():
        raise BadInput(f"{project.relative(run)} does not exist; train it by `densedpo learn`")
    if read_stamp(run) is None:
        raise BadInput(f"{project.relative(run)} is not finished; give the command that began it again")
    is_full = _config(run).get("train") == "full"
    if is_full and format_ != "merged":
        raise BadInput(f"{project.relative(run)} trained all weights and has no adapter; use --format merged")
    base = started_from(trained_file(run))
    if base is not None and format_ != "merged":
        raise BadInput(
            f"the adapter of {project.relative(run)} is for the weights of run {base.parent.name!r} and would not fit "
            "the base model; use --format merged"
        )
    experts = catalogue.denoisers(_base(run))
    folder = run / "release" / format_
    part = folder.with_name(f".{format_}.part")
    with naming_disk_errors(folder):
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        match format_:
            case "diffusers":
                shutil.copyfile(run / ADAPTER_FILE, part / "pytorch_lora_weights.safetensors")
            case "peft":
                _write_peft(run, part)
            case "comfyui":
                _write_comfyui(run, part / f"{name}.safetensors")
            case "merged" if is_full and not (run / CHOSEN_FILE).is_file():
                shutil.copytree(run / DENOISER_FOLDER, part / experts[-1])
            case "merged":
                _write_merged(run, part / experts[-1])
            case _ as unknown:
                assert_never(unknown)
        usage = [_usage(format_, name, experts, is_full=is_full), *catalogue.beyond_pipeline(_base(run))]
        write_atomic(part / "README.md", model_card(project, run, usage=" ".join(usage)))
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    return folder


def _usage(format_: ReleaseFormat, name: str, experts: tuple[str, ...], *, is_full: bool) -> str:
    """How what was written is loaded, Markdown.

    Args:
        experts: the model's denoisers as its pipeline calls them; the last one was trained.
    """
    trained = experts[-1]
    match format_:
        case "diffusers":
            where = ", load_into_transformer_2=True" if trained == "transformer_2" else ""
            return f"In diffusers: `pipeline.load_lora_weights(FOLDER{where})` on the base model's pipeline."
        case "peft":
            return f"With PEFT: `PeftModel.from_pretrained(pipeline.{trained}, FOLDER)`."
        case "comfyui":
            where = " on the model of low noise" if len(experts) > 1 else ""
            return f"In ComfyUI: put `{name}.safetensors` into `models/loras` and load it by a LoRA loader node{where}."
        case "merged":
            said = f"In diffusers: load the base model's pipeline with `{trained}=` the model in `{trained}/`."
            return said if is_full else f"{said} The adapter is part of these weights and cannot be switched off."
        case _ as unknown:
            assert_never(unknown)


def _layers(run: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """The down and up matrices (A, B) of each adapted layer, by its name in the denoiser, which the file puts first."""
    from safetensors.torch import load_file

    tensors = load_file(run / ADAPTER_FILE)
    names = sorted(key.removesuffix(".lora_A.weight") for key in tensors if key.endswith(".lora_A.weight"))
    return {
        name.partition(".")[2]: (tensors[f"{name}.lora_A.weight"], tensors[f"{name}.lora_B.weight"]) for name in names
    }


def _setting(run: Path, name: str) -> float:
    """A number of the run's config."""
    return float(str(_config(run)[name]))


def _config(run: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((run / RUN_FILE).read_text(encoding="utf-8"))["identity"]["config"]
    return found


def _base(run: Path) -> str:
    return str(json.loads((run / RUN_FILE).read_text(encoding="utf-8"))["model"])


def _write_peft(run: Path, folder: Path) -> None:
    """adapter_config.json and adapter_model.safetensors, as `PeftModel.save_pretrained` writes them."""
    from peft import LoraConfig
    from safetensors.torch import save_file

    layers = _layers(run)
    config = LoraConfig(
        r=int(_setting(run, "lora_rank")),
        lora_alpha=_setting(run, "lora_alpha"),  # a float, though it says int
        target_modules=sorted(layers),
        base_model_name_or_path=Path(_base(run)).name,
        inference_mode=True,
    )
    config.save_pretrained(folder)
    tensors: dict[str, Tensor] = {}
    for name, (down, up) in layers.items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = down
        tensors[f"base_model.model.{name}.lora_B.weight"] = up
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def _write_comfyui(run: Path, file: Path) -> None:
    """One file of `lora_A`, `lora_B` and `alpha` by ComfyUI's names of the layers."""
    import torch
    from safetensors.torch import save_file

    model, alpha = catalogue.find(_base(run)), torch.tensor(_setting(run, "lora_alpha"))
    tensors: dict[str, Tensor] = {}
    for name, (down, up) in _layers(run).items():
        theirs = comfyui_name(model, name)
        tensors[f"{theirs}.lora_A.weight"] = down
        tensors[f"{theirs}.lora_B.weight"] = up
        tensors[f"{theirs}.alpha"] = alpha.clone()
    save_file(tensors, file, metadata={"format": "pt"})


def _write_merged(run: Path, folder: Path) -> None:
    """The denoiser with what was trained in it, W + (alpha / rank) B A for each adapted W, as a folder of diffusers."""
    from diffusers import ModelMixin
    from diffusers.loaders import PeftAdapterMixin

    model = catalogue.load(_base(run))
    trained = trained_file(run)
    load_trained(model, trained)
    denoiser = model.denoiser
    if not isinstance(denoiser, PeftAdapterMixin) or not isinstance(denoiser, ModelMixin):
        raise BadInput(f"a {type(denoiser).__name__} takes no adapters")
    if trained.name == ADAPTER_FILE:
        denoiser.fuse_lora()
        denoiser.unload_lora()
    denoiser.save_pretrained(folder, safe_serialization=True)
