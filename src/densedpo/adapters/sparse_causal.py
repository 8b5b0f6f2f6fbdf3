"""Sparse-causal attention: a frame's queries see the keys and values of the first frame and of the frame before.

Frame 0 sees itself, frame 1 sees frame 0, and frame i sees frames 0 and i-1: in no case itself again or what comes
later (HuViDPO, 2502.01690, by its released code; first in Tune-A-Video, 2212.11565, equation 4). Where the frame before
is the first one its keys count once; seen twice they would give the same, as a softmax over every key twice does. The
cost grows linearly with the number of frames, where that of attention over all tokens is quadratic.

Three kernels compute it. `gathered` lays the keys that a frame sees beside it and attends frame by frame: linear,
exact, with gradients, everywhere. `flex` is the pattern as a block mask of FlexAttention, compiled: linear up to the
size of its blocks, and on a CPU without gradients. `masked` attends over all tokens with a mask: quadratic, the
reference. Which one runs is the caller's word, never a choice made here, and `sparse_causal_of` reads it back.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Final, Literal, assert_never, get_args

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.transformers.transformer_wan import WanAttention
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention

from densedpo.core.errors import BadInput

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor

    Heads = Float[Tensor, "batch head token width"]
    Features = Float[Tensor, "batch token width"]
    Rotary = tuple[Tensor, Tensor]

Kernel = Literal["gathered", "flex", "masked"]
KERNELS: Final[tuple[Kernel, ...]] = get_args(Kernel)
ATTENTION: Final = (Attention, WanAttention)


def sparse_causal_mask(num_frames: int, tokens_per_frame: int) -> Bool[Tensor, "token token"]:
    """Which key (column) a query (row) sees; tokens are in the order of frames."""
    frame = torch.arange(num_frames).repeat_interleave(tokens_per_frame)
    return (frame == 0) | (frame == frame[:, None] - 1)


def attend(query: Heads, key: Heads, value: Heads, *, num_frames: int, kernel: Kernel) -> Heads:
    """Sparse-causal attention over the tokens of whole clips.

    Args:
        query: tokens in the order of frames, as many of each; keys and values the same.

    Raises:
        BadInput: the tokens are not those of `num_frames` frames, or the kernel does not run here.
    """
    if query.shape != key.shape or query.shape[2] % num_frames:
        raise BadInput(f"{query.shape[2]} tokens are not those of {num_frames} frames")
    match kernel:
        case "gathered":
            return _gathered(query, key, value, num_frames)
        case "flex":
            return _flex(query, key, value, num_frames)
        case "masked":
            mask = sparse_causal_mask(num_frames, query.shape[2] // num_frames).to(query.device)
            return scaled_dot_product_attention(query, key, value, attn_mask=mask)
        case _ as unknown:
            assert_never(unknown)


def _gathered(query: Heads, key: Heads, value: Heads, num_frames: int) -> Heads:
    """Two calls: frames 0 and 1 see frame 0; every later one sees frame 0 and the one before."""
    batch, heads, num_tokens, _ = query.shape
    shape = (batch, heads, num_frames, num_tokens // num_frames, -1)
    q, k, v = (each.reshape(shape).transpose(1, 2) for each in (query, key, value))
    early = scaled_dot_product_attention(q[:, :2].transpose(1, 2).flatten(2, 3), k[:, 0], v[:, 0])
    if num_frames <= 2:
        return early
    num_later = num_frames - 2
    k, v = (torch.cat([each[:, :1].expand(-1, num_later, -1, -1, -1), each[:, 1:-1]], dim=3) for each in (k, v))
    later = scaled_dot_product_attention(q[:, 2:].flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1))
    later = later.reshape(batch, num_later, *later.shape[1:]).transpose(1, 2).flatten(2, 3)
    return torch.cat([early, later], dim=2)


def _flex(query: Heads, key: Heads, value: Heads, num_frames: int) -> Heads:
    tensors = (query, key, value)
    if query.device.type == "cpu" and torch.is_grad_enabled() and any(each.requires_grad for each in tensors):
        raise BadInput("FlexAttention has no gradients on a CPU: train with the kernel 'gathered' or 'masked'")
    mask = _block_mask(num_frames, query.shape[2] // num_frames, query.device)
    return _compiled_flex()(query, key, value, block_mask=mask)


@lru_cache(maxsize=32)
def _block_mask(num_frames: int, tokens_per_frame: int, device: torch.device) -> BlockMask:
    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:  # noqa: ARG001
        frame, seen = query // tokens_per_frame, key // tokens_per_frame
        return (seen == 0) | (seen == frame - 1)

    num_tokens = num_frames * tokens_per_frame
    return create_block_mask(sees, None, None, num_tokens, num_tokens, device=device)


@cache
def _compiled_flex() -> Callable[..., Tensor]:
    """Compiled once: uncompiled, FlexAttention keeps the scores of every query and key."""
    compiled: Callable[..., Tensor] = torch.compile(flex_attention)
    return compiled


class SparseCausalImages:
    """An attention processor for a UNet's spatial self-attention over the frames of clips as a batch of images."""

    _attention_backend = None  # diffusers' choice of a kernel does not reach in here

    def __init__(self, *, num_frames: int, kernel: Kernel) -> None:
        """Keeps what a call needs.

        Args:
            num_frames: of one clip; the batch is clips times frames.
        """
        self.num_frames, self.kernel = num_frames, kernel

    def __call__(
        self,
        attn: Attention,
        hidden_states: Features,
        encoder_hidden_states: Features | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,  # noqa: ARG002
    ) -> Features:
        """What diffusers calls in place of its own processor, with the layer's own projections and their LoRA."""
        if encoder_hidden_states is not None or attention_mask is not None:
            raise ValueError("this is self-attention without a mask")
        num_images, num_tokens, _ = hidden_states.shape
        if num_images % self.num_frames:
            raise BadInput(f"sparse-causal attention for clips of {self.num_frames} frames got {num_images} frames")
        projected = (attn.to_q(hidden_states), attn.to_k(hidden_states), attn.to_v(hidden_states))
        query, key, value = (
            each.reshape(-1, self.num_frames * num_tokens, attn.heads, each.shape[-1] // attn.heads).transpose(1, 2)
            for each in projected
        )
        found = attend(query, key, value, num_frames=self.num_frames, kernel=self.kernel)
        out = found.transpose(1, 2).reshape(num_images, num_tokens, -1)
        return _joined(attn, out)


class SparseCausalTokens:
    """An attention processor for Wan's self-attention over all tokens of a clip, in the order of frames."""

    _attention_backend = None
    _parallel_config = None

    def __init__(self, *, num_frames: int, kernel: Kernel) -> None:
        """Keeps what a call needs.

        Args:
            num_frames: latent frames of one clip.
        """
        self.num_frames, self.kernel = num_frames, kernel

    def __call__(
        self,
        attn: WanAttention,
        hidden_states: Features,
        encoder_hidden_states: Features | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: Rotary | None = None,
    ) -> Features:
        """What diffusers calls in place of its own processor, with the layer's own projections and their LoRA."""
        if encoder_hidden_states is not None or attention_mask is not None:
            raise ValueError("this is self-attention without a mask")
        query, key = attn.norm_q(attn.to_q(hidden_states)), attn.norm_k(attn.to_k(hidden_states))
        by_head = [each.unflatten(2, (attn.heads, -1)) for each in (query, key, attn.to_v(hidden_states))]
        if rotary_emb is not None:
            by_head[:2] = [_rotated(each, *rotary_emb) for each in by_head[:2]]
        query, key, value = (each.transpose(1, 2) for each in by_head)
        found = attend(query, key, value, num_frames=self.num_frames, kernel=self.kernel)
        return _joined(attn, found.transpose(1, 2).flatten(2))


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Each pair of neighbouring channels turned by its angle; diffusers writes every angle twice."""
    even, odd, cos, sin = x[..., 0::2], x[..., 1::2], cos[..., 0::2], sin[..., 1::2]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2).type_as(x)


def _joined(attn: Attention | WanAttention, heads: Features) -> Features:
    out: Features = attn.to_out[1](attn.to_out[0](heads))
    return out


def use_sparse_causal(denoiser: torch.nn.Module, *, num_frames: int, kernel: Kernel = "gathered") -> int:
    """Makes the self-attention of a denoiser sparse-causal; returns how many layers that are.

    Of a UNet those are the spatial layers, not those of its motion modules, which attend over time at one place. The
    weights stay, but what they compute is another function: a model that was not trained so has to be.

    Args:
        num_frames: latent frames of the clips.

    Raises:
        BadInput: the denoiser has no such layers, or no such kernel.
    """
    if kernel not in KERNELS:
        raise BadInput(f"sparse-causal attention: no kernel {kernel!r}; there are {', '.join(KERNELS)}")
    layers = _self_attention(denoiser)
    if not layers:
        raise BadInput(f"sparse-causal attention: a {type(denoiser).__name__} has no self-attention that takes it")
    for layer in layers:
        kind = SparseCausalTokens if isinstance(layer, WanAttention) else SparseCausalImages
        layer.set_processor(kind(num_frames=num_frames, kernel=kernel))
    return len(layers)


def set_num_frames(denoiser: torch.nn.Module, num_frames: int) -> None:
    """Tells the layers that are sparse-causal that the clips of the next forward have another length."""
    for layer in _self_attention(denoiser):
        if isinstance(layer.processor, SparseCausalImages | SparseCausalTokens):
            layer.processor.num_frames = num_frames


def sparse_causal_of(denoiser: torch.nn.Module) -> str:
    """What is in force, read back from the layers: `full`, or the kernel, or `mixed` where layers differ."""
    found = {
        layer.processor.kernel if isinstance(layer.processor, SparseCausalImages | SparseCausalTokens) else "full"
        for layer in _self_attention(denoiser)
    }
    return found.pop() if len(found) == 1 else "mixed" if found else "full"


def _self_attention(denoiser: torch.nn.Module) -> list[Attention | WanAttention]:
    """The layers of `attn1` over the places of a clip.

    A UNet's `attn1` must be plain: what else diffusers' layer can do (norms, masks, residuals) its UNets do not use.
    """
    return [
        module
        for name, module in denoiser.named_modules()
        if name.endswith(".attn1") and ".motion_modules." not in f".{name}" and _is_plain(module)
    ]


def _is_plain(module: torch.nn.Module) -> bool:
    if isinstance(module, WanAttention):
        return not module.fused_projections
    if not isinstance(module, Attention):
        return False
    extra = (module.group_norm, module.spatial_norm, module.norm_q, module.norm_k, module.norm_cross)
    return not any(extra) and not module.residual_connection and module.rescale_output_factor == 1
