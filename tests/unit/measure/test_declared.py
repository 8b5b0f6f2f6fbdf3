"""Comparisons of made-up scores: claims, margins, win rates, refusals, and the text that is printed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from densedpo.core.errors import BadInput
from densedpo.core.records import from_row, to_row
from densedpo.core.workspace import Project, init_project
from densedpo.measure.compare import ComparisonReport, compare
from densedpo.measure.config import CompareConfig
from densedpo.measure.differences import Difference
from densedpo.measure.numbers import AT_LEAST, MINUS
from densedpo.measure.table import build_table, text_table
from measured_scores import MANIFEST, write_scores
from report_numbers import unaudited

N = 40
CONFIG = CompareConfig(claims=("visual_quality", "text_alignment"), win_margins={"visual_quality": 0.02}, num_draws=200)
BASE = np.linspace(0.4, 0.6, N)
WOBBLE = np.where(np.arange(N) % 2 == 0, 1.0, -1.0)  # its mean over the prompts is 0


@pytest.fixture
def scored(tmp_path: Path) -> Project:
    """`better` gains 0.1 +- 0.02 in visual quality and text alignment moves by 0 +- 0.02; `copy` is the base."""
    project = init_project(tmp_path / "p")
    same = {"text_alignment": BASE.tolist(), "object_motion": BASE.tolist()}
    write_scores(project, "base", {"visual_quality": BASE.tolist(), **same})
    write_scores(project, "copy", {"visual_quality": BASE.tolist(), **same})
    gained = {"visual_quality": (BASE + 0.1 + 0.02 * WOBBLE).tolist()}
    write_scores(project, "better", {**gained, **same, "text_alignment": (BASE + 0.02 * WOBBLE).tolist()})
    return project


def compared(project: Project, *names: str, config: CompareConfig = CONFIG) -> ComparisonReport:
    return compare(project, "cmp", names or ("base", "better", "copy"), command="", config=config).report


def difference(report: ComparisonReport, base: str, other: str, metric: str) -> Difference:
    return next(d for d in report.differences if (d.base, d.other, d.metric) == (base, other, metric))


def test_claims_are_corrected_together_and_the_rest_is_exploratory(scored: Project) -> None:
    report = compared(scored)
    quality = difference(report, "base", "better", "visual_quality")
    text = difference(report, "base", "better", "text_alignment")
    assert quality.claim is not None and text.claim is not None
    assert quality.claim.num_claims == 2
    assert quality.claim.p_holm == pytest.approx(2 * quality.claim.test.p)  # the smaller of two
    assert text.claim.p_holm == pytest.approx(text.claim.test.p)  # the larger
    assert quality.verdict == "better" and text.verdict == "not significant"
    assert difference(report, "base", "better", "object_motion").claim is None


def test_what_would_have_been_seen_stands_beside_what_was_not(scored: Project) -> None:
    """A spread of 0.02 over 40 prompts shows about (1.96 + 0.84) * 0.02 / sqrt(40) = 0.0089."""
    text = difference(compared(scored), "base", "better", "text_alignment")
    assert text.detectable is not None
    assert text.detectable.value == pytest.approx(0.0089, rel=0.06)


def test_no_loss_is_claimed_only_within_the_declared_margin(scored: Project) -> None:
    """The wobble's standard error is 0.0032: a loss of 0.02 is six errors off, one of 0.001 a third of one."""
    for margin, excluded in ((0.02, True), (0.001, False)):
        report = compared(scored, config=CONFIG.model_copy(update={"margins": {"text_alignment": margin}}))
        found = difference(report, "base", "better", "text_alignment").equivalence
        assert found is not None
        assert (found.margin, found.equivalent) == (margin, excluded)
        assert report.declared.margins == {"text_alignment": margin}
    assert difference(report, "base", "better", "visual_quality").equivalence is None


