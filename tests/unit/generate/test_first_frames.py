"""First frames drawn by a toy Stable Diffusion XL, and pairs that continue them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from command_line import densedpo, settings
from densedpo.adapters import load
from densedpo.adapters.images.sdxl import ImageModel, check_image_model, image_model_fingerprint
from densedpo.core.errors import BadInput
from densedpo.core.media import read_mp4, read_pair_mp4
from densedpo.core.provenance import sha256_file
from densedpo.core.records import Pair, read_jsonl
from densedpo.core.seeds import seeded_init
from densedpo.core.workspace import Project, init_project
from densedpo.generate.colours import match_first_frame
from densedpo.generate.config import IndependentConfig
from densedpo.generate.first_frames import DrawnFrame, FrameFile, png_of, read_first_frames
from densedpo.generate.plan import plan_independent
from toy import TEXT_WIDTH, add_toy_clips, build_tokenizer
from toy_families import ANIMATEDIFF

# diffusers' Euler schedulers hand tensors to numpy in a way that it will refuse one day
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")


def toy_sdxl():
    """A random `StableDiffusionXLPipeline` with two text encoders and its extra inputs for sizes."""
    from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    tokenizer = build_tokenizer()
    text = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=TEXT_WIDTH, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, bos_token_id=1, eos_token_id=1, pad_token_id=0, projection_dim=TEXT_WIDTH,
    )  # fmt: skip
    with seeded_init(0):
        return StableDiffusionXLPipeline(
            vae=AutoencoderKL(block_out_channels=(8, 8), norm_num_groups=2, latent_channels=4,
                              down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2),
            text_encoder=CLIPTextModel(text),
            text_encoder_2=CLIPTextModelWithProjection(text),
            tokenizer=tokenizer,
            tokenizer_2=build_tokenizer(),
            unet=toy_unet(),
            scheduler=EulerDiscreteScheduler(),
            add_watermarker=False,
        )  # fmt: skip


def toy_unet():
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=16, block_out_channels=(16, 16), layers_per_block=1, attention_head_dim=4, norm_num_groups=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=2 * TEXT_WIDTH, addition_embed_type="text_time", addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=6 * 4 + TEXT_WIDTH, use_linear_projection=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Project]:
    """An image model, a video model that continues a frame, and a project whose prompts' videos are not there."""
    root = tmp_path_factory.mktemp("drawn")
    toy_sdxl().save_pretrained(root / "sdxl")
    with seeded_init(1):
        toy_unet().save_pretrained(root / "tuned")
    model = ANIMATEDIFF.save(root / "model")
    (model / "densedpo.json").write_text(json.dumps({**ANIMATEDIFF.settings, "first_frame": True}), encoding="utf-8")
    project = init_project(root / "project")
    add_toy_clips(project.root, load(model), 3, splits=("train", "train", "held_out"))
    return root, model, project


def run(*words: str | Path) -> None:
    done = densedpo(*words)
    assert done.code == 0, done.err


def draw(root: Path, model: Path, project: Project, name: str, *more: str) -> list[DrawnFrame]:
    chosen = settings(num_steps=2, scale=2, image_model=f"'{root / 'sdxl'}'", splits="['train']")
    run("generate", "first-frames", name, "--model", model, "--project", project.root, *chosen, *more)
    return read_jsonl(project.pairs(name) / "frames.jsonl", DrawnFrame)


def test_frames_are_drawn_once_and_pairs_continue_them(made: tuple[Path, Path, Project]) -> None:
    root, model, project = made
    frames = draw(root, model, project, "f")
    folder = project.pairs("f")
    assert len(frames) == 2
    assert [frame.content for frame in frames] == [sha256_file(folder / frame.image) for frame in frames]
    before = (folder / frames[0].image).stat().st_mtime_ns
    (folder / frames[1].image).unlink()  # as a cut run has left it
    again = draw(root, model, project, "f")
    assert (folder / frames[0].image).stat().st_mtime_ns == before
    assert again == frames

    where = ("--model", model, "--project", project.root)
    few = settings(num_pairs=2, num_steps=2, splits="['train']", first_frames="f")
    run("generate", "independent", "p", *where, *few)
    run("generate", "independent", "matched", *where, *few, *settings(match_colours="true"))
    by_prompt = {frame.prompt_id: frame for frame in frames}
    video_model = load(model)
    (plain, matched) = (read_jsonl(project.pairs(name) / "pairs.jsonl", Pair) for name in ("p", "matched"))
    for pair, other in zip(plain, matched, strict=True):
        picture = FrameFile(video=folder / by_prompt[pair.prompt_id].image).read()
        tensors, theirs = (
            load_file(project.pairs(name) / each.latents) for name, each in (("p", pair), ("matched", other))
        )
        held = video_model.encode_first(picture[None]).held
        torch.testing.assert_close(tensors["first.held"], held[0], atol=1e-4, rtol=0)
        torch.testing.assert_close(tensors["a"], theirs["a"], atol=1e-4, rtol=0)
        decoded = video_model.decode_latents(tensors["a"][None])[0]
        shown, _ = read_pair_mp4(project.pairs("matched") / other.video, pixel_scale=other.pixel_scale)
        # the mp4 is lossy: closer to the matched clip than to the plain one
        far, near = (np.abs(shown.astype(int) - clip).mean() for clip in (decoded, match_first_frame(decoded)))
        assert near < far


