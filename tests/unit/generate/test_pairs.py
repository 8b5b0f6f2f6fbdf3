"""Pairs through the stage's own entry points: what is on disk, how they are made, resuming and refusing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from densedpo.adapters import load
from densedpo.core.config import load_config
from densedpo.core.errors import BadInput
from densedpo.core.media import read_pair_mp4
from densedpo.core.records import Clip, Pair, Prompt, read_jsonl, write_jsonl
from densedpo.core.seeds import noise
from densedpo.core.workspace import Project, read_stamp, stale_inputs, stamp_path, writing
from densedpo.generate.config import GuidedConfig, IndependentConfig
from densedpo.generate.pairs import generate_pairs, sample_pairs
from densedpo.generate.plan import PairPlan, plan_guided, plan_independent
from densedpo.generate.resume import remaining
from toy import SMALL, add_toy_clips, toy_frames, toy_scene

NUM_CLIPS = 5


@pytest.fixture(scope="module")
def clips_dir(toy_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("clips")
    add_toy_clips(root, load(toy_model_dir), NUM_CLIPS, splits=("train", "validation", "train", "held_out", "train"))
    return root / "clips"


@pytest.fixture
def filled(project: Path, clips_dir: Path) -> Project:
    shutil.copytree(clips_dir, project / "clips")
    return Project(root=project)


def guided(project: Project, model: Path, name: str = "g", **settings: object) -> PairPlan:
    config = GuidedConfig.model_validate({"num_pairs": 3, "num_steps": 3, "pairs_per_batch": 2} | settings)
    return plan_guided(project, name, model=model, config=config)


def independent(project: Project, model: Path, name: str = "i", **settings: object) -> PairPlan:
    config = IndependentConfig.model_validate({"num_pairs": 3, "num_steps": 3, "pairs_per_batch": 2} | settings)
    return plan_independent(project, name, model=model, config=config)


def rows(plan: PairPlan) -> list[Pair]:
    return read_jsonl(plan.folder / "pairs.jsonl", Pair)


def latents(plan: PairPlan) -> dict[str, torch.Tensor]:
    files = {pair.id: load_file(plan.folder / pair.latents) for pair in rows(plan)}
    return {f"{pair}/{half}": tensor for pair, file in files.items() for half, tensor in file.items()}


def assert_same_latents(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        torch.testing.assert_close(found[key], tensor, atol=1e-4, rtol=0)


def test_what_a_folder_of_pairs_holds(filled: Project, toy_model_dir: Path) -> None:
    plan = guided(filled, toy_model_dir)
    assert generate_pairs(plan) == 3
    model = load(toy_model_dir)
    assert [pair.id for pair in rows(plan)] == [planned.pair.id for planned in plan.pairs]
    for pair in rows(plan):
        assert pair.kind == "guided"
        assert pair.eta is not None
        assert 0.65 <= pair.eta <= 0.8
        assert pair.model == model.fingerprint
        assert pair.split in ("train", "validation")
        file = load_file(plan.folder / pair.latents)
        assert sorted(file) == ["a", "b"]
        assert all(half.shape == model.geometry.latent_shape and half.dtype == torch.float32 for half in file.values())
        assert (file["a"] - file["b"]).abs().max() > 1e-3
        decoded = model.decode_latents(torch.stack([file["a"], file["b"]]))
        for shown, frames in zip(read_pair_mp4(plan.folder / pair.video, pixel_scale=2), decoded, strict=True):
            assert shown.shape == frames.shape
            assert np.abs(shown.astype(int) - frames.astype(int)).mean() < 6
    assert read_stamp(plan.folder) is not None
    assert stale_inputs(plan.folder, filled) == []


def test_a_guided_pair_starts_from_its_clip_noised_to_eta_exactly(filled: Project, toy_model_dir: Path) -> None:
    """x_eta = (1 - eta) x + eta eps; with the model's velocity known, the first Euler step is checked by hand."""
    plan = guided(filled, toy_model_dir, num_pairs=1, num_steps=1, guidance_scale=1.0, eta_min=0.5, eta_max=0.9)
    model = load(toy_model_dir)
    pair = plan.pairs[0].pair
    prompts = {prompt.id: prompt for prompt in read_jsonl(filled.clips / "prompts.jsonl", Prompt)}
    clip_id = prompts[pair.prompt_id].clip_id
    assert pair.clip_id == clip_id
    assert clip_id is not None
    clip = model.encode_video(toy_frames(toy_scene(int(clip_id[-4:])))[None])[0]
    assert pair.eta == float(np.float32(pair.eta))
    eps = noise(model.geometry.latent_shape, pair.noise_key_b)
    x_eta = (1 - pair.eta) * clip + pair.eta * eps
    with torch.no_grad():
        velocity = model.predict(x_eta[None], torch.tensor([pair.eta]), model.encode_text([pair.caption]))[0]
    # the sampler of one step goes 1 -> 0, so below eta there is 0 only
    found = sample_pairs(model, plan.pairs)[0, 1]
    torch.testing.assert_close(found, x_eta - pair.eta * velocity, atol=1e-4, rtol=0)