def test_wins_are_counted_by_prompt_with_ties_inside_the_margin(scored: Project) -> None:
    wins = {(w.base, w.other): w for w in compared(scored).wins}
    rate = wins["base", "better"].rate
    assert rate is not None and (rate.wins, rate.ties, rate.losses) == (N, 0, 0)
    even = wins["base", "copy"].rate
    assert even is not None and (even.wins, even.ties, even.losses) == (0, N, 0)
    assert even.score.value == 0.5


def test_every_two_of_the_others_are_compared_where_asked(scored: Project) -> None:
    write_scores(scored, "third", {"visual_quality": BASE.tolist()})
    names = ("base", "better", "copy", "third")
    matched = {(d.base, d.other) for d in compared(scored, *names).differences}
    to_base = {("base", "better"), ("base", "copy"), ("base", "third")}
    assert matched == to_base | {("copy", "better"), ("third", "better")}
    all_of_them = compared(scored, *names, config=CONFIG.model_copy(update={"each_other": True})).differences
    assert {(d.base, d.other) for d in all_of_them} == matched | {("copy", "third")}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"claims": ("beauty",)}, "claims names 'beauty', which is no metric"),
        ({"margins": {"beauty": 0.1}}, "margins names 'beauty', which is no metric"),
        ({"win_margins": {"object_motion": 0.1}}, "win_margins names 'object_motion', of which more is not better"),
        ({"allow_different": ("weather",)}, "allow_different names 'weather', which is no entry of the manifest"),
    ],
)
def test_settings_that_name_nothing_are_refused(scored: Project, changes: dict[str, object], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        compared(scored, config=CONFIG.model_copy(update=changes))


def test_a_margin_is_the_size_of_a_loss() -> None:
    with pytest.raises(ValueError, match="a margin is the size of a loss, above 0"):
        CompareConfig(margins={"text_alignment": -0.1})


@pytest.mark.parametrize(
    ("tampered", "shown"),
    [
        ({"code": "c0de-dirty"}, r"different code \(c0de and c0de-dirty\)"),
        ({"decoder": "PyAV 2"}, r"different decoder \(PyAV 1 and PyAV 2\)"),
        ({"dtype": "bfloat16"}, r"different dtype \(float32 and bfloat16\)"),
        ({"gpu": "H100"}, r"different gpu \(none and H100\)"),
        ({"packages": {"numpy": "3"}}, r"different numpy \(2 and 3\)"),
        ({"packages": {}}, r"different numpy \(2 and none\)"),
    ],
)
def test_reports_of_other_machinery_are_refused(scored: Project, tampered: dict[str, object], shown: str) -> None:
    write_scores(scored, "other", {"visual_quality": BASE.tolist()}, manifest=replace(MANIFEST, **tampered))
    with pytest.raises(BadInput, match=shown):
        compared(scored, "base", "other")


def test_what_is_let_pass_although_different_is_said(scored: Project) -> None:
    write_scores(scored, "other", {"visual_quality": BASE.tolist()}, manifest=replace(MANIFEST, code="beef"))
    report = compared(scored, "base", "other", config=CONFIG.model_copy(update={"allow_different": ("code",)}))
    assert report.declared.allowed == ("code of base and other: c0de and beef",)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fps": 16.0}, r"different fps \(8.0 and 16.0\)"),
        ({"height": 32}, r"different height \(64 and 32\)"),
        ({"scoring": 0}, "different scoring"),
        ({"prompts": "1" * 64}, "different prompts"),
        ({"guidance_scale": 5.0}, "different guidance_scale"),
    ],
)
def test_reports_made_otherwise_are_refused(scored: Project, settings: dict[str, object], message: str) -> None:
    write_scores(scored, "other", {"visual_quality": BASE.tolist()}, **settings)
    with pytest.raises(BadInput, match=message):
        compared(scored, "base", "other")


