"""The table of point scores: one Parquet file a row, named by the cell's digest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prefect import task

from ddim_core.common.digest import code_digest, digest
from ddim_core.diffusion.schedule import timesteps
from ddim_core.diffusion.specs import SamplerSpec
from ddim_core.points.row import PointRow
from ddim_core.points.score import SeedMean
from ddim_core.points.specs import PointTrainSpec
from tasks.points.model import TrainedPoints
from tasks.points.sample import DrawnPoints
from tasks.points.score import PointScore
from tasks.storage.columns import columns_of, schema_of
from tasks.storage.naming import run_name
from tasks.storage.row_files import Found, RowFiles

if TYPE_CHECKING:
    pass

COLUMNS = columns_of(PointRow)
SCHEMA = schema_of(COLUMNS)

POINTS = RowFiles(
    "points",
    "cell_digest",
    SCHEMA,
    ("dataset", "n_points", "training_seed", "eta", "steps", "created_at"),
    "the next run of its `ddim swiss-roll` writes it again",
    PointRow,
    ("chamfer",),
)

# The modules whose code makes a number what it is, from noise to score.
CODE = ("tasks.points.sample", "tasks.points.score")


def point_row(
    training: PointTrainSpec,
    model: TrainedPoints,
    sampler: SamplerSpec,
    n_points: int,
    generated: Sequence[DrawnPoints],
    score: PointScore,
    floor: SeedMean,
) -> PointRow:
    """Puts together the row of one sampler setting on one model from the records of its tasks."""
    seeds = [points.seed for points in generated]
    visited = timesteps(training.noise.n_train, sampler.steps, sampler.spacing)
    return PointRow(
        cell_digest=digest(sampler, training, model, n_points, seeds),
        model_digest=model.artifact,
        code_digest=digest([code_digest(module) for module in CODE]),
        dataset=training.dataset,
        training_seed=training.seed,
        training_steps=training.steps,
        training_seconds=model.seconds,
        steps=sampler.steps,
        eta=sampler.eta,
        variance=sampler.variance,
        spacing=sampler.spacing,
        timesteps=visited,
        n_points=n_points,
        sampling_seeds=seeds,
        chamfer=score.chamfer.mean,
        chamfer_low=score.chamfer.low,
        chamfer_high=score.chamfer.high,
        chamfer_each=score.chamfer.values,
        floor=floor.mean,
        floor_low=floor.low,
        floor_high=floor.high,
        nfe=len(visited),
        sample_seconds=float(sum(points.seconds for points in generated)),
        created_at=score.created_at,
    )


@task(name="write-point-row", task_run_name=run_name("write-point-row"))
def write_point_row(row: PointRow) -> str:
    """Writes one row, whole or not at all, in place of an older one; returns the file's place."""
    return POINTS.write(row)


def read_point_rows(cells: list[str] | None = None) -> Found[PointRow]:
    """Returns the rows written so far, of some cells or of all, and which had to be left out."""
    return POINTS.read(cells)