def test_eta_is_drawn_once_per_prompt_and_noise_once_per_clip(filled: Project, toy_model_dir: Path) -> None:
    pairs = [planned.pair for planned in guided(filled, toy_model_dir, num_pairs=9).pairs]
    by_prompt: dict[str, list[Pair]] = {}
    for pair in pairs:
        by_prompt.setdefault(pair.prompt_id, []).append(pair)
    assert all(len({pair.eta for pair in same}) == 1 for same in by_prompt.values())
    assert len({pair.eta for pair in pairs}) == len(by_prompt) == 4
    keys = [key for pair in pairs for key in (pair.noise_key_a, pair.noise_key_b)]
    assert len(set(keys)) == len(keys)
    assert len({pair.id for pair in pairs}) == 9


def test_independent_pairs_start_from_noise_and_need_no_clips(filled: Project, toy_model_dir: Path) -> None:
    prompts = [replace(p, clip_id=None) for p in read_jsonl(filled.clips / "prompts.jsonl", Prompt)]
    write_jsonl(filled.clips / "prompts.jsonl", prompts)
    plan = independent(filled, toy_model_dir)
    assert generate_pairs(plan) == 3
    assert [pair.eta for pair in rows(plan)] == [None] * 3
    with pytest.raises(BadInput, match="no prompts with a clip"):
        guided(filled, toy_model_dir)


@pytest.mark.parametrize("make", [guided, independent])
def test_pairs_do_not_depend_on_how_they_are_batched(make, filled: Project, toy_model_dir: Path) -> None:
    one = (
        make(filled, toy_model_dir, name="one", pairs_per_batch=1, eta_min=0.2)
        if make is guided
        else make(filled, toy_model_dir, name="one", pairs_per_batch=1)
    )
    all_at_once = replace(one, folder=filled.pairs("all"), pairs_per_batch=3, pairs=one.pairs[::-1])
    generate_pairs(one)
    generate_pairs(all_at_once)
    assert_same_latents(latents(all_at_once), latents(one))


