"""What a run refuses to learn from, each in one line that names it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from densedpo.adapters import VideoModel
from densedpo.core.errors import BadInput
from densedpo.core.records import Pair, Preference, read_jsonl, to_row, write_jsonl
from densedpo.core.workspace import Project
from densedpo.learn.config import LearnConfig
from densedpo.learn.feed.inputs import LabelledPair, read_clips, read_pairs
from densedpo.learn.feed.splits import shuffled_labels, split_pairs
from toy_pairs import RANGES


def read(project: Project, model: VideoModel) -> tuple[LabelledPair, ...]:
    return read_pairs(project.pairs("toy"), project.preferences("toy"), model.geometry, model.fingerprint)


def change_preference(project: Project, index: int, **changes: object) -> None:
    path = project.preferences("toy")
    rows = [to_row(record) for record in read_jsonl(path, Preference)]
    rows[index] |= changes
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def change_pair(project: Project, index: int, **changes: object) -> None:
    path = project.pairs("toy") / "pairs.jsonl"
    records = read_jsonl(path, Pair)
    records[index] = replace(records[index], **changes)
    write_jsonl(path, records)


def test_labels_are_laid_over_latent_frames(labelled: Project, toy_model: VideoModel):
    """Ranges (0, 5) and (5, 9) at stride 4: latent frames 0 and 1 take the first label, latent frame 2 the second."""
    pair = read(labelled, toy_model)[4]
    first = read_jsonl(labelled.preferences("toy"), Preference)[4].labels[0]
    np.testing.assert_array_equal(pair.labels.field, [first, first, 0])
    np.testing.assert_allclose(pair.labels.confidence, [1.0, 1.0, 0.75])
    assert pair.labels.non_tie_share == pytest.approx(2 / 3)


def test_a_header_row_is_left_out(labelled: Project, toy_model: VideoModel):
    path = labelled.preferences("toy")
    path.write_text('{"header": {"annotators": ["oracle"]}}\n' + path.read_text(encoding="utf-8"), encoding="utf-8")
    assert len(read(labelled, toy_model)) == 18


REFUSALS: dict[str, tuple[Callable[[Project], None], str]] = {
    "unknown pair": (lambda p: change_preference(p, 2, pair_id="nobody"), "'nobody' is not in"),
    "too few labels": (lambda p: change_preference(p, 2, labels=[1]), "toy.jsonl:3.*1 labels for 2 ranges"),
    "wrong ranges": (lambda p: change_preference(p, 2, ranges=[[0, 5], [5, 8]]), "'pair-002'.*cover 8 frames"),
    "gap": (lambda p: change_preference(p, 2, ranges=[[0, 4], [5, 9]]), "'pair-002'.*gap"),
    "not a label": (lambda p: change_preference(p, 2, labels=[1, 3]), "toy.jsonl:3.*labels are -1, 0 or 1, not 3"),
    "twice": (lambda p: change_preference(p, 2, pair_id="pair-001"), "toy.jsonl:3.*'pair-001' is already in row 2"),
    "moved split": (lambda p: change_preference(p, 2, split="validation"), "is validation here and train"),
    "other length": (lambda p: change_pair(p, 2, num_frames=13), "'pair-002'.*cover 9 frames, the clip has 13"),
    "no such length": (lambda p: change_pair(p, 2, num_frames=12), "'pair-002': num_frames = 12 does not fit"),
    "no such size": (lambda p: change_pair(p, 2, width=40), "'pair-002': width = 40 does not fit the model"),
    "lost latents": (
        lambda p: (p.pairs("toy") / "latents" / "pair-002.safetensors").unlink(),
        "002.safetensors is mis",
    ),
    "missing": (lambda p: p.preferences("toy").unlink(), "no such file"),
}


@pytest.mark.parametrize("fault", REFUSALS)
def test_f09_what_does_not_fit_is_named(labelled: Project, toy_model: VideoModel, fault: str):
    damage, message = REFUSALS[fault]
    damage(labelled)
    with pytest.raises(BadInput, match=message) as refusal:
        read(labelled, toy_model)
    assert "\n" not in str(refusal.value)


def test_f22_no_preference_at_all_is_refused_and_one_pair_can_be_learned_from(labelled: Project, toy_model: VideoModel):
    path = labelled.preferences("toy")
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text(lines[0], encoding="utf-8")
    assert len(split_pairs(read(labelled, toy_model), LearnConfig(eval_every=0)).train) == 1
    path.write_text("", encoding="utf-8")
    with pytest.raises(BadInput, match="holds no preference"):
        read(labelled, toy_model)


def test_f11_a_pair_that_another_model_made_is_refused(labelled: Project, toy_model: VideoModel):
    change_pair(labelled, 2, model="f" * 64)
    with pytest.raises(BadInput, match=r"'pair-002' was made by another model \(ffffffffffff, this one is "):
        read(labelled, toy_model)


def test_pairs_that_are_too_tied_are_not_sampled(labelled: Project, toy_model: VideoModel):
    """Every fifth pair has its last of three latent frames tied: a share of 2/3."""
    pairs = read(labelled, toy_model)
    all_of_them = split_pairs(pairs, LearnConfig(min_non_tie_share=0.6))
    assert (len(all_of_them.train), len(all_of_them.validation), all_of_them.num_too_tied) == (12, 6, 0)
    fewer = split_pairs(pairs, LearnConfig(min_non_tie_share=0.7))
    assert (len(fewer.train), len(fewer.validation), fewer.num_too_tied) == (10, 5, 3)
    with pytest.raises(BadInput, match="no labelled pair is in the validation split"):
        split_pairs(tuple(pair for pair in pairs if pair.split == "train"), LearnConfig())
    with pytest.raises(BadInput, match="no pair to train on: of 6 pairs"):
        split_pairs(tuple(pair for pair in pairs if pair.split != "train"), LearnConfig())


def test_all_ties_are_never_sampled(labelled: Project, toy_model: VideoModel):
    change_preference(labelled, 0, labels=[0, 0])
    splits = split_pairs(read(labelled, toy_model), LearnConfig(min_non_tie_share=0.0))
    assert "pair-000" not in {pair.id for pair in splits.train}


def test_the_clip_objective_samples_by_the_clip_label(labelled: Project, toy_model: VideoModel):
    change_preference(labelled, 0, clip_label=0)
    change_preference(labelled, 1, labels=[0, 0])
    splits = split_pairs(read(labelled, toy_model), LearnConfig(objective="dpo"))
    ids = {pair.id for pair in splits.train}
    assert "pair-000" not in ids
    assert "pair-001" in ids


def test_held_out_pairs_take_no_part(labelled: Project, toy_model: VideoModel):
    change_preference(labelled, 0, split="held_out")
    change_pair(labelled, 0, split="held_out")
    splits = split_pairs(read(labelled, toy_model), LearnConfig())
    assert "pair-000" not in {pair.id for pair in (*splits.train, *splits.validation)}


def test_shuffling_deals_the_same_labels_out_again(labelled: Project, toy_model: VideoModel):
    pairs = read(labelled, toy_model)
    shuffled = shuffled_labels(pairs, seed=0)
    assert [pair.id for pair in shuffled] == [pair.id for pair in pairs]
    assert [pair.latents for pair in shuffled] == [pair.latents for pair in pairs]

    def rows(some: tuple[LabelledPair, ...]) -> list[list[int]]:
        return [pair.labels.field.tolist() for pair in some]

    assert rows(shuffled) != rows(pairs)
    assert sorted(rows(shuffled)) == sorted(rows(pairs))
    assert rows(shuffled_labels(pairs, seed=0)) == rows(shuffled)
    assert rows(shuffled_labels(pairs, seed=1)) != rows(shuffled)


def test_validation_labels_are_never_shuffled(labelled: Project, toy_model: VideoModel):
    pairs = read(labelled, toy_model)
    plain, control = split_pairs(pairs, LearnConfig()), split_pairs(pairs, LearnConfig(shuffle_labels=True))
    assert control.validation == plain.validation


def test_clips_without_cached_latents_are_refused(labelled: Project, toy_model: VideoModel):
    clips = read_clips(labelled.clips, toy_model.vae_fingerprint)
    assert len(clips) == 6
    with pytest.raises(BadInput, match="run `densedpo data add` with this model"):
        read_clips(labelled.clips, "0" * 64)


def test_the_toy_ranges_cover_the_clip():
    assert RANGES[-1][1] == 9


def test_reading_imports_no_torch(labelled: Project, toy_model_dir: Path):
    import subprocess
    import sys

    code = (
        "import sys; from pathlib import Path; from densedpo.core.workspace import Project;"
        "from densedpo.learn.config import LearnConfig; from densedpo.learn.run import read_inputs;"
        f"read_inputs(Project(root=Path({str(labelled.root)!r})), 'r', pairs='toy', preferences='toy',"
        f" model={str(toy_model_dir)!r}, config=LearnConfig(), allow_stale=False);"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
