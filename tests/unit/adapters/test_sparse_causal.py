"""Sparse-causal attention against a mask written out, on plain tensors and in diffusers' own layers."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.transformers.transformer_wan import WanAttention, WanAttnProcessor
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, inject_adapter_in_model

from densedpo.adapters.sparse_causal import (
    Kernel,
    SparseCausalImages,
    SparseCausalTokens,
    attend,
    sparse_causal_mask,
    sparse_causal_of,
    use_sparse_causal,
)
from densedpo.core.errors import BadInput
from densedpo.core.seeds import noise, seeded_init
from toy import build_toy_pipeline

NUM_FRAMES, TOKENS = 5, 6


def by_hand(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, num_frames: int) -> torch.Tensor:
    """Frame by frame: softmax over the keys of the set of frames that it sees, in float64."""
    q, k, v = (each.double().unflatten(2, (num_frames, -1)) for each in (query, key, value))
    rows = []
    for frame in range(num_frames):
        seen = sorted({0, max(frame - 1, 0)})
        keys, values = k[:, :, seen].flatten(2, 3), v[:, :, seen].flatten(2, 3)
        weights = (q[:, :, frame] @ keys.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
        rows.append(weights @ values)
    return torch.cat(rows, dim=2).float()


def qkv(*shape: int, seed: int = 0) -> list[torch.Tensor]:
    return [noise(shape, seed, name) for name in "qkv"]


def test_the_mask_of_four_frames_is_written_by_hand() -> None:
    """Frames see {0}, {0}, {0, 1}, {0, 2}; two tokens each."""
    sees = torch.tensor([[1, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0]], dtype=torch.bool)
    expected = sees.repeat_interleave(2, 0).repeat_interleave(2, 1)
    assert torch.equal(sparse_causal_mask(4, 2), expected)


@settings(max_examples=30, deadline=None)
@given(
    batch=st.integers(1, 3),
    heads=st.integers(1, 3),
    frames=st.integers(1, 7),
    tokens=st.integers(1, 9),
    width=st.integers(1, 9),
    kernel=st.sampled_from(["gathered", "masked"]),
)
def test_it_is_the_reference_at_any_size(
    batch: int, heads: int, frames: int, tokens: int, width: int, kernel: Kernel
) -> None:
    """Values and the gradients by queries, keys and values, to 1e-5."""
    found_in, expected_in = ([x.requires_grad_() for x in qkv(batch, heads, frames * tokens, width)] for _ in range(2))
    found = attend(*found_in, num_frames=frames, kernel=kernel)
    expected = by_hand(*expected_in, frames)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    weights = noise(tuple(found.shape), "weights")
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    for one, other in zip(found_in, expected_in, strict=True):
        torch.testing.assert_close(one.grad, other.grad, atol=1e-5, rtol=0)


def test_keys_seen_twice_would_change_nothing() -> None:
    """Frame 1 sees frame 0 alone; frame 0's keys laid down twice give the same, which the released code does."""
    q, k, v = qkv(1, 2, 2 * TOKENS, 8)
    first, first_v = k[:, :, :TOKENS], v[:, :, :TOKENS]
    twice = torch.nn.functional.scaled_dot_product_attention(
        q[:, :, TOKENS:], torch.cat([first, first], 2), torch.cat([first_v, first_v], 2)
    )
    found = attend(q, k, v, num_frames=2, kernel="gathered")[:, :, TOKENS:]
    torch.testing.assert_close(found, twice, atol=1e-6, rtol=0)


def test_a_frame_does_not_see_itself_or_the_future() -> None:
    q, k, v = qkv(1, 1, NUM_FRAMES * TOKENS, 8)
    before = attend(q, k, v, num_frames=NUM_FRAMES, kernel="gathered").unflatten(2, (NUM_FRAMES, TOKENS))
    k, v = k.clone(), v.clone()
    k[:, :, 3 * TOKENS : 4 * TOKENS] += 1
    v[:, :, 3 * TOKENS : 4 * TOKENS] += 1
    after = attend(q, k, v, num_frames=NUM_FRAMES, kernel="gathered").unflatten(2, (NUM_FRAMES, TOKENS))
    changed = (after - before).abs().amax((0, 1, 3, 4)) > 1e-4
    assert changed.tolist() == [False, False, False, False, True]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # of torch's compiler itself
def test_the_block_mask_is_the_reference_where_flex_attention_runs() -> None:
    """Compiled on this CPU, without gradients; frames of 40 tokens do not fit its blocks of 128."""
    q, k, v = qkv(2, 2, 6 * 40, 16)
    torch.testing.assert_close(attend(q, k, v, num_frames=6, kernel="flex"), by_hand(q, k, v, 6), atol=1e-5, rtol=0)


def test_flex_attention_says_that_it_cannot_train_on_a_cpu() -> None:
    q, k, v = (x.requires_grad_() for x in qkv(1, 1, 4, 8))
    with pytest.raises(BadInput, match="no gradients on a CPU: train with the kernel 'gathered'"):
        attend(q, k, v, num_frames=2, kernel="flex")


