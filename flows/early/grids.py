"""What the settings of a checkpoint's folder say of the cells that a grid asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ddim_core.common.plain_files import is_there
from ddim_core.diffusion.specs import GridCell, NoiseSpec, SchedulerSpec
from ddim_core.safe_files.settings import read_settings
from ddim_core.safe_files.weight_names import DECODER_FOLDERS
from ddim_core.samplers.catalogue import OWN
from flows.requests.grid import GridRequest
from flows.requests.samplers.cells import Sampled
from flows.requests.samplers.guidance import parse_guidance
from tasks.checkpoints.addresses import is_local

NETWORKS = ("unet", "transformer")
"""Folders of the network that says how large a pipeline's images are."""
INDEX, SCHEDULER = "model_index.json", Path("scheduler", "scheduler_config.json")
TOLD_OF_TEXT = "UNet2DConditionModel"
USUAL_T = 1000


@dataclass(frozen=True)
class Told:
    """What a folder's settings say.

    Attributes:
        known: How it can be sampled.
        own: Its scheduler's configuration, with the class.
    """

    known: Sampled
    own: Mapping[str, Any]


def refuse_grid(request: GridRequest) -> None:
    """Refuses a size, a guide, a classifier, samplers and trajectories that a checkpoint in a local
    folder has not, or the toy model.

    Raises:
        ValueError: For the first of them.
    """
    refuse_size(request)
    refuse_features(request)
    model = request.model
    if model.guide:
        from tasks.sampling.guides import require_guide_at  # slow to import

        require_guide_at(model.guide, model.checkpoint, model.weights, model.configuration)
    grid = request.grid
    # Else there is little to find for the seconds that it takes.
    between = grid.guidance_interval or any(parse_guidance(one)[1] for one in grid.guidance)
    given = grid.samplers or between or request.report.trajectories
    if given or max(grid.steps) > USUAL_T:
        refuse_samplers(request)


def refuse_size(request: GridRequest) -> None:
    """Refuses a size that a pipeline does not draw.

    Raises:
        ValueError: If it is asked for.
    """
    folder, asked = _folder(request), request.real.resolution
    if folder and asked is not None:
        from ddim_core.pipelines.fitting import require_size_of  # slow to import

        require_size_of(folder, asked)


def refuse_features(request: GridRequest) -> None:
    """Refuses to train the classifier of the features at a size that takes too long.

    Raises:
        ValueError: If it would be.
    """
    folder, side = _folder(request), request.real.resolution
    side = side or (side_of(folder) if folder else None)
    if side is not None:
        request.require_trainable(side)


def _folder(request: GridRequest) -> Path | None:
    """What describes the checkpoint on this machine; None where nothing does."""
    place = request.model.configuration or request.model.checkpoint
    return Path(place) if place and is_local(place) else None


def refuse_samplers(request: GridRequest) -> None:
    """Refuses samplers that do not fit the checkpoint, numbers of steps that they cannot take, an
    interval of guidance that a pipeline has not, and trajectories of cells that keep none.

    Raises:
        ValueError: For the first cell that cannot be.
    """
    from tasks.cells.settings import require_fit, require_samplers  # slow to import

    model = request.model
    if not model.checkpoint:
        expected = _scheduled(request, request.expected, None)
        require_fit(request.cells(expected), expected.n_train, None)
        return
    told = told_by(request)
    if told is not None:
        from ddim_core.pipelines.fitting import require_interval_of
        from tasks.sampling.pipeline import by_pipeline
        from tasks.sampling.trajectory import require_x0

        cells = request.cells(told.known)
        require_samplers(cells, told.own)
        for cell in cells:
            if (interval := cell.sampler.guidance_interval) and by_pipeline(cell):
                require_interval_of(Path(model.checkpoint), interval)
                break
        require_x0(request.report.trajectories, cells, told.own)


def told_by(request: GridRequest) -> Told | None:
    """Returns what the checkpoint's settings say; None where it is no folder with a scheduler."""
    from ddim_core.diffusion.scheduler_config import predicted, without_betas  # slow to import
    from ddim_core.samplers.families import settled_own
    from tasks.checkpoints.pipelines import is_pipeline

    model, folder = request.model, Path(request.model.checkpoint)
    own = own_of(folder) if is_local(model.checkpoint) else None
    if own is None:
        return None
    index = read_settings(folder / INDEX) if is_there(folder / INDEX) else {}
    alone, network = is_pipeline(folder), folder / "unet" / "config.json"
    with_text = is_there(network) and read_settings(network).get("_class_name") == TOLD_OF_TEXT
    other_size = request.real.resolution not in (None, side_of(folder))
    known = Sampled(
        n_train=int(settled_own(own).get("num_train_timesteps", 1000)),
        prediction_type=predicted(own),
        is_latent=alone or any((folder / name).is_dir() for name in DECODER_FOLDERS),
        is_native=not (alone or without_betas(own) or model.lora or other_size),
        pipeline=str(index.get("_class_name", "")) if alone or with_text else "",
    )
    return Told(_scheduled(request, known, own), own)


def _scheduled(request: GridRequest, known: Sampled, own: Mapping[str, Any] | None) -> Sampled:
    """What is known, with the scheduler as the request's cells depart from it."""
    from tasks.checkpoints.scheduler import departing  # slow to import

    if known.pipeline:
        return replace(known, scheduler=own)
    kind: Any = request.model.noise_schedule
    asked = request.model.prediction_type or known.prediction_type
    noise = NoiseSpec(kind, known.n_train) if kind else None
    cell = GridCell(SchedulerSpec(OWN, 1, prediction_type=asked), noise)
    return replace(known, scheduler=departing(own, cell))


def own_of(folder: Path) -> Mapping[str, Any] | None:
    """Returns the scheduler's configuration of a folder, with its class; None where it has none.

    Raises:
        ValueError: If it cannot be.
    """
    from ddim_core.diffusion.scheduler_config import with_class  # slow to import
    from ddim_core.networks.checks import require_sane
    from ddim_core.pipelines.parts import described_parts
    from tasks.checkpoints.pipelines import is_pipeline

    if not is_there(folder / SCHEDULER):
        return None
    if is_pipeline(folder):
        return described_parts(folder).scheduler
    index = read_settings(folder / INDEX) if is_there(folder / INDEX) else {}
    config = read_settings(folder / SCHEDULER)
    require_sane(config, SCHEDULER.name)
    return with_class(config, index)


def side_of(folder: Path) -> int | None:
    """Returns height and width in pixels of what a folder of diffusers draws by itself, as its
    settings say: the network's samples, times the decoder's factor. None where they do not."""
    places = [folder / name / "config.json" for name in NETWORKS] + [folder / "config.json"]
    network = next((place for place in places if is_there(place)), None)
    side = read_settings(network).get("sample_size") if network else None
    if type(side) is not int:
        return None
    for name in DECODER_FOLDERS:
        if is_there(config := folder / name / "config.json"):
            levels = read_settings(config).get("block_out_channels")
            return side * 2 ** (len(levels) - 1) if isinstance(levels, list) else None
    return side
