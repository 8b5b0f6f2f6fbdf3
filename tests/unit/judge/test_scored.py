"""Clips that people scored one by one meet in pairs: all of a prompt, or best against worst; equal scores are ties."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from command_line import densedpo
from densedpo.core.errors import BadInput
from densedpo.core.media import read_pair_mp4, write_pair_mp4
from densedpo.core.records import Judgement, Pair, Preference, read_jsonl, write_jsonl
from densedpo.core.workspace import Project
from densedpo.judge.aggregate import latest
from densedpo.judge.pairset import PairSet, pair_hash
from densedpo.judge.store import LabelStore
from densedpo.judge.studies.regroup import Half, regrouped
from densedpo.judge.studies.scored import ScoredConfig, pair_scored

SCORES = {"p0": (8.0, 5.0), "p1": (5.0, 2.0)}
GREY = {"p0": (200, 120), "p1": (80, 20)}
NEW = Callable[..., Judgement]


def pair_of(name: str, prompt: str = "one") -> Pair:
    return Pair(
        id=name, kind="independent", prompt_id=prompt, clip_id=None, caption="a ball", split="train", eta=None,
        noise_key_a=f"{name}/a", noise_key_b=f"{name}/b", seed=0, num_steps=2, guidance_scale=1.0, model="m",
        num_frames=4, fps=8.0, height=16, width=16, pixel_scale=2, video=f"videos/{name}.mp4",
        latents=f"latents/{name}.safetensors",
    )  # fmt: skip


def add_pairs(project: Project, *, first: dict[str, float] | None = None, prompts: tuple[str, str] = ("one", "one")):
    """Two pairs of plain grey clips; `first` is a number for the frame that each pair's clips continue."""
    folder = project.pairs("clips")
    for name in ("latents", "videos"):
        (folder / name).mkdir(parents=True)
    pairs = []
    for name, prompt in zip(SCORES, prompts, strict=True):
        pair = replace(pair_of(name, prompt), num_given_frames=0 if first is None else 1)
        a, b = (np.full((4, 16, 16, 3), grey, np.uint8) for grey in GREY[name])
        write_pair_mp4(folder / pair.video, a, b, fps=8.0, pixel_scale=2)
        tensors = {
            side: np.full((1, 4, 2, 2), score, np.float32) for side, score in zip("ab", SCORES[name], strict=True)
        }
        if first is not None:
            tensors["first.held"] = np.full((1, 1, 2, 2), first[name], np.float32)
        save_file(tensors, folder / pair.latents)
        pairs.append(pair)
    write_jsonl(folder / "pairs.jsonl", pairs)


def score(
    project: Project, new_judgement: NEW, person: str, scores: dict[str, tuple[float, float]], *, time: int = 0
) -> None:
    pairs = PairSet.read(project.pairs("clips"))
    rows = [
        new_judgement(
            id=f"{person}-{name}-{time}", pair_id=name, annotator=person, segment=None, start_frame=0, stop_frame=4,
            answer="a" if a > b else "b" if b > a else "tie", score_a=a, score_b=b,
        )
        for name, (a, b) in scores.items()
    ]  # fmt: skip
    with LabelStore.open(project.labels_db) as store:
        store.append(rows, pairs.hashes)


def scored(project: Project, **settings: object):
    with LabelStore.open(project.labels_db) as store:
        done = pair_scored(project, "new", source="clips", store=store, config=ScoredConfig.model_validate(settings))
        pairs = PairSet.read(project.pairs("new"))
        return done, pairs, store.judgements(pairs.hashes)


def test_each_clip_meets_each_and_equal_scores_are_a_tie(project: Path, new_judgement: NEW) -> None:
    """Scores 8, 5 | 5, 2: of six pairs the two fives tie; in the others the earlier clip is the better one."""
    found = Project(root=project)
    add_pairs(found)
    score(found, new_judgement, "ann", SCORES)
    done, pairs, rows = scored(found)
    assert (done.num_clips, done.num_pairs, done.num_ties) == (4, 6, 1)
    keys = {pair.id: (pair.noise_key_a, pair.noise_key_b) for pair in pairs}
    said = {keys[row.pair_id]: row.answer for row in rows}
    assert said.pop(("p0/b", "p1/a")) == "tie"
    assert set(said.values()) == {"a"}
    assert ("p0/a", "p1/b") in said
    crossed = next(pair for pair in pairs if (pair.noise_key_a, pair.noise_key_b) == ("p0/b", "p1/a"))
    tensors = load_file(pairs.folder / crossed.latents)
    assert (tensors["a"].mean(), tensors["b"].mean()) == (5.0, 5.0)
    a, b = read_pair_mp4(pairs.folder / crossed.video, pixel_scale=2)
    assert (abs(a.mean() - 120) < 4, abs(b.mean() - 80) < 4) == (True, True)

    again, _, same = scored(found)
    assert (again, same) == (done, rows)
    export = ("judge", "export", "new", "--pairs", "new", "--project", project, "--set", "segment_seconds=0.5")
    assert densedpo(*export).code == 0
    labels = [row.clip_label for row in read_jsonl(found.preferences("new"), Preference, skip=1)]
    assert sorted(labels) == [0, 1, 1, 1, 1, 1]


