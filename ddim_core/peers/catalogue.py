"""Whose protocol a score can follow: which features each takes, and what it makes of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ddim_core.common.checks import require_choice
from ddim_core.peers import numbers
from ddim_core.peers.numbers import Numbers, Sides

COLUMNS = {"inception-v3": 2048, "inception-v3-spatial": 2023, "dinov2-vit-l-14": 1024}


@dataclass(frozen=True)
class Space:
    """One feature space of a peer.

    Attributes:
        extractor, resize: By our names.
        numbers: What the peer computes there, under its own names.
    """

    extractor: str
    resize: str
    numbers: Callable[[Sides], Numbers]

    @property
    def columns(self) -> int | None:
        """How many features it has; None of an extractor that does not say."""
        return COLUMNS.get(self.extractor)


@dataclass(frozen=True)
class Peer:
    """A program whose numbers people quote.

    Attributes:
        name: Of it.
        version: That the agreement was measured with.
        spaces: Its feature spaces; the first is that of the scores beside its numbers.
        left_out: What it reports besides, which is not computed here.
    """

    name: str
    version: str
    spaces: tuple[Space, ...]
    left_out: str = ""


ALL_PEERS = (
    Peer("pytorch-fid", "0.3.0", (Space("inception-v3", "torch", numbers.pytorch_fid),)),
    Peer("clean-fid", "0.1.35", (Space("inception-v3", "clean", numbers.clean_fid),)),
    Peer(
        "torch-fidelity",
        "0.4.0",
        (Space("inception-v3", "tf1", numbers.torch_fidelity),),
        "precision and recall of VGG-16, perceptual path length",
    ),
    Peer(
        "adm",
        "guided-diffusion 22e0df8",
        (
            Space("inception-v3", "tf1", numbers.adm),
            Space("inception-v3-spatial", "tf1", numbers.adm_spatial),
        ),
    ),
    Peer(
        "edm2",
        "NVlabs/edm2 4bf8162",
        (
            Space("inception-v3", "tf1", numbers.edm2_fid),
            Space("dinov2-vit-l-14", "bicubic", numbers.edm2_dino),
        ),
    ),
    Peer(
        "dgm-eval",
        "layer6ai-labs/dgm-eval 74c79f7",
        (Space("dinov2-vit-l-14", "pillow", numbers.dgm_eval),),
        "fd-infinity, sw_approx, authpct, ct, fls",
    ),
)
PEERS = {peer.name: peer for peer in ALL_PEERS}


def peer_named(name: str) -> Peer:
    """The peer of a name.

    Raises:
        ValueError: If there is none.
    """
    require_choice("as", name, tuple(PEERS))
    return PEERS[name]
