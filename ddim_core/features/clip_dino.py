"""CLIP and DINOv2 as feature extractors, from transformers model folders."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ddim_core.common.late import late
from ddim_core.features.model_folder import folder_digest, model_folder
from ddim_core.features.network import Answer, NetworkFeatures, Scaling
from ddim_core.features.registry import CLIP_HUB_ID, DINOV2_HUB_ID
from ddim_core.features.transformers_network import config_of, network_of

if TYPE_CHECKING:
    import transformers
else:
    transformers = late("transformers")

DINOV2_SIZE = 224
BATCH = 16
# Of v / 255, as each network was trained.
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
DINOV2_MEAN, DINOV2_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class ClipFeatures(NetworkFeatures):
    """The image embedding of CLIP (512 numbers of ViT-B/32), after its projection, not normalised.

    Source: Radford et al. 2021 (arXiv:2103.00020).

    Args:
        place: A local transformers folder of a CLIP model, or its id on the Hugging Face hub.
        resize: `clean` (the usual bicubic), `tf1` (torch-fidelity's) or `torch`.

    Raises:
        ValueError: If the model cannot be had, is no CLIP, or has no plain weights.
    """

    def __init__(self, place: str = CLIP_HUB_ID, resize: str = "clean") -> None:
        folder = model_folder(place, "clip-vit-b-32")
        config = config_of(folder, "clip-vit-b-32", "clip", "clip_vision_model")
        if config.model_type == "clip":  # a whole CLIP; only this entry of it has the right size
            config.vision_config.projection_dim = config.projection_dim
            config = config.vision_config
        model = network_of(
            transformers.CLIPVisionModelWithProjection, config, folder, "clip-vit-b-32"
        )
        super().__init__(
            "clip-vit-b-32", folder, folder_digest(folder), "image_embeds", "transformers", resize,
            _scaling(CLIP_MEAN, CLIP_STD), Answer(model, "image_embeds"),
            int(config.image_size), int(config.projection_dim), BATCH,
        )  # fmt: skip


class Dinov2Features(NetworkFeatures):
    """The class token of DINOv2 after the last norm (768 numbers of ViT-B/14), at 224x224 pixels.

    Source: Oquab et al. 2023 (arXiv:2304.07193); as a feature space of Frechet distances, Stein et
    al. 2023 (arXiv:2306.04675).

    Args:
        place: A local transformers folder of a DINOv2 model, or its id on the Hugging Face hub.
        resize: `clean` (the usual bicubic), `tf1` (torch-fidelity's) or `torch`.

    Raises:
        ValueError: If the model cannot be had, is no DINOv2, or has no plain weights.
    """

    def __init__(self, place: str = DINOV2_HUB_ID, resize: str = "clean") -> None:
        folder = model_folder(place, "dinov2-vit-b-14")
        config = config_of(folder, "dinov2-vit-b-14", "dinov2")
        if DINOV2_SIZE % int(config.patch_size):
            raise ValueError(
                f"{place!r} has patches of {config.patch_size} pixels; they must divide "
                f"{DINOV2_SIZE}"
            )
        model = network_of(transformers.Dinov2Model, config, folder, "dinov2-vit-b-14")

        super().__init__(
            "dinov2-vit-b-14", folder, folder_digest(folder), "class token", "transformers", resize,
            _scaling(DINOV2_MEAN, DINOV2_STD), Answer(model, "pooler_output"),
            DINOV2_SIZE, int(config.hidden_size), BATCH,
        )  # fmt: skip


def _scaling(mean: tuple[float, ...], std: tuple[float, ...]) -> Scaling:
    return Scaling(tuple(255.0 * value for value in mean), tuple(255.0 * value for value in std))
