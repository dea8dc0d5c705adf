"""A configuration and weights from elsewhere, held against each other before anything is built.

The network is laid out without memory first, so that a configuration cannot ask for more than its
weights have; then every weight must have the name and shape that the network gives it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddim_core.common.plain_files import is_regular, read_json
from ddim_core.diffusion.scheduler_config import settled, without_betas
from ddim_core.safe_files.safe_load import first_line

MOST = 2**17  # of any whole number in a network's configuration
MOST_LAYERS = 128
MOST_TOKENS = 2**20  # of a vocabulary; mT5's and Gemma's have a quarter of a million
MOST_TIMESTEPS = 10**6
MOST_SIZE = 1024  # pixels or latents along a side
MOST_PICTURE = 2048  # pixels along a side of what a decoder makes of latents
MOST_PLACES = 2**16  # that attend to each other
MOST_PATCHES = 2**12  # of a picture that a vision transformer sees
LEAST_SEEN = 224  # pixels along a side of such a picture, whatever its configuration says
COUNTS = frozenset(
    {"in_channels", "out_channels", "latent_channels", "block_out_channels", "layers_per_block",
     "num_train_timesteps", "sample_size", "norm_num_groups", "hidden_size", "intermediate_size",
     "num_hidden_layers", "num_attention_heads", "max_position_embeddings", "vocab_size",
     "image_size", "patch_size", "cross_attention_dim", "attention_head_dim",
     "num_class_embeds", "time_embedding_dim", "attn_norm_num_groups"}
)  # fmt: skip
SIDES = frozenset(
    {"sample_size", "image_size", "patch_size", "height", "width", "shortest_edge",
     "longest_edge", "size", "crop_size"}
)  # fmt: skip
# What changes the size of what a network computes, and has no weight that would vouch for it.
CHOICES: dict[str, tuple[Any, ...]] = {
    "downsample_padding": (0, 1), "freq_shift": (0, 1), "downsample_type": ("conv", "resnet"),
    "upsample_type": ("conv", "resnet"), "conv_in_kernel": (1, 3, 5, 7),
    "conv_out_kernel": (1, 3, 5, 7), "chunk_size_feed_forward": (0,), "num_channels": (1, 3),
}  # fmt: skip
# What a network divides or multiplies by.
FACTORS = frozenset(
    {"norm_eps", "layer_norm_eps", "mid_block_scale_factor", "resnet_out_scale_factor",
     "scaling_factor"}
)  # fmt: skip
BOUNDLESS = frozenset({"lambda_min_clipped"})  # of DPM-Solver: minus infinity is "no limit"
# What makes diffusers or transformers fetch or import what the network is not made of.
CODE_NAMES = ("auto_map", "quantization_config", "custom_pipelines", "attn_implementation")
WEIGHT_SUFFIXES = (".safetensors", ".bin")
# Names that diffusers gave to attention weights before its version 0.17, and still reads.
OLD_NAMES = {
    ".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0.",
}  # fmt: skip


def require_sane(config: Mapping[str, Any], where: str) -> None:
    """Makes sure that no number of a configuration is absurd.

    Raises:
        ValueError: If one is, with its name.
    """
    for name, value in config.items():
        if isinstance(value, Mapping):
            require_sane(value, f"{name} in {where}")
        if any(part in name for part in CODE_NAMES) and value not in (None, "eager", "sdpa"):
            raise ValueError(f"{name} is set in {where}; no other code is fetched or run")
        _require_counts(name, value, where)
        if name in CHOICES:
            _require_choice(name, value, where)
        if name == "dropout":
            _require_shares(value, where)
        odd = [n for n in _leaves(value) if isinstance(n, float) and not math.isfinite(n)]
        if odd and name not in BOUNDLESS:
            raise ValueError(f"{name} is {odd[0]} in {where}; it must be a finite number")
        is_factor = type(value) in (int, float) and 0 < value < float("inf")
        if name in FACTORS and value is not None and not is_factor:
            raise ValueError(f"{name} is {value!r} in {where}; it must be a positive number")
        most = MOST_LAYERS if "layers" in name or name == "num_res_blocks" else MOST
        most = MOST_TIMESTEPS if name == "num_train_timesteps" else most
        most = MOST_SIZE if name in SIDES else most
        most = MOST_TOKENS if name == "vocab_size" or "token_id" in name else most
        for number in _whole_numbers(value):
            if abs(number) > most:
                raise ValueError(f"{name} is {number} in {where}; it must be at most {most}")
        if isinstance(value, list) and name != "trained_betas" and len(value) > MOST_LAYERS:
            raise ValueError(f"{name} has {len(value)} entries in {where}; that is absurd")
    _require_few_patches(config, where)


def require_schedule(config: Mapping[str, Any]) -> None:
    """Makes sure that a scheduler's configuration is of a noise schedule of betas.

    Those of variance-exploding, flow-matching and consistency models have none: their networks
    mean other things by a timestep and by what they predict.

    Raises:
        ValueError: If it is not, or a number in it is absurd.
    """
    require_sampled(config)
    settled(config)
    if config.get("use_flow_sigmas"):
        raise ValueError("use_flow_sigmas is on in scheduler_config.json; a DDPM has it off")


def require_sampled(config: Mapping[str, Any]) -> None:
    """Makes sure that a scheduler's configuration is of a network that is sampled at all: with a
    noise schedule of betas, of a flow, or of an EDM.

    Raises:
        ValueError: If it is not, or a number in it is absurd.
    """
    require_sane(config, "scheduler_config.json")
    if not without_betas(config):
        settled(config)


def _require_counts(name: str, value: Any, where: str) -> None:
    if name not in COUNTS:
        return
    for number in value if isinstance(value, (list, tuple)) else [value]:
        is_count = type(number) is int and number >= 1
        if not (is_count or number is None or isinstance(number, (list, tuple))):
            raise ValueError(
                f"{name} is {number!r} in {where}; it must be a whole number of at least 1"
            )


def _require_choice(name: str, value: Any, where: str) -> None:
    if not any(type(value) is type(choice) and value == choice for choice in CHOICES[name]):
        *others, last = CHOICES[name]
        or_so = f"{', '.join(map(str, others))} or {last}" if others else str(last)
        raise ValueError(f"{name} is {value!r} in {where}; it must be {or_so}")


def _require_shares(value: Any, where: str) -> None:
    shares = _leaves(value)  # of Stable Cascade: one a level
    if not all(type(share) in (int, float) and 0 <= share <= 1 for share in shares):
        raise ValueError(f"dropout is {value!r} in {where}; it must be a number in [0, 1]")


def _require_few_patches(config: Mapping[str, Any], where: str) -> None:
    patch = min(_whole_numbers(config.get("patch_size")), default=0)
    if patch and "_class_name" not in config:  # of transformers, which sees whole pictures
        side = max(LEAST_SEEN, *_whole_numbers(config.get("image_size", 1)), 1) // patch
        if side**2 > MOST_PATCHES:
            raise ValueError(
                f"patch_size is {patch} in {where}, where {side**2} patches would attend to each "
                f"other; at most {MOST_PATCHES} may"
            )


def require_picture_side(unet: Mapping[str, Any], decoder: Mapping[str, Any], where: str) -> None:
    """Makes sure that a decoder's pictures are of a size that can be drawn: each of its levels but
    one doubles them, however narrow it is.

    Raises:
        ValueError: If they are not.
    """
    widths = decoder.get("block_out_channels")
    levels = len(widths) if isinstance(widths, (list, tuple)) else 1
    side = max(_whole_numbers(unet.get("sample_size")), default=1) << max(levels - 1, 0)
    if side > MOST_PICTURE:
        raise ValueError(
            f"{where} has {levels} levels, with which it draws pictures of {side} pixels along a "
            f"side; at most {MOST_PICTURE} may be"
        )


def require_justified(kind: Any, folder: Path, where: str) -> None:
    """Makes sure that a folder's configuration asks for no more numbers than its weights' files
    have bytes: what is missing would be made up, at the configuration's size.

    Args:
        kind: A network's class of diffusers or transformers.
        folder: With a config.json and weights.
        where: What it is called in messages.

    Raises:
        ValueError: If it does, or describes no such network.
    """
    config = read_json(folder / "config.json")
    if not isinstance(config, dict):
        raise ValueError(f"the config.json of {where} is no mapping of names")
    require_sane(config, where)
    require_few_places(config, where)
    files = [path for path in folder.iterdir() if path.suffix in WEIGHT_SUFFIXES]
    held = sum(path.stat().st_size for path in files if is_regular(path))
    try:
        with torch.device("meta"):
            network = (
                kind.from_config(config)
                if hasattr(kind, "from_config")
                else kind(kind.config_class.from_dict(config))
            )
    except Exception as error:  # a configuration can be wrong in every way
        raise ValueError(
            f"the configuration of {where} describes no {kind.__name__}: {first_line(error)}"
        ) from error
    if (asked := sum(weight.numel() for weight in network.parameters())) > held:
        raise ValueError(
            f"the configuration of {where} asks for {asked} numbers, where its weights have "
            f"{held} bytes; they must belong together"
        )


def _require_few_layers(config: Mapping[str, Any], n_weights: int, where: str) -> None:
    """Makes sure that a U-Net or autoencoder has no more layers than weights."""
    widths = config.get("block_out_channels", ())
    layers = [*_whole_numbers(config.get("layers_per_block", 1))]
    deep = [*_whole_numbers(config.get("transformer_layers_per_block", 1))]
    deep += _whole_numbers(config.get("reverse_transformer_layers_per_block", 1))
    blocks = len(widths) if isinstance(widths, (list, tuple)) else 1
    if blocks * max(layers, default=1) * max(deep, default=1) > max(n_weights, MOST_LAYERS):
        raise ValueError(f"the configuration of {where} asks for more layers than it has weights")


def require_few_places(config: Mapping[str, Any], where: str) -> None:
    """Makes sure that a U-Net or autoencoder attends to no more places than memory has.

    Raises:
        ValueError: If it would.
    """
    size = max(_whole_numbers(config.get("sample_size", 1)), default=1)
    down, up = (config.get(f"{way}_block_types") for way in ("down", "up"))
    kinds = list(down) if isinstance(down, (list, tuple)) else []
    attending = [level for level, kind in enumerate(kinds) if "Attn" in str(kind)]
    ups = list(up)[::-1] if isinstance(up, (list, tuple)) else []
    attending += [level for level, kind in enumerate(ups) if "Attn" in str(kind)]
    in_middle = config.get("add_attention", config.get("mid_block_add_attention", True))
    if "Autoencoder" in str(config.get("_class_name")):  # whose middle has the size of the latents
        in_middle = False
    attending += [len(kinds) - 1] if kinds and in_middle else []
    places = max(1, size >> min(attending, default=len(kinds) + 16)) ** 2
    if places > MOST_PLACES:
        raise ValueError(
            f"sample_size is {size} in {where}, where {places} places would attend to each "
            f"other; at most {MOST_PLACES} may"
        )


def _require_halved(network_class: Any, config: Mapping[str, Any], where: str) -> None:
    """Makes sure that what a U-Net halves and doubles again has its size as before."""
    widths = config.get("block_out_channels", ())
    step = 1 << max(0, len(widths) - 1) if isinstance(widths, (list, tuple)) else 1
    odd = [size for size in _whole_numbers(config.get("sample_size")) if size % step]
    if odd and network_class.__name__ == "UNet2DModel":
        raise ValueError(
            f"sample_size is {odd[0]} in {where}, whose {len(widths)} levels halve it; it must be "
            f"a multiple of {step}"
        )


def require_unshifted(config: Mapping[str, Any], where: str) -> None:
    """Makes sure that a decoder's latents are only scaled.

    Raises:
        ValueError: If they are shifted too, as in newer pipelines than Stable Diffusion 2.x.
    """
    for name in ("shift_factor", "latents_mean", "latents_std"):
        if config.get(name):
            raise ValueError(f"{name} is {config[name]} in {where}; latents must only be scaled")


def require_fit(
    network_class: Any, config: Mapping[str, Any], state: Mapping[str, Tensor], where: str
) -> None:
    """Makes sure that weights are those of the network that a configuration describes.

    Args:
        network_class: Of diffusers, with `from_config`.
        config: What its config.json says.
        state: Weights by name; diffusers' older names of attention will do.
        where: What the weights are called in messages.

    Raises:
        ValueError: If the configuration is absurd or describes no network, or a weight is missing,
            left over or of another shape.
    """
    network = laid_out(network_class, config, len(state), where)
    require_same_weights(network.state_dict(), state, where)


def laid_out(network_class: Any, config: Mapping[str, Any], n_weights: int, where: str) -> Any:
    """Returns the network of a configuration, without memory; see `require_fit`."""
    require_sane(config, where)
    _require_few_layers(config, n_weights, where)
    require_few_places(config, where)
    _require_halved(network_class, config, where)
    try:
        with torch.device("meta"):
            return network_class.from_config(dict(config))
    except Exception as error:  # a configuration can be wrong in every way
        raise ValueError(
            f"the configuration of {where} describes no {network_class.__name__}: "
            f"{first_line(error)}"
        ) from error


def require_same_weights(
    expected: Mapping[str, Tensor], state: Mapping[str, Tensor], where: str
) -> None:
    """Makes sure that two state dicts have the same names and shapes; see `require_fit`."""
    shapes = {name: tuple(weight.shape) for name, weight in current_names(state).items()}
    missing = [name for name in expected if name not in shapes]
    if missing:
        raise ValueError(
            f"{where} lacks {len(missing)} weights that its configuration asks for, the first of "
            f"them {missing[0]}"
        )
    left_over = sorted(set(shapes) - set(expected))
    if left_over:
        raise ValueError(
            f"{where} has {len(left_over)} weights that its configuration knows nothing of, the "
            f"first of them {left_over[0]}"
        )
    for name, weight in expected.items():
        if shapes[name] != tuple(weight.shape):
            raise ValueError(
                f"the weight {name} of {where} has shape {list(shapes[name])}; its configuration "
                f"makes it {list(weight.shape)}"
            )


def current_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns weights by today's names of diffusers."""
    return {_current(name): weight for name, weight in state.items()}


def _current(name: str) -> str:
    if "attentions." in name:
        for old, new in OLD_NAMES.items():
            name = name.replace(old, new)
    return name


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, (list, tuple)):
        return [leaf for item in value for leaf in _leaves(item)]
    return [value]


def _whole_numbers(value: Any) -> list[int]:
    return [n for n in _leaves(value) if isinstance(n, int) and not isinstance(n, bool)]