def test_scores_that_changed_and_changed_back_or_were_taken_back_are_what_counts(
    project: Path, new_judgement: NEW
) -> None:
    """p0 is scored 8, 5, then 5, 8, then 8, 5 again: its own pair says a, b, a; then it is taken back: nothing."""
    found = Project(root=project)
    add_pairs(found)
    score(found, new_judgement, "ben", SCORES)

    def said() -> str | None:
        _, pairs, rows = scored(found)
        own = next(pair.id for pair in pairs if (pair.noise_key_a, pair.noise_key_b) == ("p0/a", "p0/b"))
        return next((row.answer for row in latest(rows) if (row.pair_id, row.annotator) == (own, "ann")), None)

    for time, (scores, answer) in enumerate((((8.0, 5.0), "a"), ((5.0, 8.0), "b"), ((8.0, 5.0), "a"))):
        score(found, new_judgement, "ann", {"p0": scores}, time=time)
        assert (said(), said()) == (answer, answer)
    with LabelStore.open(found.labels_db) as store:
        back = new_judgement(id="back", pair_id="p0", annotator="ann", segment=None, start_frame=0, stop_frame=4,
                             answer="skip")  # fmt: skip
        store.append([back], PairSet.read(found.pairs("clips")).hashes)
    assert said() is None
    _, _, rows = scored(found)
    assert sum(row.annotator == "ben" for row in rows) == 6


def test_clips_that_nobody_scored_both_of_do_not_meet(tmp_path: Path, new_judgement: NEW) -> None:
    """Ann scored p0's clips 8, 5, and ben p1's 5, 1: best and worst of one person are ben's, four apart."""
    for choose, expected in (("all", [("p0/a", "p0/b"), ("p1/a", "p1/b")]), ("best_worst", [("p1/a", "p1/b")])):
        found = Project(root=tmp_path / choose)
        add_pairs(found)
        score(found, new_judgement, "ann", {"p0": SCORES["p0"]})
        score(found, new_judgement, "ben", {"p1": (5.0, 1.0)})
        _, pairs, rows = scored(found, choose=choose)
        assert [(pair.noise_key_a, pair.noise_key_b) for pair in pairs] == expected
        assert {row.pair_id for row in rows} == set(pairs.by_id)


def test_a_margin_that_went_there_and_back_counts_as_it_stands(project: Path, new_judgement: NEW) -> None:
    found = Project(root=project)
    add_pairs(found)
    score(found, new_judgement, "ann", SCORES)
    for margin, ties in ((0.0, 1), (3.5, 5), (0.0, 1)):
        done, _, rows = scored(found, margin=margin)
        assert (done.num_ties, sum(row.answer == "tie" for row in latest(rows))) == (ties, ties)


def test_clips_of_the_same_noise_that_continue_other_frames_make_other_pairs(tmp_path: Path) -> None:
    """Two sets that differ in their frames alone have pairs of other ids, and so no answers in common."""
    made = []
    for name in ("one", "two"):  # what a pair continues is in its id, and nowhere else in its row
        pairs = {f"{each}-{name}": replace(pair_of(each), id=f"{each}-{name}") for each in SCORES}
        source = PairSet(name="clips", folder=tmp_path, by_id=pairs, hashes={})
        halves = [Half(pair_id=pair_id, side="a") for pair_id in pairs]
        made.append(regrouped(*halves, source, prefix="scored"))
    assert made[0].id != made[1].id
    assert pair_hash(made[0]) != pair_hash(made[1])


def test_best_meets_worst_by_the_mean_and_each_persons_answer_is_their_own(project: Path, new_judgement: NEW) -> None:
    """Means 6, 6.5, 4, 3: p0/b against p1/b; ann says 5 > 2, ben 8 > 4."""
    found = Project(root=project)
    add_pairs(found)
    score(found, new_judgement, "ann", SCORES)
    score(found, new_judgement, "ben", {"p0": (4.0, 8.0), "p1": (3.0, 4.0)})
    done, pairs, rows = scored(found, choose="best_worst")
    (pair,) = pairs
    assert (pair.noise_key_a, pair.noise_key_b) == ("p0/b", "p1/b")
    assert [(row.annotator, row.score_a, row.score_b, row.answer) for row in rows] == [
        ("ann", 5.0, 2.0, "a"),
        ("ben", 8.0, 4.0, "a"),
    ]
    assert done.num_alike == 0
    with pytest.raises(BadInput, match="pairs/new holds other pairs"):
        scored(found)


def test_clips_of_other_prompts_or_other_first_frames_do_not_meet(tmp_path: Path, new_judgement: NEW) -> None:
    for name, first, prompts, num in (
        ("prompts", None, ("one", "two"), 2),
        ("frames", {"p0": 1.0, "p1": 2.0}, ("one", "one"), 2),
        ("same", {"p0": 1.0, "p1": 1.0}, ("one", "one"), 6),
    ):
        found = Project(root=tmp_path / name)
        add_pairs(found, first=first, prompts=prompts)
        score(found, new_judgement, "ann", SCORES)
        done, pairs, _ = scored(found)
        assert done.num_pairs == num, name
        if first is not None:
            assert all("first.held" in load_file(pairs.folder / pair.latents) for pair in pairs)


def test_clips_that_were_all_scored_alike_have_no_best_and_worst(project: Path, new_judgement: NEW) -> None:
    found = Project(root=project)
    add_pairs(found)
    with pytest.raises(BadInput, match="nobody scored the clips of pairs/clips"):
        scored(found)
    score(found, new_judgement, "ann", {"p0": (5.0, 5.0), "p1": (5.0, 5.5)})
    with pytest.raises(BadInput, match="no two scored clips"):
        scored(found, choose="best_worst", margin=1.0)
