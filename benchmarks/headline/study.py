"""What a study is: pairs, labels, arms and the claims it is held to, as a TOML file says. Imports no torch."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal, Self

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

_TABLES = ("pairs", "labels", "arms")
_OWN = ("claims", "contrasts", "diversity", "efficiency", "matching")


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


class Efficiency(Config):
    """Arms that differ in how many pairs are labelled: what a metric's gain over the base is by their number.

    `target` is the gain of which is asked how many labelled pairs reach it.
    """

    name: str
    arms: tuple[str, ...] = Field(min_length=2)
    metric: str
    target: float


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
    efficiency: Efficiency | None = None
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
        named += list(self.efficiency.arms) if self.efficiency is not None else []
        for arm in named:
            if arm not in self.arms:
                raise ValueError(f"{arm!r} is compared, but no arm has this name")
        if self.efficiency is not None:
            counts = [self.num_labelled(arm) for arm in self.efficiency.arms]
            if None in counts or len(set(counts)) < len(counts):
                raise ValueError(f"efficiency is by num_pairs of each arm's labels, and they are {counts}")
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

    def num_labelled(self, arm: str) -> int | None:
        """How many training pairs an arm has labels of; None is all that there are."""
        return self.labels[self.arms[arm].labels].num_pairs

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
