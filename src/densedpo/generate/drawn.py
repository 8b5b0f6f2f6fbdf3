"""First frames that a text-to-image model draws from the prompts, for video models to continue (HuViDPO, 2502.01690).

A set of them is a folder of its own beside those of pairs: `pairs/<name>/frames.jsonl` and a PNG for each row. Pairs
that continue them (`first_frames` of `generate independent`) have another folder, and name this one as what they are
made from.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from densedpo.adapters import catalogue
from densedpo.adapters.images.sdxl import check_image_model, image_model_fingerprint
from densedpo.core.errors import BadInput
from densedpo.core.files import append_jsonl, repair_jsonl, write_atomic, writing
from densedpo.core.progress import duration_text, track
from densedpo.core.provenance import sha256_json
from densedpo.core.records import read_jsonl, to_row, write_jsonl
from densedpo.core.workspace import stamp_path, write_stamp
from densedpo.generate.first_frames import FRAMES_FILE, DrawnFrame, png_of
from densedpo.generate.prompts import select_prompts
from densedpo.generate.real_clips import continues_frame
from densedpo.generate.resume import require_same_settings, write_settings

if TYPE_CHECKING:
    from pydantic import JsonValue

    from densedpo.adapters.images.sdxl import ImageModel
    from densedpo.core.records import Prompt
    from densedpo.core.workspace import Project
    from densedpo.generate.config import FirstFramesConfig

KIND: Final = "first_frames"


@dataclass(frozen=True, kw_only=True, slots=True)
class FramesPlan:
    """A set of first frames to draw; `settings` is what they depend on, as it is stored in the folder."""

    project: Project
    folder: Path
    image_model: Path
    image_unet: Path | None
    config: FirstFramesConfig
    settings: dict[str, JsonValue]
    frames: tuple[DrawnFrame, ...]


def plan_first_frames(project: Project, name: str, *, model: str | Path, config: FirstFramesConfig) -> FramesPlan:
    """The plan for `config.frames_per_prompt` frames of each of `config.num_prompts` prompts (no torch).

    Args:
        model: the video model that will continue them, whose size they have.

    Raises:
        BadInput: no such model or a text-to-video one, the image model is not a whole directory of safetensors, or no
            prompts in these splits.
    """
    if not continues_frame(model):
        raise BadInput(f"{model} is text-to-video and continues no first frame; name the model that will by --model")
    if not config.image_model:
        raise BadInput("name the text-to-image model's folder by --set image_model=FOLDER")
    folder = Path(config.image_model).expanduser()  # a shell leaves the ~ after a = as it is
    unet = Path(config.image_unet).expanduser() if config.image_unet else None
    check_image_model(folder, unet)
    geometry, fingerprint = catalogue.geometry(model), image_model_fingerprint(folder, unet)
    settings: dict[str, JsonValue] = {
        "kind": KIND,
        "model": fingerprint,
        "num_steps": config.num_steps,
        "guidance_scale": config.guidance_scale,
        "seed": config.seed,
        "splits": list(config.splits),
        "dtype": config.dtype,
        "height": geometry.height,
        "width": geometry.width,
        "scale": config.scale,
    }
    prompts = select_prompts(project, config.splits, seed=config.seed, allow_clipless=True)[: config.num_prompts]

    def frame(prompt: Prompt, number: int) -> DrawnFrame:
        noise_key = f"{config.seed}/{prompt.id}/first frame/{number}"
        id_ = f"frame-{sha256_json([settings, prompt.caption, noise_key])[:16]}"
        return DrawnFrame(
            id=id_,
            prompt_id=prompt.id,
            caption=prompt.caption,
            split=prompt.split,
            number=number,
            noise_key=noise_key,
            model=fingerprint,
            num_steps=config.num_steps,
            guidance_scale=config.guidance_scale,
            height=geometry.height,
            width=geometry.width,
            image=f"frames/{id_}.png",
        )

    return FramesPlan(
        project=project,
        folder=project.pairs(name),
        image_model=folder,
        image_unet=unet,
        config=config,
        settings=settings,
        frames=tuple(frame(prompt, number) for prompt in prompts for number in range(config.frames_per_prompt)),
    )


def draw_first_frames(plan: FramesPlan) -> int:
    """Draws the frames of a plan that its folder lacks; cut short at any moment, the same call goes on.

    Returns:
        How many were drawn.

    Raises:
        BadInput: other settings made what is there, pairs are there, another process writes there, a full disk.
    """
    if (plan.folder / "pairs.jsonl").exists():
        raise BadInput(f"{plan.folder} holds pairs; give the first frames another name")
    require_same_settings(plan.folder, plan.settings)
    with writing(plan.folder) as folder:
        done = {frame.id for frame in _whole_rows(folder)}
        todo = [frame for frame in plan.frames if frame.id not in done]
        if todo:
            model = _image_model(plan)  # first, so that one that does not load leaves the name free for another
            stamp_path(folder).unlink(missing_ok=True)
            write_settings(folder, plan.settings)
            (folder / "frames").mkdir(exist_ok=True)
            _draw(plan, model, todo, folder)
        if not stamp_path(folder).exists():
            write_stamp(folder, [plan.project.clips], plan.project)
    return len(todo)


@dataclass(frozen=True, kw_only=True, slots=True)
class FramesEstimate:
    """What is still to be drawn, and how long that will take."""

    num_frames: int
    num_done: int
    time_s: float

    def __str__(self) -> str:
        """The estimate in one line."""
        return f"{self.num_frames} frames to draw ({self.num_done} are there): about {duration_text(self.time_s)}"


def estimate_first_frames(plan: FramesPlan) -> FramesEstimate:
    """Draws one frame in one step and in two, on the plan's device; writes nothing.

    Raises:
        BadInput: other settings made what is there, or the image model does not load.
    """
    require_same_settings(plan.folder, plan.settings)
    todo = [frame for frame in plan.frames if not (plan.folder / frame.image).is_file()]
    time_s = 0.0
    if todo:
        model = _image_model(plan)
        _seconds(plan, model, todo[0], num_steps=1)  # loads and warms up
        one, two = (_seconds(plan, model, todo[0], num_steps=num_steps) for num_steps in (1, 2))
        time_s = len(todo) * (one + (plan.config.num_steps - 1) * max(0.0, two - one))
    return FramesEstimate(num_frames=len(todo), num_done=len(plan.frames) - len(todo), time_s=time_s)


def _seconds(plan: FramesPlan, model: ImageModel, frame: DrawnFrame, *, num_steps: int) -> float:
    started = time.perf_counter()
    _drawn(plan, model, replace(frame, num_steps=num_steps))
    return time.perf_counter() - started


def _whole_rows(folder: Path) -> list[DrawnFrame]:
    """The rows whose picture is there; torn ones and those without go from the file."""
    file = folder / FRAMES_FILE
    repair_jsonl(file)
    rows = read_jsonl(file, DrawnFrame) if file.exists() else []
    whole = [frame for frame in rows if (folder / frame.image).is_file()]
    if len(whole) < len(rows):
        write_jsonl(file, whole)
    return whole


def _draw(plan: FramesPlan, model: ImageModel, todo: Sequence[DrawnFrame], folder: Path) -> None:
    for frame in track(todo, what="drawing first frames"):
        data = _drawn(plan, model, frame)
        write_atomic(folder / frame.image, data)
        # the row comes last: a row is never without its picture
        append_jsonl(folder / FRAMES_FILE, to_row(replace(frame, content=hashlib.sha256(data).hexdigest())))


def _image_model(plan: FramesPlan) -> ImageModel:
    from densedpo.adapters.images.sdxl import ImageModel

    return ImageModel(plan.image_model, plan.image_unet, device=plan.config.device, dtype=plan.config.dtype)


def _drawn(plan: FramesPlan, model: ImageModel, frame: DrawnFrame) -> bytes:
    """A frame as PNG."""
    image = model.draw(
        frame.caption,
        noise_key=(frame.noise_key,),
        height=frame.height * plan.config.scale,
        width=frame.width * plan.config.scale,
        num_steps=frame.num_steps,
        guidance_scale=frame.guidance_scale,
    )
    return png_of(image, height=frame.height, width=frame.width)
