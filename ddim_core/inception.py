"""The Inception network of FID, as torch-fidelity has it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import pickle
from functools import cached_property
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ddim_core.batches import in_fixed_batches
from ddim_core.features import require_images

INCEPTION_DIM = 2048
INCEPTION_BATCH = 4


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
        with self.weights.open("rb") as file:
            weights = hashlib.file_digest(file, "sha256").hexdigest()
        version = importlib.metadata.version("torch-fidelity")
        return hashlib.sha256(f"{self.name} {version} {weights}".encode()).hexdigest()

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Maps uint8 [n, h, w, 1 or 3] to float32 [n, 2048]."""
        require_images(images, images.shape[1:])
        if images.shape[-1] == 1:
            images = images.repeat(3, axis=-1)
        pixels = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        return in_fixed_batches(self._pool, INCEPTION_BATCH, pixels).numpy()

    def check(self) -> None:
        """Opens the weights.

        Raises:
            ValueError: If they cannot be had, or are something else.
        """
        self._network  # noqa: B018

    def _pool(self, pixels: Tensor) -> Tensor:
        return self._network(pixels)[0]

    @cached_property
    def weights(self) -> Path:
        """The weights file, downloaded if it is nowhere yet."""
        from torch_fidelity import feature_extractor_inceptionv3 as inception

        if self.weights_path is not None:
            return Path(self.weights_path)
        name = Path(urlparse(inception.URL_INCEPTION_V3).path).name
        path = Path(torch.hub.get_dir()) / "checkpoints" / name
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            prefix = path.stem.rsplit("-", 1)[-1]  # of the sha256, as in every torch.hub file
            try:
                torch.hub.download_url_to_file(inception.URL_INCEPTION_V3, str(path), prefix, False)
            except OSError as error:
                raise ValueError(
                    f"the weights of {self.name} could not be downloaded ({error}); give a local "
                    "copy of torch-fidelity's file"
                ) from error
        return path

    @cached_property
    def _network(self) -> nn.Module:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        try:  # torch-fidelity itself would run whatever is pickled
            torch.load(self.weights, weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
            raise ValueError(f"{self.weights} holds no plain weights of {self.name}") from error
        return FeatureExtractorInceptionV3(
            self.name, [str(INCEPTION_DIM)], feature_extractor_weights_path=str(self.weights)
        )
