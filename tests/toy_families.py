"""Toy model directories of every family: real classes of diffusers and transformers, random weights, no network.

Each family says how its pipeline lays out latents, so that one contract can be tested over all of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from densedpo.core.seeds import noise, seeded_init
from toy import MAX_SEQUENCE_LENGTH, TEXT_WIDTH, build_tokenizer, build_toy_pipeline
from toy_animatediff import build_animatediff, frame_by_frame
from toy_clip import clip_processor, clip_vision

SETTINGS = {
    "num_frames": 9,
    "height": 32,
    "width": 32,
    "fps": 8.0,
    "max_sequence_length": MAX_SEQUENCE_LENGTH,
    "num_steps": 4,
    "guidance_scale": 3.0,
}


def as_they_are(latents: torch.Tensor, t: float) -> torch.Tensor:
    """Latents of a family whose layout and noise path are the package's."""
    return latents


def noised_by_flow(scheduler, sample: torch.Tensor, eps: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
    """The noising of a flow-matching scheduler that a pipeline has run to its end."""
    scheduler.set_begin_index(None)  # else it would noise to its own last level
    return scheduler.scale_noise(sample, timesteps, eps)


def plain_encode(pipeline, video: torch.Tensor) -> torch.Tensor:
    """Raw latents of video by the autoencoder alone."""
    with torch.no_grad():
        return pipeline.vae.encode(video).latent_dist.mode()


def plain_decode(pipeline, raw: torch.Tensor) -> torch.Tensor:
    """Video of raw latents by the autoencoder alone."""
    with torch.no_grad():
        return pipeline.vae.decode(raw).sample


@dataclass(frozen=True, kw_only=True, slots=True)
class ToyFamily:
    """One family at toy size.

    Attributes:
        to_pipeline: from `B C F H W` on the flow path at t to what the pipeline calls latents.
        from_pipeline: the way back.
        call: further arguments of the pipeline's call.
        normalise: from raw latents of the autoencoder to normalised ones, written out from its config.
        encode: the autoencoder's raw latents of video in [-1, 1], the posterior's mode.
        decode: the pipeline's way from raw latents to video in [-1, 1].
        adapter_call: further arguments of the pipeline's `load_lora_weights`.
        noised: the scheduler's noising of clean latents at its timesteps.
        guidance_argument: what the pipeline calls the scale of guidance by a second pass with an empty prompt.
        last_level: t of the highest level of four or five steps, to 0.03; below 1 where it ends short of pure noise.
    """

    name: str
    build: Callable[[], object]
    settings: dict[str, object]
    call: dict[str, object]
    normalise: Callable[[object, torch.Tensor], torch.Tensor]
    to_pipeline: Callable[[torch.Tensor, float], torch.Tensor] = as_they_are
    from_pipeline: Callable[[torch.Tensor, float], torch.Tensor] = as_they_are
    encode: Callable[[object, torch.Tensor], torch.Tensor] = plain_encode
    decode: Callable[[object, torch.Tensor], torch.Tensor] = plain_decode
    noised: Callable[[object, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor] = noised_by_flow
    guidance_argument: str = "guidance_scale"
    last_level: float = 1.0
    adapter_call: dict[str, object] = field(default_factory=dict)

    def save(self, folder: Path) -> Path:
        """Writes the model directory with its `densedpo.json`."""
        pipeline = self.build()
        pipeline.save_pretrained(folder)
        (folder / "densedpo.json").write_text(json.dumps(self.settings), encoding="utf-8")
        return folder


def t5_encoder(num_words: int):
    """A T5 encoder of one layer."""
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(
        T5Config(
            vocab_size=num_words,
            d_model=TEXT_WIDTH,
            d_kv=8,
            d_ff=64,
            num_layers=1,
            num_heads=4,
            feed_forward_proj="gated-gelu",
            pad_token_id=0,
            eos_token_id=1,
        )
    ).eval()


def build_cogvideox(**changes: object):
    """A random `CogVideoXPipeline` with rotary positions and the schedule of the released models.

    Args:
        changes: to the transformer's config.
    """
    from diffusers import (
        AutoencoderKLCogVideoX,
        CogVideoXDDIMScheduler,
        CogVideoXPipeline,
        CogVideoXTransformer3DModel,
    )

    tokenizer = build_tokenizer()
    config = {
        "num_attention_heads": 4,
        "attention_head_dim": 16,
        "in_channels": 4,
        "out_channels": 4,
        "time_embed_dim": 16,
        "text_embed_dim": TEXT_WIDTH,
        "num_layers": 2,
        "sample_width": 4,
        "sample_height": 4,
        "sample_frames": 9,
        "patch_size": 2,
        "temporal_compression_ratio": 4,
        "max_text_seq_length": MAX_SEQUENCE_LENGTH,
        "use_rotary_positional_embeddings": True,
    } | changes
    with seeded_init(0):
        return CogVideoXPipeline(
            tokenizer=tokenizer,
            text_encoder=t5_encoder(len(tokenizer)),
            vae=AutoencoderKLCogVideoX(
                block_out_channels=(8, 8, 8, 8),
                latent_channels=4,
                layers_per_block=1,
                norm_num_groups=2,
                temporal_compression_ratio=4,
                sample_height=32,
                sample_width=32,
                scaling_factor=0.7,
            ).eval(),
            transformer=CogVideoXTransformer3DModel(**config).eval(),
            scheduler=CogVideoXDDIMScheduler(
                prediction_type="v_prediction",
                rescale_betas_zero_snr=True,
                timestep_spacing="trailing",
                snr_shift_scale=3.0,
                clip_sample=False,
            ),
        )


def norm_of_path(t: float) -> float:
    """n of the flow point x_t = n z: sqrt((1-t)^2 + t^2)."""
    return float(((1 - t) ** 2 + t**2) ** 0.5)


COGVIDEOX = ToyFamily(
    name="CogVideoX",
    build=build_cogvideox,
    settings=SETTINGS,
    call={"negative_prompt": "", "max_sequence_length": MAX_SEQUENCE_LENGTH},
    normalise=lambda vae, raw: raw * 0.7,
    to_pipeline=lambda x, t: x.permute(0, 2, 1, 3, 4) / norm_of_path(t),
    from_pipeline=lambda z, t: z.permute(0, 2, 1, 3, 4) * norm_of_path(t),
    noised=lambda scheduler, sample, eps, timesteps: scheduler.add_noise(sample, eps, timesteps),
)

# 13 frames are 4 latent frames, two to a token; and the smaller model, whose positions are sines in its transformer
VARIANTS = {
    "CogVideoX 1.5": replace(
        COGVIDEOX,
        build=lambda: build_cogvideox(patch_size_t=2, patch_bias=False, sample_frames=13),
        settings={**SETTINGS, "num_frames": 13},
    ),
    "CogVideoX 2B": replace(COGVIDEOX, build=lambda: build_cogvideox(use_rotary_positional_embeddings=False)),
}


def build_ltx():
    """A random `LTXPipeline` whose decoder takes a timestep and whose schedule shifts with the number of tokens."""
    from diffusers import (
        AutoencoderKLLTXVideo,
        FlowMatchEulerDiscreteScheduler,
        LTXPipeline,
        LTXVideoTransformer3DModel,
    )

    tokenizer = build_tokenizer()
    with seeded_init(0):
        vae = AutoencoderKLLTXVideo(
            latent_channels=8,
            block_out_channels=(8, 8, 8, 8),
            decoder_block_out_channels=(8, 8, 8, 8),
            layers_per_block=(1, 1, 1, 1, 1),
            decoder_layers_per_block=(1, 1, 1, 1, 1),
            spatio_temporal_scaling=(True, True, False, False),
            decoder_spatio_temporal_scaling=(True, True, False, False),
            timestep_conditioning=True,
            patch_size=1,
            patch_size_t=1,
        ).eval()
        vae.latents_mean.copy_(torch.linspace(-0.1, 0.1, 8))
        vae.latents_std.copy_(torch.linspace(0.5, 1.5, 8))
        return LTXPipeline(
            tokenizer=tokenizer,
            text_encoder=t5_encoder(len(tokenizer)),
            vae=vae,
            transformer=LTXVideoTransformer3DModel(
                in_channels=8,
                out_channels=8,
                num_attention_heads=4,
                attention_head_dim=16,
                cross_attention_dim=64,
                num_layers=2,
                caption_channels=TEXT_WIDTH,
            ).eval(),
            scheduler=FlowMatchEulerDiscreteScheduler(
                use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, shift_terminal=0.1
            ),
        )


def decode_with_timestep(pipeline, raw: torch.Tensor) -> torch.Tensor:
    """As `LTXPipeline` decodes with decode_timestep 0.05 and the noise of scale 0.025 that the adapter fixes."""
    noisy = (1 - 0.025) * raw + 0.025 * noise(tuple(raw.shape[1:]), "decode")
    with torch.no_grad():
        return pipeline.vae.decode(noisy, torch.tensor([0.05]), return_dict=False)[0]


LTX = ToyFamily(
    name="LTX-Video",
    build=build_ltx,
    settings=SETTINGS,
    call={"negative_prompt": "", "max_sequence_length": MAX_SEQUENCE_LENGTH, "frame_rate": 8.0},
    normalise=lambda vae, raw: (raw - vae.latents_mean.view(1, -1, 1, 1, 1)) / vae.latents_std.view(1, -1, 1, 1, 1),
    # tokens in the order of frames, rows, columns
    to_pipeline=lambda x, t: x.flatten(2).transpose(1, 2),
    from_pipeline=lambda tokens, t: tokens.transpose(1, 2).unflatten(2, (3, 8, 8)),
    decode=decode_with_timestep,
)


def build_hunyuan():
    """A random `HunyuanVideoPipeline` with embedded guidance and two text encoders."""
    from diffusers import (
        AutoencoderKLHunyuanVideo,
        FlowMatchEulerDiscreteScheduler,
        HunyuanVideoPipeline,
        HunyuanVideoTransformer3DModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, LlamaConfig, LlamaModel

    tokenizer = build_tokenizer()
    size = {"hidden_size": TEXT_WIDTH, "intermediate_size": 64, "num_attention_heads": 4, "vocab_size": len(tokenizer)}
    with seeded_init(0):
        return HunyuanVideoPipeline(
            tokenizer=tokenizer,
            text_encoder=LlamaModel(
                LlamaConfig(
                    num_hidden_layers=4, num_key_value_heads=4, bos_token_id=1, eos_token_id=1, pad_token_id=0, **size
                )
            ).eval(),
            tokenizer_2=build_tokenizer(),
            text_encoder_2=CLIPTextModel(
                CLIPTextConfig(num_hidden_layers=2, bos_token_id=1, eos_token_id=1, pad_token_id=0, **size)
            ).eval(),
            vae=AutoencoderKLHunyuanVideo(
                latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4
            ).eval(),
            transformer=HunyuanVideoTransformer3DModel(
                in_channels=4,
                out_channels=4,
                num_attention_heads=2,
                attention_head_dim=20,
                num_layers=1,
                num_single_layers=1,
                num_refiner_layers=1,
                patch_size=1,
                patch_size_t=1,
                guidance_embeds=True,
                text_embed_dim=TEXT_WIDTH,
                pooled_projection_dim=TEXT_WIDTH,
                rope_axes_dim=(4, 8, 8),
            ).eval(),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
        )


HUNYUAN = ToyFamily(
    name="HunyuanVideo",
    build=build_hunyuan,
    settings={**SETTINGS, "prompt_template": "a small {}", "prompt_crop": 2, "embedded_guidance": 4.0},
    call={
        "negative_prompt": "",
        "max_sequence_length": MAX_SEQUENCE_LENGTH,
        "prompt_template": {"template": "a small {}", "crop_start": 2},
        "guidance_scale": 4.0,
    },
    normalise=lambda vae, raw: raw * vae.config.scaling_factor,
    guidance_argument="true_cfg_scale",
)


def wan_normalise(vae, raw: torch.Tensor) -> torch.Tensor:
    """By the statistics in the autoencoder's config."""
    mean, std = (torch.tensor(vae.config[key]).view(1, -1, 1, 1, 1) for key in ("latents_mean", "latents_std"))
    return (raw - mean) / std


def build_wan_two_experts():
    """A random `WanPipeline` in the layout of Wan 2.2 A14B: a second denoiser below the boundary."""
    pipeline, second = build_toy_pipeline(0), build_toy_pipeline(1)
    pipeline.register_modules(transformer_2=second.transformer)
    pipeline.register_to_config(boundary_ratio=0.875)
    pipeline.scheduler.register_to_config(shift=3.0)
    return pipeline


WAN_CALL = {"negative_prompt": "", "max_sequence_length": MAX_SEQUENCE_LENGTH}
WAN_2_1 = ToyFamily(name="Wan 2.1", build=build_toy_pipeline, settings=SETTINGS, call=WAN_CALL, normalise=wan_normalise)
WAN_TWO_EXPERTS = ToyFamily(
    name="Wan 2.2 A14B",
    build=build_wan_two_experts,
    settings=SETTINGS,
    call=WAN_CALL,
    normalise=wan_normalise,
    adapter_call={"load_into_transformer_2": True},
)


def build_wan_ti2v():
    """A random `WanPipeline` in the layout of Wan 2.2 TI2V-5B: a residual autoencoder, a timestep for each token."""
    from diffusers import AutoencoderKLWan, WanTransformer3DModel

    pipeline = build_toy_pipeline(0)
    with seeded_init(0):
        vae = AutoencoderKLWan(
            base_dim=8,
            z_dim=48,
            in_channels=12,
            out_channels=12,
            is_residual=True,
            patch_size=2,
            latents_mean=[0.01 * (c - 24) for c in range(48)],
            latents_std=[0.5 + 0.01 * c for c in range(48)],
            dim_mult=[1, 1, 1, 1],
            num_res_blocks=1,
            scale_factor_spatial=16,
            scale_factor_temporal=4,
            temperal_downsample=[False, True, True],
        ).eval()
        config = {**pipeline.transformer.config, "in_channels": 48, "out_channels": 48}
        transformer = WanTransformer3DModel.from_config(config).eval()
    pipeline.register_modules(vae=vae, transformer=transformer)
    pipeline.register_to_config(expand_timesteps=True)
    return pipeline


WAN_TI2V = ToyFamily(
    name="Wan 2.2 TI2V-5B",
    build=build_wan_ti2v,
    settings={**SETTINGS, "height": 64, "width": 64},
    call=WAN_CALL,
    normalise=wan_normalise,
)


ANIMATEDIFF = ToyFamily(
    name="AnimateDiff",
    build=lambda: build_animatediff(steps_offset=1),
    settings=SETTINGS,
    call={},
    normalise=lambda vae, raw: raw * 0.7,
    to_pipeline=lambda x, t: x / norm_of_path(t),
    from_pipeline=lambda z, t: z * norm_of_path(t),
    encode=lambda pipeline, video: frame_by_frame(lambda x: pipeline.vae.encode(x).latent_dist.mode(), video),
    decode=lambda pipeline, raw: frame_by_frame(lambda z: pipeline.vae.decode(z).sample, raw),
    noised=lambda scheduler, sample, eps, timesteps: scheduler.add_noise(sample, eps, timesteps),
    last_level=0.82,
)
VARIANTS["AnimateDiff trailing"] = replace(
    ANIMATEDIFF, build=lambda: build_animatediff(timestep_spacing="trailing", beta_schedule="linear"), last_level=0.96
)

FAMILIES = {
    family.name: family for family in (COGVIDEOX, LTX, HUNYUAN, WAN_2_1, WAN_TWO_EXPERTS, WAN_TI2V, ANIMATEDIFF)
}


def with_image(build: Callable[[], object], pipeline: str, **parts: object) -> Callable[[], object]:
    """The components of a text-to-video pipeline, and these, as the image-to-video pipeline of that name."""

    def built():
        import diffusers

        base = build()
        config = {key: base.config[key] for key in ("expand_timesteps", "boundary_ratio") if key in base.config}
        made = {name: part() for name, part in parts.items()}
        return getattr(diffusers, pipeline)(**base.components, **config, **made)

    return built


def build_wan_beside(*, two_experts: bool = False, **changes: object):
    """A random `WanPipeline` whose denoisers take four channels of a mask and a clip's latents beside x_t.

    Args:
        changes: to the transformers' config.
    """
    from diffusers import WanTransformer3DModel

    pipeline = build_wan_two_experts() if two_experts else build_toy_pipeline(0)
    for name in ("transformer", "transformer_2")[: 1 + two_experts]:
        config = {**getattr(pipeline, name).config, "in_channels": 16 + 4 + 16, **changes}
        with seeded_init(len(name)):
            pipeline.register_modules(**{name: WanTransformer3DModel.from_config(config).eval()})
    return pipeline


def build_cogvideox_beside(**changes: object):
    """`build_cogvideox` with the image's latents beside, and an autoencoder whose posterior is its mode.

    The pipeline draws the image's latents from the posterior, where the adapter takes the mode.
    """
    pipeline = build_cogvideox(in_channels=8, **changes)
    last = pipeline.vae.encoder.conv_out.conv
    with torch.no_grad():
        last.weight[4:].zero_()
        last.bias[4:].fill_(-60.0)
    return pipeline


# image-to-video: the pipelines that continue a first frame
IMAGE_FAMILIES = {
    family.name: family
    for family in (
        replace(WAN_TI2V, name="Wan TI2V image", build=with_image(build_wan_ti2v, "WanImageToVideoPipeline")),
        replace(LTX, name="LTX image", build=with_image(build_ltx, "LTXImageToVideoPipeline")),
        replace(
            COGVIDEOX,
            name="CogVideoX image",
            build=with_image(build_cogvideox_beside, "CogVideoXImageToVideoPipeline"),
        ),
        replace(
            COGVIDEOX,
            name="CogVideoX 1.5 image",
            build=with_image(
                lambda: build_cogvideox_beside(patch_size_t=2, patch_bias=False, sample_frames=13, ofs_embed_dim=16),
                "CogVideoXImageToVideoPipeline",
            ),
            settings={**SETTINGS, "num_frames": 13},
        ),
        replace(
            WAN_2_1,
            name="Wan 2.1 image",
            build=with_image(
                lambda: build_wan_beside(image_dim=16, added_kv_proj_dim=48),
                "WanImageToVideoPipeline",
                image_encoder=clip_vision,
                image_processor=clip_processor,
            ),
        ),
        replace(
            WAN_TWO_EXPERTS,
            name="Wan A14B image",
            build=with_image(lambda: build_wan_beside(two_experts=True), "WanImageToVideoPipeline"),
        ),
    )
}
