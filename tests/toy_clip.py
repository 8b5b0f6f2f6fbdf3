"""CLIP's image encoder at toy size, with what brings an image to its size."""

from __future__ import annotations

from densedpo.core.seeds import seeded_init


def clip_vision():
    """A CLIP image encoder of three layers for images of 32x32."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    with seeded_init(3):
        return CLIPVisionModel(
            CLIPVisionConfig(
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=3,
                num_attention_heads=2,
                image_size=32,
                patch_size=16,
            )
        ).eval()


def clip_processor():
    """What brings an image to 32x32 for the encoder."""
    from transformers import CLIPImageProcessorPil

    return CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
