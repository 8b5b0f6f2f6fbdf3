"""Labels of a judge that failed its probe are refused, unless a run is told to take them."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from densedpo.core.errors import BadInput
from densedpo.learn.config import LearnConfig
from densedpo.learn.feed.trust import require_trusted


def preferences(folder: Path, *probes: dict[str, object], header: bool = True) -> Path:
    path = folder / "first.jsonl"
    rows = [{"header": {"pairs": "first", "probes": list(probes)}}] if header else []
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"pair_id": "p0"}]), encoding="utf-8")
    return path


def probe(annotator: str, *, passed: bool) -> dict[str, object]:
    return {
        "annotator": annotator, "instructions_sha256": [], "passed": passed, "reasons": [] if passed else ["MB3: 0.9"],
        "truth": "ann", "pairs": "first", "card": "probes/x/card.json", "card_sha256": "0",
    }  # fmt: skip


def test_a_failed_judge_is_refused_by_name_with_the_reason_and_the_way_out(tmp_path: Path) -> None:
    path = preferences(tmp_path, probe("good", passed=True), probe("bad", passed=False))
    with pytest.raises(BadInput, match=r"'bad' failed its probe \(MB3: 0\.9\).*allow_failed_judge=true"):
        require_trusted(path, allow_failed_judge=LearnConfig().allow_failed_judge)


def test_a_run_may_take_them_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="densedpo"):
        require_trusted(preferences(tmp_path, probe("bad", passed=False)), allow_failed_judge=True)
    assert "learning from it all the same" in caplog.text


@pytest.mark.parametrize("probes", [(), ({"annotator": "good"},)])
def test_what_was_not_probed_or_passed_is_read(tmp_path: Path, probes: tuple[dict[str, str], ...]) -> None:
    found = [probe(each["annotator"], passed=True) for each in probes]
    require_trusted(preferences(tmp_path, *found), allow_failed_judge=False)
    require_trusted(preferences(tmp_path, header=False), allow_failed_judge=False)


def test_a_verdict_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="probes"):
        require_trusted(preferences(tmp_path, {"annotator": "x"}), allow_failed_judge=False)
