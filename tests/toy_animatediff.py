"""A toy AnimateDiff pipeline, and what takes a clip through an autoencoder of images."""

from __future__ import annotations

from collections.abc import Callable

import torch

from densedpo.core.seeds import seeded_init
from toy import TEXT_WIDTH, build_tokenizer


def build_animatediff(**schedule: object):
    """A random `AnimateDiffPipeline` of two levels, with Stable Diffusion's noise levels spaced as asked.

    Args:
        schedule: changes to the scheduler's config.
    """
    from diffusers import AnimateDiffPipeline, AutoencoderKL, DDIMScheduler, MotionAdapter, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    tokenizer = build_tokenizer()
    with seeded_init(0):
        unet = UNet2DConditionModel(
            sample_size=16,
            block_out_channels=(16, 16),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=TEXT_WIDTH,
            norm_num_groups=2,
            attention_head_dim=4,
        )
        motion = MotionAdapter(
            block_out_channels=(16, 16),
            motion_layers_per_block=1,
            motion_norm_num_groups=2,
            motion_num_attention_heads=4,
        )
        text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=TEXT_WIDTH,
                intermediate_size=64,
                num_hidden_layers=2,
                num_attention_heads=4,
                bos_token_id=1,
                eos_token_id=1,
                pad_token_id=0,
            )
        )
        vae = AutoencoderKL(
            block_out_channels=(8, 8),
            down_block_types=["DownEncoderBlock2D"] * 2,
            up_block_types=["UpDecoderBlock2D"] * 2,
            latent_channels=4,
            norm_num_groups=2,
            sample_size=32,
            scaling_factor=0.7,
        )
        pipeline = AnimateDiffPipeline(
            tokenizer=tokenizer,
            text_encoder=text_encoder.eval(),
            vae=vae.eval(),
            unet=unet.eval(),
            motion_adapter=motion,
            scheduler=DDIMScheduler(
                **{"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False}
                | schedule
            ),
        )
    pipeline.unet.eval()
    return pipeline


def frame_by_frame(code: Callable[[torch.Tensor], torch.Tensor], clips: torch.Tensor) -> torch.Tensor:
    """`B C F H W` through what takes images."""
    with torch.no_grad():
        return torch.stack([code(frame) for frame in clips.unbind(2)], dim=2)
