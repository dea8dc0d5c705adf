"""Inception networks: that of FID as torch-fidelity has it, and any of torchvision's shape."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ddim_core.common.digest import file_digest
from ddim_core.features.model_folder import INCEPTION_URL, downloaded, read_state
from ddim_core.features.network import Head, NetworkFeatures, Scaling

INCEPTION_DIM = 2048
INCEPTION_SIZE = 299
INCEPTION_BATCH = 4
SPATIAL_LAYER, SPATIAL_CHANNELS, SPATIAL_SIDE = "Mixed_6d", 7, 17
NOT_THE_TRUNK = ("AuxLogits", "avgpool", "dropout", "fc")
BLOCK_KEY = re.compile(r"block(\d)\.(\d)\.(.+)")
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
        path, network = _fid_inception(weights_path)
        *trunk, classes = network.children()  # in the order in which they run
        super().__init__(
            "inception-v3", path, file_digest(path), f"pool, {INCEPTION_DIM}", "torch-fidelity",
            resize, SCALINGS.get(resize, SCALINGS["tf1"]), nn.Sequential(*trunk, nn.Flatten()),
            INCEPTION_SIZE, INCEPTION_DIM, INCEPTION_BATCH, Head(classes.weight, None),
        )  # fmt: skip


class SpatialInceptionFeatures(NetworkFeatures):
    """The 2023 spatial features of sFID: 7 channels of 17x17 pixels halfway through that Inception.

    They are the first channels of the first branch, a 1x1 convolution with its batch norm and ReLU,
    of the block that the TensorFlow graph names `mixed_6` and torch `Mixed_6d`.

    Source: Nash et al. 2021 (arXiv:2103.03841); layer and channels as guided-diffusion's evaluator.

    Args:
        weights_path, resize: As of `InceptionFeatures`.

    Raises:
        ValueError: As `InceptionFeatures`.
    """

    def __init__(self, weights_path: str | None = None, resize: str = "tf1") -> None:
        path, network = _fid_inception(weights_path)
        layers = dict(network.named_children())
        before = list(layers)[: list(layers).index(SPATIAL_LAYER)]
        trunk = nn.Sequential(
            *(layers[name] for name in before), layers[SPATIAL_LAYER].branch1x1, FirstChannels()
        )
        dim = SPATIAL_CHANNELS * SPATIAL_SIDE**2
        super().__init__(
            "inception-v3-spatial", path, file_digest(path), f"mixed_6/conv, {dim}",
            "torch-fidelity", resize, SCALINGS.get(resize, SCALINGS["tf1"]), trunk,
            INCEPTION_SIZE, dim, INCEPTION_BATCH,
        )  # fmt: skip


class FirstChannels(nn.Module):
    """The first channels of [batch, channel, height, width], as rows [batch, 7 height width]."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :SPATIAL_CHANNELS].flatten(1)


def _fid_inception(weights_path: str | None) -> tuple[Path, Any]:
    """torch-fidelity's network, and the file of its weights."""
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
    return path, network


class AfhqInceptionFeatures(NetworkFeatures):
    """The 2048 pool features of a torchvision Inception whose state dict is given.

    Read as torchvision names its layers, or in StarGAN v2's four blocks (`block1.0.conv.weight`
    ...), which is how FID code of AFHQ keeps them. The network sees 2 v / 255 - 1, as the AFHQ
    classifier was trained. Where the file has the last layer `fc`, its logits are class scores.

    Args:
        weights_path: A file that torch.save wrote of a state dict.
        resize: `torch` (StarGAN v2's own), `clean` or `tf1`.

    Raises:
        ValueError: If the file is not there or holds the weights of something else.
    """

    def __init__(self, weights_path: str, resize: str = "torch") -> None:
        from torchvision.models import Inception3

        path = Path(weights_path)
        network = Inception3(aux_logits=False, num_classes=1, init_weights=False)
        trunk = nn.ModuleDict(
            {name: m for name, m in network.named_children() if name not in NOT_THE_TRUNK}
        )
        state = _by_layer(
            read_state(path, "afhq-inception"),
            [name for name in trunk if not name.startswith("maxpool")],
        )
        try:
            trunk.load_state_dict({key: v for key, v in state.items() if _layer(key) in trunk})
        except RuntimeError as error:
            raise ValueError(
                f"{path.name} holds no torchvision Inception: {str(error).splitlines()[-1].strip()}"
            ) from error
        trunk.eval().requires_grad_(False)
        head = None
        if "fc.weight" in state and state["fc.weight"].shape[0] > 1:
            head = Head(state["fc.weight"], state.get("fc.bias"))
        pooled = nn.Sequential(*trunk.values(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        super().__init__(
            "afhq-inception", path, file_digest(path), f"pool, {INCEPTION_DIM}", "torchvision",
            resize, Scaling((127.5,), (127.5,)), pooled,
            INCEPTION_SIZE, INCEPTION_DIM, INCEPTION_BATCH, head,
        )  # fmt: skip


def _layer(key: str) -> str:
    return key.split(".", 1)[0]


def _by_layer(state: dict[str, Tensor], layers: list[str]) -> dict[str, Tensor]:
    """Gives a state dict torchvision's names, whichever of the two it has."""
    state = {key.removeprefix("module."): value for key, value in state.items()}
    places = sorted({m.group(1, 2) for key in state if (m := BLOCK_KEY.fullmatch(key))})
    if len(places) != len(layers):
        return state
    names = dict(zip(places, layers, strict=True))
    renamed = {}
    for key, value in state.items():
        found = BLOCK_KEY.fullmatch(key)
        renamed[f"{names[found.group(1, 2)]}.{found[3]}" if found else key] = value
    return renamed