def test_a_cut_run_goes_on_where_it_was(filled: Project, toy_model_dir: Path) -> None:
    whole, cut = guided(filled, toy_model_dir, name="whole"), guided(filled, toy_model_dir, name="cut")
    generate_pairs(whole)
    generate_pairs(cut)
    path = cut.folder / "pairs.jsonl"
    lines = path.read_text().splitlines()
    torn = lines[0] + "\n" + lines[1][: len(lines[1]) // 2]
    path.write_text(torn)
    (cut.folder / rows(whole)[2].video).unlink()
    (cut.folder / "latents" / ".half.safetensors.123.part").write_bytes(b"half")
    assert [each.pair.id for each in remaining(cut)] == [pair.id for pair in rows(whole)[1:]]
    assert path.read_text() == torn
    assert generate_pairs(cut) == 2
    assert rows(cut) == rows(whole)
    assert_same_latents(latents(cut), latents(whole))
    assert not list(cut.folder.rglob(".*.part"))
    assert generate_pairs(cut) == 0


def test_a_row_without_its_files_is_made_again_in_its_place(filled: Project, toy_model_dir: Path) -> None:
    plan = guided(filled, toy_model_dir)
    generate_pairs(plan)
    before = rows(plan)
    (plan.folder / before[0].latents).unlink()
    assert generate_pairs(plan) == 1
    assert rows(plan) == before


def test_more_pairs_can_be_asked_for_later(filled: Project, toy_model_dir: Path) -> None:
    generate_pairs(guided(filled, toy_model_dir, num_pairs=2))
    first = rows(guided(filled, toy_model_dir))
    assert generate_pairs(guided(filled, toy_model_dir, num_pairs=4, pairs_per_batch=1)) == 2
    assert rows(guided(filled, toy_model_dir))[:2] == first
    assert generate_pairs(guided(filled, toy_model_dir, num_pairs=1)) == 0
    assert len(rows(guided(filled, toy_model_dir))) == 4


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"seed": 1}, "seed = 0, not 1"),
        ({"num_steps": 2}, "num_steps = 3, not 2"),
        ({"guidance_scale": 2.0}, r"guidance_scale = 3\.0, not 2\.0"),
        ({"eta_max": 0.9}, r"eta_max = 0\.8, not 0\.9"),
        ({"splits": ("train",)}, "splits"),
    ],
)
def test_other_settings_under_the_same_name_are_refused(
    filled: Project, toy_model_dir: Path, settings: dict[str, object], words: str
) -> None:
    generate_pairs(guided(filled, toy_model_dir, num_pairs=1))
    with pytest.raises(BadInput, match=words):
        remaining(guided(filled, toy_model_dir, **settings))
    with pytest.raises(BadInput, match=words):
        generate_pairs(guided(filled, toy_model_dir, **settings))


def test_pairs_of_prompts_that_are_gone_are_refused(filled: Project, toy_model_dir: Path) -> None:
    generate_pairs(guided(filled, toy_model_dir))
    prompts = read_jsonl(filled.clips / "prompts.jsonl", Prompt)
    write_jsonl(filled.clips / "prompts.jsonl", [replace(p, caption=f"{p.caption} again") for p in prompts])
    with pytest.raises(BadInput, match="other prompts or clips"):
        remaining(guided(filled, toy_model_dir))


def test_clips_of_another_autoencoder_or_size_are_refused(filled: Project, toy_model_dir: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(toy_model_dir, tmp_path / "other"))
    weights = next((other / "vae").glob("*.safetensors"))
    data = bytearray(weights.read_bytes())
    data[-3] ^= 1
    weights.write_bytes(data)
    with pytest.raises(BadInput, match="no latents of this model's autoencoder"):
        guided(filled, other)
    settings = json.loads((other / "densedpo.json").read_text())
    (other / "densedpo.json").write_text(json.dumps(settings | {"num_frames": 5}))
    with pytest.raises(BadInput, match=r"9 frames of 32x32; the model takes 5 frames of 32x32"):
        guided(filled, other)
    (other / "densedpo.json").write_text(json.dumps(settings | {"fps": 16.0}))
    with pytest.raises(BadInput, match="at 8 fps; the model takes 16 fps"):
        guided(filled, other)


def test_a_damaged_latent_file_is_refused_by_name(filled: Project, toy_model_dir: Path) -> None:
    plan = guided(filled, toy_model_dir, num_pairs=1)
    path = plan.pairs[0].clip_latents
    assert path is not None
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(BadInput, match=path.name):
        generate_pairs(plan)


def test_two_writers_at_once_are_refused(filled: Project, toy_model_dir: Path) -> None:
    plan = guided(filled, toy_model_dir)
    with writing(plan.folder), pytest.raises(BadInput, match="another process"):
        generate_pairs(plan)


