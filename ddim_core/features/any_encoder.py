"""Any vision encoder of `timm` or `transformers` as an extractor, from a folder of weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ddim_core.common.foreign import Config
from ddim_core.common.late import late
from ddim_core.common.plain_files import is_regular, read_json
from ddim_core.features.model_folder import CONFIG, folder_digest, model_files, model_folder
from ddim_core.features.network import NetworkFeatures, Scaling
from ddim_core.features.transformers_network import any_config_of, network_of
from ddim_core.networks.building import LOADING
from ddim_core.safe_files.safe_load import read_weights, require_tensors

if TYPE_CHECKING:
    import transformers
else:
    transformers = late("transformers")

BATCH = 16
PREPROCESSOR, POOLER = "preprocessor_config.json", "pooler"
# Where a configuration is silent, as timm has it: of ImageNet.
MEAN, STD, SIDE = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 224
# What timm's own function takes beside a network's arguments: places to load from, and how.
NOT_OF_A_NETWORK = {
    "model_name", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path",
    "cache_dir", "scriptable", "exportable", "no_jit",
}  # fmt: skip
# Networks whose image embedding is behind a projection; of any other, what it pools.
PROJECTED = {"clip": "CLIPVisionModelWithProjection"}


class TimmFeatures(NetworkFeatures):
    """What a `timm` network gives to its classifier, which is left out.

    The images are resized to the whole square of the network's input, and scaled as the folder's
    `config.json` says (of ImageNet where it is silent).

    Args:
        name: `timm:NAME`, whose NAME begins with the architecture of the folder.
        place: A folder as `timm` writes for the hub (`config.json`, weights), or a hub id; empty is
            `timm/NAME` there.
        resize: One of the family's, see `registry.FAMILIES`.

    Raises:
        ValueError: If `timm` is not installed, the network cannot be had, or it is another.
    """

    def __init__(self, name: str, place: str, resize: str) -> None:
        member = name.partition(":")[2]
        folder = model_folder(place or f"timm/{member}", name)
        told = _mapping(read_json(folder / CONFIG))
        architecture = str(told.get("architecture", ""))
        if member.split(".")[0] != architecture:
            raise ValueError(
                f"{folder.name} holds the network {architecture!r} of timm; features says {name!r}"
            )
        network = _timm_network(architecture, told, folder, name)
        about = _mapping(told.get("pretrained_cfg"))
        size = _side(about.get("input_size", SIDE), name)
        super().__init__(
            name, folder, folder_digest(folder), "before the classifier", "timm", resize,
            _scaling(about.get("mean", MEAN), about.get("std", STD), name), network,
            size, _width(network, size, name), BATCH,
        )  # fmt: skip


class TransformersFeatures(NetworkFeatures):
    """The image embedding of a vision network of `transformers`.

    It is what stands behind CLIP's projection; of any other what the network pools, or else its
    first token. Size and scaling are those of `preprocessor_config.json` where the folder has one,
    else the size of `config.json` and the scaling of ImageNet. The images are resized to the whole
    square.

    Args:
        name: `transformers:` and the folder's name.
        place: The folder, or a hub id.
        resize: One of the family's, see `registry.FAMILIES`.

    Raises:
        ValueError: If the network cannot be had, or takes no images alone.
    """

    def __init__(self, name: str, place: str, resize: str) -> None:
        folder = model_folder(place, name, beside=PREPROCESSOR)
        config = any_config_of(folder, name)
        inner = getattr(config, "vision_config", None)
        kind = transformers.AutoModel
        if config.model_type in PROJECTED and inner is not None:
            inner.projection_dim = config.projection_dim
            config, kind = inner, getattr(transformers, PROJECTED[config.model_type])
        elif inner is not None:
            kind = getattr(transformers, f"{type(inner).__name__.removesuffix('Config')}Model")
            config = inner
        model = network_of(kind, config, folder, name, unused=POOLER)
        beside = PREPROCESSOR if is_regular(folder / PREPROCESSOR) else ""
        told = _mapping(read_json(folder / beside)) if beside else {}
        own = getattr(config, "image_size", None)
        size = _side(told.get("crop_size") or told.get("size") or own, name)
        mean, std = told.get("image_mean") or MEAN, told.get("image_std") or STD
        network = Pooled(model, _has_own_pooler(model, folder))
        super().__init__(
            name, folder, folder_digest(folder, beside), "pooled image embedding", "transformers",
            resize, _scaling(mean, std, name), network, size, _width(network, size, name), BATCH,
            beside=beside,
        )  # fmt: skip


class Pooled(nn.Module):
    """The first of `image_embeds`, `pooler_output` and the first token that a network answers.

    Args:
        model: The network.
        has_pooler: Whether what it pools is its own, and not a layer whose weights nobody trained.
    """

    def __init__(self, model: nn.Module, has_pooler: bool) -> None:
        super().__init__()
        self.model, self.has_pooler = model, has_pooler

    def forward(self, pixels: Tensor) -> Tensor:
        answer = self.model(pixel_values=pixels)
        found: Tensor | None = getattr(answer, "image_embeds", None)
        if found is None and self.has_pooler:
            found = getattr(answer, "pooler_output", None)
        found = answer.last_hidden_state[:, 0] if found is None else found
        return found.flatten(1)


def _has_own_pooler(model: nn.Module, folder: Path) -> bool:
    """Whether a pooler that has weights found them in the folder's file."""
    if not any(POOLER in name.split(".") for name, _ in model.named_parameters()):
        return True
    stored = read_weights(folder / model_files(folder)[1])
    return any(POOLER in str(name).split(".") for name in stored)


