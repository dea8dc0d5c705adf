"""A LoRA as files for others: diffusers' layout, and that of kohya's trainer and web UIs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ddim_core.common.late import late
from ddim_core.lora.adapters import ADAPTER, parts
from ddim_core.lora.specs import LoraSpec
from ddim_core.text2image.families import SD, XL, family_of_networks

if TYPE_CHECKING:
    import diffusers
    import peft
else:
    diffusers = late("diffusers")
    peft = late("peft")

DIFFUSERS_NAME = "pytorch_lora_weights.safetensors"
# Trainers that wrote these files before transformers 5 have this level in a text encoder's names.
TEXT_LEVEL = "text_model."
# By family, the beginnings of kohya's names for the layers of each part. SD3 and Flux have none
# here: kohya's trainer names the layers of their authors' networks, which join what diffusers' have
# apart.
KOHYA_PREFIXES = {
    SD.pipeline: {"unet": "lora_unet", "text_encoder": "lora_te"},
    XL.pipeline: {
        "unet": "lora_unet", "text_encoder": "lora_te1", "text_encoder_2": "lora_te2",
    },
}  # fmt: skip
KOHYA_NAMES = {
    "A.weight": "lora_down.weight",
    "B.weight": "lora_up.weight",
    "magnitude_vector": "dora_scale",
}
DORA = "magnitude_vector"


def save_diffusers(folder: Path, network: nn.Module, encoders: Sequence[Any]) -> Path:
    """Writes `pytorch_lora_weights.safetensors`, for `pipeline.load_lora_weights(folder)`.

    With its metadata: without, alpha other than the rank and rank-stabilised scaling would be read
    back wrong, and silently.

    Args:
        folder: Made if it is not there.
        network, encoders: The networks that carry the LoRA.
    """
    weights, metadata = {}, {}
    for part, module in _carrying(network, encoders):
        weights[f"{part}_lora_layers"] = {
            # transformers reads DoRA's lengths under this name only, peft under both.
            name.replace(DORA, f"{DORA}.weight") if part.startswith("text") else name: tensor
            for name, tensor in _portable(part, module).items()
        }
        config = module.peft_config[ADAPTER].to_dict()
        metadata[f"{part}_lora_adapter_metadata"] = {
            name: sorted(value) if isinstance(value, set) else value
            for name, value in config.items()
        }
    pipeline = getattr(diffusers, family_of_networks(network, len(encoders)).pipeline)
    pipeline.save_lora_weights(folder, **weights, **metadata)
    return folder / DIFFUSERS_NAME


def has_kohya(network: nn.Module, encoders: Sequence[Any]) -> bool:
    """Tells whether kohya's layout is written for LoRAs of these networks."""
    return family_of_networks(network, len(encoders)).pipeline in KOHYA_PREFIXES


def save_kohya(
    path: Path, network: nn.Module, encoders: Sequence[Any], spec: LoraSpec, title: str
) -> None:
    """Writes the layout of kohya's sd-scripts, which AUTOMATIC1111, ComfyUI and others read.

    `.alpha` carries the scaling, alpha = s rank, whatever made it. (diffusers' own conversion
    always writes the rank, and loses DoRA's lengths: hence this one.) Names of the text encoder
    begin with `lora_te_text_model_encoder_` for SD 1.x and 2.x, with `lora_te1_` and `lora_te2_`
    for XL. Of DoRA, `dora_scale` has the shape [out, 1, ...] of LyCORIS and ComfyUI.
    """
    alpha = torch.tensor(spec.scaling * spec.rank, dtype=torch.float32)
    prefixes = KOHYA_PREFIXES[family_of_networks(network, len(encoders)).pipeline]
    tensors = {}
    for part, module in _carrying(network, encoders):
        for name, tensor in _portable(part, module).items():
            layer, ours = name.split(".lora_")
            place = f"{prefixes[part]}_{layer.replace('.', '_')}"
            tensors[f"{place}.{KOHYA_NAMES[ours]}"] = _column(tensor) if ours == DORA else tensor
            tensors[f"{place}.alpha"] = alpha.clone()
    metadata = {
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(spec.rank),
        "ss_network_alpha": f"{float(alpha):.8g}",
        "ss_output_name": title,
        "modelspec.title": title,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata=metadata)


def adapter_weights(network: nn.Module, encoders: Sequence[nn.Module]) -> dict[str, Tensor]:
    """Returns the LoRA that networks carry, under names that do not depend on how it got there,
    with each layer's scaling: what two copies are compared by."""
    found: dict[str, Tensor] = {}
    for part, module in parts(network, encoders).items():
        for name, parameter in module.named_parameters():
            if ".lora_" in name:
                found[f"{part}.{_plain(name)}"] = parameter.detach().cpu().contiguous()
        for name, layer in module.named_modules():
            if hasattr(layer, "lora_A") and len(layer.scaling):
                (value,) = layer.scaling.values()
                found[f"{part}.{name}.scaling"] = torch.tensor(value, dtype=torch.float64)
    return found


def _plain(name: str) -> str:
    """A parameter's name without that of its adapter: lora_A.default_0.weight -> lora_A.weight."""
    words = name.split(".")
    at = next(i for i, word in enumerate(words) if word.startswith("lora_"))
    return ".".join([*words[: at + 1], words[-1]])


def _column(lengths: Tensor) -> Tensor:
    """DoRA's lengths, [out] or [1, out, 1, 1], as [out, 1] or [out, 1, 1, 1]."""
    return lengths.reshape(-1, *[1] * max(1, lengths.ndim - 1))


def _carrying(network: nn.Module, encoders: Sequence[Any]) -> list[tuple[str, Any]]:
    named = parts(network, encoders).items()
    return [(part, module) for part, module in named if getattr(module, "peft_config", None)]


def _portable(part: str, module: Any) -> dict[str, Tensor]:
    is_new = part.startswith("text") and not hasattr(module, "text_model")
    level = TEXT_LEVEL if is_new else ""
    state = peft.get_peft_model_state_dict(module, adapter_name=ADAPTER)
    return {f"{level}{name}": t.detach().cpu().contiguous() for name, t in state.items()}
