"""The pickled networks of NVlabs/edm and edm2, as one family that diffusers' schedulers draw.

A snapshot holds the moving average of a network with its preconditioning, how they were made, and,
of EDM2, what encodes its pictures. The network is built by the names of the classes and by what
they were made with; the source that is pickled beside them is not run.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ddim_core.checkpoints.formats.format import Format, Network
from ddim_core.checkpoints.formats.latents import Latents
from ddim_core.common.foreign import Config, Content
from ddim_core.diffusion.specs import NoiseSpec
from ddim_core.networks.backbones.preconditioned import CLASS_NAME, COLUMNS, NETWORKS, OWN
from ddim_core.safe_files.pickles.modules import PickledObject

MARKS = ("model.map_layer0.weight", "unet.emb_fourier.freqs")
PARTS = ("model", "unet")  # the network in its preconditioning, of EDM and EDM2
PREFIXES = tuple(f"{part}." for part in PARTS)
# What the preconditioning says too, or only training uses.
KNOWN_ELSEWHERE = frozenset(
    {"img_resolution", "img_channels", "in_channels", "out_channels", "label_dim", "augment_dim",
     "dropout", "label_dropout"}
)  # fmt: skip
ONLY_TRAINED = (".map_augment.", "logvar_")
CONSTANTS = ("beta_d", "beta_min", "M")
SIGMA_DATA = 0.5  # EDM's, where the preconditioning has none and any would do
SIGMAS = (0.002, 80.0)  # of EDM's sampler, where the network takes them
PIXELS, STABILITY = "StandardRGBEncoder", "StabilityVAEEncoder"
FIRST_OF_BLOCK = re.compile(r"model\.enc\.(\d+)x\d+_block(\d+)\.conv(?:0|_res0)\.weight")
NOT_RUN = (
    "The network is built by the names of its classes and what they were made with, as NVlabs' "
    "code has them; the source pickled beside them was not run."
)
KIMG = "Training steps are thousands of images (kimg), as the names of NVlabs' snapshots have it."


@dataclass(frozen=True)
class Kind:
    """What an argument of a network may be: in words, and as a test."""

    words: str
    holds: Callable[[Any], bool]


def _counts(value: Any) -> bool:
    return type(value) is int and value >= 1


WHOLE = Kind("a whole number of at least 1", _counts)
WHOLES = Kind(
    "a list of whole numbers of at least 1",
    lambda value: isinstance(value, (list, tuple)) and all(map(_counts, value)),
)
SHARE = Kind(
    "a number from 0 to 1", lambda value: type(value) in (int, float) and 0.0 <= value <= 1.0
)
BOUND = Kind(
    "None or a number above 0",
    lambda value: value is None or (type(value) in (int, float) and 0.0 < value < math.inf),
)
KINDS = {
    **dict.fromkeys(
        ("model_channels", "num_blocks", "channel_mult_emb", "channel_mult_noise",
         "channels_per_head"), WHOLE,
    ),
    **dict.fromkeys(("channel_mult", "attn_resolutions", "resample_filter"), WHOLES),
    **dict.fromkeys(("label_balance", "concat_balance", "res_balance", "attn_balance"), SHARE),
    "clip_act": BOUND,
}  # fmt: skip


def is_edm(state: Mapping[str, Tensor]) -> bool:
    """Tells the names of a network in its preconditioning."""
    return any(mark in state for mark in MARKS)


def edm_network(state: Mapping[str, Tensor], _settings: Any, told: Any = None) -> Network:
    """Reads a network and its preconditioning, and EDM2's latents.

    Args:
        state: Weights by NVlabs' names.
        told: The `PickledObject`s of the snapshot, by their names in it.

    Raises:
        ValueError: If what it was made with is missing, or of a network that is not known.
    """
    whole = told.get("ema") if isinstance(told, Mapping) else None
    if not isinstance(whole, PickledObject):
        raise ValueError(
            "the weights have the names of an EDM network, and nothing says how it was made; give "
            "the snapshot that its training wrote (network-snapshot-...pkl)"
        )
    kind, has = whole.class_name, whole.attributes
    network = next((whole.parts[name] for name in PARTS if name in whole.parts), None)
    if network is None or network.class_name not in NETWORKS or kind not in (*OWN, *COLUMNS):
        inside = network.class_name if network else "nothing"
        raise ValueError(
            f"the snapshot is of {kind:.60} around {inside:.60}; known are "
            f"{', '.join([*OWN, *COLUMNS])} around {', '.join(NETWORKS)}"
        )
    n_classes, channels = _whole(has, "label_dim", 0), _whole(has, "img_channels", 1)
    dropped = n_classes and network.made_with.get("label_dropout")
    constants = {name: _number(has, name) for name in CONSTANTS if kind in COLUMNS and name in has}
    constants["sigma_data"] = _number(has, "sigma_data") if kind in OWN else SIGMA_DATA
    config: Config = {
        "_class_name": CLASS_NAME,
        "sample_size": _whole(has, "img_resolution", 1),
        "in_channels": channels,
        "out_channels": channels,
        "num_class_embeds": (n_classes + 1 if dropped else n_classes) or None,
        "network": network.class_name,
        "arguments": {**_arguments(network), "label_dim": n_classes},
        "preconditioning": kind,
        "constants": constants,
    }
    kept = {
        f"model.{name.partition('.')[2]}" if name.startswith(PREFIXES) else name: weight
        for name, weight in state.items()
        if not any(part in name for part in ONLY_TRAINED)
    }
    if network.class_name == "UNet":  # EDM2's, which makes its filter of the argument
        kept["model.resample_filter"] = _filter(config["arguments"]["resample_filter"])
    return Network(
        config,
        kept,
        NoiseSpec(),
        scheduler=_scheduler(has, constants["sigma_data"], state.get("u")),
        null_label=n_classes if dropped else None,
        latents=_latents(told.get("encoder")),
        assumed=[NOT_RUN, KIMG],
        looks=f"NVlabs' {network.class_name} with {_levels(kept)}",
    )


def _levels(state: Mapping[str, Tensor]) -> str:
    """The levels of an encoder, as its weights' names and shapes say them."""
    found: dict[str, dict[str, int]] = {}
    for name, weight in state.items():
        if match := FIRST_OF_BLOCK.fullmatch(name):
            found.setdefault(match[1], {})[match[2]] = len(weight) if weight.ndim else 0
    told = [f"{len(widths)} blocks of {max(widths.values())} channels at {side} pixels"
            for side, widths in found.items()]  # fmt: skip
    return ", ".join(told) or "no blocks in its encoder"


