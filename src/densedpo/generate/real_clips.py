"""What pairs take from the real clips of their prompts: cached latents, and the first frame to continue (no torch)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from densedpo.adapters import catalogue
from densedpo.core.errors import BadInput
from densedpo.core.records import Clip, read_jsonl
from densedpo.generate.first_frames import FrameFile

if TYPE_CHECKING:
    from densedpo.adapters.base import Geometry
    from densedpo.core.records import Prompt
    from densedpo.core.workspace import Project


def continues_frame(model: str | Path) -> bool:
    """Whether a model's clips continue a first frame, so that every prompt needs a clip."""
    return catalogue.geometry(model).num_given_frames > 0


def require_text_to_video(model: str | Path, *, what: str) -> None:
    """Refuses an image-to-video model where first frames are not known.

    Raises:
        BadInput: says what is not made with it.
    """
    if continues_frame(model):
        raise BadInput(f"{model} continues a first frame: {what} are made with text-to-video models alone")


def first_frames_of(project: Project, prompts: Sequence[Prompt], *, model: str | Path) -> dict[str, FrameFile]:
    """Where the first frame of each prompt's own clip is, by prompt id; nothing for a text-to-video model.

    Raises:
        BadInput: see `latents_of_clips`.
    """
    if not continues_frame(model):
        return {}
    clips = _clips_of(project, prompts, model=model)
    return {prompt_id: FrameFile.of(clip, project.clips) for prompt_id, (clip, _) in clips.items()}


def latents_of_clips(project: Project, prompts: Sequence[Prompt], *, model: str | Path) -> dict[str, Path]:
    """The file of cached latents of each prompt's clip, by prompt id.

    Raises:
        BadInput: a clip is missing, of another size than the model's, or not encoded by the model's autoencoder.
    """
    return {prompt_id: latents for prompt_id, (_, latents) in _clips_of(project, prompts, model=model).items()}


def _clips_of(project: Project, prompts: Sequence[Prompt], *, model: str | Path) -> dict[str, tuple[Clip, Path]]:
    """Each prompt's clip and the file of its cached latents, by prompt id; see `latents_of_clips`."""
    clips = {clip.id: clip for clip in read_jsonl(project.clips / "clips.jsonl", Clip)}
    geometry, cache = catalogue.geometry(model), project.clips / "latents" / catalogue.vae_fingerprint(model)
    again = f"make clips for this model by `densedpo data add ... --model {model}`"
    found = {}
    for prompt in prompts:
        clip = clips.get(prompt.clip_id or "")
        if clip is None:
            raise BadInput(f"clips/prompts.jsonl: prompt {prompt.id!r} names a missing clip, {prompt.clip_id!r}")
        if (clip.num_frames, clip.height, clip.width) != (geometry.num_frames, geometry.height, geometry.width):
            raise BadInput(f"clip {clip.id!r} is {_size(clip)}; the model takes {_size(geometry)}; {again}")
        if abs(clip.fps - geometry.fps) > 1e-6:
            raise BadInput(f"clip {clip.id!r} is at {clip.fps:g} fps; the model takes {geometry.fps:g} fps; {again}")
        latents = cache / f"{clip.content}.safetensors"
        if not latents.is_file():
            raise BadInput(f"clip {clip.id!r} has no latents of this model's autoencoder; {again}")
        found[prompt.id] = (clip, latents)
    return found


def _size(sized: Clip | Geometry) -> str:
    return f"{sized.num_frames} frames of {sized.width}x{sized.height}"
