"""A small classifier of the data set's own labels; its last convolution is a feature space."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, fields, replace

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ddim_core.devices.transfer import sent
from ddim_core.features.extractor import FeatureRecord, require_images
from ddim_core.images.image_set import ImageSet
from ddim_core.images.pixels import from_uint8
from ddim_core.networks.batches import in_fixed_batches
from ddim_core.networks.building import LOADING, seeded_weights
from ddim_core.networks.specs import ClassifierSpec

BATCH = 64
BATCH_ON_CARD = 2048
DROPOUT = 0.2
WEIGHT_DECAY = 0.01
LABEL_SMOOTHING = 0.05
HEADER = "classifier"
LAYOUT = torch.channels_last


class ClassifierNet(nn.Module):
    """A small convolutional classifier for square images of any size.

    Images are halved until they are at most 8 pixels wide; group norms keep an image's result
    free of its batch. As in the Inception of FID, the features are the pooled output of the last
    convolution, before the linear layer: here the means over the four quarters of the image.

    Args:
        resolution, channels: Shape of the images.
        width: Channels of the first convolution, a multiple of 8; there are 16 times as many
            features.
        n_classes: Number of logits.
    """

    def __init__(self, resolution: int, channels: int, width: int, n_classes: int) -> None:
        super().__init__()
        layers = _convolution(channels, width)
        for _ in range(max(0, math.ceil(math.log2(resolution / 8)))):
            layers += [nn.MaxPool2d(2, ceil_mode=True), *_convolution(width, width)]
        layers += [*_convolution(width, 2 * width), nn.MaxPool2d(2, ceil_mode=True)]
        layers += [*_convolution(2 * width, 4 * width), nn.AdaptiveAvgPool2d(2), nn.Flatten()]
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(16 * width, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Maps float images [n, c, h, w] in [-1, 1] to logits [n, n_classes]."""
        return self.head(self.features(x))


def _convolution(n_in: int, n_out: int) -> list[nn.Module]:
    return [nn.Conv2d(n_in, n_out, 3, padding=1), nn.GroupNorm(8, n_out), nn.SiLU()]


