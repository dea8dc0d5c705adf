"""The formats of other people's weights that are known, and where in a file each begins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import SequenceMatcher, get_close_matches
from itertools import islice

from torch import Tensor

from ddim_core.checkpoints.formats.adm import ADM
from ddim_core.checkpoints.formats.course import COURSE
from ddim_core.checkpoints.formats.edm import EDM
from ddim_core.checkpoints.formats.format import Format, count
from ddim_core.checkpoints.formats.lucidrains import LUCIDRAINS
from ddim_core.checkpoints.formats.official import OFFICIAL
from ddim_core.checkpoints.formats.score_sde import SCORE_SDE
from ddim_core.checkpoints.formats.transformers import TRANSFORMERS

FORMATS: tuple[Format, ...] = (  # the first that fits; what fits none has to be diffusers' own
    OFFICIAL,
    COURSE,
    ADM,
    EDM,
    LUCIDRAINS,
    SCORE_SDE,
    TRANSFORMERS,
)
ALIKE, MOST_COMPARED = 0.8, 1000  # of 1; names of weights
DIFFUSERS_MARK = "time_embedding.linear_1.weight"
# The longest first: where one mark ends with another, it says more.
MARKS = tuple(
    sorted({DIFFUSERS_MARK, *(mark for form in FORMATS for mark in form.marks)}, key=len)[::-1]
)


def nearest_form(names: Iterable[str]) -> str:
    """Says, after names of no known network, whose come nearest and by what; "" if none do."""
    seen = list(islice(names, MOST_COMPARED))
    marks = [(form.whose, mark) for form in FORMATS for mark in form.marks]
    near = [
        (SequenceMatcher(None, mark, found).ratio(), whose, mark, found)
        for whose, mark in [("diffusers", DIFFUSERS_MARK), *marks]
        for found in get_close_matches(mark, seen, n=1, cutoff=ALIKE)
    ]
    if not near:
        return ""
    _, whose, mark, found = max(near)
    return f"; nearest is {whose}, whose networks have {mark!r} where this has {found!r}"


def diffusers_looks(state: Mapping[str, Tensor]) -> str:
    """The configuration that weights of a UNet2DModel look like, in words."""
    n_levels = count(state, r"down_blocks\.(\d+)\.")
    first = [state.get(f"down_blocks.{i}.resnets.0.conv2.bias") for i in range(n_levels)]
    widths = [len(bias) for bias in first if bias is not None]
    attends = [i for i in range(n_levels) if f"down_blocks.{i}.attentions.0.to_q.weight" in state]
    layers = count(state, r"down_blocks\.0\.resnets\.(\d+)\.")
    return (
        f"a UNet2DModel with block_out_channels {widths}, layers_per_block {layers}, attention at "
        f"the levels {attends}"
    )
