"""The names that ComfyUI knows a denoiser's layers by, for LoRA files that it reads.

ComfyUI keeps the layer names of a model's first release, under `diffusion_model.`, and reads `lora_A`, `lora_B` and
`alpha` of each. diffusers renamed the layers; the table below is the way back.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final

from densedpo.core.errors import BadInput

if TYPE_CHECKING:
    from pathlib import Path

# the same renaming as in diffusers' loaders/lora_conversion_utils.py, the other way round
_WAN: Final = (
    (r"\.attn1\.", ".self_attn."),
    (r"\.attn2\.", ".cross_attn."),
    (r"\.add_k_proj$", ".k_img"),
    (r"\.add_v_proj$", ".v_img"),
    (r"\.to_([qkv])$", r".\1"),
    (r"\.to_out\.0$", ".o"),
    (r"\.ffn\.net\.0\.proj$", ".ffn.0"),
    (r"\.ffn\.net\.2$", ".ffn.2"),
)
_FAMILIES: Final = {"WanPipeline": _WAN, "WanImageToVideoPipeline": _WAN}
_KNOWN: Final = re.compile(r"blocks\.\d+\.(self_attn\.[qkvo]|cross_attn\.([qkvo]|[kv]_img)|ffn\.[02])")


def comfyui_name(model: Path, layer: str) -> str:
    """ComfyUI's name of a layer of the denoiser.

    Args:
        model: the diffusers directory of the base model.
        layer: as diffusers names it, such as `blocks.0.attn1.to_q`.

    Raises:
        BadInput: the names of this family, or of this layer, are not known.
    """
    family = str(json.loads((model / "model_index.json").read_text(encoding="utf-8")).get("_class_name"))
    if family not in _FAMILIES:
        raise BadInput(
            f"ComfyUI's layer names are known for {', '.join(_FAMILIES)}, not for {family}; export diffusers"
        )
    name = layer
    for pattern, replacement in _FAMILIES[family]:
        name = re.sub(pattern, replacement, name)
    if not _KNOWN.fullmatch(name):
        raise BadInput(f"ComfyUI's name of the layer {layer} is not known; export diffusers")
    return f"diffusion_model.{name}"
