"""Which prompts clips are made for, in which order, and the first frames that their clips continue (no torch)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from densedpo.adapters import catalogue
from densedpo.core.errors import BadInput
from densedpo.core.records import Prompt, read_jsonl
from densedpo.core.seeds import generator
from densedpo.core.workspace import require_fresh
from densedpo.generate.first_frames import FrameFile, read_first_frames
from densedpo.generate.real_clips import continues_frame, first_frames_of

if TYPE_CHECKING:
    from densedpo.core.workspace import Project

Frames = Mapping[str, tuple[FrameFile, ...]]
"""By prompt id; a prompt's clips take them in turns."""


def select_prompts(project: Project, splits: Sequence[str], *, seed: int, allow_clipless: bool) -> tuple[Prompt, ...]:
    """The prompts of the splits in the order of a seed.

    Raises:
        BadInput: there is none.
    """
    require_fresh(project.clips, project)
    prompts = [prompt for prompt in read_jsonl(project.clips / "prompts.jsonl", Prompt) if prompt.split in splits]
    if not allow_clipless:
        prompts = [prompt for prompt in prompts if prompt.clip_id is not None]
    if not prompts:
        what = "prompts" if allow_clipless else "prompts with a clip"
        raise BadInput(f"clips/prompts.jsonl holds no {what} in {', '.join(splits)}; add some by `densedpo data add`")
    # by a number of its own, so that a prompt that is added later does not reorder the others among themselves
    return tuple(sorted(prompts, key=lambda prompt: (generator(seed, "order", prompt.id).random(), prompt.id)))


def prompts_to_continue(
    project: Project, splits: Sequence[str], *, seed: int, model: str | Path, first_frames: str | None
) -> tuple[tuple[Prompt, ...], Frames]:
    """The prompts that a model can make clips for, in the order of a seed, and the frames that were drawn for them.

    Args:
        first_frames: a set of `generate first-frames`, whose prompts alone are taken; None: nothing is drawn.

    Raises:
        BadInput: there is no such prompt, the model continues no frame, or see `read_first_frames`.
    """
    if first_frames is None:
        return select_prompts(project, splits, seed=seed, allow_clipless=not continues_frame(model)), {}
    if not continues_frame(model):
        raise BadInput(f"first_frames has no effect: {model} is text-to-video and continues none")
    require_fresh(project.pairs(first_frames), project)
    drawn = read_first_frames(project.pairs(first_frames), catalogue.geometry(model))
    prompts = select_prompts(project, splits, seed=seed, allow_clipless=True)
    found = tuple(prompt for prompt in prompts if prompt.id in drawn)
    if not found:
        raise BadInput(
            f"first_frames = {first_frames!r} has none for {', '.join(splits)} prompts; draw them by `densedpo "
            f"generate first-frames ... --set splits={list(splits)}`"
        )
    return found, drawn


def frames_to_continue(project: Project, prompts: Sequence[Prompt], drawn: Frames, *, model: str | Path) -> Frames:
    """The drawn frames, or else those of the prompts' own clips; nothing for a text-to-video model.

    Raises:
        BadInput: see `first_frames_of`.
    """
    if drawn:
        return drawn
    own = first_frames_of(project, prompts, model=model)
    return {prompt_id: (file,) for prompt_id, file in own.items()}
