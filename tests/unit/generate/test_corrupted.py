"""Corrupted pairs: what is done to the copies, what is on disk, and the labels that come with them."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from densedpo.adapters import load
from densedpo.adapters.base import VideoModel
from densedpo.cli.main import run as densedpo
from densedpo.core.errors import BadInput
from densedpo.core.media import read_mp4, write_mp4
from densedpo.core.records import Clip, Corruption, Pair, Preference, read_jsonl
from densedpo.core.seeds import generator, noise
from densedpo.core.workspace import Project
from densedpo.generate.corrupted.config import CorruptedConfig
from densedpo.generate.corrupted.edits import edited, shuffled_order
from densedpo.generate.corrupted.inpaint import regenerate
from densedpo.generate.corrupted.masks import random_mask
from densedpo.generate.corrupted.plan import CorruptedPlan, plan_corrupted
from densedpo.generate.corrupted.run import generate_corrupted
from densedpo.generate.guided import read_clip_latents
from densedpo.generate.sampler import guided_sigmas
from densedpo.judge.known import RealJudge
from densedpo.judge.pairset import pair_hash
from toy import add_toy_clips, toy_frames, toy_scene

ALL_KINDS = ("reversed", "shuffled", "noised", "blurred", "regenerated")
FRAMES = np.random.default_rng(0).integers(0, 256, (9, 16, 16, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def model(toy_model_dir: Path) -> VideoModel:
    return load(toy_model_dir)


@pytest.fixture(scope="module")
def clips_dir(model: VideoModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("clips")
    add_toy_clips(root, model, 3, splits=("train", "validation"))
    (root / "clips" / "videos").mkdir()
    for clip in read_jsonl(root / "clips" / "clips.jsonl", Clip):
        frames = toy_frames(toy_scene(int(clip.id[-4:])))
        write_mp4(root / "clips" / clip.video, frames, fps=clip.fps, pixel_scale=clip.pixel_scale)
    return root / "clips"


@pytest.fixture
def filled(project: Path, clips_dir: Path) -> Project:
    shutil.copytree(clips_dir, project / "clips")
    return Project(root=project)


def planned(project: Project, model: Path, name: str = "c", **settings: object) -> CorruptedPlan:
    given = {"num_pairs": 6, "pairs_per_batch": 4, "corruptions": ALL_KINDS, "num_steps": 3} | settings
    return plan_corrupted(project, name, model=model, config=CorruptedConfig.model_validate(given))


def edit(kind: str, strength: float | None = None) -> np.ndarray:
    return edited(FRAMES, Corruption(kind=kind, real="a", strength=strength), generator("edit"))


def test_each_edit_does_what_its_name_says():
    np.testing.assert_array_equal(edit("reversed"), FRAMES[::-1])
    shuffled = edit("shuffled", 4.0)
    assert sorted(frame.tobytes() for frame in shuffled) == sorted(frame.tobytes() for frame in FRAMES)
    assert not np.array_equal(shuffled, FRAMES)
    gray = np.full((9, 16, 16, 3), 128, np.uint8)
    added = edited(gray, Corruption(kind="noised", real="a", strength=0.1), generator("edit")).astype(float) - gray
    assert added.std() == pytest.approx(25.5, rel=0.05)
    blurred = edit("blurred", 1.5)
    assert blurred.mean() == pytest.approx(FRAMES.mean(), abs=2)
    assert blurred.std() < FRAMES.std() / 2


def test_runs_of_frames_stay_together_and_the_order_always_changes():
    """9 frames in runs of 4 are 0-3, 4-7, 8: whatever the draw, each run is whole and some run has moved."""
    for seed in range(20):
        order = shuffled_order(9, 4, generator("order", seed)).tolist()
        assert order != list(range(9))
        assert [order[order.index(start) : order.index(start) + 4] for start in (0, 4)] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    with pytest.raises(ValueError, match="nothing to shuffle"):
        shuffled_order(4, 4, generator("order"))


def test_a_mask_has_about_its_share_moves_and_is_never_empty_or_whole():
    """On a fine grid a shape that stays inside the frame covers its share of it."""
    masks = [random_mask((5, 64, 64), 0.1, generator("mask", seed)) for seed in range(20)]
    shares = np.array([mask.mean((1, 2)) for mask in masks])
    assert np.median(shares) == pytest.approx(0.1, rel=0.05)
    assert shares.max() < 0.11
    assert any(not np.array_equal(mask[0], mask[-1]) for mask in masks)
    for seed in range(20):
        small = random_mask((3, 4, 4), 0.9, generator("mask", seed)).sum((1, 2))
        assert small.min() >= 1
        assert small.max() <= 15
    with pytest.raises(ValueError, match="share"):
        random_mask((3, 4, 4), 1.0, generator("mask"))


def test_a_clip_is_made_anew_inside_its_mask_only(model: VideoModel):
    """One Euler step from eta to 0, by hand: x = eta-noised clip - eta * velocity inside, the clip itself outside."""
    shape = model.geometry.latent_shape
    clip, eps = noise(shape, "clip")[None], noise(shape, "eps")[None]
    mask = torch.from_numpy(random_mask(shape[1:], 0.3, generator("mask")))[None]
    text, null = model.encode_text([toy_scene(0).caption]), model.encode_text([""])
    one = guided_sigmas(torch.tensor([1.0, 0.0]), 0.75)[None]
    given = {"clips": clip, "noise": eps, "masks": mask, "text": text, "null_text": null, "guidance_scale": 1.0}
    made = regenerate(model, sigmas=one, **given)
    x_eta = 0.25 * clip + 0.75 * eps
    with torch.no_grad():
        expected = x_eta - 0.75 * model.predict(x_eta, torch.tensor([0.75]), text)
    inside = mask[:, None].expand_as(clip)
    torch.testing.assert_close(made[inside], expected[inside], atol=1e-5, rtol=0)
    assert torch.equal(made[~inside], clip[~inside])
    # in between the outside is the clip, noised by the same noise to the level of the step: the inside depends on it
    two = regenerate(model, sigmas=torch.tensor([[0.75, 0.5, 0.0]]), **given)
    with torch.no_grad():
        after_one = x_eta - 0.25 * model.predict(x_eta, torch.tensor([0.75]), text)
        between = torch.where(inside, after_one, 0.5 * clip + 0.5 * eps)
        expected = between - 0.5 * model.predict(between, torch.tensor([0.5]), text)
    torch.testing.assert_close(two[inside], expected[inside], atol=1e-5, rtol=0)
    assert torch.equal(two[~inside], clip[~inside])


def test_what_a_folder_of_corrupted_pairs_holds(filled: Project, model: VideoModel, toy_model_dir: Path):
    plan = planned(filled, toy_model_dir, num_pairs=12)
    assert generate_corrupted(plan) == 12
    pairs = read_jsonl(plan.pairs.folder / "pairs.jsonl", Pair)
    kinds = Counter(pair.corruption.kind for pair in pairs)
    assert set(kinds) == set(ALL_KINDS)
    assert {pair.corruption.real for pair in pairs} == {"a", "b"}
    clips = {clip.id: clip for clip in read_jsonl(filled.clips / "clips.jsonl", Clip)}
    for pair, made in zip(pairs, plan.pairs.pairs, strict=True):
        assert pair.id == made.pair.id
        file = load_file(plan.pairs.folder / pair.latents)
        real = pair.corruption.real
        worse = file["b" if real == "a" else "a"]
        clip = read_clip_latents(made.clip_latents, model.geometry.latent_shape)
        assert torch.equal(file[real], clip)
        assert (worse - clip).abs().max() > 1e-3
        assert (pair.noise_key_a == "") == (real == "a")
        if pair.corruption.kind == "regenerated":
            assert pair.eta is not None
            assert file["mask"].dtype == torch.bool
            outside = ~file["mask"].expand_as(clip)
            assert torch.equal(worse[outside], clip[outside])
        else:
            assert pair.eta is None
            assert sorted(file) == ["a", "b"]
        if pair.corruption.kind == "reversed":
            frames, _ = read_mp4(filled.clips / clips[pair.clip_id].video, pixel_scale=2)
            torch.testing.assert_close(worse, model.encode_video(frames[None, ::-1].copy())[0], atol=1e-5, rtol=0)


def test_a_set_that_was_cut_goes_on_with_the_same_pairs(filled: Project, toy_model_dir: Path):
    """Another batch size must not matter beyond float tolerance, and what is there is not made again."""
    whole = planned(filled, toy_model_dir, "whole")
    generate_corrupted(whole)
    part = planned(filled, toy_model_dir, "part", num_pairs=2)
    assert generate_corrupted(part) == 2
    rest = planned(filled, toy_model_dir, "part", pairs_per_batch=1)
    assert generate_corrupted(rest) == 4
    for each in whole.pairs.pairs:
        found, expected = (load_file(plan.pairs.folder / each.pair.latents) for plan in (rest, whole))
        assert found.keys() == expected.keys()
        for name in expected:
            torch.testing.assert_close(found[name].float(), expected[name].float(), atol=1e-4, rtol=0)
    with pytest.raises(BadInput, match="was begun with mask_max"):
        generate_corrupted(planned(filled, toy_model_dir, "part", mask_max=0.5))


def test_settings_without_effect_are_refused(filled: Project, toy_model_dir: Path):
    with pytest.raises(ValidationError, match="eta_min has no effect without 'regenerated'"):
        CorruptedConfig(corruptions=("reversed",), eta_min=0.7)
    with pytest.raises(ValidationError, match=r"noise_min = 0\.5 is above"):
        CorruptedConfig(corruptions=("noised",), noise_min=0.5)
    with pytest.raises(ValidationError, match="named once"):
        CorruptedConfig(corruptions=("reversed", "reversed"))
    with pytest.raises(BadInput, match="leaves nothing to shuffle in 9 frames"):
        planned(filled, toy_model_dir, shuffle_frames=9)


def test_the_real_clip_wins_every_segment_of_the_preferences(filled: Project, toy_model_dir: Path):
    """From the command line: pairs, their labels and the preferences that learning reads."""
    common = ["--project", str(filled.root)]
    lines = [
        ["generate", "corrupted", "c", "--model", str(toy_model_dir), "--set", "num_pairs=4", *common],
        ["judge", "real", "c", *common],
        ["judge", "export", "c", "--pairs", "c", "--annotator", "real", *common],
    ]
    for line in lines:
        with pytest.raises(SystemExit) as leaving:
            densedpo(line)
        assert leaving.value.code == 0
    pairs = {pair.id: pair for pair in read_jsonl(filled.pairs("c") / "pairs.jsonl", Pair)}
    preferences = read_jsonl(filled.preferences("c"), Preference, skip=1)
    assert {row.pair_id for row in preferences} == set(pairs)
    for row in preferences:
        expected = 1 if pairs[row.pair_id].corruption.real == "a" else -1
        assert set(row.labels) == {expected}
        assert row.clip_label == expected


def test_a_pair_of_another_kind_is_not_judged_by_what_is_known(filled: Project, toy_model_dir: Path):
    pair = replace(planned(filled, toy_model_dir).pairs.pairs[0].pair, kind="guided", corruption=None)
    with pytest.raises(BadInput, match="neither of its clips is the corrupted copy"):
        RealJudge().check(pair)


def test_labels_of_pairs_from_before_corruptions_still_hold(filled: Project, toy_model_dir: Path):
    """A row without the key is the same pair as a row that says null; a corruption makes it another."""
    pair = planned(filled, toy_model_dir).pairs.pairs[0].pair
    bare = replace(pair, corruption=None)
    assert pair_hash(bare) != pair_hash(pair)
    from densedpo.core.provenance import sha256_json
    from densedpo.core.records import to_row

    before = {key: value for key, value in to_row(bare).items() if key not in ("corruption", "num_given_frames")}
    for unseen in ("video", "latents", "split", "pixel_scale"):
        del before[unseen]
    assert pair_hash(bare) == sha256_json(before)


def test_a_dry_run_says_what_it_would_take_and_writes_nothing(
    filled: Project, toy_model_dir: Path, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as leaving:
        densedpo([
            "generate", "corrupted", "c", "--model", str(toy_model_dir), "--project", str(filled.root),
            "--set", "num_pairs=3", "--set", "corruptions=['reversed','regenerated']", "--dry-run",
        ])  # fmt: skip
    assert leaving.value.code == 0
    assert "3 pairs to make (0 are there)" in capsys.readouterr().out
    assert not filled.pairs("c").exists()