@dataclass(frozen=True)
class Training:
    """What a classifier was trained on, and how well.

    Attributes:
        spec: How it was trained.
        resolution, channels: Shape of the images.
        n_classes: Classes that it tells apart.
        test_accuracy: Share of held-out images that it gets right; None before they are looked at.
    """

    spec: ClassifierSpec
    resolution: int
    channels: int
    n_classes: int
    test_accuracy: float | None = None

    def to_json(self) -> str:
        told = asdict(self)
        return json.dumps(told.pop("spec") | told, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Training:
        told = json.loads(text)
        spec = ClassifierSpec(**{f.name: told.pop(f.name) for f in fields(ClassifierSpec)})
        return cls(spec, **told)

    def network(self) -> ClassifierNet:
        return ClassifierNet(self.resolution, self.channels, self.spec.width, self.n_classes)


class ClassifierFeatures:
    """The pooled last convolution of a small classifier trained on the data set's own labels.

    Args:
        network: The trained network.
        about: What was trained on what, and how well.
    """

    name = "classifier"
    has_classes = True

    def __init__(self, network: ClassifierNet, about: Training) -> None:
        self.network = network.eval().requires_grad_(False).to(memory_format=LAYOUT)
        self.about = about
        self.shape = (about.resolution, about.resolution, about.channels)
        self.channels = about.channels
        self.dim = 16 * about.spec.width
        self.record = FeatureRecord(
            self.name, hashlib.sha256(self.to_bytes()).hexdigest(), "pooled last convolution",
            "none", "none", "none", "v / 127.5 - 1", "ddim-flows",
        )  # fmt: skip
        self.digest = self.record.digest
        self._device, self._batch = "cpu", BATCH

    def to_card(self, device: str) -> None:
        """Puts the network on a card, for good; it then runs in larger batches."""
        self.network.to(device)
        self._device, self._batch = device, BATCH_ON_CARD

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Maps uint8 [n, h, w, c] to float32 [n, d]."""
        require_images(images, self.shape)
        return self._asked(self.network.features, images)

    def logits(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Maps uint8 [n, h, w, c] to the logits of the classes, float32 [n, n_classes]."""
        require_images(images, self.shape)
        return self._asked(self.network, images)

    def _asked(self, network: nn.Module, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        pixels = _floats(images).to(self._device)
        return in_fixed_batches(network, self._batch, pixels).cpu().numpy()

    def class_scores(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Maps its features [n, d] to the logits of the classes [n, n_classes], in float64."""
        head = self.network.head
        weight, bias = (x.double().cpu().numpy() for x in (head.weight, head.bias))
        return features.astype(np.float64) @ weight.T + bias

    def accuracy(self, images: ImageSet) -> float:
        """The share of labelled images that it classifies rightly, in [0, 1]."""
        return float((self.logits(images.images).argmax(axis=1) == _labels(images)).mean())

    def to_bytes(self) -> bytes:
        """The content of a safetensors file; what it is about is JSON in the file's header.

        The header holds one entry only, because safetensors does not order several.
        """
        tensors = {k: v.contiguous() for k, v in self.network.state_dict().items()}
        return safetensors.torch.save(tensors, {HEADER: self.about.to_json()})

    @classmethod
    def from_bytes(cls, data: bytes) -> ClassifierFeatures:
        """Reads what `to_bytes` made.

        Raises:
            ValueError: If it is something else.
        """
        about = _about(data)
        with LOADING:
            network = about.network()
        network.load_state_dict(safetensors.torch.load(data))
        return cls(network, about)


def train_classifier(
    spec: ClassifierSpec, train: ImageSet, test: ImageSet, device: str = "cpu"
) -> ClassifierFeatures:
    """Trains the classifier on labelled images; every draw follows from the spec's seed, on a card
    as on a CPU.

    Adam with a linear fall of the learning rate; images are shifted at random by up to
    `spec.shift` pixels, edges repeated.

    Args:
        spec: How it is trained.
        train: Labelled images to train on.
        test: Held-out labelled images, for the recorded accuracy alone.
        device: Where it is trained, the CPU or a card; it comes back on the CPU.

    Raises:
        ValueError: If a set has no labels, or the sets differ in shape.
    """
    labels = torch.from_numpy(_labels(train))
    _labels(test)
    require_images(test.images, train.images.shape[1:])
    resolution, channels = train.images.shape[2:]
    about = Training(spec, resolution, channels, n_classes=int(labels.max()) + 1)
    stream = torch.Generator().manual_seed(spec.seed)
    with seeded_weights(spec.seed):
        network = about.network().train()
    _fit(network, spec, from_uint8(train.images), labels, stream, torch.device(device))
    network.to("cpu")
    accuracy = ClassifierFeatures(network, about).accuracy(test)
    return ClassifierFeatures(network, replace(about, test_accuracy=accuracy))


def _fit(
    network: ClassifierNet,
    spec: ClassifierSpec,
    pixels: Tensor,
    labels: Tensor,
    stream: torch.Generator,
    device: torch.device,
) -> None:
    network.to(memory_format=LAYOUT).to(device)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=spec.learning_rate, weight_decay=WEIGHT_DECAY, fused=True
    )
    for step in range(spec.steps):
        for group in optimizer.param_groups:
            group["lr"] = spec.learning_rate * (1.0 - step / spec.steps)
        rows = torch.randint(0, len(pixels), (spec.batch_size,), generator=stream)
        x = _shifted(pixels[rows], spec.shift, stream)
        features = network.features(sent(x.contiguous(memory_format=LAYOUT), device))
        # Dropout by hand: torch's own draws from the global stream, which threads share.
        kept = torch.rand(features.shape, generator=stream) >= DROPOUT
        loss = nn.functional.cross_entropy(
            network.head(features * sent(kept, device) / (1.0 - DROPOUT)),
            sent(labels[rows], device),
            label_smoothing=LABEL_SMOOTHING,
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _shifted(x: Tensor, shift: int, stream: torch.Generator) -> Tensor:
    """Moves every image [n, c, h, w] by its own whole number of pixels, edges repeated."""
    n, _, height, width = x.shape
    padded = nn.functional.pad(x, (shift,) * 4, mode="replicate")
    offsets = torch.randint(0, 2 * shift + 1, (2, n, 1), generator=stream)
    rows = (torch.arange(height) + offsets[0])[:, :, None]
    columns = (torch.arange(width) + offsets[1])[:, None, :]
    return padded.permute(0, 2, 3, 1)[torch.arange(n)[:, None, None], rows, columns].permute(
        0, 3, 1, 2
    )


def _about(data: bytes) -> Training:
    """Reads our entry of a safetensors header: 8 bytes of length, then JSON."""
    length = int.from_bytes(data[:8], "little")
    try:
        return Training.from_json(json.loads(data[8 : 8 + length])["__metadata__"][HEADER])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{len(data)} bytes are no stored classifier; they must come from to_bytes"
        ) from error


def _floats(images: NDArray[np.uint8]) -> Tensor:
    return from_uint8(images).contiguous(memory_format=LAYOUT)


def _labels(images: ImageSet) -> NDArray[np.int64]:
    if images.labels is None:
        raise ValueError(
            f"{images.name} {images.split} has no labels, which a classifier needs; choose other "
            "features"
        )
    return images.labels
