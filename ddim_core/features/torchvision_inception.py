"""Inception networks of torchvision's shape, such as the lab's AFHQ classifier, given by a file."""

from __future__ import annotations

import re
from pathlib import Path

from torch import Tensor, nn

from ddim_core.common.digest import file_digest
from ddim_core.features.inception import INCEPTION_BATCH, INCEPTION_DIM, INCEPTION_SIZE
from ddim_core.features.model_folder import read_state
from ddim_core.features.network import Head, NetworkFeatures, Scaling

NOT_THE_TRUNK = ("AuxLogits", "avgpool", "dropout", "fc")
BLOCK_KEY = re.compile(r"block(\d)\.(\d)\.(.+)")


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
