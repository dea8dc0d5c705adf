"""What cannot be tuned, as far as a scheduler tells."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ddim_core.checkpoints.scheduler import noise_scheduler, scheduler_trained
from ddim_core.diffusion.specs import NoiseSpec
from ddim_core.samplers.families import settled_own
from ddim_core.samplers.scheduler import config_of
from ddim_core.tuning.asked import settings_asked, visits_by_loop
from flows.early.grids import own_of, refuse_features, refuse_samplers, refuse_size
from flows.requests.tuning import ENDS, TuneRequest
from tasks.checkpoints.addresses import is_local


def refuse_tuning(request: TuneRequest) -> None:
    """Refuses samplers that the scheduler of the toy model, which is known before it is trained, or
    of a local folder cannot be told a list of, and what of the proof's grid cannot be.

    Raises:
        ValueError: As `settings_asked` and `refuse_samplers`; or if its configuration cannot be.
    """
    checkpoint, grid = request.model.checkpoint, request.grid(())
    local = own_of(Path(checkpoint)) if is_local(checkpoint) else None
    own = local if checkpoint else _toy(request)
    # A shift by the size of the picture the pipeline alone knows.
    if own is not None and not settled_own(own).get("use_dynamic_shifting"):
        settings_asked(own, request.samplers, request.tune.calls, visits_by_loop(own))
    refuse_size(grid)
    if request.proof.n_images or request.tune.distance != ENDS:
        refuse_features(grid)
    if request.proof.n_images:
        refuse_samplers(grid)


def _toy(request: TuneRequest) -> Mapping[str, Any]:
    spec, kind = request.grid(()).training.training(1), request.model.noise_schedule
    own = config_of(scheduler_trained(spec.noise, spec.objective))
    if kind:
        noise = NoiseSpec(kind, spec.noise.n_train)  # type: ignore[arg-type]
        own |= {"trained_betas": None, **noise_scheduler(noise).config}
    return own
