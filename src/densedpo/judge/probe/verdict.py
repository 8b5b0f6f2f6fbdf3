"""The verdict of a probe as it travels: from the cards of a project into the header of preferences.

Nothing here reads answers, so that preferences can carry verdicts without knowing how they came to be.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from pydantic import ConfigDict

from densedpo.core.errors import BadInput
from densedpo.core.provenance import sha256_file, sha256_json
from densedpo.core.records import Judgement

CARD_FILE: Final = "card.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeVerdict:
    """Whether a judge passed, and the card that says so: its path within the project, and the hash of its bytes."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    annotator: str
    instructions_sha256: tuple[str, ...]
    passed: bool
    reasons: tuple[str, ...]
    truth: str
    pairs: str
    card: str
    card_sha256: str


def instructions_sha256(judgements: Iterable[Judgement]) -> tuple[str, ...]:
    """The hashes of the instructions under which answers were given, sorted."""
    return tuple(sorted({sha256_json(judgement.instructions) for judgement in judgements}))


def read_verdicts(root: Path) -> tuple[ProbeVerdict, ...]:
    """The verdicts of all cards of a project, oldest first.

    Args:
        root: of the project.

    Raises:
        BadInput: a card is not one.
    """
    found = []
    for path in sorted(root.glob(f"probes/*/{CARD_FILE}")):
        try:
            row = json.loads(path.read_text(encoding="utf-8"))
            verdict = ProbeVerdict(
                annotator=str(row["annotator"]),
                instructions_sha256=tuple(map(str, row["instructions_sha256"])),
                passed=row["passed"] is True,
                reasons=tuple(map(str, row["reasons"])),
                truth=str(row["truth"]),
                pairs=str(row["pairs"]),
                card=path.relative_to(root).as_posix(),
                card_sha256=sha256_file(path),
            )
            found.append((str(row["made_at"]), verdict))
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
            raise BadInput(f"{path}: not a probe card ({error}); make it again with `densedpo judge probe`") from None
    return tuple(verdict for _, verdict in sorted(found, key=lambda each: each[0]))


def verdicts_on(verdicts: Iterable[ProbeVerdict], judgements: Collection[Judgement]) -> tuple[ProbeVerdict, ...]:
    """The newest verdict on each annotator of these answers, given under the same instructions, by name.

    A judge of another version or with other options has not been probed by the card of this one.
    """
    under: dict[str, set[str]] = {}
    for judgement in judgements:
        under.setdefault(judgement.annotator, set()).add(judgement.instructions)
    known = tuple(verdicts)
    found = (verdict_on(known, name, under[name]) for name in sorted(under))
    return tuple(verdict for verdict in found if verdict is not None)


def verdict_on(verdicts: Iterable[ProbeVerdict], annotator: str, instructions: Collection[str]) -> ProbeVerdict | None:
    """The newest verdict on an annotator that covers all of these instructions; None where there is none.

    Args:
        verdicts: oldest first.
    """
    hashes = {sha256_json(text) for text in instructions}
    found = None
    for verdict in verdicts:
        if verdict.annotator == annotator and hashes <= set(verdict.instructions_sha256):
            found = verdict
    return found
