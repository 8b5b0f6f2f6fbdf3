"""What a study is: pairs, labels, arms and the claims it is held to, as a TOML file says. Imports no torch."""

from __future__ import annotations

import math
import tomllib
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from command import Run
from pydantic import Field, ValidationError, model_validator

from densedpo.core.config import Config
from densedpo.core.errors import BadInput
from densedpo.data.config import DataConfig
from densedpo.generate.config import GuidedConfig, IndependentConfig
from densedpo.generate.corrupted.config import CorruptedConfig
from densedpo.judge.known import RealConfig
from densedpo.judge.oracle import OracleConfig
from densedpo.judge.reference import ReferenceConfig
from densedpo.judge.reward.judge import RewardConfig
from densedpo.learn.config import LearnConfig
from densedpo.measure.config import MeasureConfig

AnyConfig = TypeVar("AnyConfig", bound=Config)
_TABLES = ("pairs", "labels", "arms")
_OWN = ("claims", "contrasts", "diversity", "matching")


class GuidedPairs(GuidedConfig):
    """Pairs of a real clip, noised part way and denoised twice."""

    kind: Literal["guided"]


class IndependentPairs(IndependentConfig):
    """Pairs of two independent noises."""

    kind: Literal["independent"]


class CorruptedPairs(CorruptedConfig):
    """Pairs of a real clip and a worse copy of it."""

    kind: Literal["corrupted"]


Pairs = Annotated[GuidedPairs | IndependentPairs | CorruptedPairs, Field(discriminator="kind")]


class OracleLabels(OracleConfig):
    """Answers of the oracle, with its imperfections."""

    kind: Literal["oracle"] = "oracle"


class ReferenceLabels(ReferenceConfig):
    """Answers by the likeness to the real clip that both clips of a pair were made from."""

    kind: Literal["reference"]


class RewardLabels(RewardConfig):
    """Answers of the shipped video-quality network."""

    kind: Literal["reward"]


class RealLabels(RealConfig):
    """What is known of corrupted pairs: the real clip is better."""

    kind: Literal["real"]


class Labels(Config):
    """Answers about a set of pairs; learned from are those about the first `num_pairs` of its training pairs."""

    pairs: str
    judge: OracleLabels | ReferenceLabels | RewardLabels | RealLabels = OracleLabels()
    num_pairs: int | None = Field(default=None, ge=1)


class Arm(Config):
    """One way to train: `learn` is laid over the study's own settings, with each of the seeds in turn."""

    labels: str
    learn: dict[str, object] = Field(default_factory=dict)
    seeds: tuple[int, ...] | None = None


class Matching(Config):
    """When an arm counts as matching another, declared before the run: two one-sided tests.

    The margin is a share of what `arm` gains over the base in the same metric; what keeps the base's level loses less
    than `keep_share` of it.
    """

    arm: str
    share_of_gain: float = Field(default=0.2, gt=0, lt=1)
    keep_share: float = Field(default=0.05, gt=0, lt=1)


class Claim(Config):
    """Something that the study is there to show, declared before it runs.

    gain, loss: against the base, or against the arm `over`. keeps: not less than the base's level by the margin.
    matches: not less than `over` by the margin.
    """

    arm: str
    metric: str
    expect: Literal["gain", "loss", "keeps", "matches"]
    over: str | None = None

    @model_validator(mode="after")
    def _over_where_it_counts(self) -> Self:
        if self.expect == "matches" and self.over is None:
            raise ValueError("a claim that an arm matches says which: over")
        if self.expect == "keeps" and self.over is not None:
            raise ValueError("over has no effect with keeps, which is about the base's level")
        return self


