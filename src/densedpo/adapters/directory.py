"""A diffusers model directory, whatever the family: what can be asked of its files before anything is loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from densedpo.adapters.base import Geometry, SamplingDefaults
from densedpo.adapters.files import WITHOUT_WEIGHTS, check_components, check_weights, fingerprint, read_json
from densedpo.core.errors import BadInput

SETTINGS_FILE: Final = "densedpo.json"


Positive = Annotated[int, Field(ge=1)]


class Settings(BaseModel):
    """`densedpo.json` beside `model_index.json`: how this model is used; what it leaves out is the family's own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_frames: Positive
    height: Positive
    width: Positive
    fps: Annotated[float, Field(gt=0)]
    max_sequence_length: Positive
    num_steps: Positive
    guidance_scale: Annotated[float, Field(ge=0)]
    eta_min: Annotated[float, Field(gt=0, le=1)] = 0.65
    eta_max: Annotated[float, Field(gt=0, le=1)] = 0.8
    first_frame: bool = False
    """Whether a clip's first frame is given: image-to-video."""


class SparseCausalSettings(Settings):
    """Settings of a family whose self-attention can be HuViDPO's (`adapters.sparse_causal`): the kernel for it.

    None is the attention that the released models have.
    """

    sparse_causal: Literal["gathered", "flex", "masked"] | None = None

    @property
    def pattern(self) -> dict[str, object]:
        """What a fingerprint takes in: the pattern makes another model of the same weights, whatever computes it."""
        return {} if self.sparse_causal is None else {"sparse_causal": True}

    def beyond(self, denoiser: str) -> tuple[str, ...]:
        """What the pipeline has to be told, in a sentence.

        Args:
            denoiser: as the pipeline calls it.
        """
        if self.sparse_causal is None:
            return ()
        said = (
            "It was trained with sparse-causal attention, which the pipeline does not know and without which it is "
            f"another model: call `use_sparse_causal(pipeline.{denoiser}, num_frames=LATENT_FRAMES)` of "
            "`densedpo.adapters.sparse_causal` first."
        )
        return (said,)


@dataclass(frozen=True, kw_only=True, slots=True)
class Factors:
    """What a checkpoint's configs say of its latents: compression, channels, and the side of a token in cells."""

    temporal_stride: int
    spatial_stride: int
    latent_channels: int
    patch: int


