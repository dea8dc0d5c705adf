"""A row of the table of points: what one sampler setting scores on one trained model."""

from __future__ import annotations

from dataclasses import dataclass

from ddim_core.common.columns import Moment, Timesteps, column


@dataclass(frozen=True, kw_only=True)
class PointRow:
    """The Chamfer distance over sampling seeds, with its 95 % interval; `floor` is that of two
    true samples. None where there are too few seeds for an interval."""

    cell_digest: str
    model_digest: str
    code_digest: str
    dataset: str = column("shared")
    training_seed: int = column("parameter")
    training_steps: int = column("shared")
    training_seconds: float = column("metric")
    steps: int = column("parameter")
    eta: float = column("parameter")
    variance: str = column("parameter")
    spacing: str = column("shared")
    timesteps: Timesteps
    n_points: int = column("shared")
    sampling_seeds: list[int]
    chamfer: float = column("metric")
    chamfer_low: float | None = column("metric")
    chamfer_high: float | None = column("metric")
    chamfer_each: list[float]
    floor: float = column("metric")
    floor_low: float | None
    floor_high: float | None
    nfe: int = column("metric")
    sample_seconds: float = column("metric")
    created_at: Moment
