"""The trainable weights: which layers get a LoRA, putting it there, reading and setting it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ddim_core.common.checks import nearest
from ddim_core.common.late import late
from ddim_core.lora.specs import LoraSpec
from ddim_core.networks.building import seeded_weights
from ddim_core.text2image.families import family_of, part_of

if TYPE_CHECKING:
    import diffusers
    import peft
else:
    diffusers = late("diffusers")
    peft = late("peft")

ADAPTER = "default"
OF_UNETS: dict[str, tuple[str, ...]] = {
    "attention": ("to_q", "to_k", "to_v", "to_out.0"),
    "feed-forward": ("ff.net.0.proj", "ff.net.2", "proj_in", "proj_out"),
    "convolutions": (
        "conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv",
    ),
}  # fmt: skip
OF_TRANSFORMERS: dict[str, tuple[str, ...]] = {  # as diffusers' scripts of SD3 and Flux
    "attention": (
        "attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0",
        "attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out",
    ),
    "feed-forward": ("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2"),
}  # fmt: skip
TEXT_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj")


def target_modules(network: nn.Module, targets: Sequence[str]) -> list[str]:
    """Returns the ends of names of the layers that get a LoRA.

    Raises:
        ValueError: If a target is neither a group nor the end of a layer's name; the message lists
            the names that there are.
    """
    groups = OF_UNETS if part_of(network) == "unet" else OF_TRANSFORMERS
    layers = [n for n, m in network.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    ends = []
    for target in targets:
        found = [e for e in groups.get(target, (target,)) if any(_ends(n, e) for n in layers)]
        if not found:
            names = ", ".join(sorted({_short(name) for name in layers}))
            raise ValueError(
                f"there is no target module {target!r} in this base"
                f"{nearest(target, [*groups, *(_short(name) for name in layers)])}; groups are "
                f"{', '.join(groups)}, and layers are {names}"
            )
        ends += found
    return list(dict.fromkeys(ends))


def require_targets(base: Path, targets: Sequence[str]) -> None:
    """Makes sure that every target is there, from the base's configuration alone.

    Raises:
        ValueError: If one is not; see `target_modules`.
    """
    family = family_of(base)
    with torch.device("meta"):
        network = getattr(diffusers, family.network_kind).from_config(family.config(base))
    target_modules(network, targets)


def attach(network: Any, encoders: Sequence[Any], spec: LoraSpec) -> None:
    """Adds an untrained LoRA (B = 0, A drawn from the spec's seed) to the network that denoises,
    and to the attention of the CLIP text encoders where the spec says so.

    Raises:
        ValueError: If a target is unknown.
    """
    modules = target_modules(network, spec.targets)
    with seeded_weights(spec.seed):
        network.add_adapter(_config(spec, modules), ADAPTER)
        if spec.text_encoder:
            for encoder in encoders:
                encoder.add_adapter(_config(spec, list(TEXT_TARGETS)), ADAPTER)


def trainable(network: nn.Module, encoders: Sequence[nn.Module]) -> dict[str, nn.Parameter]:
    """Returns the LoRA's parameters, by the name of their part and their place in it."""
    return {
        f"{part}.{name.replace(f'.{ADAPTER}', '')}": parameter
        for part, module in parts(network, encoders).items()
        for name, parameter in module.named_parameters()
        if ".lora_" in name
    }


def parts(network: nn.Module, encoders: Sequence[nn.Module]) -> dict[str, nn.Module]:
    """Returns the networks by their names in a pipeline."""
    names = ("text_encoder", "text_encoder_2")
    return {part_of(network): network, **dict(zip(names, encoders, strict=False))}


def set_weights(parameters: dict[str, nn.Parameter], weights: dict[str, Tensor]) -> None:
    """Copies a LoRA's weights into its parameters.

    Raises:
        ValueError: If they are those of another LoRA.
    """
    if set(parameters) != set(weights):
        odd = sorted(set(parameters) ^ set(weights))
        raise ValueError(f"these weights are of another LoRA: {odd[0]} is in one of them only")
    with torch.no_grad():
        for name, parameter in parameters.items():
            if parameter.shape != weights[name].shape:
                raise ValueError(
                    f"{name} has shape {tuple(weights[name].shape)}, not {tuple(parameter.shape)}"
                )
            parameter.copy_(weights[name])


def weights_of(parameters: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    """Returns a copy of a LoRA's weights, on the CPU."""
    return {name: p.detach().to("cpu", copy=True).contiguous() for name, p in parameters.items()}


def _config(spec: LoraSpec, modules: list[str]) -> peft.LoraConfig:
    return peft.LoraConfig(
        r=spec.rank,
        lora_alpha=spec.rank if spec.alpha is None else spec.alpha,  # type: ignore[arg-type]
        lora_dropout=spec.dropout,
        init_lora_weights="gaussian",
        target_modules=modules,
        use_rslora=spec.rslora,
        use_dora=spec.dora,
    )


def _ends(name: str, end: str) -> bool:
    return name == end or name.endswith(f".{end}")


def _short(name: str) -> str:
    """The last part of a layer's name that is a word, with what follows it (`to_out.0`)."""
    words = name.split(".")
    last = max((i for i, word in enumerate(words) if not word.isdigit()), default=0)
    return ".".join(words[last:])
