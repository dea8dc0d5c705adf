"""What cannot be tuned is refused before anything is trained, as far as a scheduler tells."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ddim_core.checkpoints.checkpoint import INDEX
from ddim_core.checkpoints.scheduler import noise_scheduler, scheduler_trained
from ddim_core.common.plain_files import is_there
from ddim_core.diffusion.scheduler_config import with_class
from ddim_core.diffusion.specs import NoiseSpec
from ddim_core.networks.checks import require_sane
from ddim_core.safe_files.settings import read_settings
from ddim_core.samplers.families import settled_own
from ddim_core.samplers.scheduler import config_of
from ddim_core.tuning.asked import settings_asked, visits_by_loop
from flows.requests.tuning import TuneRequest

CONFIG = Path("scheduler", "scheduler_config.json")


def refuse_early(request: TuneRequest) -> None:
    """Refuses samplers that the scheduler of the toy model, which is known before it is trained, or
    of a local folder cannot be told a list of. What lies elsewhere is looked at when it is opened.

    Raises:
        ValueError: As `settings_asked`; or if its configuration cannot be.
    """
    own = _of_folder(Path(request.model.checkpoint)) if request.model.checkpoint else _toy(request)
    if own is None or settled_own(own).get("use_dynamic_shifting"):
        return  # by the size of the picture, which the pipeline alone knows
    settings_asked(own, request.samplers, request.tune.calls, visits_by_loop(own))


def _toy(request: TuneRequest) -> Mapping[str, Any]:
    spec, kind = request.grid(()).training.training(1), request.model.noise_schedule
    own = config_of(scheduler_trained(spec.noise, spec.objective))
    if kind:
        noise = NoiseSpec(kind, spec.noise.n_train)  # type: ignore[arg-type]
        own |= {"trained_betas": None, **noise_scheduler(noise).config}
    return own


def _of_folder(folder: Path) -> Mapping[str, Any] | None:
    if not is_there(folder / CONFIG):
        return None
    index = read_settings(folder / INDEX) if is_there(folder / INDEX) else {}
    config = read_settings(folder / CONFIG)
    require_sane(config, CONFIG.name)
    return with_class(config, index)
