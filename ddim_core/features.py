"""Feature extractors: images in, rows of numbers out, for distances between sets of images."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlparse

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ddim_core.batches import in_fixed_batches
from ddim_core.images import ImageSet, from_uint8
from ddim_core.specs import ClassifierSpec

BATCH = 64
DROPOUT = 0.2
WEIGHT_DECAY = 0.01
LABEL_SMOOTHING = 0.05
HEADER = "classifier"
LAYOUT = torch.channels_last
INCEPTION_DIM = 2048
INCEPTION_BATCH = 4


class FeatureExtractor(Protocol):
    """Maps images to features; the batch is the extractor's own affair and changes no feature.

    Attributes:
        name: For people and for the table.
        digest: The sha256 of all that decides the features.
        dim: d, the number of features.
    """

    @property
    def name(self) -> str: ...
    @property
    def digest(self) -> str: ...
    @property
    def dim(self) -> int: ...
    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Maps uint8 [n, height, width, channels] to float32 [n, d]."""


class PixelFeatures:
    """The pixels themselves, divided by 255, in row-major order [height, width, channels].

    Args:
        height, width, channels: Shape of one image.
    """

    name = "pixels"

    def __init__(self, height: int, width: int, channels: int) -> None:
        self.shape = (height, width, channels)
        self.dim = height * width * channels
        self.digest = hashlib.sha256(f"pixels / 255 of {self.shape}".encode()).hexdigest()

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Maps uint8 [n, h, w, c] to float32 [n, h w c] in [0, 1]."""
        _require_images(images, self.shape)
        return images.reshape(len(images), -1).astype(np.float32) / np.float32(255.0)


class InceptionFeatures:
    """The 2048 pool features of the Inception of FID, as torch-fidelity 0.4 computes them.

    The network is the TensorFlow one of 2015-12-05 with its own bilinear resize to 299x299. It is
    loaded on first use. Grey images get three equal channels.

    Args:
        weights_path: A local copy of torch-fidelity's weights file; None takes the copy in
            torch.hub's folder, which is downloaded once if it is not there.
    """

    name = "inception-v3"
    dim = INCEPTION_DIM

    def __init__(self, weights_path: str | None = None) -> None:
        if weights_path is not None and not Path(weights_path).is_file():
            raise ValueError(f"there is no weights file {weights_path!r}")
        self.weights_path = weights_path

    @cached_property
    def digest(self) -> str:
        """The sha256 of the weights file and of the version of torch-fidelity."""
        with self._weights.open("rb") as file:
            weights = hashlib.file_digest(file, "sha256").hexdigest()
        version = importlib.metadata.version("torch-fidelity")
        return hashlib.sha256(f"{self.name} {version} {weights}".encode()).hexdigest()

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Maps uint8 [n, h, w, 1 or 3] to float32 [n, 2048]."""
        _require_images(images, images.shape[1:])
        if images.shape[-1] == 1:
            images = images.repeat(3, axis=-1)
        pixels = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        return in_fixed_batches(self._pool, INCEPTION_BATCH, pixels).numpy()

    def _pool(self, pixels: Tensor) -> Tensor:
        return self._network(pixels)[0]

    @cached_property
    def _weights(self) -> Path:
        from torch_fidelity import feature_extractor_inceptionv3 as inception

        if self.weights_path is not None:
            return Path(self.weights_path)
        name = Path(urlparse(inception.URL_INCEPTION_V3).path).name
        path = Path(torch.hub.get_dir()) / "checkpoints" / name
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            prefix = path.stem.rsplit("-", 1)[-1]  # of the sha256, as in every torch.hub file
            torch.hub.download_url_to_file(inception.URL_INCEPTION_V3, str(path), prefix, False)
        return path

    @cached_property
    def _network(self) -> nn.Module:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        torch.load(self._weights, weights_only=True)  # torch-fidelity itself would run a pickle
        return FeatureExtractorInceptionV3(
            self.name, [str(INCEPTION_DIM)], feature_extractor_weights_path=str(self._weights)
        )


class ClassifierNet(nn.Module):
    """A small convolutional classifier for square images of any size.

    Images are halved until they are at most 8 pixels wide; group norms keep an image's result
    free of its batch. The features are the last hidden layer before its activation, so that they
    are signed and nearly normal rather than cut off at 0.

    Args:
        resolution, channels: Shape of the images.
        width: Channels of the first convolution; a multiple of 8.
        n_features: d, the size of the last hidden layer.
        n_classes: Number of logits.
    """

    def __init__(
        self, resolution: int, channels: int, width: int, n_features: int, n_classes: int
    ) -> None:
        super().__init__()
        layers = _convolution(channels, width)
        for _ in range(max(0, math.ceil(math.log2(resolution / 8)))):
            layers += [nn.MaxPool2d(2, ceil_mode=True), *_convolution(width, width)]
        layers += [*_convolution(width, 2 * width), nn.MaxPool2d(2, ceil_mode=True)]
        layers += [*_convolution(2 * width, 4 * width), nn.AdaptiveAvgPool2d(2), nn.Flatten()]
        self.trunk = nn.Sequential(*layers, nn.Dropout(DROPOUT))
        self.hidden = nn.Linear(16 * width, n_features)
        self.head = nn.Sequential(nn.SiLU(), nn.Dropout(DROPOUT), nn.Linear(n_features, n_classes))

    def features(self, x: Tensor) -> Tensor:
        """Maps float images [n, c, h, w] in [-1, 1] to features [n, n_features]."""
        return self.hidden(self.trunk(x))

    def forward(self, x: Tensor) -> Tensor:
        """Maps float images [n, c, h, w] in [-1, 1] to logits [n, n_classes]."""
        return self.head(self.features(x))


