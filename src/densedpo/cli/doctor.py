"""`densedpo doctor [MODEL]`: the machine, and what a model is, needs and lacks, from its configs alone."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from densedpo.cli.options import JsonOption

if TYPE_CHECKING:
    from densedpo.adapters.footprint import Footprint, MemoryNeed

_MODULES_OF_EXTRA: Final = {
    "train": ("torch", "diffusers", "transformers", "peft", "safetensors", "jaxtyping", "tensorboard"),
    "report": ("matplotlib",),
}
PAPER_RANK: Final = 128  # of the published setups; a smaller one takes in proportion less
GIB: Final = 2**30


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """What `doctor` says: versions are None and extras lack packages where something is not installed."""

    densedpo: str
    code: str | None
    python: str
    platform: str
    num_cpus: int
    memory_gib: float
    free_disk_gib: float
    gpu: str | None
    gpu_memory_gib: float | None
    packages: dict[str, str | None]
    missing: dict[str, tuple[str, ...]]  # extra -> the packages of it that are not installed


@dataclass(frozen=True, kw_only=True, slots=True)
class Use:
    """One use of a model on this machine: GiB by what takes them, and whether they are there."""

    name: str
    weights_gib: float
    adapter_gib: float
    activations_gib: float
    total_gib: float
    fits: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelReport:
    """What `doctor` says of a model; `lora_parameters` are those of rank 128."""

    folder: str
    family: str
    clip: str
    latents: tuple[int, int, int, int]
    temporal_stride: int
    spatial_stride: int
    num_tokens: int
    parameters: dict[str, int]
    lora_parameters: int
    uses: tuple[Use, ...]
    missing: str | None


ModelArgument = Annotated[
    str | None, typer.Argument(metavar="[MODEL]", help="Model folder, owner/name or 'tiny': what it needs here.")
]


def doctor(model: ModelArgument = None, as_json: JsonOption = False) -> None:
    """Show versions, extras, processors, memory and disk; of a model its family, its size and what fits."""
    if model is not None:
        from densedpo.adapters import catalogue

        catalogue.family_of(catalogue.locate(model))  # what is no model is refused before torch looks for a GPU
    machine = examine_machine()
    report = None if model is None else examine_model(model, machine)
    if as_json:
        said = dataclasses.asdict(machine) | ({} if report is None else {"model": dataclasses.asdict(report)})
        typer.echo(json.dumps(said, indent=2))
        return
    if report is None:
        _tell_machine(machine)
    else:
        _tell_model(report, machine)


def _tell_machine(machine: Machine) -> None:
    typer.echo(f"densedpo {machine.densedpo}{f' at {machine.code}' if machine.code else ''}")
    typer.echo(f"python {machine.python} on {machine.platform}")
    typer.echo(f"{machine.num_cpus} processors, {machine.memory_gib:.1f} GiB memory, {machine.gpu or 'no GPU in use'}")
    typer.echo(f"{machine.free_disk_gib:.1f} GiB free here")
    for name, version in machine.packages.items():
        typer.echo(f"  {name:<26} {version or 'not installed'}")
    for extra, missing in machine.missing.items():
        remedy = f"lacks {', '.join(missing)}; pip install 'densedpo[{extra}]'" if missing else "complete"
        typer.echo(f"extra [{extra}] {remedy}")


def _tell_model(report: ModelReport, machine: Machine) -> None:
    typer.echo(f"{report.folder}: {report.family}, clips of {report.clip}")
    typer.echo(
        f"autoencoder: {report.temporal_stride} frames and {report.spatial_stride}x{report.spatial_stride} pixels to "
        f"one latent cell; latents {report.latents} (channels, frames, rows, columns), {report.num_tokens:,} tokens"
    )
    for name, count in report.parameters.items():
        typer.echo(f"  {name:<16} {f'{count:,} parameters' if count else 'not counted: no weights here'}")
    typer.echo(f"LoRA of rank {PAPER_RANK}: {report.lora_parameters:,} parameters")
    typer.echo(f"memory by arithmetic, not measured, and without the autoencoder's peak; here: {_room_text(machine)}")
    for use in report.uses:
        parts = ", ".join(
            f"{name} {_size_text(gib)}"
            for name, gib in (
                ("weights", use.weights_gib),
                ("LoRA", use.adapter_gib),
                ("activations", use.activations_gib),
            )
            if gib
        )
        fits = "fits" if use.fits else "does not fit"
        typer.echo(f"  {use.name:<38} {_size_text(use.total_gib):>10} ({parts}): {fits}")
    typer.echo("  settings: checkpoint_activations = true for the last two, and memory = 'apart' for the last")
    uncounted = [name for name, count in report.parameters.items() if not count]
    if uncounted:
        typer.echo(f"not in these sums: {', '.join(uncounted)}")
    if machine.missing["train"]:
        typer.echo("missing: extra [train]; pip install 'densedpo[train]'")
    typer.echo(f"missing: {report.missing}" if report.missing else "the model directory is complete")


def _size_text(gib: float) -> str:
    return f"{gib:.1f} GiB" if gib >= 1 else f"{1024 * gib:.0f} MiB"


def examine_model(model: str, machine: Machine) -> ModelReport:
    """What a model directory says of itself, and what fits this machine.

    Raises:
        BadInput: no such model, a family that is not known, a config that is missing or damaged.
    """
    from densedpo.adapters import catalogue
    from densedpo.adapters.footprint import read_footprint

    folder = catalogue.locate(model)
    found = read_footprint(folder, catalogue.family_of(folder))
    geometry = found.geometry
    return ModelReport(
        folder=str(folder),
        family=found.family,
        clip=f"{geometry.num_frames} frames of {geometry.height}x{geometry.width} at {geometry.fps:g} fps",
        latents=geometry.latent_shape,
        temporal_stride=geometry.temporal_stride,
        spatial_stride=geometry.spatial_stride,
        num_tokens=found.num_tokens,
        parameters={size.folder: size.num_parameters for size in found.components},
        lora_parameters=PAPER_RANK * found.lora_per_rank,
        uses=_uses(found, machine),
        missing=found.missing,
    )


def _uses(found: Footprint, machine: Machine) -> tuple[Use, ...]:
    """On a GPU in bfloat16, which the settings `dtype` and `precision` ask for; without one in float32."""
    value_bytes = 4 if machine.gpu_memory_gib is None else 2
    room = machine.memory_gib if machine.gpu_memory_gib is None else machine.gpu_memory_gib
    needs = {
        "pairs, both halves at once": found.for_pairs(value_bytes=value_bytes),
        "training, a pair at once": found.for_training(value_bytes=value_bytes, rank=PAPER_RANK, recomputed=False),
        "training, activations computed again": found.for_training(
            value_bytes=value_bytes, rank=PAPER_RANK, recomputed=True
        ),
        "the same, one clip after the other": found.for_training(
            value_bytes=value_bytes, rank=PAPER_RANK, recomputed=True, clips=1
        ),
    }
    return tuple(_use(name, need, room) for name, need in needs.items())


def _use(name: str, need: MemoryNeed, room_gib: float) -> Use:
    return Use(
        name=name,
        weights_gib=need.weights / GIB,
        adapter_gib=need.adapter / GIB,
        activations_gib=need.activations / GIB,
        total_gib=need.total / GIB,
        fits=need.total / GIB <= room_gib,
    )


def _room_text(machine: Machine) -> str:
    if machine.gpu_memory_gib is not None:
        return f"{machine.gpu}, {machine.gpu_memory_gib:.1f} GiB on one, in bfloat16"
    return f"no GPU, {machine.memory_gib:.1f} GiB of memory, in float32"


def examine_machine() -> Machine:
    """What there is to work with; imports torch, where it is installed, to ask it for a GPU."""
    from densedpo import __version__
    from densedpo.core.provenance import PACKAGES, code_version, package_version

    missing = {
        extra: tuple(module for module in modules if find_spec(module) is None)
        for extra, modules in _MODULES_OF_EXTRA.items()
    }
    gpu, gpu_memory_gib = (None, None) if "torch" in missing["train"] else _gpu()
    return Machine(
        densedpo=__version__,
        code=code_version(),
        python=platform.python_version(),
        platform=platform.platform(),
        num_cpus=len(os.sched_getaffinity(0)) if platform.system() == "Linux" else os.cpu_count() or 1,
        memory_gib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30,
        free_disk_gib=shutil.disk_usage(Path.cwd()).free / 2**30,
        gpu=gpu,
        gpu_memory_gib=gpu_memory_gib,
        packages={name: package_version(name) for name in PACKAGES},
        missing=missing,
    )


def _gpu() -> tuple[str | None, float | None]:
    """How many GPUs there are, with the name and the GiB of the first."""
    import torch

    if not torch.cuda.is_available():
        return None, None
    count, name = torch.cuda.device_count(), torch.cuda.get_device_name()
    return f"{count} x {name}" if count > 1 else name, torch.cuda.get_device_properties(0).total_memory / GIB