def _arguments(network: PickledObject) -> Content:
    """What a network was made with, and the defaults of its class."""
    taken = inspect.signature(NETWORKS[network.class_name]).parameters.values()
    known = {p.name: p.default for p in taken if p.name not in KNOWN_ELSEWHERE}
    given = {k: v for k, v in network.made_with.items() if k not in KNOWN_ELSEWHERE}
    if unknown := [name for name in given if name not in known]:
        raise ValueError(
            f"the snapshot's {network.class_name} was made with {unknown[0]!r:.60}, which it has "
            f"not in NVlabs' code; its arguments are {', '.join(known)}"
        )
    settled = {name: given.get(name, usual) for name, usual in known.items()}
    for name, value in settled.items():
        may = KINDS.get(name)
        if may and not (may.holds(value) or (value is None and known[name] is None)):
            raise ValueError(f"{name} is {value!r:.60} in the snapshot; it must be {may.words}")
    return {k: list(v) if isinstance(v, tuple) else v for k, v in settled.items()}


def _filter(taps: Any) -> Tensor:
    """The filter [1, 1, k, k] of taps that are whole numbers."""
    found = taps if isinstance(taps, list) and len(taps) % 2 == 0 else []
    if not found or any(type(tap) is not int or not 0 < tap < 2**10 for tap in found):
        raise ValueError(
            f"resample_filter is {taps!r:.60} in the snapshot; it must be an even number of whole "
            "numbers above 0"
        )
    even = torch.tensor(found, dtype=torch.float32)
    return torch.outer(even / even.sum(), even / even.sum())[None, None]


def _scheduler(has: Content, sigma_data: float, levels: Tensor | None) -> Config:
    """That of EDM's sampler, between noise levels that the network takes."""
    low, high = has.get("sigma_min", 0.0), has.get("sigma_max", SIGMAS[1])
    numbers = all(type(end) in (int, float) and not math.isnan(end) for end in (low, high))
    first, last = (min(SIGMAS[1], high), max(SIGMAS[0], low)) if numbers else (0.0, 0.0)
    if not max(last, sigma_data) < first:
        raise ValueError(
            f"the snapshot's noise levels go from {low!r:.40} to {high!r:.40}; they must be "
            f"numbers that rise, to above sigma_data ({sigma_data:g}), and reach into "
            f"{SIGMAS[0]:g} to {SIGMAS[1]:g}, where EDM's sampler has them"
        )
    told: Config = {
        "_class_name": "EDMHeunScheduler", "sigma_min": float(last), "sigma_max": float(first),
        "sigma_data": sigma_data,
    }  # fmt: skip
    return told if levels is None else {**told, "levels": levels.double().tolist()}


def _latents(encoder: Any) -> Latents | None:
    """Of EDM2: final latents = raw scale + bias, of pictures in [0, 1]."""
    if not isinstance(encoder, PickledObject) or encoder.class_name == PIXELS:
        return None
    scale, bias = (_numbers(encoder.attributes.get(name)) for name in ("scale", "bias"))
    if encoder.class_name != STABILITY or not scale or len(scale) != len(bias) or 0.0 in scale:
        raise ValueError(
            f"the snapshot's pictures are encoded by {encoder.class_name:.60}; known are {PIXELS} "
            f"and {STABILITY} with its scale and bias"
        )
    return Latents(
        decoder=f"{encoder.attributes.get('vae_name')!s:.60}",
        scale=tuple(1.0 / s for s in scale),
        shift=tuple(-b / s for s, b in zip(scale, bias, strict=True)),
        darkest=0.0,
    )


def _numbers(values: Any) -> list[float]:
    """A list of finite numbers; empty if it is none."""
    found = values if isinstance(values, list) else []
    return found if all(isinstance(v, float) and math.isfinite(v) for v in found) else []


def _whole(has: Content, name: str, least: int) -> int:
    value = has.get(name)
    if type(value) is not int or value < least:
        raise ValueError(
            f"{name} is {value!r:.60} in the snapshot; it must be a whole number, at least {least}"
        )
    return value


def _number(has: Content, name: str) -> Any:
    value: Any = has.get(name)
    if type(value) not in (int, float) or not 0 < value < float("inf"):
        raise ValueError(f"{name} is {value!r:.60} in the snapshot; it must be a number above 0")
    return value


EDM = Format("EDM's and EDM2's (.pkl)", is_edm, edm_network, MARKS)