def _convolution(n_in: int, n_out: int) -> list[nn.Module]:
    return [nn.Conv2d(n_in, n_out, 3, padding=1), nn.GroupNorm(8, n_out), nn.SiLU()]


class ClassifierFeatures:
    """The last hidden layer of a small classifier trained on the data set's own labels.

    Args:
        network: The trained network.
        about: What was trained on what, and how well: `resolution`, `channels`, `n_classes`, the
            fields of its spec, and `test_accuracy` (share of held-out images it gets right).
    """

    name = "classifier"

    def __init__(self, network: ClassifierNet, about: dict[str, Any]) -> None:
        self.network = network.eval().requires_grad_(False).to(memory_format=LAYOUT)
        self.about = about
        self.shape = (about["resolution"], about["resolution"], about["channels"])
        self.dim: int = network.hidden.out_features
        self.digest = hashlib.sha256(self.to_bytes()).hexdigest()

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Maps uint8 [n, h, w, c] to float32 [n, d]."""
        _require_images(images, self.shape)
        return in_fixed_batches(self.network.features, BATCH, _floats(images)).numpy()

    def logits(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Maps uint8 [n, h, w, c] to the logits of the classes, float32 [n, n_classes]."""
        _require_images(images, self.shape)
        return in_fixed_batches(self.network, BATCH, _floats(images)).numpy()

    def accuracy(self, images: ImageSet) -> float:
        """The share of labelled images that it classifies rightly, in [0, 1]."""
        return float((self.logits(images.images).argmax(axis=1) == _labels(images)).mean())

    def to_bytes(self) -> bytes:
        """The content of a safetensors file; what it is about is JSON in the file's header.

        The header holds one entry only, because safetensors does not order several.
        """
        tensors = {k: v.contiguous() for k, v in self.network.state_dict().items()}
        return safetensors.torch.save(tensors, {HEADER: json.dumps(self.about, sort_keys=True)})

    @classmethod
    def from_bytes(cls, data: bytes) -> ClassifierFeatures:
        """Reads what `to_bytes` made.

        Raises:
            ValueError: If it is something else.
        """
        about = _about(data)
        network = _network(about)
        network.load_state_dict(safetensors.torch.load(data))
        return cls(network, about)


def train_classifier(spec: ClassifierSpec, train: ImageSet, test: ImageSet) -> ClassifierFeatures:
    """Trains the classifier on labelled images; every draw follows from the spec's seed.

    Adam with a linear fall of the learning rate; images are shifted at random by up to
    `spec.shift` pixels, edges repeated.

    Args:
        spec: How it is trained.
        train: Labelled images to train on.
        test: Held-out labelled images, for the recorded accuracy alone.

    Raises:
        ValueError: If a set has no labels, or the sets differ in shape.
    """
    labels = torch.from_numpy(_labels(train))
    _labels(test)
    _require_images(test.images, train.images.shape[1:])
    resolution, channels = train.images.shape[2:]
    about: dict[str, Any] = asdict(spec) | {
        "resolution": resolution,
        "channels": channels,
        "n_classes": int(labels.max()) + 1,
    }
    stream = torch.Generator().manual_seed(spec.seed)
    with torch.random.fork_rng(devices=[]):  # initial weights and dropout use the global stream
        torch.manual_seed(spec.seed)
        network = _network(about).train()
        _fit(network, spec, from_uint8(train.images), labels, stream)
    about["test_accuracy"] = ClassifierFeatures(network, about).accuracy(test)
    return ClassifierFeatures(network, about)


def _fit(
    network: ClassifierNet,
    spec: ClassifierSpec,
    pixels: Tensor,
    labels: Tensor,
    stream: torch.Generator,
) -> None:
    network.to(memory_format=LAYOUT)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=spec.learning_rate, weight_decay=WEIGHT_DECAY, fused=True
    )
    for step in range(spec.steps):
        for group in optimizer.param_groups:
            group["lr"] = spec.learning_rate * (1.0 - step / spec.steps)
        rows = torch.randint(0, len(pixels), (spec.batch_size,), generator=stream)
        x = _shifted(pixels[rows], spec.shift, stream)
        loss = nn.functional.cross_entropy(
            network(x.contiguous(memory_format=LAYOUT)),
            labels[rows],
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


def _network(about: dict[str, Any]) -> ClassifierNet:
    keys = ("resolution", "channels", "width", "n_features", "n_classes")
    return ClassifierNet(*(about[key] for key in keys))


def _about(data: bytes) -> dict[str, Any]:
    """Reads our entry of a safetensors header: 8 bytes of length, then JSON."""
    length = int.from_bytes(data[:8], "little")
    try:
        return json.loads(json.loads(data[8 : 8 + length])["__metadata__"][HEADER])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{len(data)} bytes are no stored classifier; they must come from to_bytes"
        ) from error


def _floats(images: NDArray[np.uint8]) -> Tensor:
    return from_uint8(images).contiguous(memory_format=LAYOUT)


def _labels(images: ImageSet) -> NDArray[np.int64]:
    if images.labels is None:
        raise ValueError(f"{images.name} {images.split} has no labels; a classifier needs them")
    return images.labels


def _require_images(images: NDArray[np.uint8], shape: tuple[int, ...]) -> None:
    if images.dtype != np.uint8 or images.shape[1:] != shape or len(images) == 0:
        raise ValueError(
            f"images are {images.dtype} of shape {images.shape}; "
            f"they must be uint8 [n >= 1, {', '.join(map(str, shape))}]"
        )
