"""What every pretrained extractor shares: one resize, one scaling, one network, fixed batches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ddim_core.features.card_network import CardNetwork
from ddim_core.features.extractor import FeatureRecord, require_images
from ddim_core.features.resize import RULES, resized
from ddim_core.networks.batches import in_fixed_batches


class Scaling(NamedTuple):
    """From bytes v to the network's input: (v - mean) / std, by channel or for all alike."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of_unit(cls, mean: Sequence[float], std: Sequence[float]) -> Scaling:
        """Takes mean and spread of v / 255, as networks' own configurations have them."""
        return cls(*(tuple(255.0 * value for value in values) for values in (mean, std)))

    def __call__(self, pixels: Tensor) -> Tensor:
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in self)
        return (pixels - mean) / std

    def __str__(self) -> str:
        mean, std = (" ".join(f"{value:.7g}" for value in values) for values in self)
        return f"(v - [{mean}]) / [{std}]"


class Answer(nn.Module):
    """One of the tensors that a network of transformers answers with, as a network of its own."""

    def __init__(self, model: nn.Module, name: str) -> None:
        super().__init__()
        self.model, self.name = model, name

    def forward(self, pixels: Tensor) -> Tensor:
        answer: Tensor = getattr(self.model(pixel_values=pixels), self.name)
        return answer


class Head(NamedTuple):
    """The linear layer from features to the logits of classes: weight [c, d], bias [c] or None."""

    weight: Tensor
    bias: Tensor | None


class NetworkFeatures:
    """Features of a pretrained network; see the factories in `inception`,
    `clip_dino` and `any_encoder`.

    The network always runs on batches of one size, padded: an image's features do not depend on
    what stands beside it. On a card the batches are larger, and the resize is the card's too.

    Args:
        name, extractor_weights_digest, layer, implementation: For the record, see `FeatureRecord`.
        weights: The file or folder of the weights.
        resize: One of `resize.RESIZES`.
        scaling: From resized bytes to the network's input.
        network: Maps float32 [batch, 3, size, size] to [batch, dim].
        size: Height and width of the network's input, in pixels.
        dim: d, the number of features.
        batch: Images per call.
        head: From features to logits, where the network is a classifier.
        beside: A file of the folder that counts besides its configuration and weights.

    Raises:
        ValueError: If the resize is unknown.
    """

    channels = None

    def __init__(
        self,
        name: str,
        weights: Path,
        extractor_weights_digest: str,
        layer: str,
        implementation: str,
        resize: str,
        scaling: Scaling,
        network: nn.Module,
        size: int,
        dim: int,
        batch: int,
        head: Head | None = None,
        beside: str = "",
    ) -> None:
        if resize not in RULES:
            raise ValueError(f"resize is {resize!r}; it must be one of {', '.join(RULES)}")
        rule = RULES[resize]
        self.name, self.weights, self.size = name, weights, size
        self.dim, self.batch, self.beside = dim, batch, beside
        self._network, self._scaling, self._head = network, scaling, head
        self._card: CardNetwork | None = None
        self.record = FeatureRecord(
            name,
            extractor_weights_digest,
            layer,
            resize,
            rule.library,
            f"{rule.filter}, to {size}x{size}",
            str(scaling),
            implementation,
            rule.quantisation,
        )
        self.digest = self.record.digest

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Maps uint8 [n, h, w, 1 or 3] of any one native size to float32 [n, d]."""
        require_images(images, images.shape[1:])
        if self._card is not None:
            return self._card(images)
        rows = torch.from_numpy(np.ascontiguousarray(images))
        return in_fixed_batches(self._features, self.batch, rows).numpy()

    def to_card(self, device: str) -> None:
        """Puts the network on a card, for good."""
        self._card = CardNetwork(
            self._network, device, self.size, self.dim, self.record.resize, *self._scaling
        )

    @property
    def has_classes(self) -> bool:
        """Whether the weights have a last layer of classes."""
        return self._head is not None

    def class_scores(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Maps its features [n, d] to logits [n, c], in float64.

        Raises:
            ValueError: If it has no classes.
        """
        if self._head is None:
            raise ValueError(f"{self.name} has no classes")
        weight, bias = self._head
        logits = features.astype(np.float64) @ weight.double().numpy().T
        return logits if bias is None else logits + bias.double().numpy()

    def _features(self, images: Tensor) -> Tensor:
        pixels = resized(images.numpy(), self.size, self.record.resize)
        return self._network(self._scaling(pixels)).float()
