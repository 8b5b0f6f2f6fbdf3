"""Which labels are looked at again first: the ranking on margins with planted faults, and the verb on runs."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from densedpo.cli.main import run as densedpo
from densedpo.core.records import read_jsonl
from densedpo.core.seeds import generator
from densedpo.core.workspace import Project
from densedpo.learn.audit.margins import SegmentMargins
from densedpo.learn.audit.rank import Calibration, Suspect, calibrate, planted_lift, rank_segments

RANGES = ((0, 8), (8, 16), (16, 24), (24, 33))


def synthetic(
    *, num_pairs: int = 300, signal: float = 1.2, tie_share: float = 0.0, flip_share: float = 0.2, scale: float = 1.0
) -> tuple[list[SegmentMargins], frozenset[tuple[str, int]]]:
    """Margins that are signal * truth + N(0, 1), times a scale, and labels; a share of the winners is flipped."""
    rng = generator("synthetic margins", num_pairs, str(signal), str(tie_share))
    pairs, planted = [], set()
    for number in range(num_pairs):
        truth = np.where(rng.random(4) < tie_share, 0, rng.choice([-1, 1], 4))
        is_flipped = (rng.random(4) < flip_share) & (truth != 0)
        margins = scale * (signal * truth + rng.standard_normal(4))
        planted |= {(f"p{number:03d}", int(segment)) for segment in np.flatnonzero(is_flipped)}
        pairs.append(
            SegmentMargins(
                pair_id=f"p{number:03d}",
                ranges=RANGES,
                labels=tuple(int(label) for label in np.where(is_flipped, -truth, truth)),
                answered=(True,) * 4,
                margins=tuple(margins.tolist()),
            )
        )
    return pairs, frozenset(planted)


def test_planted_flips_are_found_at_three_times_chance():
    """A fifth of 1200 labels flipped; margins that side with the truth in 88 % of the cases (signal 1.2)."""
    pairs, planted = synthetic()
    ranking = rank_segments([pairs])
    assert 0.17 < len(planted) / 1200 < 0.23
    assert planted_lift(ranking, planted, share=0.2) > 3
    assert planted_lift(ranking, planted, share=0.05) > 4
    assert ranking.tells
    # the labels that it is compared with are wrong in a fifth: .88 * .8 + .12 * .2
    assert ranking.accuracy == pytest.approx(0.73, abs=0.04)


def test_flips_are_found_among_ties_too():
    pairs, planted = synthetic(tie_share=0.5)
    ranking = rank_segments([pairs])
    assert planted_lift(ranking, planted, share=0.1) > 3
    assert ranking.num_ranked < 700 < len(ranking.suspects)


def test_margins_that_say_nothing_are_called_so():
    pairs, planted = synthetic(signal=0.0)
    ranking = rank_segments([pairs])
    assert not ranking.tells
    assert planted_lift(ranking, planted, share=0.2) < 2
    assert ranking.calibration.slope < 0.3


def test_each_run_has_a_scale_of_its_own():
    """The second half of the pairs, judged by a model whose margins are a hundred times larger, ranks as before."""
    even, planted = synthetic()
    loud = [*even[:150], *synthetic(scale=100.0)[0][150:]]
    rankings = [rank_segments([pairs[:150], pairs[150:]]) for pairs in (even, loud)]
    first, second = ([(suspect.pair_id, suspect.segment) for suspect in ranking.suspects] for ranking in rankings)
    assert first == second
    assert planted_lift(rankings[1], planted, share=0.2) > 3


def test_the_chances_by_hand():
    """Slope 2, nu = 3, m = 1: P(a) = s(2 - log 3), P(b) = s(-2 - log 3), the tie has the rest."""
    calibration = Calibration(slope=2.0, log_nu=math.log(3))
    labels = np.array([1, -1, 0])
    chances = np.exp(calibration.log_chance(labels, np.ones(3)))
    assert chances[0] == pytest.approx(1 / (1 + math.exp(-(2 - math.log(3)))))
    assert chances[1] == pytest.approx(1 / (1 + math.exp(2 + math.log(3))))
    assert chances.sum() == pytest.approx(1)


def test_calibration_finds_the_slope_and_threshold_that_made_the_labels():
    rng = generator("calibration")
    margins = rng.standard_normal(20_000)
    truth = Calibration(slope=1.5, log_nu=math.log(2.5))
    chances = np.exp([truth.log_chance(np.full(20_000, label), margins) for label in (-1, 0, 1)])
    labels = (rng.random(20_000)[None] > np.cumsum(chances, 0)[:2]).sum(0) - 1
    found = calibrate(labels, margins)
    assert found.slope == pytest.approx(1.5, abs=0.08)
    assert math.exp(found.log_nu) == pytest.approx(2.5, abs=0.1)


def test_what_nobody_answered_is_not_questioned():
    pair = SegmentMargins(
        pair_id="p",
        ranges=RANGES,
        labels=(1, 0, -1, 0),
        answered=(True, False, True, True),
        margins=(-1.0, 5.0, 1.0, 0.0),
    )
    found = rank_segments([[pair]]).suspects
    assert sorted(suspect.segment for suspect in found) == [0, 2, 3]
    assert [suspect.rank for suspect in found] == [1, 2, 3]
    assert rank_segments([[]]).suspects == ()


def test_a_lift_needs_something_planted():
    pairs, _ = synthetic(num_pairs=5)
    with pytest.raises(ValueError, match="no planted fault"):
        planted_lift(rank_segments([pairs]), frozenset(), share=0.2)


FEW = ["num_steps=2", "batch_pairs=2", "eval_every=0", "lora_rank=2", "fold_draws=2", "learning_rate=1e-2"]


def called(*words: str) -> int:
    with pytest.raises(SystemExit) as leaving:
        densedpo(list(words))
    return int(leaving.value.code)


def trained(project: Project, model: Path, name: str, *settings: str) -> None:
    chosen = [part for setting in (*FEW, *settings) for part in ("--set", setting)]
    inputs = ["--pairs", "toy", "--preferences", "toy", "--model", str(model), "--project", str(project.root)]
    assert called("learn", "offline", name, *inputs, *chosen) == 0


def test_the_verb_ranks_what_each_run_has_not_seen(labelled: Project, toy_model_dir: Path, capsys):
    for index in range(2):
        trained(labelled, toy_model_dir, f"part-{index}", f"fold=[{index}, 2]")
    made = [json.loads((labelled.run(f"part-{n}") / "run.json").read_text(encoding="utf-8")) for n in range(2)]
    assert made[0]["identity"]["config"]["fold"] == [0, 2]
    assert sorted(made[0]["left_out_pairs"] + made[1]["left_out_pairs"]) == [f"pair-{n:03d}" for n in range(12)]
    assert sorted(made[0]["train_pairs"]) == sorted(made[1]["left_out_pairs"])
    audit = ["judge", "audit", "toy", "--project", str(labelled.root), "--top", "3"]
    assert called(*audit, "--run", "part-1", "--run", "part-0") == 0
    said = capsys.readouterr().out
    assert said.count("segment ") == 3
    assert "audits/toy.jsonl: 24 segments" in said
    rows = read_jsonl(labelled.root / "audits" / "toy.jsonl", Suspect)
    assert [row.rank for row in rows] == list(range(1, 25))
    assert all(earlier.surprise >= later.surprise for earlier, later in pairwise(rows))
    assert {row.pair_id for row in rows} == {f"pair-{n:03d}" for n in range(12)}
    assert called(*audit, "--run", "part-0") == 2
    assert "no run leaves out part 1 of 2" in capsys.readouterr().err
    assert called(*audit, "--run", "part-0", "--run", "part-0") == 2
    assert "leaves out the same part as part-0" in capsys.readouterr().err
    assert called(*audit, "--run", "absent") == 2
    assert "runs/absent is not there or not finished" in capsys.readouterr().err
    trained(labelled, toy_model_dir, "all")
    assert called(*audit, "--run", "all") == 2
    assert "runs/all has seen all labels" in capsys.readouterr().err
    trained(labelled, toy_model_dir, "other", "fold=[1, 2]", "beta=100.0")
    assert called(*audit, "--run", "part-0", "--run", "other") == 2
    assert "differ in more than their fold" in capsys.readouterr().err
    path = labelled.preferences("toy")
    path.write_text(path.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert called(*audit, "--run", "part-0", "--run", "part-1") == 2
    assert "preferences/toy.jsonl has changed since" in capsys.readouterr().err