def _mapping(told: Any) -> Config:
    """What a configuration says; nothing of what is no mapping of names."""
    return told if isinstance(told, dict) else {}


def _timm_network(architecture: str, told: Mapping[str, Any], folder: Path, name: str) -> nn.Module:
    try:
        import timm
    except ImportError as error:
        raise ValueError(f"{name} needs timm; `pip install 'ddim-flows[timm]'`") from error
    if not timm.is_model(architecture):
        raise ValueError(f"{folder.name} holds {architecture!r}, which is no network of timm")
    arguments = {"num_classes": told.get("num_classes", 1000), **_mapping(told.get("model_args"))}
    if meddling := NOT_OF_A_NETWORK & set(arguments):
        raise ValueError(f"{folder.name} asks timm for {', '.join(sorted(meddling))}; leave it out")
    path = folder / model_files(folder)[1]
    state = require_tensors(read_weights(path), path.name)
    try:
        with LOADING:
            network: nn.Module = timm.create_model(architecture, pretrained=False, **arguments)
            network.load_state_dict(state)
            network.reset_classifier(0)  # type: ignore[operator]
    except (RuntimeError, TypeError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()
        raise ValueError(
            f"{folder.name} cannot be opened as {name}: {reason[-1].strip()}"
        ) from error
    return network.eval().requires_grad_(False)


def _side(told: Any, name: str) -> int:
    """Height and width of a network's input: a number, [channels, h, w], or names for them."""
    if isinstance(told, Mapping):
        told = told.get("height", told.get("shortest_edge"))
    sides = set(told[-2:]) if isinstance(told, (list, tuple)) else {told}
    side = sides.pop()
    if sides or not isinstance(side, int) or not 1 <= side <= 2048:
        raise ValueError(f"{name} takes images of {told}; it must be a square of 1 to 2048 pixels")
    return side


def _scaling(mean: Any, std: Any, name: str) -> Scaling:
    for what, values in (("mean", mean), ("std", std)):
        if not isinstance(values, Sequence) or len(values) not in (1, 3):
            raise ValueError(f"{name} has the {what} {values!r}; it must hold 1 or 3 numbers")
    return Scaling.of_unit([float(v) for v in mean], [float(v) for v in std])


def _width(network: nn.Module, size: int, name: str) -> int:
    """d, by one look at a black image."""
    try:
        with torch.inference_mode():
            answer = network(torch.zeros(1, 3, size, size))
    except (AssertionError, AttributeError, RuntimeError, TypeError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"{name} takes no images of {size}x{size} pixels alone: {reason}"
        ) from error
    if answer.ndim != 2:
        raise ValueError(f"{name} answers {list(answer.shape)}; it must be [images, features]")
    return int(answer.shape[1])
