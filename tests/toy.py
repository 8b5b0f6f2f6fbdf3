"""Toy models and projects for the tests: real classes of diffusers and transformers, random weights, no network."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from densedpo.core.seeds import derive_seed, seeded_init
from densedpo.world.render import render
from densedpo.world.scene import Scene, all_scenes, draw_scene


@dataclass(frozen=True, kw_only=True, slots=True)
class ToySize:
    """The clip size of a toy model; `SMALL` for speed, `SHIPPED` for the world's own 33 frames of 64x64."""

    num_frames: int
    side: int


SMALL = ToySize(num_frames=9, side=32)
SHIPPED = ToySize(num_frames=33, side=64)
MAX_SEQUENCE_LENGTH = 24
TEXT_WIDTH = 32
LATENT_CHANNELS = 16


def world_vocabulary() -> list[str]:
    """Every word that a caption of the world can hold, sorted."""
    return sorted({word for scene in all_scenes() for word in scene.caption.split()})


def build_tokenizer():
    """A word-level tokenizer over the world's words: <pad> 0, </s> 1, <unk> 2."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "</s>", "<unk>", *world_vocabulary()]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=MAX_SEQUENCE_LENGTH,
    )


def build_vae():
    """A random autoencoder in the shipped model's layout at a quarter of its width, with statistics that matter."""
    from diffusers import AutoencoderKLWan

    return AutoencoderKLWan(
        base_dim=4,
        z_dim=LATENT_CHANNELS,
        dim_mult=[1, 2, 2],
        num_res_blocks=1,
        temperal_downsample=[True, True],
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_spatial=8,
        scale_factor_temporal=4,
        latents_mean=[0.02 * (c - 8) for c in range(LATENT_CHANNELS)],
        latents_std=[0.3 + 0.01 * c for c in range(LATENT_CHANNELS)],
    )


def build_toy_pipeline(seed: int = 0):
    """A random `WanPipeline` of about 0.2M parameters."""
    from diffusers import FlowMatchEulerDiscreteScheduler, WanPipeline, WanTransformer3DModel
    from transformers import UMT5Config, UMT5EncoderModel

    tokenizer = build_tokenizer()
    with seeded_init(seed):
        text_config = UMT5Config(
            vocab_size=len(tokenizer),
            d_model=TEXT_WIDTH,
            d_kv=8,
            d_ff=64,
            num_layers=1,
            num_heads=4,
            feed_forward_proj="gated-gelu",
            pad_token_id=0,
            eos_token_id=1,
            tie_word_embeddings=True,
        )
        return WanPipeline(
            tokenizer=tokenizer,
            text_encoder=UMT5EncoderModel(text_config).eval(),
            vae=build_vae().eval(),
            transformer=WanTransformer3DModel(
                patch_size=(1, 2, 2),
                num_attention_heads=2,
                attention_head_dim=24,
                in_channels=LATENT_CHANNELS,
                out_channels=LATENT_CHANNELS,
                text_dim=TEXT_WIDTH,
                freq_dim=32,
                ffn_dim=64,
                num_layers=2,
                rope_max_seq_len=32,
            ).eval(),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),
        )


def build_toy_model(folder: Path, size: ToySize = SMALL, seed: int = 0) -> Path:
    """Saves the toy pipeline as an ordinary model directory with a `densedpo.json`."""
    build_toy_pipeline(seed).save_pretrained(folder)
    settings = {
        "num_frames": size.num_frames,
        "height": size.side,
        "width": size.side,
        "fps": 8.0,
        "max_sequence_length": MAX_SEQUENCE_LENGTH,
        "num_steps": 4,
        "guidance_scale": 3.0,
    }
    (folder / "densedpo.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def toy_frames(scene: Scene, size: ToySize = SMALL) -> np.ndarray:
    """The scene's first frames at the toy's size, uint8 [F, H, W, 3]."""
    step = 64 // size.side
    return np.ascontiguousarray(render(scene)[: size.num_frames, ::step, ::step])


def toy_scene(index: int) -> Scene:
    """The scene of toy clip number `index`."""
    return draw_scene(derive_seed("toy clip", index) % 2**62, split="train")


def add_toy_clips(
    root: Path, model, num_clips: int, *, size: ToySize = SMALL, splits: tuple[str, ...] = ("train",)
) -> None:
    """Writes clips of the world into a project, as `data add` would: clips.jsonl, prompts.jsonl, cached latents."""
    import hashlib

    from safetensors.torch import save_file

    from densedpo.core.records import Clip, Prompt, write_jsonl

    folder = root / "clips"
    cache = folder / "latents" / model.vae_fingerprint
    cache.mkdir(parents=True, exist_ok=True)
    clips, prompts = [], []
    for index in range(num_clips):
        scene, split = toy_scene(index), splits[index % len(splits)]
        frames = toy_frames(scene, size)
        content = hashlib.sha256(frames.tobytes()).hexdigest()
        save_file({"latents": model.encode_video(frames[None])[0].contiguous()}, cache / f"{content}.safetensors")
        clip = Clip(
            id=f"clip-{index:04d}",
            source=f"world/{index}",
            split=split,
            caption=scene.caption,
            video=f"videos/clip-{index:04d}.mp4",
            num_frames=size.num_frames,
            fps=8.0,
            height=size.side,
            width=size.side,
            pixel_scale=2,
            content=content,
            start_s=0.0,
            scene=asdict(scene),
        )
        clips.append(clip)
        prompts.append(
            Prompt(id=f"prompt-{index:04d}", caption=clip.caption, split=split, clip_id=clip.id, scene=clip.scene)
        )
    write_jsonl(folder / "clips.jsonl", clips)
    write_jsonl(folder / "prompts.jsonl", prompts)


def add_lora(model, seed: int = 0, scale: float = 0.2) -> None:
    """Puts a LoRA with non-zero weights on the model's denoiser."""
    import torch
    from peft import LoraConfig

    from densedpo.core.seeds import noise

    with seeded_init(seed):
        model.denoiser.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=list(model.lora_targets)))
    with torch.no_grad():
        for name, parameter in model.denoiser.named_parameters():
            if "lora_B" in name:
                parameter.copy_(scale * noise(tuple(parameter.shape), seed, "toy lora", name))
