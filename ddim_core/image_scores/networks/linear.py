"""Linear layers on top of a network's vector, with nothing between them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise

from torch import Tensor, nn

from ddim_core.networks.building import LOADING

LAYER = re.compile(r"(?:layers\.)?(\d+)\.(weight|bias)")
# Where linear layers stand in the aesthetic predictor's and in ImageReward's list: dropout, which
# does nothing here, stands between them. Those of a version with ReLU stand elsewhere.
PLACES = [0, 2, 4, 6, 7]


def linear_layers(state: Mapping[str, Tensor], what: str, width: int) -> nn.Sequential:
    """Builds the five linear layers of improved-aesthetic-predictor, which ImageReward took over.

    Args:
        state: `layers.0.weight` [1024, width], `layers.0.bias`, ..., `layers.7.weight` [1, 16].
        what: The score, for messages.
        width: Of the vector that they are given.

    Raises:
        ValueError: If it is something else, such as the layers with ReLU between them.
    """
    named = {m.groups(): value for name, value in state.items() if (m := LAYER.fullmatch(name))}
    places = sorted({int(place) for place, _ in named})
    if places != PLACES or len(state) != 2 * len(PLACES):
        raise ValueError(
            f"the layers of {what} stand at {places or 'no places'}; linear ones without ReLU "
            f"stand at {PLACES}, as in sac+logos+ava1-l14-linearMSE.pth"
        )
    widths = [width, *(len(named[str(place), "weight"]) for place in places)]
    with LOADING:
        network = nn.Sequential(*(nn.Linear(a, b) for a, b in pairwise(widths)))
    try:
        for place, layer in zip(places, network, strict=True):
            layer.load_state_dict({part: named[str(place), part] for part in ("weight", "bias")})
    except (RuntimeError, KeyError) as error:
        raise ValueError(
            f"the layers of {what} do not lead from {width} numbers to one: {error}"
        ) from error
    if widths[-1] != 1:
        raise ValueError(f"the layers of {what} end in {widths[-1]} numbers; they must end in one")
    return network.eval().requires_grad_(False)
