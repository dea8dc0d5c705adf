"""The formats of other people's weights that are known, and where in a file each begins."""

from __future__ import annotations

from ddim_core.checkpoints.formats.adm import ADM
from ddim_core.checkpoints.formats.course import COURSE
from ddim_core.checkpoints.formats.edm import EDM
from ddim_core.checkpoints.formats.format import Format
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
DIFFUSERS_MARK = "time_embedding.linear_1.weight"
# The longest first: where one mark ends with another, it says more.
MARKS = tuple(
    sorted({DIFFUSERS_MARK, *(mark for form in FORMATS for mark in form.marks)}, key=len)[::-1]
)
