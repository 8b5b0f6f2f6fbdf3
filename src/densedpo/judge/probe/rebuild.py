"""A judge made again from the instructions that its answers carry, so that it can be asked more.

The table is in one place; a judge that is not in it, or that cannot be made the same again, is not asked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final, TypeVar

from pydantic import Field, JsonValue, ValidationError

from densedpo.core.config import Config
from densedpo.core.errors import BadInput
from densedpo.core.workspace import Project
from densedpo.judge.credentials import api_key
from densedpo.judge.custom import load_judge
from densedpo.judge.oracle import OracleConfig, OracleJudge
from densedpo.judge.protocol import Judge
from densedpo.judge.reference import RealClips, ReferenceConfig, ReferenceJudge
from densedpo.judge.reward.http import HttpConfig, HttpJudge
from densedpo.judge.reward.judge import RewardConfig, RewardJudge
from densedpo.judge.vlm.config import VlmConfig

_INSTRUCTIONS: Final = re.compile(r"(?P<kind>[a-z]+) \d+: (?P<options>\{.*\})", re.DOTALL)
_HELD_BY_NAME: Final = frozenset({"prompt"})  # instructions have the name and the hash, not where the file lies
Options = Mapping[str, JsonValue]


class OwnJudge(Config):
    """Where a judge of one's own is found, as `judge custom` was told."""

    path: str = Field(description="module:Class")
    options: dict[str, JsonValue] = Field(default={}, description="keyword arguments of the judge")


AnyConfig = TypeVar("AnyConfig", bound=Config)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rebuilt:
    """A judge, or the reason why there is none."""

    judge: Judge | None
    reason: str = ""
    reads_captions: bool = False


def rebuild(
    project: Project,
    annotator: str,
    instructions: tuple[str, ...],
    *,
    settings: Options | None = None,
    stack: ExitStack,
) -> Rebuilt:
    """The judge that gave answers under these instructions.

    It has to have the same name and the same instructions as the one that gave them: other weights or another version
    are another judge.

    Args:
        settings: what instructions do not hold, since no answer depends on it: limits and the name of a key; for a
            judge of one's own `path` and `options`, as `judge custom` was told.
        stack: closes what the judge holds open.

    Raises:
        BadInput: a setting that the judge does not have, or that its answers were given under.
    """
    if len(instructions) != 1:
        return _unasked(f"its answers were given under {len(instructions)} instructions", settings)
    found = _INSTRUCTIONS.fullmatch(instructions[0])
    maker = _MAKERS.get(found["kind"]) if found is not None else None
    if found is None or maker is None:
        if settings and "path" in settings:
            return _same(_own(settings), annotator, instructions[0])
        return _unasked("it is a person, or a judge of your own that judge.path does not name", settings)
    try:
        held: Options = json.loads(found["options"])
    except json.JSONDecodeError as error:
        return _unasked(f"it cannot be made again: its instructions are damaged ({error})", settings)
    _require_takes(maker, held, settings or {})
    try:
        rebuilt = maker.make(project, {**held, **(settings or {})}, stack)
    except (BadInput, ValidationError, ModuleNotFoundError, KeyError) as error:
        return Rebuilt(judge=None, reason=f"it cannot be made again: {str(error).splitlines()[0]}")
    return _same(rebuilt, annotator, instructions[0])


def has_margin(instructions: tuple[str, ...]) -> bool:
    """Whether answers under these instructions come of scores and a margin that can be set."""
    found = _INSTRUCTIONS.fullmatch(instructions[0]) if len(instructions) == 1 else None
    maker = _MAKERS.get(found["kind"]) if found is not None else None
    return maker is not None and "margin" in maker.config.model_fields


def _same(rebuilt: Rebuilt, annotator: str, instructions: str) -> Rebuilt:
    """What was made again, or why it is another judge."""
    judge = rebuilt.judge
    if judge is None or (judge.annotator, judge.instructions) != (annotator, instructions):
        return Rebuilt(judge=None, reason="it has changed since it judged: another version, other weights or options")
    return rebuilt


def _own(settings: Options) -> Rebuilt:
    try:
        where = OwnJudge.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        raise BadInput(f"judge.{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    return Rebuilt(judge=load_judge(where.path, where.options), reads_captions=True)


def _unasked(reason: str, settings: Options | None) -> Rebuilt:
    if settings:
        raise BadInput(f"judge.{min(settings)} has no effect, since the judge is not asked: {reason}")
    return Rebuilt(judge=None, reason=reason)


def _require_takes(maker: _Maker, held: Options, settings: Options) -> None:
    free = set(maker.config.model_fields) - (set(held) - _HELD_BY_NAME)
    for name in sorted(settings):
        if name not in maker.config.model_fields:
            takes = f"it takes {', '.join(sorted(free))}" if free else "it takes none"
            raise BadInput(f"judge.{name}: this judge has no such setting; {takes}")
        if name not in free:
            raise BadInput(
                f"judge.{name}: its answers were given under {name} = {held[name]!r}; a judge with other options is "
                "another judge, so leave it out"
            )


def _settings(cls: type[AnyConfig], options: Options) -> AnyConfig:
    return cls.model_validate({key: value for key, value in options.items() if key in cls.model_fields})


def _oracle(_: Project, options: Options, __: ExitStack) -> Rebuilt:
    return Rebuilt(judge=OracleJudge(_settings(OracleConfig, options)))


def _reference(project: Project, options: Options, _: ExitStack) -> Rebuilt:
    return Rebuilt(judge=ReferenceJudge(_settings(ReferenceConfig, options), RealClips.of(project.clips)))


def _reward(_: Project, options: Options, __: ExitStack) -> Rebuilt:
    return Rebuilt(judge=RewardJudge(_settings(RewardConfig, options)))


def _http(_: Project, options: Options, __: ExitStack) -> Rebuilt:
    return Rebuilt(judge=HttpJudge(str(options["url"]), _settings(HttpConfig, options)), reads_captions=True)


def _vlm(project: Project, options: Options, stack: ExitStack) -> Rebuilt:
    from densedpo.judge.vlm.judge import VlmJudge

    settings = _settings(VlmConfig, options)
    if settings.max_requests is None and settings.max_tokens is None and settings.max_money is None:
        raise BadInput("it may cost money; give a limit, such as --set judge.max_requests=2000")
    judge = VlmJudge(settings, key=api_key(settings.key_env), folder=project.root / "judges")
    return Rebuilt(judge=stack.enter_context(judge), reads_captions=settings.show_caption)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Maker:
    config: type[Config]
    make: Callable[[Project, Options, ExitStack], Rebuilt]


_MAKERS: Final[Mapping[str, _Maker]] = {
    "oracle": _Maker(config=OracleConfig, make=_oracle),
    "reference": _Maker(config=ReferenceConfig, make=_reference),
    "reward": _Maker(config=RewardConfig, make=_reward),
    "http": _Maker(config=HttpConfig, make=_http),
    "vlm": _Maker(config=VlmConfig, make=_vlm),
}