def test_a_dry_run_says_how_long_the_frames_take_and_draws_none(made: tuple[Path, Path, Project]) -> None:
    root, model, project = made
    where = ("--model", model, "--project", project.root)
    chosen = settings(num_steps=3, image_model=f"'{root / 'sdxl'}'", splits="['train']")
    done = densedpo("generate", "first-frames", "dry", *where, *chosen, "--dry-run")
    assert (done.code, done.out.startswith("2 frames to draw (0 are there): about ")) == (0, True), done.err
    assert "Loading" not in done.err  # diffusers' own bars, which fill a log that is no terminal
    assert not project.pairs("dry").exists()
    run("generate", "first-frames", "dry", *where, *chosen)
    again = densedpo("generate", "first-frames", "dry", *where, *chosen, "--dry-run")
    assert again.out == "0 frames to draw (2 are there): about 0 s\n"


def test_a_frame_is_drawn_larger_and_averaged_and_a_prompts_frames_take_turns(made: tuple[Path, Path, Project]) -> None:
    root, model, project = made
    frames = draw(root, model, project, "turns", "--set", "frames_per_prompt=2")
    folder = project.pairs("turns")
    image = ImageModel(root / "sdxl", None, device="cpu", dtype="float32").draw(
        frames[0].caption, noise_key=(frames[0].noise_key,), height=64, width=64, num_steps=2, guidance_scale=5.0
    )
    assert image.shape == (64, 64, 3)
    means = image.reshape(32, 2, 32, 2, 3).mean((1, 3))
    assert np.abs(FrameFile(video=folder / frames[0].image).read() - means).max() <= 0.5

    config = IndependentConfig(num_pairs=6, splits=("train",), first_frames="turns")
    planned = plan_independent(project, "p", model=model, config=config).pairs
    numbers = {frame.content: frame.number for frame in frames}
    prompts = {frame.content: frame.prompt_id for frame in frames}
    assert [numbers[each.first.content] for each in planned] == [0, 0, 1, 1, 0, 0]
    assert all(prompts[each.first.content] == each.pair.prompt_id for each in planned)


def test_another_unet_draws_another_picture(made: tuple[Path, Path, Project]) -> None:
    root, model, project = made
    base = draw(root, model, project, "base")
    tuned = draw(root, model, project, "tuned", "--set", f"image_unet='{root / 'tuned'}'")
    assert base[0].model == image_model_fingerprint(root / "sdxl")
    assert {frame.content for frame in base}.isdisjoint(frame.content for frame in tuned)


def test_what_continues_drawn_frames_is_measured_as_single_clips(made: tuple[Path, Path, Project]) -> None:
    root, model, project = made
    where = ("--model", model, "--project", project.root)
    chosen = settings(num_steps=2, image_model=f"'{root / 'sdxl'}'", splits="['held_out']", frames_per_prompt=2)
    run("generate", "first-frames", "shown", *where, *chosen)
    files = read_first_frames(project.pairs("shown"), load(model).geometry)
    options = settings(num_steps=2, seeds_per_prompt=2, first_frames="shown")
    run("measure", "run", "shown", *where, *options)
    report = json.loads((project.report("shown") / "report.json").read_text())
    assert report["settings"]["first_frames"]
    (drawn,) = files.values()
    video_model = load(model)
    held = video_model.encode_first(np.stack([file.read() for file in drawn])).held
    assert held is not None
    # of an autoencoder of images, each frame by itself
    given = video_model.decode_latents(held.expand(-1, -1, video_model.geometry.latent_shape[1], -1, -1))[:, 0]
    for row in map(json.loads, (project.report("shown") / "scores.jsonl").read_text().splitlines()):
        frames, _ = read_mp4(project.report("shown") / row["video"], pixel_scale=report["settings"]["pixel_scale"])
        distances = np.abs(frames[0].astype(int) - given).mean((1, 2, 3))
        assert distances.argmin() == row["number"]
        assert distances.min() < 10  # the mp4 is lossy
    draw(root, model, project, "seen")
    wrong = densedpo("measure", "run", "w", *where, *settings(first_frames="seen"))
    assert (wrong.code, "has none for held_out prompts" in wrong.err) == (2, True), wrong.err


def test_a_picture_is_read_back_as_it_was(tmp_path: Path) -> None:
    image = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    (tmp_path / "one.png").write_bytes(png_of(image, height=4, width=6))
    assert np.array_equal(FrameFile(video=tmp_path / "one.png").read(), image)


def test_what_is_no_whole_directory_of_safetensors_is_refused(made: tuple[Path, Path, Project], tmp_path: Path) -> None:
    root, model, project = made
    with pytest.raises(BadInput, match="drawn by a StableDiffusionXLPipeline"):
        check_image_model(model)
    with pytest.raises(BadInput, match="is missing"):
        check_image_model(root / "sdxl", tmp_path / "nothing")
    other = Path(shutil.copytree(root / "tuned", tmp_path / "other"))
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"addition_embed_type": None, "cross_attention_dim": 768}))
    with pytest.raises(BadInput, match=r"cross_attention_dim is 768, and \d+ in .*a UNet of the same kind"):
        check_image_model(root / "sdxl", other)
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "diffusion_pytorch_model.bin").write_bytes(b"")
    with pytest.raises(BadInput, match="is a pickle"):
        check_image_model(root / "sdxl", pickled)
    done = densedpo("generate", "first-frames", "n", "--model", model, "--project", project.root)
    assert (done.code, "image_model=FOLDER" in done.err) == (2, True)
    with pytest.raises(BadInput, match="holds no first frames; name a set of `densedpo generate first-frames`"):
        read_first_frames(project.clips, load(model).geometry)
    for_nobody = densedpo("generate", "first-frames", "n", "--project", project.root)
    assert (for_nobody.code, "tiny is text-to-video and continues no first frame" in for_nobody.err) == (2, True)
    text_to_video = densedpo(
        "generate", "independent", "n", "--project", project.root, *settings(num_pairs=1, first_frames="f")
    )
    assert (text_to_video.code, "text-to-video" in text_to_video.err) == (2, True)
