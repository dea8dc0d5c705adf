"""The long runs and the searches of a request, submitted and waited for."""

from __future__ import annotations

from collections.abc import Sequence

from ddim_core.diffusion.specs import GridCell, SchedulerSpec
from ddim_core.tuning.search import MOVES
from flows.requests.tuning import FAMILY, TuneRequest
from flows.run.runners import on_device
from flows.tuning.inputs import TuneInputs
from tasks.storage.naming import named
from tasks.tuning.asked import long_run_cell
from tasks.tuning.found import LongRun, Tuned
from tasks.tuning.tune import draw_long_run, tune_sampler


def long_runs(request: TuneRequest, inputs: TuneInputs) -> dict[float, LongRun]:
    """Draws the long run of each scale of guidance."""
    by_scale: dict[float, list[GridCell]] = {}
    for cell, _ in inputs.settings:
        by_scale.setdefault(cell.sampler.guidance_scale, []).append(cell)
    submitted = {}
    with on_device(request.machine.runner, request.machine.device):
        for scale, cells in by_scale.items():
            draw = named(draw_long_run, f"long run g={scale:g}")
            submitted[scale] = draw.submit(
                long_run_cell(cells[0], inputs.checkpoint.ref),
                inputs.checkpoint.ref,
                inputs.conditions,
                inputs.fresh_prompts,
                inputs.n_images,
                _stock(cells),
                request.tune.long_steps,
                inputs.extractor,
                request.machine.execution,
            )
    return {scale: future.result() for scale, future in submitted.items()}


def _stock(cells: Sequence[GridCell]) -> tuple[tuple[str, int], ...]:
    return tuple(
        (cell.sampler.sampler, cell.sampler.steps)
        for cell in cells
        if isinstance(cell.sampler, SchedulerSpec)
    )


def search(request: TuneRequest, inputs: TuneInputs, targets: dict[float, LongRun]) -> list[Tuned]:
    with on_device(request.machine.runner, request.machine.device):
        futures = [
            named(tune_sampler, f"tune {cell.sampler.line} at {calls} calls").submit(
                cell,
                inputs.checkpoint.ref,
                inputs.conditions,
                inputs.fresh_prompts,
                calls,
                inputs.n_images,
                float(request.tune.budget),
                targets[cell.sampler.guidance_scale],
                inputs.known,
                inputs.extractor,
                request.machine.execution,
                () if request.tune.search == FAMILY else MOVES,
                inputs.reference,
                request.searches_interval and cell.sampler.guidance_scale != 1.0,
            )
            for cell, calls in inputs.settings
        ]
    return [future.result() for future in futures]
