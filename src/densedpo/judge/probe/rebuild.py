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

from pydantic import JsonValue, ValidationError

from densedpo.core.config import Config
from densedpo.core.errors import BadInput
from densedpo.core.workspace import Project
from densedpo.judge.credentials import api_key
from densedpo.judge.oracle import OracleConfig, OracleJudge
from densedpo.judge.protocol import Judge
from densedpo.judge.reference import RealClips, ReferenceConfig, ReferenceJudge
from densedpo.judge.reward.http import HttpConfig, HttpJudge
from densedpo.judge.reward.judge import RewardConfig, RewardJudge
from densedpo.judge.vlm.config import VlmConfig

_INSTRUCTIONS: Final = re.compile(r"(?P<kind>[a-z]+) \d+: (?P<options>\{.*\})", re.DOTALL)
Options = Mapping[str, JsonValue]
AnyConfig = TypeVar("AnyConfig", bound=Config)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rebuilt:
    """A judge, or the reason why there is none."""

    judge: Judge | None
    reason: str = ""


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
        settings: what instructions do not hold, since no answer depends on it: limits and the name of a key.
        stack: closes what the judge holds open.
    """
    if len(instructions) != 1:
        return Rebuilt(judge=None, reason=f"its answers were given under {len(instructions)} instructions")
    found = _INSTRUCTIONS.fullmatch(instructions[0])
    make = _MAKERS.get(found["kind"]) if found is not None else None
    if found is None or make is None:
        return Rebuilt(judge=None, reason="it is a person or a judge that cannot be called from here")
    try:
        judge = make(project, {**(settings or {}), **json.loads(found["options"])}, stack)
    except (BadInput, ValidationError, ModuleNotFoundError, json.JSONDecodeError) as error:
        return Rebuilt(judge=None, reason=f"it cannot be made again: {str(error).splitlines()[0]}")
    if (judge.annotator, judge.instructions) != (annotator, instructions[0]):
        return Rebuilt(judge=None, reason="it has changed since it judged: another version, other weights or options")
    return Rebuilt(judge=judge)


def _settings(cls: type[AnyConfig], options: Options) -> AnyConfig:
    return cls.model_validate({key: value for key, value in options.items() if key in cls.model_fields})


def _oracle(_: Project, options: Options, __: ExitStack) -> Judge:
    return OracleJudge(_settings(OracleConfig, options))


def _reference(project: Project, options: Options, _: ExitStack) -> Judge:
    return ReferenceJudge(_settings(ReferenceConfig, options), RealClips.of(project.clips))


def _reward(_: Project, options: Options, __: ExitStack) -> Judge:
    return RewardJudge(_settings(RewardConfig, options))


def _http(_: Project, options: Options, __: ExitStack) -> Judge:
    return HttpJudge(str(options["url"]), _settings(HttpConfig, options))


def _vlm(project: Project, options: Options, stack: ExitStack) -> Judge:
    from densedpo.judge.vlm.judge import VlmJudge

    settings = _settings(VlmConfig, options)
    if settings.max_requests is None and settings.max_tokens is None and settings.max_money is None:
        raise BadInput("it may cost money; give a limit, such as --set judge.max_requests=500")
    judge = VlmJudge(settings, key=api_key(settings.key_env), folder=project.root / "judges")
    return stack.enter_context(judge)


_MAKERS: Final[Mapping[str, Callable[[Project, Options, ExitStack], Judge]]] = {
    "oracle": _oracle,
    "reference": _reference,
    "reward": _reward,
    "http": _http,
    "vlm": _vlm,
}
