"""What tests of whole flows share: a quick checkpoint, and grids in this process or another."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.flows.grids import KEPT_IN, PROJECT, GridRun, Project, told


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint folder of a U-Net after 20 steps: bad, but quick and ours."""
    from ddim_core.checkpoints.checkpoint import save_pipeline
    from ddim_core.images.load import load_images
    from ddim_core.networks.specs import TrainSpec
    from ddim_core.networks.training import start, train

    spec = TrainSpec(steps=20, batch_size=32, warmup_steps=5)
    state = start(spec)
    for _ in train(spec, load_images("digits", "train").images, state):
        pass
    folder = tmp_path_factory.mktemp("checkpoints") / "toy"
    save_pipeline(folder, state.ema, spec.noise, training_step=spec.steps)
    return str(folder)


@pytest.fixture(scope="session")
def run_grid(server: str, toy: str) -> Callable[..., GridRun]:
    """Runs a grid in this process; what is not given is small and quick.

    All these runs share one DDIM_DATA: a test that needs unseen cells takes a seed of its own.
    """

    def run(workers: int = 2, **asked: Any) -> GridRun:
        from flows.fid_grid import fid_grid
        from flows.run.runners import with_workers

        small: dict[str, Any] = {
            "checkpoint": toy, "steps": [2], "etas": [0.0, 1.0], "sigma_hat": False,
            "n_images": 25, "shard_size": 10, "features": "pixels", "trajectories": 0,
        }  # fmt: skip
        state = with_workers(fid_grid, workers)(**{**small, **asked}, return_state=True)
        result = state.result() if state.is_completed() else None
        return told(state.state_details.flow_run_id, result)

    return run


@pytest.fixture
def quick_classifier(monkeypatch: pytest.MonkeyPatch) -> None:
    """A classifier of digits after 150 steps, not 600: nine in ten it knows."""
    from ddim_core.networks.specs import ClassifierSpec

    quick = ClassifierSpec(steps=150)
    monkeypatch.setattr("flows.grid.extractor.ClassifierSpec", lambda: quick)


@pytest.fixture
def shipped_by_forks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The script of a handed-over cell runs in a fork that has the libraries, not in a process that
    imports them; that one is in `test_ship.py` and in `tests/tasks/shipping/test_compared.py`."""
    from tests import forked

    monkeypatch.setattr("tasks.shipping.ship.subprocess", SimpleNamespace(run=forked.run))


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder of twelve pictures of 16x16 pixels."""
    from PIL import Image

    from ddim_core.text2image.scenes import base_scenes, draw

    folder = tmp_path_factory.mktemp("data") / "pictures"
    folder.mkdir()
    for i, scene in enumerate(base_scenes()[:12]):
        Image.fromarray(draw(scene, 16)).save(folder / f"{i:02}.png")
    return str(folder)


@pytest.fixture(scope="session")
def wipe() -> Callable[[], None]:
    """Empties this process's store, results and trained states, as on a machine of its own."""

    def empty() -> None:
        from tasks.cells import extractor_memory
        from tasks.checkpoints import memory
        from tasks.storage import places

        for folder in KEPT_IN:
            shutil.rmtree(places.local_dir(folder), ignore_errors=True)
        memory.forget()
        extractor_memory.forget()

    return empty


@pytest.fixture
def project(fresh_data: Path) -> Project:
    """The real source with a fresh DDIM_DATA."""
    return Project(PROJECT, fresh_data)


@pytest.fixture
def copied_project(fresh_data: Path, tmp_path: Path) -> Project:
    """A copy of the source that may be edited, with a fresh DDIM_DATA."""
    for package in ("ddim_core", "tasks", "flows"):
        shutil.copytree(
            PROJECT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(PROJECT / "pyproject.toml", tmp_path)
    return Project(tmp_path, fresh_data)


@pytest.fixture(scope="session")
def noisy(toy: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The toy with half a standard deviation of noise on every weight."""
    import torch
    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("planted") / "noisy"
    shutil.copytree(toy, folder)
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights, generator = load_file(path), torch.Generator().manual_seed(0)
    for name, weight in weights.items():
        if weight.numel() > 1:
            weights[name] += 0.5 * weight.std() * torch.randn(weight.shape, generator=generator)
    save_file(weights, path)
    return str(folder)
