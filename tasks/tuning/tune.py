"""A checkpoint and a sampler in, the list of timesteps out whose short run ends nearest to the
long one."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import cache, lru_cache

import numpy as np
from filelock import FileLock

from ddim_core.common.digest import code_digest, digest
from ddim_core.diffusion.specs import Execution, GridCell, SchedulerSpec
from ddim_core.samplers.canonical import canonical
from ddim_core.samplers.name import SamplerName, parse_sampler
from ddim_core.samplers.scheduler import Visited
from ddim_core.tuning.aims import ToReference
from ddim_core.tuning.evaluations import Distances
from ddim_core.tuning.intervals import Interval
from ddim_core.tuning.judged import joined, judge, mean_with_interval, serves, warnings
from ddim_core.tuning.positions import Positions, Scale, scale_of
from ddim_core.tuning.runs import FRESH, TUNING, Runs, Seen, chunks_of
from ddim_core.tuning.search import MOVES
from ddim_core.tuning.target import Target, long_run
from tasks.cells.extractor_memory import record_of
from tasks.checkpoints.scheduler import own_scheduler
from tasks.machine.device import on_a_card
from tasks.sampling.guidance import guided_between, guided_where, level_at
from tasks.storage import places, store
from tasks.storage.caching import cached_task
from tasks.storage.store import ArtifactRef
from tasks.tuning.aims import aim_of
from tasks.tuning.found import Known, LongRun, Narrowed, Tuned
from tasks.tuning.runs import chunk_of, pictures, runs_of, see_ends, visits_of
from tasks.tuning.search import Searching, by_aim, narrowed

SHOWN = 8  # images of a comparison
Stock = tuple[tuple[str, int], ...]  # samplers as they stand, with their steps


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
    narrow: bool = False,
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
        narrow: Searches too between which noise levels the run is best guided.
    """
    assert isinstance(cell.sampler, SchedulerSpec)
    name, steps = parse_sampler(cell.sampler.sampler), cell.sampler.steps
    visits, own = visits_of(cell, checkpoint), own_scheduler(cell, checkpoint)
    scale = scale_of(name, own, visits, steps)
    see = see_ends(cell, checkpoint, extractor, execution.device)
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

    @lru_cache(maxsize=2)
    def to_tune_on(interval: Interval | None) -> Runs:
        guided = guided_between(cell, interval)
        return Seen(runs_of(guided, checkpoint, conditions[0], TUNING, n_images, execution), see)

    @cache
    def fresh(interval: Interval | None) -> Runs:
        told = replace(guided_between(cell, interval), prompts=fresh_prompts)
        return runs_of(told, checkpoint, conditions[1], FRESH, n_images, execution)

    searching = Searching(
        name, steps, calls, moves, scale, visits, level_at(cell, checkpoint) if narrow else None,
        to_tune_on, lambda interval: guided_where(guided_between(cell, interval), checkpoint),
        (*_as_it_stands(scale, usual), *elsewhere.values()), place,
    )  # fmt: skip
    given = cell.sampler.guidance_interval
    with FileLock(place.with_suffix(".lock")):
        part = max(budget / 2, calls) if narrow else budget
        first = by_aim(searching, aim, ends["tuning"], chunks, given, part)
        best = narrowed(searching, aim, first, budget) if narrow else first
    judge_by = aim_of(ends["fresh"], chunks, reference)

    def on_fresh(sampler: SamplerName, interval: Interval | None = given) -> Distances:
        runs = Seen(fresh(interval), see)
        return joined(
            [judge_by.of(runs, sampler, steps, part) for part in range(len(judge_by.sizes))]
        )

    tuned = scale.listed(name, best.found.positions)
    away = on_fresh(tuned, best.interval)
    judged = judge(best.values, away, on_fresh(name))
    done = visits(tuned, steps)
    shown = {
        kind: pictures(
            cell, checkpoint, fresh(at).ends(sampler, steps, 0)[:SHOWN], execution.device
        )
        for kind, sampler, at in (("tuned", tuned, best.interval), ("stock", name, given))
    }
    shown["long"] = ends["shown"]
    everywhere = scale.listed(name, first.found.positions)
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
        found=best.found,
        n_images=n_images,
        moved=target.moved,
        long_steps=target.steps,
        features=record_of(extractor).extractor if extractor else "",
        known=tuple(
            Known(text, serves(on_fresh(scale.listed(name, positions), best.interval), away))
            for text, positions in elsewhere.items()
        ),
        narrowed=Narrowed(
            everywhere.text, best.interval, mean_with_interval(on_fresh(everywhere) - away)
        )
        if narrow
        else None,
        warnings=tuple(
            warnings(
                judged,
                best.found,
                target.moved,
                target.steps,
                n_images,
                budget,
                fresh(best.interval).ignores_time(),
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
