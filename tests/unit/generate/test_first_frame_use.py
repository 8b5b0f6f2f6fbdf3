"""An image-to-video model through the verbs: both clips of a pair continue the real clip's first frame."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from command_line import densedpo, settings
from densedpo.adapters import VideoModel, load
from densedpo.adapters.base import FirstFrame
from densedpo.core.errors import BadInput
from densedpo.core.media import read_mp4, write_mp4
from densedpo.core.records import Clip, Pair, Preference, read_jsonl, write_jsonl
from densedpo.core.workspace import Project, init_project
from densedpo.generate.first_frames import FrameFile, encode_first_frames
from densedpo.learn.audit.margins import segment_margins
from densedpo.learn.config import LearnConfig
from densedpo.learn.errors import clip_errors, frame_errors, residuals
from densedpo.learn.feed import batch as feed
from densedpo.learn.feed.batch import ClipBatch, Draws, Source
from densedpo.learn.feed.inputs import read_clips, read_pairs
from densedpo.learn.feed.order import TimeDensity, Visit
from densedpo.learn.watch.evaluate import FrameReward
from learn_bench import FRESH
from toy import add_lora, add_toy_clips, toy_frames, toy_scene
from toy_families import IMAGE_FAMILIES

LEARN = settings(
    num_steps=2, batch_pairs=2, eval_every=2, eval_pairs=1, eval_draws=1, lora_rank=2, learning_rate=1e-2, draws=2,
    min_non_tie_share=0.0,
)  # fmt: skip
RANGES = ((0, 1), (1, 9))  # latent frame 0, which is given; latent frames 1 and 2


def project_of(folder: Path, root: Path) -> tuple[Project, VideoModel]:
    """A project with four clips, their videos too: two to train on, one for validation, one held out."""
    project, model = Project(root=root), load(folder)
    init_project(root)
    add_toy_clips(root, model, 4, splits=("train", "train", "validation", "held_out"))
    (project.clips / "videos").mkdir()
    for clip in read_jsonl(project.clips / "clips.jsonl", Clip):
        frames = toy_frames(toy_scene(int(clip.id[-4:])))
        write_mp4(project.clips / clip.video, frames, fps=clip.fps, pixel_scale=clip.pixel_scale)
    return project, model


def run(*words: str | Path) -> None:
    done = densedpo(*words)
    assert done.code == 0, done.err


# held in x_t; and beside it with an image encoder
@pytest.mark.slow
@pytest.mark.parametrize("name", ["LTX image", "Wan 2.1 image"])
def test_pairs_are_made_judged_learned_from_and_measured(name: str, tmp_path: Path) -> None:
    folder = IMAGE_FAMILIES[name].save(tmp_path / "model")
    project, model = project_of(folder, tmp_path / "project")
    where = ("--project", project.root)
    common = (*where, "--model", folder)
    run("generate", "guided", "g", *common, *settings(num_pairs=3, num_steps=2))
    run("generate", "independent", "i", *common, *settings(num_pairs=1, num_steps=2))

    clips = {clip.id: clip for clip in read_jsonl(project.clips / "clips.jsonl", Clip)}
    for pair in (
        *read_jsonl(project.pairs("g") / "pairs.jsonl", Pair),
        *read_jsonl(project.pairs("i") / "pairs.jsonl", Pair),
    ):
        assert pair.num_given_frames == 1
        files = load_file(project.pairs(pair.kind[0]) / pair.latents)
        video = project.clips / clips[pair.clip_id or ""].video
        frames, _ = read_mp4(video, pixel_scale=2)
        expected = model.encode_first(frames[:1])
        for key, tensor in expected.tensors().items():
            torch.testing.assert_close(files[f"first.{key}"], tensor[0], atol=1e-5, rtol=0)
        if expected.held is not None:
            assert torch.equal(files["a"][:, :1], files["b"][:, :1])
            assert torch.equal(files["a"][:, :1], files["first.held"])
        assert not torch.equal(files["a"][:, 1:], files["b"][:, 1:])

    run("judge", "reference", "g", *where, *settings(margin=0.0))
    run("judge", "export", "p", "--pairs", "g", *where)
    run("learn", "offline", "r", "--pairs", "g", "--preferences", "p", *common, *LEARN)
    rows = [json.loads(line) for line in (project.run("r") / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if row["split"] == "train"]
    assert losses[0] == pytest.approx(0.6931, abs=1e-3)
    assert losses[1] != pytest.approx(losses[0], abs=1e-6)
    run("measure", "run", "m", "--run", "r", *common, *settings(num_prompts=1, seeds_per_prompt=1, num_steps=2))


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Project, VideoModel]:
    """LTX that continues a frame, and a pair of its whose segments are the given frame, and the rest."""
    root = tmp_path_factory.mktemp("labelled")
    folder = IMAGE_FAMILIES["LTX image"].save(root / "model")
    project, model = project_of(folder, root / "project")
    run("generate", "guided", "g", "--project", project.root, "--model", folder, *settings(num_pairs=1, num_steps=2))
    (pair,) = read_jsonl(project.pairs("g") / "pairs.jsonl", Pair)
    preference = Preference(
        pair_id=pair.id, split=pair.split, ranges=RANGES, labels=(-1, 1), clip_label=1, num_judgements=1
    )
    write_jsonl(project.preferences("p"), [preference])
    return folder, project, model


def test_a_segment_of_nothing_but_the_given_frame_has_no_label(
    labelled: tuple[Path, Project, VideoModel], caplog: pytest.LogCaptureFixture
) -> None:
    """The field is 0, not -1, in latent frame 0; of the two frames that were made all carry a label."""
    _, project, model = labelled
    (pair,) = read_pairs(project.pairs("g"), project.preferences("p"), model.geometry, model.fingerprint)
    assert "1 segments hold no latent frame but the one that is given" in caplog.text
    assert pair.labels.field.tolist() == [0, 1, 1]
    assert pair.labels.judged.tolist() == [False, True, True]
    assert pair.labels.valid.tolist() == [False, True, True]
    assert pair.labels.non_tie_share == 1.0

    source = Source(model)
    draws = Draws(noise_seed=0, count=1, density=TimeDensity.of(LearnConfig()))
    batch = source.pairs([pair], [Visit(index=0, draw=0)], draws)
    assert batch.valid[0, :, 0, 0].tolist() == [False, True, True]
    assert batch.text.first is not None
    assert torch.equal(batch.text.first.held[0], batch.latents_a[0, :, :1])
    # equal in the given frame, so its weight is 0; the mean over the other two is 1
    assert source.differences([pair])[0, :, 0, 0].tolist()[0] == 0.0
    assert source.differences([pair])[0, 1:].mean() == pytest.approx(1.0)


def test_pairs_of_a_model_that_was_given_nothing_do_not_fit(labelled: tuple[Path, Project, VideoModel]) -> None:
    _, project, model = labelled
    text_only = replace(model.geometry, num_given_frames=0)
    with pytest.raises(BadInput, match="has 1 given latent frames, the model has 0"):
        read_pairs(project.pairs("g"), project.preferences("p"), text_only, model.fingerprint)


def test_what_knows_no_first_frame_is_refused_and_what_does_is_estimated(
    labelled: tuple[Path, Project, VideoModel],
) -> None:
    folder, project, _ = labelled
    common = ("--project", project.root, "--model", folder)
    run("generate", "independent", "d", *common, "--dry-run", *settings(num_pairs=1, num_steps=2))
    done = densedpo("generate", "corrupted", "c", *common)
    assert done.code == 2
    assert "continues a first frame: corrupted pairs are made with text-to-video models alone" in done.err


def test_a_pair_without_its_frame_is_refused(labelled: tuple[Path, Project, VideoModel], tmp_path: Path) -> None:
    _, project, model = labelled
    (pair,) = read_pairs(project.pairs("g"), project.preferences("p"), model.geometry, model.fingerprint)
    bare = tmp_path / "bare.safetensors"
    save_file({key: tensor for key, tensor in load_file(pair.latents).items() if key in "ab"}, bare)
    draws = Draws(noise_seed=0, count=1, density=TimeDensity.of(LearnConfig()))
    with pytest.raises(BadInput, match="does not hold the first frame that this model continues"):
        Source(model).pairs([replace(pair, latents=bare)], [Visit(index=0, draw=0)], draws)


def test_the_audit_leaves_the_given_frame_out(labelled: tuple[Path, Project, VideoModel]) -> None:
    """Rewards 9, 1, 3 with beta 2: nothing of the given frame, and 2/2 * (1 + 3) / 2 = 2 of the rest."""
    _, project, model = labelled
    (pair,) = read_pairs(project.pairs("g"), project.preferences("p"), model.geometry, model.fingerprint)
    reward = FrameReward(
        pair_id=pair.id, labels_per_latent_frame=(0, 1, 1), implicit_reward_per_latent_frame=(9.0, 1.0, 3.0)
    )
    found = segment_margins(pair.labels, reward, beta=2.0)
    assert (found.labels, found.answered, found.margins) == ((0, 1), (False, True), (0.0, 2.0))


def test_a_real_clip_continues_its_own_frame(labelled: tuple[Path, Project, VideoModel]) -> None:
    _, project, model = labelled
    clips = read_clips(project.clips, model.vae_fingerprint)
    draws = Draws(noise_seed=0, count="fresh", density=TimeDensity.of(LearnConfig()))
    batch = Source(model).clips(clips, [Visit(index=1, draw=0), Visit(index=0, draw=0)], draws)
    frames = np.stack([read_mp4(clips[index].frame.video, pixel_scale=2)[0][0] for index in (1, 0)])
    assert batch.text.first is not None
    torch.testing.assert_close(batch.text.first.held, model.encode_first(frames).held)


def test_first_frames_of_real_clips_are_kept_while_there_is_room_and_encoded_anew_beyond(
    labelled: tuple[Path, Project, VideoModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, project, model = labelled
    clips = read_clips(project.clips, model.vae_fingerprint)
    encoded: list[Path] = []

    def counted(model: VideoModel, frames: list[FrameFile]) -> FirstFrame:
        encoded.extend(frame.video for frame in frames)
        return encode_first_frames(model, frames)

    monkeypatch.setattr(feed, "encode_first_frames", counted)
    visits = [Visit(index=0, draw=0)]
    helds = []
    for room, times in ((2**30, 1), (0, 2)):
        source = Source(model, kept_captions_bytes=room)
        encoded.clear()
        helds += [source.clips(clips, visits, FRESH).text.first.held for _ in range(2)]
        assert encoded == [clips[0].frame.video] * times
    assert all(torch.equal(held, helds[0]) for held in helds)


def test_a_given_frame_has_no_error_and_its_noise_reaches_no_other(labelled: tuple[Path, Project, VideoModel]) -> None:
    """Noise in the given frame, which is held clean, changes no error of another frame, and its own error is 0."""
    _, project, model = labelled
    add_lora(model)
    clip = read_jsonl(project.clips / "clips.jsonl", Clip)[0]
    frames, _ = read_mp4(project.clips / clip.video, pixel_scale=2)
    text = model.encode_text([clip.caption]).given(model.encode_first(frames[:1]))
    latents = model.encode_video(frames[None])
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal(latents.shape, dtype=np.float32))
    batch = ClipBatch(latents=latents, noise=noise, t=torch.tensor([0.7]), text=text)
    other_noise = noise.clone()
    other_noise[:, :, :1] = 5.0
    errors = frame_errors(model, batch)
    assert errors[0, 0, 0, 0] == 0
    assert torch.equal(errors, frame_errors(model, replace(batch, noise=other_noise)))
    assert clip_errors(model, batch).item() == pytest.approx(errors[0, 1:].mean().item())


def test_a_first_frame_where_none_belongs_is_refused(labelled: tuple[Path, Project, VideoModel]) -> None:
    _, _, model = labelled
    text = model.encode_text(["a"])
    x = torch.zeros(1, *model.geometry.latent_shape)
    batch = ClipBatch(latents=x, noise=x, t=torch.tensor([0.5]), text=text)
    with pytest.raises(ValueError, match="continues a first frame"):
        residuals(model, batch)
