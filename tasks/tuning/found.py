"""What tuning finds, as it is stored: the long run, and each setting's list."""

from __future__ import annotations

from dataclasses import dataclass

from ddim_core.tuning.intervals import Interval
from ddim_core.tuning.judged import Apart, Judged
from ddim_core.tuning.search import Found
from tasks.storage.artifact import ArtifactRef


@dataclass(frozen=True)
class LongRun(ArtifactRef):
    """Where a long run ends, as distances see it: float32 [n, ...] of the images tuned on, and of
    fresh ones; with some pictures of the latter.

    Attributes:
        sampler, steps: What was run.
        moved: How far the last doubling of its steps moved the ends, on the images tuned on.
        settled: That is little beside what the short runs are away.
        seconds, calls: Of one network call on an image: what it took here, over so many.
    """

    sampler: str
    steps: int
    moved: float
    settled: bool
    seconds: float
    calls: int


@dataclass(frozen=True)
class Known:
    """A list that was found elsewhere, on fresh images: how much worse it is than the list found
    here, as a share of the latter's figure (a distance, or an FID)."""

    sampler: str
    behind: Apart


@dataclass(frozen=True)
class Narrowed:
    """What guiding between two noise levels alone bought, where these were searched.

    Attributes:
        everywhere: The sampler with the list that was found for guidance at all levels.
        interval: What was found; None where guidance at all levels is best.
        gain: FID of the former, guided at all levels, minus that of what was found; fresh images.
    """

    everywhere: str
    interval: Interval | None
    gain: Apart


@dataclass(frozen=True)
class Tuned:
    """A sampler's list, found; a candidate until the grid has scored it.

    Attributes:
        images: Some fresh ones, uint8, as `stock`, `tuned` and `long` draw them.
        sampler: With its list, as a grid is asked for it.
        stock: The sampler as it stands.
        steps, calls: S, and network calls an image (guidance, which may double them, left out).
        guidance: Of the run.
        timesteps, sigmas: Where it asks the network, and the noise levels there.
        stock_timesteps: The same of the sampler as it stands.
        noisiest: The noisiest timestep that the network was trained on.
        family: What the network is: `vp` or `flow`.
        judged: Distances from the long run, or FIDs.
        by_fid: They are FIDs.
        long: The long run's own FID on the fresh images; None by distance.
        found: What the search did.
        n_images: It was tuned on.
        moved, long_steps: Of the long run.
        features: In which they are taken; empty where the ends are taken as they are.
        known: Lists found elsewhere, beside it.
        narrowed: Between which levels it is guided; None where that was not searched.
        warnings: What speaks against it.
    """

    images: ArtifactRef
    sampler: str
    stock: str
    steps: int
    calls: int
    guidance: float
    timesteps: tuple[float, ...]
    sigmas: tuple[float, ...]
    stock_timesteps: tuple[float, ...]
    noisiest: float
    family: str
    judged: Judged
    by_fid: bool
    long: Apart | None
    found: Found
    n_images: int
    moved: float
    long_steps: int
    features: str
    known: tuple[Known, ...]
    narrowed: Narrowed | None
    warnings: tuple[str, ...]