def test_tokens_that_are_not_whole_frames_are_refused() -> None:
    with pytest.raises(BadInput, match="7 tokens are not those of 2 frames"):
        attend(*qkv(1, 1, 7, 4), num_frames=2, kernel="gathered")


def unet_layer() -> Attention:
    with seeded_init(0):
        return Attention(query_dim=12, heads=2, dim_head=8)


def with_lora(layer: torch.nn.Module) -> torch.nn.Module:
    """Adapters with weights that matter on queries, keys and values."""
    with seeded_init(1):
        inject_adapter_in_model(LoraConfig(r=2, target_modules=["to_q", "to_k", "to_v"]), layer)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if "lora_B" in name:
                parameter.copy_(noise(tuple(parameter.shape), name))
    return layer


@pytest.mark.parametrize("kernel", ["gathered", "masked"])
def test_a_unets_layer_with_lora_is_the_masked_reference_and_so_is_its_gradient(kernel: Kernel) -> None:
    """The reference is diffusers' own processor over whole clips as one sequence, with the mask as a bias."""
    layer, clips = with_lora(unet_layer()), 2
    x = noise((clips * NUM_FRAMES, TOKENS, 12), "x")
    bias = torch.zeros(NUM_FRAMES * TOKENS, NUM_FRAMES * TOKENS)
    bias.masked_fill_(~sparse_causal_mask(NUM_FRAMES, TOKENS), float("-inf"))
    whole = layer(x.reshape(clips, NUM_FRAMES * TOKENS, 12), attention_mask=bias.expand(clips * 2, -1, -1))
    expected = whole.reshape(x.shape)
    wanted = gradients(layer, expected)
    layer.set_processor(SparseCausalImages(num_frames=NUM_FRAMES, kernel=kernel))
    found = layer(x)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert len(wanted) == 6
    for name, gradient in gradients(layer, found).items():
        assert gradient.abs().max() > 1e-3, name
        torch.testing.assert_close(gradient, wanted[name], atol=1e-4, rtol=5e-4)


@pytest.mark.parametrize("kernel", ["gathered", "masked"])
def test_a_transformers_layer_with_lora_is_the_masked_reference_and_so_is_its_gradient(kernel: Kernel) -> None:
    """The reference is diffusers' own processor with the mask, after the same rotary positions."""
    with seeded_init(0):
        layer = with_lora(WanAttention(dim=12, heads=2, dim_head=8))
    x = noise((2, NUM_FRAMES * TOKENS, 12), "x")
    angles = noise((1, NUM_FRAMES * TOKENS, 1, 4), "angles").repeat_interleave(2, -1)
    rotary = (angles.cos(), angles.sin())
    layer.set_processor(WanAttnProcessor())
    expected = layer(x, None, sparse_causal_mask(NUM_FRAMES, TOKENS), rotary)
    wanted = gradients(layer, expected)
    layer.set_processor(SparseCausalTokens(num_frames=NUM_FRAMES, kernel=kernel))
    found = layer(x, None, None, rotary)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert len(wanted) == 6
    for name, gradient in gradients(layer, found).items():
        assert gradient.abs().max() > 1e-3, name
        torch.testing.assert_close(gradient, wanted[name], atol=1e-4, rtol=5e-4)


def gradients(layer: torch.nn.Module, out: torch.Tensor) -> dict[str, torch.Tensor]:
    trained = {name: p for name, p in layer.named_parameters() if "lora_" in name}
    return dict(zip(trained, torch.autograd.grad(out.square().sum(), list(trained.values())), strict=True))


def test_a_transformer_becomes_sparse_causal_and_says_so() -> None:
    denoiser = build_toy_pipeline().transformer
    assert sparse_causal_of(denoiser) == "full"
    assert use_sparse_causal(denoiser, num_frames=3) == 2
    assert sparse_causal_of(denoiser) == "gathered"
    denoiser.blocks[0].attn1.set_processor(WanAttnProcessor())
    assert sparse_causal_of(denoiser) == "mixed"
    x = noise((1, 16, 3, 4, 4), "x")
    call = {"timestep": torch.tensor([500.0]), "encoder_hidden_states": noise((1, 4, 32), "text")}
    with torch.no_grad():
        full = build_toy_pipeline().transformer(x, **call).sample
        use_sparse_causal(denoiser, num_frames=3, kernel="gathered")
        gathered = denoiser(x, **call).sample
        use_sparse_causal(denoiser, num_frames=3, kernel="masked")
        masked = denoiser(x, **call).sample
    torch.testing.assert_close(gathered, masked, atol=1e-5, rtol=0)
    assert (gathered - full).abs().max() > 1e-4


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(BadInput, match="a Linear has no self-attention"):
        use_sparse_causal(torch.nn.Linear(2, 2), num_frames=2)
    layer = unet_layer()
    layer.set_processor(SparseCausalImages(num_frames=4, kernel="gathered"))
    with pytest.raises(BadInput, match="for clips of 4 frames got 6 frames"):
        layer(noise((6, 3, 12), "x"))