class Study(Config):
    """A whole study; the base and the autoencoder's ceiling are measured beside the arms."""

    model: str = "tiny"
    data: DataConfig
    pairs: dict[str, Pairs]
    labels: dict[str, Labels]
    learn: dict[str, object] = Field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)
    arms: dict[str, Arm]
    measure: MeasureConfig
    diversity: MeasureConfig | None = None
    ceiling: bool = True
    contrasts: tuple[tuple[str, str], ...] = ()
    matching: Matching | None = None
    claims: tuple[Claim, ...] = ()

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        for name, labels in self.labels.items():
            if labels.pairs not in self.pairs:
                raise ValueError(f"labels {name!r} are of pairs {labels.pairs!r}, which the study does not make")
        for name, arm in self.arms.items():
            if arm.labels not in self.labels:
                raise ValueError(f"arm {name!r} learns from labels {arm.labels!r}, which the study does not collect")
            self.config_of(arm, seed=0)
        named = [arm for both in self.contrasts for arm in both] + [claim.arm for claim in self.claims]
        named += [claim.over for claim in self.claims if claim.over is not None]
        named += [self.matching.arm] if self.matching is not None else []
        for arm in named:
            if arm not in self.arms:
                raise ValueError(f"{arm!r} is compared, but no arm has this name")
        if self.diversity is not None and self.diversity.seeds_per_prompt < 2:
            raise ValueError("diversity is between the clips of a prompt: set diversity.seeds_per_prompt to 2 or more")
        if self.matching is None and any(claim.expect in ("keeps", "matches") for claim in self.claims):
            raise ValueError("claims that something is kept or matched need the table [matching], with their margins")
        return self

    def runs(self) -> list[Run]:
        """Every run, seed by seed, so that a cut study holds whole rounds."""
        most = max(len(arm.seeds or self.seeds) for arm in self.arms.values())
        return [
            Run(arm=name, seed=seeds[place])
            for place in range(most)
            for name, arm in self.arms.items()
            if place < len(seeds := arm.seeds or self.seeds)
        ]

    def config_of(self, arm: Arm, *, seed: int) -> LearnConfig:
        """The settings of one run; the seed is that of its order, its adapter and its noise."""
        return LearnConfig.model_validate({**self.learn, **arm.learn, "seed": seed, "noise_seed": seed})

    def used_labels(self) -> dict[str, Labels]:
        """The labels that an arm learns from."""
        used = {arm.labels for arm in self.arms.values()}
        return {name: labels for name, labels in self.labels.items() if name in used}

    def used_pairs(self) -> dict[str, Pairs]:
        """The pairs that used labels are about."""
        used = {labels.pairs for labels in self.used_labels().values()}
        return {name: pairs for name, pairs in self.pairs.items() if name in used}


def report_name(measured: str, config: MeasureConfig) -> str:
    """Of the report on a run, the base or the ceiling: a study with fewer prompts may stand in the same project."""
    return f"{measured}-{config.num_prompts}x{config.seeds_per_prompt}"


class Reduction(Config):
    """What is left out of a study to make it cheaper; results record it, and say that they are of less."""

    seeds: int | None = Field(default=None, ge=1)
    """The first so many seeds."""
    prompts: int | None = Field(default=None, ge=1)
    """So many prompts are measured; for diversity no more than these."""
    pairs: float = Field(default=1.0, gt=0, le=1)
    """Share of the pairs, of the labels about them and of the training clips."""
    steps: int | None = Field(default=None, ge=1)
    """So many training steps, where an arm does not say itself."""
    quick: bool = False
    """Sizes of a few minutes: the machinery is checked and the numbers mean nothing."""

    @property
    def is_none(self) -> bool:
        """Whether nothing is left out."""
        return self == Reduction()

    @property
    def label(self) -> str:
        """What a folder of results is called after, such as `seeds2-prompts128`; empty if nothing is left out."""
        if self.quick:
            return "quick"
        share = "" if self.pairs == 1 else f"{self.pairs:g}"
        parts = {"seeds": self.seeds, "prompts": self.prompts, "pairs": share, "steps": self.steps}
        return "-".join(f"{name}{value}" for name, value in parts.items() if value)