def test_other_clips_under_the_same_settings_are_refused(scored: Project) -> None:
    write_scores(scored, "other", {"visual_quality": BASE.tolist()})
    path = scored.report("other") / "scores.jsonl"
    path.write_text(path.read_text().replace('"w0003"', '"w9999"'))
    with pytest.raises(BadInput, match="not the same prompts and seeds: 1 clips only in the first and 1 only in the"):
        compared(scored, "base", "other")


def test_clips_that_were_left_out_are_counted_and_can_be_refused(scored: Project) -> None:
    write_scores(scored, "torn", {"visual_quality": BASE.tolist()}, faults={3: "not a video", 5: "9 frames"})
    report = compared(scored, "base", "torn")
    quality = difference(report, "base", "torn", "visual_quality").estimate
    assert quality is not None and (quality.n, quality.num_excluded) == (N - 2, 2)
    member = report.members[1]
    assert (member.coverage.num_scored, member.coverage.num_clips) == (N - 2, N)
    assert [clip.fault for clip in member.coverage.excluded] == ["not a video", "9 frames"]
    with pytest.raises(BadInput, match=r"strict: report 'torn' left out 2 clips, such as prompt 'w0003': not a video"):
        compared(scored, "base", "torn", config=CONFIG.model_copy(update={"strict": True}))


def test_a_comparison_is_read_back_as_it_was_written(scored: Project) -> None:
    report = compared(scored, config=CONFIG.model_copy(update={"margins": {"text_alignment": 0.02}}))
    assert from_row(ComparisonReport, to_row(report), "report.json") == report


def test_the_same_reports_give_the_same_bytes(scored: Project) -> None:
    assert json.dumps(to_row(compared(scored))) == json.dumps(to_row(compared(scored)))


def test_every_number_of_a_comparison_says_what_it_stands_on(scored: Project) -> None:
    config = CONFIG.model_copy(update={"margins": {"text_alignment": 0.02}})
    row = to_row(compared(scored, config=config))
    assert list(unaudited(row)) == []
    del row["differences"][0]["estimate"]["seed"]  # type: ignore[index, call-overload, union-attr]
    row["differences"][0]["claim"]["test"]["num_excluded"] = None  # type: ignore[index, call-overload]
    row["headline"]["odd"] = 1.5  # type: ignore[index, call-overload]
    found = list(unaudited(row))
    assert found == [".headline.odd", ".differences[0].estimate: ['seed'] missing"]


def test_every_number_of_a_run_says_what_it_stands_on(scored: Project) -> None:
    row = json.loads((scored.report("base") / "report.json").read_text())
    assert list(unaudited(row)) == []


GOLDEN = f"""\
better - base
  Visual quality           +0.100  +0.095 to +0.107        better, Holm p < 0.0001
  Text alignment           0.0000  {MINUS}0.0050 to +0.0081      not significant at n=40, would see {AT_LEAST} 0.00920; no change beyond 0.02: TOST p < 0.0001
  Object motion              0.00  0.00 to 0.00            not significant at n=40
"""  # noqa: E501


def test_the_text_says_not_significant_and_marks_no_winner(scored: Project) -> None:
    """About 2.02 * 0.0203 / sqrt(40) = 0.0065 to each side; 200 draws of the bootstrap are coarse."""
    config = CONFIG.model_copy(update={"margins": {"text_alignment": 0.02}})
    comparison = compare(scored, "cmp", ["base", "better"], command="", config=config)
    text = text_table(build_table(comparison))
    known = [line for line in text.splitlines() if "not computed" not in line]
    assert "\n".join(known[:4]) == GOLDEN.rstrip()
    assert "\x1b" not in text and "**" not in text
    claims, *further = known[4:]
    assert claims.startswith("Claims, corrected together by Holm in each comparison: visual quality, text alignment.")
    assert further == [
        "Margins declared in the settings: text alignment 0.02. Tested at 0.05 each way.",
        "Not significant: the smallest difference that would be seen is one that is found 80 % of the time at 0.05.",
    ]
