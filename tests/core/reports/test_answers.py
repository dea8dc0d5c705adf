"""The first lines of a grid's page: what to ship, how sure, what it costs, and what is open."""

from __future__ import annotations

from dataclasses import replace

from ddim_core.decisions.best import Margin, rank
from ddim_core.decisions.measure import FID
from ddim_core.reports.answers.grid import answer
from tests.core.decisions.test_verdict import Rows, grid


def rows() -> Rows:
    return [replace(row, images_per_second=12.0) for row in grid("new", 0.3, noise=1)]


def test_the_answer_names_the_cheapest_cell_within_the_margin_and_what_it_costs() -> None:
    found = rank(rows(), FID, Margin(0.5, "as asked"))
    said = answer(rows(), found, FID)
    assert found.recommended is not None
    assert said.cell is found.recommended
    assert said.headline == f"Ship S = {said.cell.steps}, eta = {said.cell.eta:g}."
    high = next(one.high for one in found.standings if one.row is said.cell)
    assert f"at most {high:.2f} worse than the best cell" in said.sure
    assert said.cost.startswith(f"{said.cell.nfe} network calls an image; 12 images a second")
    assert said.sentence == f"{said.headline} {said.sure} {said.cost}"


def test_what_is_undecided_has_the_images_that_would_decide_it() -> None:
    found = rank(rows(), FID, Margin(1e-4, "as asked"))
    said = answer(rows(), found, FID)
    open_ = [one for one in found.standings if one.tied and one.high > 1e-4]
    assert said.headline == "Nothing is proven good enough to ship yet."
    assert said.cell is None
    assert len(said.undecided) == len(open_) > 0
    wanted = max(one.decided_at for one in open_ if one.decided_at)
    assert f"N = {wanted:,} images a cell would decide" in said.settled_by


def test_too_few_images_and_a_single_cell_are_said_to_decide_nothing() -> None:
    bare = [replace(row, fid_leave_one_out=[], fid_low=None, fid_high=None) for row in rows()]
    few = answer(bare, None, FID)
    assert "too few images for intervals" in few.headline
    assert few.cell is None
    one = rows()[:1]
    assert answer(one, rank(one, FID), FID).headline.startswith("There is one cell")
