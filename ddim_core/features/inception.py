"""The Inception network of FID, as torch-fidelity has it."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from ddim_core.common.digest import file_digest
from ddim_core.features.model_folder import INCEPTION_URL, downloaded, read_state
from ddim_core.features.network import Head, NetworkFeatures, Scaling

INCEPTION_DIM = 2048
INCEPTION_SIZE = 299
INCEPTION_BATCH = 4
# pytorch-fid takes v / 255 to 2 v / 255 - 1; TensorFlow's graph, and clean-fid, have 128.
SCALINGS = {
    "tf1": Scaling((128.0,), (128.0,)),
    "clean": Scaling((128.0,), (128.0,)),
    "torch": Scaling((127.5,), (127.5,)),
}


class InceptionFeatures(NetworkFeatures):
    """The 2048 pool features of the Inception of FID, the TensorFlow network of 2015-12-05.

    With resize `tf1` the features are torch-fidelity's, with `torch` pytorch-fid's, with `clean`
    clean-fid's. Its class scores are the 1008 logits without their bias, as torch-fidelity's
    Inception score takes them.

    Args:
        weights_path: The weights file of torch-fidelity or of pytorch-fid (the same 566 tensors);
            None takes torch-fidelity's copy in torch.hub's folder, which is downloaded once.
        resize: `tf1`, `clean` or `torch`; the scaling follows its owner's.

    Raises:
        ValueError: If the weights cannot be had or are something else, or the resize is unknown.
    """

    def __init__(self, weights_path: str | None = None, resize: str = "tf1") -> None:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        path = Path(weights_path) if weights_path else downloaded(INCEPTION_URL, "inception-v3")
        read_state(path, "inception-v3")  # torch-fidelity itself would run whatever is pickled
        try:
            network = FeatureExtractorInceptionV3(
                "inception-v3", [str(INCEPTION_DIM)], feature_extractor_weights_path=str(path)
            )
        except RuntimeError as error:
            raise ValueError(
                f"{path.name} holds the weights of another network than inception-v3 (torch-"
                "fidelity's or pytorch-fid's file has 566 tensors)"
            ) from error
        *trunk, classes = network.children()  # in the order in which they run
        super().__init__(
            "inception-v3", path, file_digest(path), f"pool, {INCEPTION_DIM}", "torch-fidelity",
            resize, SCALINGS.get(resize, SCALINGS["tf1"]), nn.Sequential(*trunk, nn.Flatten()),
            INCEPTION_SIZE, INCEPTION_DIM, INCEPTION_BATCH, Head(classes.weight, None),
        )  # fmt: skip
