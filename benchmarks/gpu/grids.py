"""Whole grids on a card, by the flow: what they cost beside their sampling, and number formats."""

from __future__ import annotations

import os
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu import models
from benchmarks.gpu.features import smooth_images
from benchmarks.gpu.record import Figure, Record
from tests.networks import save_fid_inception


def measure(record: Record, tiny: bool, device: str, folder: Path) -> None:
    """FID of 10,000 images from noise to the row, over the sampling alone; twice, since the first
    grid of a process opens networks, embeds the reference and captures graphs."""
    n, steps, batch = (40, 2, 8) if tiny else (10_000, 20, 500)
    models.cifar(tiny).save_pretrained(folder / "cifar-grid")
    np.savez(folder / "real.npz", images=smooth_images(n))
    asked: dict[str, Any] = {
        "checkpoint": str(folder / "cifar-grid"), "dataset": str(folder / "real.npz"),
        "etas": [1.0], "sigma_hat": False, "features": "pixels" if tiny else "inception-v3",
        "feature_weights": "" if tiny else str(save_fid_inception(folder / "inception-grid.pth")),
        "matrix_images": 0, "against": "none", "device": device if device != "cpu" else "cpu:0",
        "batch_size": batch, "shard_size": n // 5, "dtype": "float32" if tiny else "bfloat16",
    }  # fmt: skip
    grid = flow("fid_grid", folder / "data")
    grid(**asked, steps=[1], n_images=8)  # which opens networks and captures graphs
    for dtype in (asked["dtype"],):
        began = time.perf_counter()
        outcome = grid(**{**asked, "dtype": dtype}, steps=[steps], n_images=n)
        wall = time.perf_counter() - began
        (row,) = _rows(outcome.cells)
        record.add(
            Figure(f"FID of {n} images end to end / sampling alone, CIFAR-sized, {dtype}",
                   wall / row.sample_seconds, "ratio", "<= 1.10",
                   told=f"S = {steps}; {wall:.2f} and {row.sample_seconds:.2f} s"),
            Figure(f"images a minute, end to end, {dtype}", 60 * n / wall, "images/min"),
        )  # fmt: skip


def formats(record: Record, tiny: bool, device: str, folder: Path, toy: Path) -> None:
    """How far the number format moves FID, beside its interval: a trained model of digits."""
    n = 64 if tiny else 4000
    grid = flow("fid_grid", folder / "data")
    card = device if device != "cpu" else "cpu:0"
    for place, dtype in (
        ("cpu", "float32"), (card, "float32"), (card, "tf32"), (card, "bfloat16"),
        (card, "float16"),
    ):  # fmt: skip
        outcome = grid(
            checkpoint=str(toy), dataset="digits", steps=[10], etas=[0.0, 1.0], sigma_hat=False,
            n_images=n, shard_size=n // 4, against="none", matrix_images=0, batch_size=500,
            device=place, dtype=dtype,
        )  # fmt: skip
        for row in _rows(outcome.cells):
            record.add(
                Figure(f"FID of digits, S = 10, eta = {row.eta:g}, {place}, {dtype}", row.fid,
                       "FID", low=row.fid_low, high=row.fid_high, told=f"N = {n}")
            )  # fmt: skip


def flow(name: str, data: Path) -> Any:
    """A flow of ours on a Prefect server of its own, in this process."""
    os.environ.setdefault("DDIM_DATA", str(data))
    os.environ.setdefault("PREFECT_HOME", str(data / "prefect"))
    from flows.servers.server import begin_server

    if not _servers:
        server = begin_server()
        server.wait()
        _servers.append(server)
    return getattr(import_module(f"flows.{name}"), name)


_servers: list[Any] = []


def end() -> None:
    """Stops the server."""
    for server in _servers:
        server.stop()


def _rows(cells: list[str]) -> list[Any]:
    from tasks.storage.cell_rows import read_rows

    return list(read_rows(cells).rows)