def load_study(path: Path) -> Study:
    """A study's file; with `extends` it takes over data, pairs, labels and settings, and of the arms those `beside`.

    Claims, contrasts and the measure of diversity are each study's own. A study and those that extend it share one
    project (`--out`), so that clips, pairs, labels, the base and the arms that they have in common are made once.

    Raises:
        BadInput: names the file and what is wrong in it.
    """
    try:
        return Study.model_validate(_values(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadInput(f"{path}: {f'{where!r}: ' if where else ''}{first['msg']}") from None


def _values(path: Path) -> dict[str, object]:
    try:
        own = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: not a TOML file: {error}") from None
    if "extends" not in own:
        return own
    inherited = _values(path.parent / own["extends"])
    unknown = [name for name in own.get("beside", []) if name not in inherited["arms"]]
    if unknown:
        raise BadInput(f"{path}: 'beside' names {unknown[0]!r}, which is no arm of {own['extends']}")
    inherited["arms"] = {name: inherited["arms"][name] for name in own.get("beside", [])}
    tables = {name: {**inherited.get(name, {}), **own.get(name, {})} for name in _TABLES}
    kept = {name: value for name, value in inherited.items() if name not in _OWN}
    said = {name: value for name, value in own.items() if name not in ("extends", "beside")}
    return {**kept, **said, **tables}


def reduced(study: Study, by: Reduction) -> Study:
    """The study with less of everything."""
    if by.is_none:
        return study
    share = by.pairs
    num_seeds, num_prompts = by.seeds or len(study.seeds), by.prompts or study.measure.num_prompts
    if by.quick:
        share = min(share, 40 / max(pairs.num_pairs for pairs in study.used_pairs().values()))
        num_seeds, num_prompts = min(num_seeds, 2), min(num_prompts, 12)
    world = study.data.world
    held_out = num_prompts if world.num_held_out is None else min(num_prompts, world.num_held_out)
    num_clips = held_out + _part(world.num_clips - (world.num_held_out or 0), share)
    changes: dict[str, object] = {
        "data": _with(study.data, world=_with(world, num_clips=num_clips, num_held_out=held_out)),
        "pairs": {name: _with(pairs, num_pairs=_part(pairs.num_pairs, share)) for name, pairs in study.pairs.items()},
        "labels": {
            name: _with(labels, num_pairs=labels.num_pairs and max(1, math.floor(labels.num_pairs * share)))
            for name, labels in study.labels.items()
        },
        "seeds": study.seeds[:num_seeds],
        "arms": {name: _with(arm, seeds=arm.seeds and arm.seeds[:num_seeds]) for name, arm in study.arms.items()},
        "measure": _with(study.measure, num_prompts=num_prompts),
    }
    if study.diversity is not None:
        of_all = num_prompts / study.measure.num_prompts
        changes["diversity"] = _with(study.diversity, num_prompts=_part(study.diversity.num_prompts, of_all))
    if by.steps is not None:
        changes["learn"] = {**study.learn, "num_steps": by.steps}
    smaller = _with(study, **changes)
    return _quick(smaller) if by.quick else smaller


def _quick(study: Study) -> Study:
    """The fewest steps of everything that still go through all of it."""
    few = {"num_steps": 4, "warmup_steps": 1, "batch_pairs": 4, "eval_every": 2, "eval_pairs": 4, "eval_draws": 1}
    changes: dict[str, object] = {
        "learn": {**study.learn, **few},
        "pairs": {
            name: pairs if pairs.num_steps is None else _with(pairs, num_steps=8) for name, pairs in study.pairs.items()
        },
        # fewer, since which of so few pairs are for validation is chance
        "labels": {
            n: _with(own, num_pairs=own.num_pairs and own.num_pairs * 3 // 4) for n, own in study.labels.items()
        },
        "measure": _with(study.measure, num_steps=4),
    }
    if study.diversity is not None:
        changes["diversity"] = _with(study.diversity, num_steps=4, seeds_per_prompt=2)
    return _with(study, **changes)


def _with(config: AnyConfig, **changes: object) -> AnyConfig:
    """A copy with other values, checked like the first; what was not set stays not set."""
    kept = {name: config.__dict__[name] for name in config.model_fields_set}
    return type(config).model_validate({**kept, **changes})


def _part(count: int, share: float) -> int:
    return max(1, math.ceil(count * share))
