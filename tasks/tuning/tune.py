"""A checkpoint and a sampler in, the list of timesteps out whose short run ends nearest to the
long one."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from filelock import FileLock
from tqdm import tqdm

from ddim_core.common.digest import code_digest, digest
from ddim_core.diffusion.specs import Execution, GridCell, SchedulerSpec
from ddim_core.samplers.canonical import canonical
from ddim_core.samplers.name import SamplerName, parse_sampler
from ddim_core.samplers.scheduler import Visited
from ddim_core.tuning.aims import Aim, ToLongRun, ToReference
from ddim_core.tuning.evaluations import Distances, Evaluations
from ddim_core.tuning.judged import (
    Apart,
    Judged,
    joined,
    judge,
    mean_with_interval,
    serves,
    warnings,
)
from ddim_core.tuning.positions import Positions, Scale, scale_of
from ddim_core.tuning.runs import FRESH, TUNING, Seen, chunks_of, first_of
from ddim_core.tuning.search import MOVES, Found, Task, search
from ddim_core.tuning.target import Target, long_run
from tasks.cells.extractor_memory import record_of
from tasks.checkpoints.scheduler import own_scheduler
from tasks.machine.device import on_a_card
from tasks.sampling.guidance import guided_where
from tasks.storage import places, store
from tasks.storage.caching import cached_task
from tasks.storage.store import ArtifactRef
from tasks.tuning.aims import aim_of, measure
from tasks.tuning.runs import chunk_of, pictures, runs_of, see_ends, visits_of

SHOWN = 8  # images of a comparison
NEAR = 128  # images that tell by distance where a search by FID begins
Stock = tuple[tuple[str, int], ...]  # samplers as they stand, with their steps


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
    warnings: tuple[str, ...]


@cached_task
@on_a_card
def draw_long_run(
    cell: GridCell,
    checkpoint: ArtifactRef,
    conditions: tuple[ArtifactRef | None, ArtifactRef | None],
    fresh_prompts: str | None,
    n_images: int,
    stock: Stock,
    steps: int | None,
    extractor: ArtifactRef | None,
    execution: Execution,
) -> LongRun:
    """Draws the long run of a checkpoint, on images to tune on and on as many fresh ones.

    Args:
        cell: How it is drawn: the long run's sampler, guidance, seed, prompts to tune on.
        checkpoint: It.
        conditions: The prompts encoded for its pipeline: those to tune on, and fresh ones.
        fresh_prompts: As the cell's prompts, for the fresh images.
        n_images: Of each kind.
        stock: The short runs beside which its own distance to the next doubling has to be small.
        steps: Take so many, whatever doubling would change.
        extractor: Distances are taken in its features; None takes the ends as they are.
    """
    assert isinstance(cell.sampler, SchedulerSpec)
    sampler, began = parse_sampler(cell.sampler.sampler), time.perf_counter()
    see = see_ends(cell, checkpoint, extractor, execution.device)
    runs = Seen(runs_of(cell, checkpoint, conditions[0], TUNING, n_images, execution), see)
    told = replace(cell, prompts=fresh_prompts)
    fresh = runs_of(told, checkpoint, conditions[1], FRESH, n_images, execution)
    n_chunks = len(chunks_of(n_images, chunk_of(cell, checkpoint)))

    def beside(target: Target) -> float:
        away = [
            np.mean(joined([
                target.from_it(runs.ends(parse_sampler(text), n, i), i)
                for i in range(len(target.ends))
            ]))
            for text, n in stock
        ]  # fmt: skip
        return float(min(away))

    target = long_run(runs, n_chunks, sampler, beside, steps)
    first = fresh.ends(sampler, target.steps, 0)
    others = (fresh.ends(sampler, target.steps, chunk) for chunk in range(1, n_chunks))
    arrays = {
        "tuning": np.concatenate([ends.numpy() for ends in target.ends]),
        "fresh": np.concatenate([see(ends).numpy() for ends in (first, *others)]),
        "shown": pictures(cell, checkpoint, first[:SHOWN], execution.device),
    }
    ref = store.put_arrays(arrays, "long run")
    return LongRun(
        **vars(ref),
        sampler=sampler.text,
        steps=target.steps,
        moved=target.moved,
        settled=target.settled,
        seconds=time.perf_counter() - began,
        calls=runs.calls + fresh.calls,
    )


@cached_task
@on_a_card
def tune_sampler(
    cell: GridCell,
    checkpoint: ArtifactRef,
    conditions: tuple[ArtifactRef | None, ArtifactRef | None],
    fresh_prompts: str | None,
    calls: int,
    n_images: int,
    budget: float,
    target: LongRun,
    known: tuple[str, ...],
    extractor: ArtifactRef | None,
    execution: Execution,
    moves: tuple[float, ...] = MOVES,
    reference: ArtifactRef | None = None,
) -> Tuned:
    """Searches the list of a sampler whose short run ends nearest to the long one, or whose images
    have the least FID.

    What is measured is written down at once: a search that was killed goes on from there.

    Args:
        cell: The sampler without a list, its steps, guidance, seed, prompts to tune on.
        checkpoint, conditions, fresh_prompts, n_images: As of the long run.
        calls: Network calls that the steps make.
        budget: Most of them an image, over all candidates.
        target: The long run.
        known: Lists found elsewhere; those of this sampler and number of steps are looked at.
        extractor: As of the long run.
        moves: As of `Task`.
        reference: The features, or statistics, of the real images that the FID is taken to; None
            searches by the distance from the long run.
    """
    assert isinstance(cell.sampler, SchedulerSpec)
    name, steps = parse_sampler(cell.sampler.sampler), cell.sampler.steps
    visits, own = visits_of(cell, checkpoint), own_scheduler(cell, checkpoint)
    scale = scale_of(name, own, visits, steps)
    see = see_ends(cell, checkpoint, extractor, execution.device)
    runs = Seen(runs_of(cell, checkpoint, conditions[0], TUNING, n_images, execution), see)
    chunks = chunks_of(n_images, chunk_of(cell, checkpoint))
    ends = store.get_arrays(target)
    spelled = {canonical(parse_sampler(text), own): text for text in known}
    elsewhere = {
        text: positions
        for sampler, text in spelled.items()
        if replace(sampler, timesteps=(), own_sigmas=()) == name and sampler.n_listed == steps
        if (positions := scale.positions_of(sampler)) is not None
    }
    aim = aim_of(ends["tuning"], chunks, reference)
    named = digest(
        code_digest(__name__), cell, checkpoint, conditions, n_images, target, calls, extractor,
        reference,
    )  # fmt: skip
    place = places.local_dir("work") / f"tune-{named[:32]}"
    place.parent.mkdir(parents=True, exist_ok=True)
    usual = visits(name, steps)
    looked_at = [*_as_it_stands(scale, usual), *elsewhere.values()]

    def searched(by: Aim, budget: float, start: Positions | None = None) -> tuple[Found, Distances]:
        """Searches by an aim; returns with it the values of what was found."""
        measured = Evaluations(
            measure(by, runs, visits, guided_where(cell, checkpoint)),
            Path(f"{place}{'' if by is aim else '-near'}.jsonl"),
        )
        with tqdm(desc=f"tuning {name.text} at {calls} calls", unit="", disable=None) as bar:
            found = search(
                Task(name, steps, calls, by.sizes, budget, moves), scale, measured, looked_at,
                lambda said: _show(bar, measured, said), start,
            )  # fmt: skip
        best = scale.listed(name, found.positions)
        return found, joined([measured.of(best, steps, i) for i in range(len(by.sizes))])

    with FileLock(place.with_suffix(".lock")):
        if isinstance(aim, ToReference) and moves:  # few images tell by distance where to begin
            to_long = ToLongRun(ends["tuning"], first_of(chunks, NEAR))
            near, _ = searched(to_long, max(budget / 2, calls))
            left = max(budget - near.spent, calls)
            found, on_tuning = searched(aim, left, near.positions)
            found = replace(
                found, n_tried=near.n_tried + found.n_tried, spent=near.spent + found.spent
            )
        else:
            found, on_tuning = searched(aim, budget)
    tuned = scale.listed(name, found.positions)
    told = replace(cell, prompts=fresh_prompts)
    drawn = runs_of(told, checkpoint, conditions[1], FRESH, n_images, execution)
    others, judge_by = Seen(drawn, see), aim_of(ends["fresh"], chunks, reference)

    def on_fresh(sampler: SamplerName) -> Distances:
        return joined(
            [judge_by.of(others, sampler, steps, part) for part in range(len(judge_by.sizes))]
        )

    away = on_fresh(tuned)
    judged = judge(on_tuning, away, on_fresh(name))
    done = visits(tuned, steps)
    shown = {
        kind: pictures(cell, checkpoint, drawn.ends(sampler, steps, 0)[:SHOWN], execution.device)
        for kind, sampler in (("tuned", tuned), ("stock", name))
    }
    shown["long"] = ends["shown"]
    return Tuned(
        images=store.put_arrays(shown, "tuned images"),
        sampler=tuned.text,
        stock=name.text,
        steps=steps,
        calls=calls,
        guidance=cell.sampler.guidance_scale,
        timesteps=done.timesteps,
        sigmas=done.sigmas,
        stock_timesteps=usual.timesteps,
        noisiest=scale.top,
        family=scale.family,
        judged=judged,
        by_fid=isinstance(aim, ToReference),
        long=mean_with_interval(judge_by.values(ends["fresh"]))
        if isinstance(judge_by, ToReference)
        else None,
        found=found,
        n_images=n_images,
        moved=target.moved,
        long_steps=target.steps,
        features=record_of(extractor).extractor if extractor else "",
        known=tuple(
            Known(text, serves(on_fresh(scale.listed(name, positions)), away))
            for text, positions in elsewhere.items()
        ),
        warnings=tuple(
            warnings(
                judged,
                found,
                target.moved,
                target.steps,
                n_images,
                budget,
                others.ignores_time(),
                aim.reference.mean.size if isinstance(aim, ToReference) else None,
            )
        ),
    )


def _as_it_stands(scale: Scale, usual: Visited) -> list[Positions]:
    """Where a sampler asks the network without a list, if a list can say so."""
    if scale.word != "timesteps":
        return []
    positions = scale.settled(tuple(dict.fromkeys(usual.timesteps)))  # Heun asks there twice
    return [positions] if positions else []


def _show(bar: tqdm, measured: Evaluations, said: str) -> None:
    bar.n = measured.n_measured
    bar.set_postfix_str(said)
