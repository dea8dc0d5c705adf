"""Names that a page, its figures and MLflow share: of a cell, and of the figure with its images."""

from __future__ import annotations

CELL_DIGITS = 10  # of a cell's digest, by which `ddim score` and `ddim export` find it
PREVIEW_OF = "images-"  # and a cell's digits: the name of the figure with some of its images
