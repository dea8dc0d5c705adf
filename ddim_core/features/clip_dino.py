"""CLIP and DINOv2 as feature extractors, from transformers model folders."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ddim_core.common.late import late
from ddim_core.features.model_folder import folder_digest, model_folder
from ddim_core.features.network import Answer, NetworkFeatures, Scaling
from ddim_core.features.registry import PRETRAINED
from ddim_core.features.transformers_network import config_of, network_of

if TYPE_CHECKING:
    import transformers
else:
    transformers = late("transformers")

DINOV2_SIZE = 224
DINOV2_KINDS = {
    "dinov2": "Dinov2Model",
    "dinov2_with_registers": "Dinov2WithRegistersModel",
}
BATCH = 16
# Of v / 255, as each network was trained.
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
DINOV2_MEAN, DINOV2_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class ClipFeatures(NetworkFeatures):
    """The image embedding of CLIP after its projection, not normalised: 512 numbers of ViT-B/32,
    768 of ViT-L/14 at 336 pixels.

    Source: Radford et al. 2021 (arXiv:2103.00020).

    Args:
        place: A local transformers folder of a CLIP model, or its id on the Hugging Face hub.
        resize: One of the extractor's own, see `registry.PRETRAINED`.
        name: `clip-vit-b-32` or `clip-vit-l-14-336`.

    Raises:
        ValueError: If the model cannot be had, is no CLIP, or has no plain weights.
    """

    def __init__(self, place: str = "", resize: str = "clean", name: str = "clip-vit-b-32") -> None:
        folder = model_folder(place or PRETRAINED[name].hub_id or "", name)
        config = config_of(folder, name, "clip", "clip_vision_model")
        if config.model_type == "clip":  # a whole CLIP; only this entry of it has the right size
            config.vision_config.projection_dim = config.projection_dim
            config = config.vision_config
        model = network_of(transformers.CLIPVisionModelWithProjection, config, folder, name)
        super().__init__(
            name, folder, folder_digest(folder), "image_embeds", "transformers", resize,
            Scaling.of_unit(CLIP_MEAN, CLIP_STD), Answer(model, "image_embeds"),
            int(config.image_size), int(config.projection_dim), BATCH,
        )  # fmt: skip


class Dinov2Features(NetworkFeatures):
    """The class token of DINOv2 after the last norm, at 224x224 pixels: 768 numbers of ViT-B/14,
    1024 of ViT-L/14, with registers or without.

    Source: Oquab et al. 2023 (arXiv:2304.07193); registers: Darcet et al. 2023 (arXiv:2309.16588);
    as a feature space of Frechet distances, Stein et al. 2023 (arXiv:2306.04675), without
    registers.

    Args:
        place: A local transformers folder of a DINOv2 model, or its id on the Hugging Face hub.
        resize: One of the extractor's own, see `registry.PRETRAINED`.
        name: `dinov2-vit-b-14` or `dinov2-vit-l-14`.
        offset: Patches that are added where the positions of larger images are resized to this
            size: 0.1 in the authors' own code, which dgm-eval and EDM2 run, 0 in transformers. With
            registers both have 0.

    Raises:
        ValueError: If the model cannot be had, is no DINOv2, or has no plain weights.
    """

    def __init__(
        self,
        place: str = "",
        resize: str = "clean",
        name: str = "dinov2-vit-b-14",
        offset: float = 0.0,
    ) -> None:
        folder = model_folder(place or PRETRAINED[name].hub_id or "", name)
        config = config_of(folder, name, *DINOV2_KINDS)
        if DINOV2_SIZE % int(config.patch_size):
            raise ValueError(
                f"{place!r} has patches of {config.patch_size} pixels; they must divide "
                f"{DINOV2_SIZE}"
            )
        kind = getattr(transformers, DINOV2_KINDS[config.model_type])
        model = network_of(kind, config, folder, name)
        layer = "class token"
        if config.model_type != "dinov2":
            layer += ", with registers"
        elif offset:
            layer += f", positions resized to {offset} patches more"
            _resize_positions(model, DINOV2_SIZE // int(config.patch_size), offset)
        super().__init__(
            name, folder, folder_digest(folder), layer, "transformers", resize,
            Scaling.of_unit(DINOV2_MEAN, DINOV2_STD), Answer(model, "pooler_output"),
            DINOV2_SIZE, int(config.hidden_size), BATCH,
        )  # fmt: skip


def _resize_positions(model: Any, side: int, offset: float) -> None:
    """Resizes a network's position embeddings to side x side patches, for good.

    Source: facebookresearch/dinov2, `interpolate_pos_encoding` with its `interpolate_offset`.
    """
    held = model.embeddings.position_embeddings
    known = math.isqrt(held.shape[1] - 1)
    if known == side:
        return
    patches = held[:, 1:].reshape(1, known, known, -1).permute(0, 3, 1, 2)
    scale = (side + offset) / known
    resized = nn.functional.interpolate(patches, scale_factor=(scale, scale), mode="bicubic")
    rows = resized.permute(0, 2, 3, 1).reshape(1, side * side, -1)
    model.embeddings.position_embeddings = nn.Parameter(torch.cat([held[:, :1], rows], 1), False)
