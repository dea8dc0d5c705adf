"""Similarities known by name, CLIP-T, CLIP-I and DINO, and thumbnails where neither is given."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ddim_core.common.late import late
from ddim_core.common.plain_files import is_there, read_json
from ddim_core.features.model_folder import model_folder
from ddim_core.features.transformers_network import config_of, network_of
from ddim_core.networks.checks import require_sane

if TYPE_CHECKING:
    import transformers
else:
    transformers = late("transformers")

BATCH = 32
PICTURES = "preprocessor_config.json"  # how a model sees pictures


class ThumbnailFeatures:
    """The colours of an image averaged to 8 x 8: tells layouts and palettes apart, and little else.

    What is left where no trained extractor is given.
    """

    name = "thumbnail"
    dim = 3 * 8 * 8
    digest = hashlib.sha256(b"8 x 8 area averages / 255").hexdigest()

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Maps uint8 [n, h, w, 3] to float32 [n, 192] in [0, 1]."""
        small = [Image.fromarray(x).resize((8, 8), Image.Resampling.BOX) for x in images]
        return np.stack([np.asarray(x, dtype=np.float32).ravel() / 255.0 for x in small])


def each_set_once(
    images: Callable[[Any, NDArray[np.uint8]], NDArray[np.float32]],
) -> Callable[[Any, NDArray[np.uint8]], NDArray[np.float32]]:
    """Keeps what a model makes of a set of images, as long as the model is there: several measures
    ask for the same, and the base's and the real images are compared with at every scale."""

    @wraps(images)
    def kept(model: Any, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        known = vars(model).setdefault("_kept", {})
        key = (pixels.shape, hashlib.sha256(np.ascontiguousarray(pixels).data).digest())
        if key not in known:
            known[key] = images(model, pixels)
            known[key].flags.writeable = False
        return known[key]

    return kept


class ClipModel:
    """A CLIP model: cosines of its vectors are CLIP-T (picture and prompt) and CLIP-I.

    Source: Radford et al. 2021 (arXiv:2103.00020); Ruiz et al. 2022 (arXiv:2208.12242).

    Args:
        folder: With config, weights, image processor and tokenizer.
        device: The CPU, or a card, which takes pictures in batches of one size.

    Raises:
        ValueError: If it is no such folder.
    """

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        self.model, self.processor = _open(folder, "CLIP", "clip")
        self.device = device
        self.model.to(device)
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)

    @each_set_once
    def images(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Maps uint8 [n, h, w, 3] to unit vectors, float32 [n, d]."""
        return _in_batches(
            images,
            self.processor,
            lambda x: self.model.get_image_features(pixel_values=x),
            self.device,
        )

    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Maps texts to unit vectors, float32 [n, d]; words beyond the model's length are cut."""
        tokens = self.tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
        with torch.inference_mode():
            return _unit(self.model.get_text_features(**tokens.to(self.device)))


class DinoModel:
    """A DINO or DINOv2 model: the vector of its class token.

    Source: Caron et al. 2021 (arXiv:2104.14294); Oquab et al. 2023 (arXiv:2304.07193).

    Args:
        folder: With config, weights and image processor.
        device: As of `ClipModel`.

    Raises:
        ValueError: If it is no such folder.
    """

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        self.model, self.processor = _open(folder, "DINO", "dinov2", "vit")
        self.device = device
        self.model.to(device)

    @each_set_once
    def images(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Maps uint8 [n, h, w, 3] to unit vectors, float32 [n, d]."""
        return _in_batches(
            images,
            self.processor,
            lambda x: self.model(pixel_values=x).last_hidden_state[:, 0],
            self.device,
        )


def _open(folder: Path, what: str, *kinds: str) -> tuple[Any, Any]:
    model_folder(str(folder), what)
    if is_there(folder / PICTURES):
        require_sane(read_json(folder / PICTURES), f"{folder.name}/{PICTURES}")
    # Its class token is what counts: published DINOs have no pooler.
    model = network_of(
        transformers.AutoModel, config_of(folder, what, *kinds), folder, what, unused="pooler"
    )
    try:
        return model, transformers.AutoImageProcessor.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} cannot be opened: {error}") from error


def _in_batches(
    images: NDArray[np.uint8], processor: Any, model: Any, device: str
) -> NDArray[np.float32]:
    parts = []
    for begin in range(0, len(images), BATCH):
        batch = [Image.fromarray(image) for image in images[begin : begin + BATCH]]
        if device != "cpu":
            batch += batch[:1] * (BATCH - len(batch))
        pixels = processor(images=batch, return_tensors="pt").pixel_values
        with torch.inference_mode():
            parts.append(_unit(model(pixels.to(device))))
    return np.concatenate(parts)[: len(images)]


def _unit(given: Any) -> NDArray[np.float32]:
    vectors: Tensor = getattr(given, "pooler_output", given)
    return torch.nn.functional.normalize(vectors.float(), dim=-1).cpu().numpy()