def test_bad_settings_are_refused_by_key(filled: Project, toy_model_dir: Path) -> None:
    with pytest.raises(BadInput, match=r"eta_min = 0\.9 is above eta_max = 0\.8"):
        guided(filled, toy_model_dir, eta_min=0.9)
    with pytest.raises(BadInput, match="etamin"):
        load_config(GuidedConfig, None, ["etamin=0.5"])
    assert load_config(GuidedConfig, None, ["splits=['train']", "eta_min=0.5"]).splits == ("train",)
    write_jsonl(filled.clips / "prompts.jsonl", [])
    with pytest.raises(BadInput, match="no prompts"):
        independent(filled, toy_model_dir)


def test_a_clip_that_is_missing_is_named(filled: Project, toy_model_dir: Path) -> None:
    clips = read_jsonl(filled.clips / "clips.jsonl", Clip)
    write_jsonl(filled.clips / "clips.jsonl", clips[1:])
    with pytest.raises(BadInput, match="clip-0000"):
        guided(filled, toy_model_dir)


def test_dry_run_estimates_and_writes_nothing(filled: Project, toy_model_dir: Path) -> None:
    from densedpo.generate.estimate import estimate

    plan = guided(filled, toy_model_dir)
    found = estimate(plan, remaining(plan))
    assert (found.num_pairs, found.num_done) == (3, 0)
    latent_bytes = 3 * 2 * 4 * np.prod(load(toy_model_dir).geometry.latent_shape)
    assert found.disk_bytes > latent_bytes
    assert 0 < found.time_s < 60
    assert found.memory_bytes > 50e6
    assert not plan.folder.exists()


@pytest.mark.slow
@pytest.mark.parametrize(("decode", "num_pairs"), [("here", 12), ("apart", 6)])
def test_killed_at_any_moment_nothing_is_lost(
    filled: Project, toy_model_dir: Path, decode: str, num_pairs: int
) -> None:
    """kill -9 or SIGTERM at random moments, again and again: rows have whole files, the end is as if never cut."""
    settings = [f"num_pairs={num_pairs}", "num_steps=3", "pairs_per_batch=2", f"decode={decode}"]
    command = [sys.executable, "-m", "densedpo.cli.main", "generate", "guided", "cut", "--model", str(toy_model_dir)]
    command += ["--project", str(filled.root)] + [part for one in settings for part in ("--set", one)]
    cut = guided(filled, toy_model_dir, name="cut", num_pairs=num_pairs)
    rng, num_kills = np.random.default_rng(0), 0
    while num_kills < 40:
        ending = signal.SIGTERM if num_kills % 2 else signal.SIGKILL
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before = (cut.folder / "pairs.jsonl").stat().st_size if (cut.folder / "pairs.jsonl").exists() else 0
        while process.poll() is None:  # the kill falls within or just after the writing of some pair
            written = (cut.folder / "pairs.jsonl").stat().st_size if (cut.folder / "pairs.jsonl").exists() else 0
            if written > before:
                time.sleep(float(rng.uniform(0, 0.1)))
                os.kill(process.pid, ending)
                break
            time.sleep(0.002)
        if process.wait() == 0:
            break
        num_kills += 1
        if stamp_path(cut.folder).exists():  # all was made, and the kill fell into the end of Python
            break
        assert process.returncode == (75 if ending == signal.SIGTERM else -signal.SIGKILL)
    assert num_kills >= 2
    whole = guided(filled, toy_model_dir, name="whole", num_pairs=num_pairs)
    generate_pairs(whole)
    assert rows(cut) == rows(whole)
    assert_same_latents(latents(cut), latents(whole))
    for pair in rows(cut):
        shown, _ = read_pair_mp4(cut.folder / pair.video, pixel_scale=pair.pixel_scale)
        assert shown.shape == (SMALL.num_frames, SMALL.side, SMALL.side, 3)
