"""Labelled pairs in which the preference is known: in every labelled segment the brighter clip is the better one."""

from __future__ import annotations

from pathlib import Path

from densedpo.core import seeds
from densedpo.core.records import Pair, Preference, write_jsonl
from densedpo.core.workspace import Project
from toy import SMALL, toy_scene

RANGES = ((0, 5), (5, 9))  # with a stride of 4 latent frames 0 and 1, latent frame 2
SHIFT = 0.3


def toy_pair(index: int, model, split: str) -> Pair:
    """Pair number `index` of the toy set."""
    return Pair(
        id=f"pair-{index:03d}",
        kind="independent",
        prompt_id=f"prompt-{index:03d}",
        clip_id=None,
        caption=toy_scene(index).caption,
        split=split,
        eta=None,
        noise_key_a="a",
        noise_key_b="b",
        seed=0,
        num_steps=4,
        guidance_scale=3.0,
        model=model.fingerprint,
        num_frames=SMALL.num_frames,
        fps=8.0,
        height=SMALL.side,
        width=SMALL.side,
        pixel_scale=1,
        video=f"videos/pair-{index:03d}.mp4",
        latents=f"latents/pair-{index:03d}.safetensors",
    )


def toy_preference(index: int, split: str) -> Preference:
    """Labels of pair `index`: both signs, and a tie in the second segment of every fifth pair."""
    rng = seeds.generator("toy labels", index)
    labels = [int(label) for label in rng.integers(0, 2, 2) * 2 - 1]
    if index % 5 == 4:
        labels[1] = 0
    return Preference(
        pair_id=f"pair-{index:03d}",
        split=split,
        ranges=RANGES,
        labels=tuple(labels),
        confidence=(1.0, 0.75),
        clip_label=labels[0],
        num_judgements=2,
    )


def add_toy_pairs(project: Project, model, *, num_train: int = 12, num_validation: int = 6, name: str = "toy") -> None:
    """Writes pairs/<name> and preferences/<name>.jsonl."""
    import torch
    from safetensors.torch import save_file

    folder = project.pairs(name)
    (folder / "latents").mkdir(parents=True)
    pairs, preferences = [], []
    for index in range(num_train + num_validation):
        split = "train" if index < num_train else "validation"
        pair, preference = toy_pair(index, model, split), toy_preference(index, split)
        base = seeds.noise(model.geometry.latent_shape, "toy base", index)
        detail = 0.1 * seeds.noise(model.geometry.latent_shape, "toy detail", index)
        first, second = preference.labels
        num_first = (RANGES[0][1] - 1) // model.geometry.temporal_stride + 1
        num_second = model.geometry.num_latent_frames - num_first
        shift = torch.tensor([first] * num_first + [second] * num_second).view(1, -1, 1, 1) * SHIFT
        save_file({"a": base + detail + shift, "b": base - detail - shift}, folder / pair.latents)
        pairs.append(pair)
        preferences.append(preference)
    write_jsonl(folder / "pairs.jsonl", pairs)
    write_jsonl(project.preferences(name), preferences)


def read_only(folder: Path) -> dict[str, bytes]:
    """Every file of a folder but the lock, by its path: to see that a refusal wrote nothing."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