AnySettings = TypeVar("AnySettings", bound=Settings)


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """What can be asked of a model directory of one family before anything is loaded.

    Attributes:
        name: as people write it.
        pipeline: the class in `model_index.json`.
        classes: by component, those that are supported.
        settings: the model's `densedpo.json` over the defaults of its layout.
        factors: compression and channels, from the checkpoint's own configs.
        lora_targets: the linear layers of the denoiser that a LoRA adapts.
        refuse: raises BadInput for a layout of the same classes that is not supported.
        recorded: settings that change what the denoiser computes; they are part of the fingerprint.
        denoisers: the folders of what denoises, the one of the highest noise first; two where a model has two experts.
        first_frame: what the setting of that name may be: a checkpoint is text-to-video, image-to-video or both.
        beyond: what the denoiser does by its settings that the pipeline in diffusers does not, in sentences.
        image_parts: components that only a layout has which looks at an image, with their classes.
    """

    name: str
    pipeline: str
    classes: Mapping[str, tuple[str, ...]]
    settings: Callable[[Path], Settings]
    factors: Callable[[Path], Factors]
    lora_targets: tuple[str, ...]
    refuse: Callable[[Path], None] = lambda folder: None  # noqa: ARG005
    recorded: Callable[[Path], Mapping[str, object]] = lambda folder: {}  # noqa: ARG005
    denoisers: Callable[[Path], tuple[str, ...]] = lambda folder: ("transformer",)  # noqa: ARG005
    first_frame: Callable[[Path], tuple[bool, ...]] = lambda folder: (False,)  # noqa: ARG005
    image_parts: Callable[[Path], Mapping[str, tuple[str, ...]]] = lambda folder: {}  # noqa: ARG005
    beyond: Callable[[Path], tuple[str, ...]] = lambda folder: ()  # noqa: ARG005

    def check(self, folder: Path) -> None:
        """Refuses, before anything is loaded, another layout and weights that are not safetensors.

        Raises:
            BadInput: names the component or the file.
        """
        check_components(folder, self.classes)
        check_components(folder, self.image_parts(folder))
        check_components(folder, dict.fromkeys(self.denoisers(folder), self.classes[self.denoisers(folder)[0]]))
        self.refuse(folder)
        if (asked := self.settings(folder).first_frame) not in self.first_frame(folder):
            takes = "continues a first frame always" if not asked else "takes no first frame"
            raise BadInput(f"{folder / SETTINGS_FILE}: first_frame = {str(asked).lower()}, but this model {takes}")
        for name in self.components(folder):
            if not name.startswith(WITHOUT_WEIGHTS):
                check_weights(folder / name)

    def geometry(self, folder: Path) -> Geometry:
        """Sizes from `densedpo.json`, compression factors and channels from the checkpoint's own configs.

        Raises:
            BadInput: a size that the autoencoder or the denoiser would round, a config that is missing or damaged.
        """
        settings, factors = self.settings(folder), self.factors(folder)
        return Geometry(
            num_frames=settings.num_frames,
            height=settings.height,
            width=settings.width,
            fps=settings.fps,
            max_sequence_length=settings.max_sequence_length,
            temporal_stride=factors.temporal_stride,
            spatial_stride=factors.spatial_stride,
            latent_channels=factors.latent_channels,
            patch=factors.patch,
            num_given_frames=int(settings.first_frame),
        )

    def defaults(self, folder: Path) -> SamplingDefaults:
        """The model's sampling defaults."""
        settings = self.settings(folder)
        return SamplingDefaults(
            num_steps=settings.num_steps,
            guidance_scale=settings.guidance_scale,
            eta_min=settings.eta_min,
            eta_max=settings.eta_max,
        )

    def components(self, folder: Path) -> tuple[str, ...]:
        """The folders that the model is made of: `classes`, a second denoiser, a tokenizer per encoder, image parts."""
        text = (name for name in self.text if name not in self.classes)
        return (*self.classes, *self.denoisers(folder)[1:], *text, *self.image_parts(folder))

    @property
    def text(self) -> tuple[str, ...]:
        """The folders that a caption's embedding depends on."""
        encoders = [name for name in self.classes if name.startswith("text_encoder")]
        return (*encoders, *(name.replace("text_encoder", "tokenizer") for name in encoders))

    def fingerprint(self, folder: Path) -> str:
        """sha256 over every config and weight file of the model, and the settings that its denoiser takes."""
        recorded = dict(self.recorded(folder))
        if self.settings(folder).first_frame:
            recorded["first_frame"] = True
        return fingerprint(folder, self.components(folder), recorded)

    def text_fingerprint(self, folder: Path, how: Mapping[str, object]) -> str:
        """sha256 over what the embedding of a caption depends on.

        Args:
            how: it is computed: what else changes its bits.
        """
        length = self.settings(folder).max_sequence_length
        return fingerprint(folder, self.text, {**self.recorded(folder), **how, "max_sequence_length": length})


def read_settings(folder: Path, defaults: AnySettings) -> AnySettings:
    """The model's `densedpo.json` over its family's defaults.

    Raises:
        BadInput: a key that is not known, or a value out of range.
    """
    path = folder / SETTINGS_FILE
    if not path.exists():
        return defaults
    kind = type(defaults)
    try:
        settings = kind.model_validate(defaults.model_dump() | read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        keys = ", ".join(kind.model_fields)
        raise BadInput(f"{path}: key {key!r}: {first['msg']}; the keys are {keys}") from None
    if settings.eta_min > settings.eta_max:
        raise BadInput(f"{path}: eta_min = {settings.eta_min} is above eta_max = {settings.eta_max}")
    return settings


def integer(path: Path, key: str, default: int) -> int:
    """A whole number of a component's config, or what the class of diffusers has where the config leaves it out.

    Raises:
        BadInput: it is something else, or the file is missing.
    """
    value = read_json(path).get(key, default)
    if not isinstance(value, int):
        raise BadInput(f"{path}: {key} is {value!r}, not a whole number")
    return value


def refuse_long_tokens(folder: Path) -> None:
    """Refuses a denoiser whose tokens span several latent frames, to which no one label belongs.

    Raises:
        BadInput: names the key.
    """
    transformer = folder / "transformer" / "config.json"
    if integer(transformer, "patch_size_t", 1) != 1:
        raise BadInput(f"{transformer}: patch_size_t is not 1: a token of several latent frames is not supported")
