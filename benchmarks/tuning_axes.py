"""What else than the places could be tuned, each alone: does it bring a short run nearer?

    python -m benchmarks.tuning_axes orders CHECKPOINT     # a folder of a U-Net, as the demo's
    python -m benchmarks.tuning_axes families CHECKPOINT
    python -m benchmarks.tuning_axes guidance              # on the base of 16 pixels

Four network calls, distance of pixels (of the base: latents) to the long run on fresh images.
`orders`: solvers and their keys, each tuned; then DPM++ multistep with an order for each step, all
that end in the first, each tuned. `families`: lists of two or three parameters, the best by
Nelder and Mead, beside the search. `guidance`: eight evaluations (a guided step takes two), as four
guided steps or as more steps of which a window is guided, each by its best list of two ends and
rho; FID in the features of a classifier of the base's pictures, on prompts not tuned on.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler
from scipy.optimize import minimize
from scipy.stats import beta

from benchmarks.base_samplers import BASE, RESOLUTION
from benchmarks.tuning_sides import FRESH_SEED, Model, timed
from ddim_core.checkpoints.checkpoint import load_checkpoint, scheduler_config
from ddim_core.checkpoints.conditioning import conditioned
from ddim_core.diffusion.noise import ImageNoise
from ddim_core.features.classifier import train_classifier
from ddim_core.images.image_set import ImageSet
from ddim_core.images.pixels import to_uint8
from ddim_core.networks.specs import ClassifierSpec
from ddim_core.samplers.families import levels_of
from ddim_core.samplers.loop import draw
from ddim_core.samplers.name import SamplerName, parse_sampler
from ddim_core.samplers.scheduler import scheduler_for, set_steps
from ddim_core.scores.distances.frechet import Reference, frechet_values
from ddim_core.statistics.moments import FeatureMoments
from ddim_core.text2image.scenes import Scene, base_scenes
from ddim_core.text2image.scenes import draw as drawing
from ddim_core.tuning.asked import visits_by_loop
from ddim_core.tuning.evaluations import Distances, Evaluations
from ddim_core.tuning.judged import mean_with_interval
from ddim_core.tuning.positions import Positions, Scale, scale_of
from ddim_core.tuning.runs import FRESH, TUNING, Remembered, distances
from ddim_core.tuning.search import Task, search
from ddim_core.tuning.target import USUAL

CALLS, IMAGES, PROMPTS, LONG = 4, 128, 24, 48
ORDERS = (
    "dpmpp_2m", "dpmpp_2m?solver_type=heun", "dpmpp_2m?lower_order_final=false", "dpmpp_2s",
    "dpmpp_3m", "euler", "dpmpp_2m?final_sigmas_type=sigma_min",
)  # fmt: skip


class Ordered(DPMSolverMultistepScheduler):  # type: ignore[misc]
    """DPM-Solver++ multistep whose steps have each an order of its own."""

    orders: Sequence[int] = ()

    def step(self, model_output: Any, timestep: Any, sample: Any, **_: Any) -> Any:
        if self.step_index is None:
            self._init_step_index(timestep)
        x0 = self.convert_model_output(model_output, sample=sample)
        self.model_outputs = [*self.model_outputs[1:], x0]
        order, known = self.orders[self.step_index], self.model_outputs
        if order == 1:
            x = self.dpm_solver_first_order_update(x0, sample=sample)
        elif order == 2:
            x = self.multistep_dpm_solver_second_order_update(known, sample=sample)
        else:
            x = self.multistep_dpm_solver_third_order_update(known, sample=sample)
        self._step_index += 1
        return (x,)


def orders(model: Model, folder: Path) -> None:
    """Solvers, each with its own list; then an order for each step, likewise."""
    loaded, own = load_checkpoint(folder), scheduler_config(folder)
    name = parse_sampler("dpmpp_2m")
    first: Distances | None = None
    for text in ORDERS:
        listed, found = model.tuned(text, CALLS)
        far = model.fresh.away(listed, CALLS)
        first = far if first is None else first
        _told(listed, far, first, found.n_tried)
    scale = scale_of(name, own, visits_by_loop(own), CALLS)

    def side(seed: int, start: int, ends: Sequence[torch.Tensor]) -> Callable[..., Distances]:
        places = [start + i for i in range(IMAGES)]
        x_T = ImageNoise(seed, places, loaded.noise_shape).x_T()
        network, target = Remembered(conditioned(loaded, places, 1.0), int), torch.cat([*ends])

        def away(vector: Sequence[int], sampler: SamplerName, steps: int, _: int) -> Distances:
            scheduler = Ordered.from_config(scheduler_for(parse_sampler("dpmpp_3m"), own).config)
            scheduler.orders = vector
            set_steps(scheduler, sampler, steps)
            with torch.inference_mode():
                return distances(draw(network, scheduler, x_T).x.float(), target)

        return away

    tuning = side(0, TUNING, model.tuning.target.ends)
    fresh = side(FRESH_SEED, FRESH, model.fresh.target.ends)
    for vector in product((1,), (1, 2), (1, 2, 3), (1,)):  # the last lands on sigma 0
        found = search(
            Task(name, CALLS, CALLS, (IMAGES,), 4000), scale, Evaluations(partial(tuning, vector))
        )
        listed = scale.listed(name, found.positions)
        assert first is not None
        _told(f"orders {vector}, {listed.text}", fresh(vector, listed, CALLS, 0), first,
              found.n_tried)  # fmt: skip


def _told(what: str, far: Distances, first: Distances, n_tried: int) -> None:
    apart = mean_with_interval(far - first)
    print(
        f"{what}: {far.mean():.4f} on fresh noise, {apart.mean:+.4f} [{apart.low:+.4f}, "
        f"{apart.high:+.4f}] beside dpmpp_2m, {n_tried} candidates",
        flush=True,
    )


def families(model: Model, _: Path) -> None:
    """Lists of few parameters, the best of each by Nelder and Mead, and the search from there."""
    own = model.own
    name = parse_sampler("dpmpp_2m")
    scale = scale_of(name, own, visits_by_loop(own), CALLS)
    level = levels_of(own)
    levels = np.log([level(t) for t in range(int(scale.top) + 1)])

    def in_time(high: float, low: float, rho: float) -> Positions | None:
        inside = 0.0 <= low < high <= 1.0 and 0.2 <= rho <= 9.0
        return scale.spaced(CALLS, high, low, rho) if inside else None

    def karras(high: float, low: float, rho: float) -> Positions | None:
        if not (0.0 <= low < high <= 1.0 and 0.5 <= rho <= 20.0):
            return None
        ends = [level(round(end * scale.top)) ** (1 / rho) for end in (high, low)]
        shares = np.linspace(0.0, 1.0, CALLS)
        sigmas = [((1 - w) * ends[0] + w * ends[1]) ** rho for w in shares]
        return scale.settled([float(np.abs(levels - np.log(s)).argmin()) for s in sigmas])

    def of_beta(a: float, b: float) -> Positions | None:
        if min(a, b) <= 0.05:
            return None
        places = beta.ppf(1.0 - (np.arange(CALLS) + 0.5) / CALLS, a, b)
        return scale.settled([float(u * scale.top) for u in places])

    asked: tuple[tuple[str, Callable[..., Positions | None], list[float], list[float]], ...] = (
        ("ends and rho, in the timestep", in_time, [0.75, 0.02, 2.0], [-0.1, 0.03, 0.5]),
        ("Karras' ends and rho, in sigma", karras, [0.75, 0.02, 7.0], [-0.1, 0.03, 2.0]),
        ("beta's two, in the timestep", of_beta, [0.6, 0.6], [0.3, 0.6]),
    )
    for called, family, start, steps in asked:
        best = _nelder_mead(model, name, scale, family, start, steps)
        far, seen = model.fresh.away(best[0], CALLS), best[1]
        print(f"{called}: {best[0]}, {far.mean():.4f} on fresh noise, {seen} candidates")
        task = Task(name, CALLS, CALLS, tuple(map(len, model.tuning.chunks)), 4000)
        kept = Evaluations(model.tuning.chunk)
        known = scale.positions_of(parse_sampler(best[0]))
        after = search(task, scale, kept, [known] if known else [])
        listed = scale.listed(name, after.positions).text
        away = model.fresh.away(listed, CALLS)
        print(f"  searched from there: {listed}, {away.mean():.4f}, {after.n_tried} candidates")
    for calls in (CALLS, 2 * CALLS):
        timed(model, "dpmpp_2m", calls, moves=())
        timed(model, "dpmpp_2m", calls)


def _nelder_mead(
    model: Model,
    name: SamplerName,
    scale: Scale,
    family: Callable[..., Positions | None],
    start: list[float],
    steps: list[float],
) -> tuple[str, int]:
    seen: dict[str, float] = {}

    def cost(at: Sequence[float]) -> float:
        positions = family(*at)
        if positions is None:
            return 10.0
        text = scale.listed(name, positions).text
        if text not in seen:
            seen[text] = float(model.tuning.away(text, CALLS).mean())
        return seen[text]

    simplex = [start, *(np.add(start, np.eye(len(start))[i] * by) for i, by in enumerate(steps))]
    how = {"initial_simplex": np.array(simplex), "maxfev": 120, "xatol": 1e-3}
    minimize(cost, start, method="Nelder-Mead", options=how)
    return min(seen, key=lambda text: seen[text]), len(seen)


class Windowed:
    """The base of 16 pixels by our loop, guided at a window of its steps; an image a prompt."""

    def __init__(self, seed: int, first: int, prompts: Sequence[str], guidance: float) -> None:
        self._guided: frozenset[int] = frozenset()
        self._loaded, self._own = load_checkpoint(BASE), scheduler_config(BASE)
        places = [first + i for i in range(len(prompts))]
        self._network = conditioned(
            self._loaded, range(len(prompts)), guidance, prompts=prompts,
            inside=lambda t: not self._guided or round(t) in self._guided,
        )  # fmt: skip
        self._x_T = ImageNoise(seed, places, self._loaded.noise_shape).x_T()
        self.target = self.ends(parse_sampler(USUAL["vp"]), LONG, None)

    def ends(self, name: SamplerName, steps: int, window: slice | None) -> torch.Tensor:
        self._guided = frozenset(map(int, name.timesteps[window])) if window else frozenset()
        scheduler = scheduler_for(name, self._own)
        set_steps(scheduler, name, steps)
        with torch.inference_mode():
            return draw(self._network, scheduler, self._x_T).x.float()

    def away(self, name: SamplerName, steps: int, window: slice | None) -> Distances:
        return distances(self.ends(name, steps, window), self.target)


def _of_window(images: Windowed, window: slice, name: SamplerName, steps: int, _: int) -> Distances:
    return images.away(name, steps, window)


def _fid_to(scenes: Sequence[Scene]) -> Callable[[torch.Tensor], Distances]:
    """FID, an image each (`frechet_values`), in the features of a classifier of these pictures."""
    pictures = np.stack([drawing(scene, RESOLUTION) for scene in scenes])
    names = sorted({scene.subject for scene in scenes})
    labels = np.array([names.index(scene.subject) for scene in scenes])
    known = ImageSet(pictures, labels, "pictures", "train", tuple(names))
    classifier = train_classifier(ClassifierSpec(), known, known, "cpu")
    reference = Reference.of(FeatureMoments.from_features(classifier(pictures)))
    return lambda ends: frechet_values(classifier(to_uint8(ends)), reference)


def guidance() -> None:
    """As many evaluations as four guided steps take, spent on more steps of which fewer guide."""
    scenes = base_scenes()
    captions = [scene.caption() for scene in scenes]
    prompts = captions[:: len(scenes) // (2 * PROMPTS)]
    others = [caption for caption in captions if caption not in prompts]
    fid = _fid_to(scenes)
    name, own = parse_sampler("dpmpp_2m"), scheduler_config(BASE)
    for scale_of_guidance in (4.0, 2.0):
        tuning = Windowed(0, TUNING, prompts[0 : 2 * PROMPTS : 2], scale_of_guidance)
        fresh = Windowed(FRESH_SEED, FRESH, prompts[1 : 2 * PROMPTS : 2], scale_of_guidance)
        scored = Windowed(FRESH_SEED, 0, others, scale_of_guidance)
        long = fid(scored.target)
        print(f"g = {scale_of_guidance:g}: the long run has FID {long.mean():.2f}", flush=True)
        first: tuple[Distances, Distances] | None = None
        for steps, n_guided in ((4, 4), (5, 3), (6, 2)):
            scale = scale_of(name, own, visits_by_loop(own), steps)
            for begin in range(steps - n_guided + 1):
                window, began = slice(begin, begin + n_guided), time.process_time()
                kept = Evaluations(partial(_of_window, tuning, window))
                found = search(Task(name, steps, steps, (PROMPTS,), 4000, ()), scale, kept)
                listed = scale.listed(name, found.positions)
                both = fresh.away(listed, steps, window), fid(scored.ends(listed, steps, window))
                first = both if first is None else first
                far, image = (mean_with_interval(a - b) for a, b in zip(both, first, strict=True))
                print(
                    f"g = {scale_of_guidance:g}, {steps} steps, guided {begin + 1} to "
                    f"{begin + n_guided}: {both[0].mean():.4f} on fresh images, {far.mean:+.4f} "
                    f"[{far.low:+.4f}, {far.high:+.4f}] beside 4 of 4; FID of {len(others)} "
                    f"{both[1].mean():.2f}, {image.mean:+.2f} [{image.low:+.2f}, "
                    f"{image.high:+.2f}]; {found.n_tried} candidates, "
                    f"{time.process_time() - began:.0f} CPU s",
                    flush=True,
                )


def main() -> int:
    torch.set_num_threads(1)
    what = sys.argv[1]
    if what == "guidance":
        guidance()
        return 0
    folder = Path(sys.argv[2])
    model = Model.of_folder(folder, IMAGES)
    print(f"dpmpp_2m as it stands: {model.fresh.away('dpmpp_2m', CALLS).mean():.4f}")
    {"orders": orders, "families": families}[what](model, folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
