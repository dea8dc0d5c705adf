"""The pictures open, have the size their content asks for, and show their content."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from ddim_core.decisions.row import CellRow
from ddim_core.reports.grid_figures import contact_sheet, curves, heat_map
from tests.core.rows import cell_row


def row(steps: int, eta: float, fid: float, interval: bool = True) -> CellRow:
    return cell_row(**{
        "steps": steps, "eta": eta, "variance": "eta", "fid": fid,
        "fid_low": 0.9 * fid if interval else None, "fid_high": 1.1 * fid if interval else None,
        "checkpoint": "toy", "dataset": "digits", "split": "train", "extractor": "pixels",
        "n_images": 100, "n_reference": 1297,
    })  # fmt: skip


def grid(steps: tuple[int, ...], etas: tuple[float, ...]) -> list[CellRow]:
    return [row(s, eta, 100.0 / s + 10 * eta) for eta in etas for s in steps]


SMALL, LARGE = grid((5, 10), (0.0, 1.0)), grid((5, 10, 20, 50), (0.0, 0.2, 0.5, 1.0))


def opened(png: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(png))
    assert image.format == "PNG"
    return np.asarray(image.convert("RGB"))


def has_content(picture: np.ndarray) -> bool:
    return len(np.unique(picture.reshape(-1, 3), axis=0)) > 20


def test_heat_map_grows_with_the_grid() -> None:
    small, large = opened(heat_map(SMALL)), opened(heat_map(LARGE))
    assert has_content(small)
    assert large.shape[0] > small.shape[0]
    assert large.shape[1] > small.shape[1]
    assert large.shape[1] < 2000  # fits a page


def test_heat_map_shows_lower_scores_in_another_colour() -> None:
    good_left = opened(heat_map([row(5, 0.0, 1.0), row(10, 0.0, 100.0)]))
    good_right = opened(heat_map([row(5, 0.0, 100.0), row(10, 0.0, 1.0)]))
    assert good_left.shape == good_right.shape
    assert np.abs(good_left.astype(int) - good_right).mean() > 5


@pytest.mark.parametrize(
    "rows",
    [
        [row(5, 0.0, 10.0)],
        [row(5, 0.0, 0.0)],
        [row(5, 0.0, 10.0, interval=False), row(10, 0.0, 5.0, interval=False)],
        [row(5, 0.0, 10.0), row(10, 1.0, 5.0)],  # two holes
        [row(s, 0.1 * i, 3.0) for s in (5, 10) for i in range(10)],  # more lines than colours
    ],
    ids=["one cell", "zero", "no intervals", "holes", "many lines"],
)
def test_any_grid_can_be_drawn(rows: list[CellRow]) -> None:
    assert has_content(opened(heat_map(rows)))
    assert has_content(opened(curves(rows, floor=None)))


def test_curves_show_the_floor_where_there_is_one() -> None:
    n_images = SMALL[0].n_images
    with_floor = opened(curves(SMALL, floor=cell_row(fid=4.0, n_images=n_images)))
    without = opened(curves(SMALL, floor=None))
    assert has_content(with_floor)
    assert with_floor.shape != without.shape or (with_floor != without).any()
    of_fewer = opened(curves(SMALL, floor=cell_row(fid=4.0, n_images=n_images - 1)))
    assert np.array_equal(of_fewer, without)  # FID at another N is not comparable


@pytest.mark.parametrize("channels", [1, 3])
def test_contact_sheet_has_a_line_for_each_cell_and_shows_the_pixels(channels: int) -> None:
    dark = np.zeros((6, 8, 8, channels), np.uint8)
    bright = np.full_like(dark, 255)
    one = opened(contact_sheet({"S = 5": dark}))
    two = opened(contact_sheet({"S = 5": dark, "S = 10": bright}))
    assert two.shape[0] > 1.5 * one.shape[0]
    assert (one == 0).mean() > 0.3
    assert (opened(contact_sheet({"S = 5": bright})) == 0).mean() < 0.1


def test_contact_sheet_lets_a_short_line_end_early() -> None:
    images = {"long": np.zeros((6, 8, 8, 1), np.uint8), "short": np.zeros((2, 8, 8, 1), np.uint8)}
    assert has_content(opened(contact_sheet(images)))


def test_same_rows_give_the_same_bytes() -> None:
    assert heat_map(SMALL) == heat_map(SMALL)
    assert curves(SMALL, None) == curves(SMALL, None)
