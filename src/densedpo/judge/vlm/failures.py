"""Questions without an answer, listed in a file as they happen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from densedpo.core.files import append_jsonl
from densedpo.judge.run import FailedQuestion, now


@dataclass(frozen=True, kw_only=True, slots=True)
class FailureList:
    """A JSONL file to which each failure of each run is added."""

    path: Path

    def add(self, failed: FailedQuestion) -> None:
        """Writes one down."""
        row = {
            "at": now(), "pair_id": failed.pair_id, "segment": failed.segment, "kind": failed.failure.kind,
            "detail": failed.failure.detail,
        }  # fmt: skip
        append_jsonl(self.path, row)
