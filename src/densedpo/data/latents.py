"""The latents of a project's clips, cached by the autoencoder and by the content of the clip."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from densedpo.core.errors import BadInput
from densedpo.core.media import Frames, read_mp4
from densedpo.core.progress import track
from densedpo.core.records import Clip, read_jsonl
from densedpo.core.workspace import Project, write_atomic, writing
from densedpo.data.clips import content_of

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from densedpo.adapters.base import VideoModel


def latents_path(project: Project, clip: Clip, vae_fingerprint: str) -> Path:
    """Where the latents of a clip are cached for an autoencoder."""
    return project.clips / "latents" / vae_fingerprint / f"{clip.content}.safetensors"


def encode_clips(project: Project, model: VideoModel, *, batch: int = 4) -> int:
    """Encodes the clips of a project that are not in the cache, from their videos; returns how many it encoded.

    Raises:
        BadInput: a video is missing or is no longer the one that was added.
    """
    with writing(project.clips):
        clips = read_jsonl(project.clips / "clips.jsonl", Clip)
        missing = [clip for clip in clips if not latents_path(project, clip, model.vae_fingerprint).is_file()]
        encoded = _encoded(project, model, missing, batch)
        for clip, latents in track(encoded, total=len(missing), what="encoding clips into latents") if missing else ():
            path = latents_path(project, clip, model.vae_fingerprint)
            write_atomic(path, save({"latents": latents.detach().float().cpu().contiguous()}))
    return len(missing)


def _encoded(
    project: Project, model: VideoModel, clips: list[Clip], batch: int
) -> Iterator[tuple[Clip, Float[Tensor, "c f h w"]]]:
    for start in range(0, len(clips), batch):
        group = clips[start : start + batch]
        frames = np.stack([read_clip(project, clip) for clip in group])
        yield from zip(group, model.encode_video(frames), strict=True)


def read_clip(project: Project, clip: Clip) -> Frames:
    """The frames of a clip, uint8 [F, H, W, 3].

    Raises:
        BadInput: the video is missing or is no longer the one that was added.
    """
    path = project.clips / clip.video
    frames, _ = read_mp4(path, pixel_scale=clip.pixel_scale)
    if content_of(frames) != clip.content:
        raise BadInput(f"{path} is not the video that was added as {clip.id!r}; delete it and run `densedpo data add`")
    return frames


def load_latents(project: Project, clip: Clip, vae_fingerprint: str) -> Float[Tensor, "c f h w"]:
    """The cached latents of a clip.

    Raises:
        BadInput: they are not in the cache, or the file is damaged.
    """
    path = latents_path(project, clip, vae_fingerprint)
    if not path.is_file():
        raise BadInput(f"no latents of clip {clip.id!r} for this model; run `densedpo data add` with it")
    try:
        return load_file(path)["latents"]
    except (SafetensorError, KeyError) as error:
        raise BadInput(f"{path} is damaged ({error}); delete it and run `densedpo data add`") from error
