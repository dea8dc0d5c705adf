"""The paper report's pictures open and grow with their content; its sentences follow the data."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ddim_core.decisions.row import CellRow
from ddim_core.diffusion.reconstruction import MeanError
from ddim_core.reports.paper_figures import (
    consistency_sheet,
    cost_figure,
    grid_sheet,
    line_sheet,
    reconstruction_sheet,
    samples_sheet,
    table_1_figure,
    table_2_figure,
    x0_sheet,
)
from ddim_core.reports.paper_sentences import RECONSTRUCTION, STEPS, fid_of, read_paper, table_1
from tests.core.rows import cell_row

N_GROUPS = 10


def row(steps: int, eta: float, fid: float, variance: str = "eta", **more: Any) -> CellRow:
    """A row whose groups of images all but agree."""
    wobble = np.random.default_rng(0).normal(scale=0.01, size=N_GROUPS)
    return cell_row(**{
        "steps": steps, "eta": eta, "variance": variance, "fid": fid, "fid_low": 0.9 * fid,
        "fid_high": 1.1 * fid, "fid_leave_one_out": (fid * (1 + wobble)).tolist(),
        "group_sizes": [10] * N_GROUPS, "n_images": 100, "nfe": steps, "device": "cpu",
        "sample_seconds": 0.1 * steps, "checkpoint": "toy", "dataset": "digits",
        "extractor": "pixels", "resolution": 8, **more,
    })  # fmt: skip


def as_in_the_paper() -> list[CellRow]:
    return [row(r.steps, r.eta, r.fid, r.variance, clip=r.clip) for r in table_1()]


def error(mse: float, interval: bool = True) -> MeanError:
    low, high = (0.5 * mse, 1.5 * mse) if interval else (None, None)
    return MeanError(mse, low, high)


def opened(png: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(png))
    assert image.format == "PNG"
    return np.asarray(image.convert("RGB"))


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (*shape, 8, 8, 1), dtype=np.uint8)


def test_table_1_has_two_panels_side_by_side() -> None:
    picture = opened(table_1_figure(as_in_the_paper()))
    height, width, _ = picture.shape
    assert 900 < width < 1300
    assert 350 < height < 600
    left, right = picture[:, : width // 2], picture[:, width // 2 :]
    assert all(len(np.unique(half.reshape(-1, 3), axis=0)) > 20 for half in (left, right))


def test_only_our_panel_follows_our_numbers() -> None:
    one = opened(table_1_figure([row(10, 0.0, 5.0), row(20, 0.0, 3.0)]))
    two = opened(table_1_figure([row(10, 0.0, 5.0), row(20, 0.0, 4.5)]))
    assert one.shape == two.shape
    half = one.shape[1] // 2
    assert (one[:, :half] != two[:, :half]).any()
    assert (one[:, half + 20 :] == two[:, half + 20 :]).all()


@pytest.mark.parametrize("interval", [True, False])
def test_table_2_and_cost_are_single_plots(interval: bool) -> None:
    errors = {s: error(0.1 / s, interval) for s in (10, 50, 1000)}
    for png in (table_2_figure(errors, "toy, 16 images"), cost_figure(as_in_the_paper())):
        height, width, _ = opened(png).shape
        assert 700 < width < 900
        assert 400 < height < 600


def test_a_single_cell_can_be_drawn() -> None:
    only = [row(2, 0.0, 5.0, fid_low=None, fid_high=None)]
    for png in (table_1_figure(only), cost_figure(only)):
        assert opened(png).size > 0


def test_sheets_have_a_line_for_each_entry_and_a_column_for_each_image() -> None:
    def lines_and_columns(n: int, m: int) -> list[bytes]:
        images = noise(n, m)
        by_s = {10 * (i + 1): batch for i, batch in enumerate(images)}
        return [
            samples_sheet([(row(s, 0.0, 1.0), batch) for s, batch in by_s.items()]),
            consistency_sheet(by_s),
            x0_sheet(list(range(n)), images),
            line_sheet(images),
        ]

    for few, more in zip(lines_and_columns(2, 6), lines_and_columns(4, 12), strict=True):
        small, large = opened(few).shape, opened(more).shape
        assert large[0] == pytest.approx(2 * small[0], rel=0.25)  # margins stay
        assert 1.4 * small[1] < large[1] < 2.1 * small[1]


def test_grid_is_square_and_reconstructions_stand_below_the_real_images() -> None:
    height, width, _ = opened(grid_sheet(noise(6, 6))).shape
    assert height == pytest.approx(width, rel=0.25)  # names take a margin on the left
    two = opened(reconstruction_sheet(noise(5), {10: noise(5)}))
    three = opened(reconstruction_sheet(noise(5), {10: noise(5), 20: noise(5)}))
    assert three.shape[0] > 1.3 * two.shape[0]


def test_published_numbers_are_the_papers() -> None:
    rows = table_1()
    assert len(rows) == 25
    assert fid_of(row(10, 0.0, 1.0)) == 13.36
    assert fid_of(row(1000, 1.0, 1.0, "sigma_hat")) == 3.17
    assert fid_of(row(100, 0.5, 1.0)) == 4.46
    assert fid_of(row(30, 0.0, 1.0)) is None
    assert fid_of(row(10, 0.7, 1.0)) is None
    assert tuple(RECONSTRUCTION.values()) == (0.014, 0.0065, 0.0023, 0.0009, 0.0004, 1e-4, 1e-4)
    assert STEPS == (10, 20, 50, 100, 1000)


def test_the_papers_own_numbers_bear_out_its_claims() -> None:
    errors = {s: mse * np.linspace(0.9, 1.1, 20) for s, mse in ((10, 0.014), (20, 0.0065))}
    falls, zero, worst, error, clipping = read_paper(as_in_the_paper(), errors)
    assert falls == (
        "From S = 10 to S = 1000, FID falls at eta = 0, eta = 0.2, eta = 0.5, eta = 1, "
        "sigma-hat (clips)."
    )
    assert zero.endswith("It is the best line there, as in the paper.")
    assert worst.endswith("It is the worst line there, as in the paper.")
    assert error.startswith("The reconstruction error falls at every increase of S")
    assert clipping.startswith("Lines marked (clips) clip")


def test_numbers_against_a_claim_are_said_to_be_against_it() -> None:
    rows = [row(10, 0.0, 9.0), row(50, 0.0, 12.0), row(10, 1.0, 5.0), row(50, 1.0, 5.0)]
    falls, zero = read_paper(rows, {})
    assert falls == (
        "From S = 10 to S = 50, FID rises at eta = 0; "
        "shows no change beyond its interval at eta = 1."
    )
    assert zero == "At S = 10, the FID of eta = 0 is higher than that of eta = 1."


def test_no_difference_is_claimed_within_intervals() -> None:
    noisy = np.random.default_rng(2).normal(size=(2, 20))
    few = [row(10, 0.0, 5.0, fid_leave_one_out=[]), row(50, 0.0, 1.0, fid_leave_one_out=[])]
    said = read_paper(few, {10: noisy[0], 20: noisy[1]})
    assert said == [
        "There are too few images for intervals of FID, so no difference is claimed.",
        "The reconstruction error shows no change beyond its interval at S = 10 to 20 "
        "(paired over images).",
    ]


def test_a_line_that_lacks_an_end_takes_no_part_in_the_trend() -> None:
    rows = [row(10, 0.0, 9.0), row(50, 0.0, 5.0), row(10, 1.0, 9.0), row(20, 1.0, 1.0)]
    assert read_paper(rows, {})[0] == "From S = 10 to S = 50, FID falls at eta = 0."
    assert not any("From S" in said for said in read_paper(rows[1:3], {}))
