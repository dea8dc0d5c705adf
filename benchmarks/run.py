"""Times as ratios: two things run in turn in one process, medians of several; `make bench`.
What runs on one thread is timed by its CPU time, the rest by the clock.

Writes benchmarks/results.json, a list with one record a run. Ratios carry from machine to machine
better than seconds do; the machine is named beside them all the same.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results.json")
REPEATS = 5
GRID_REPEATS = 5
IMAGES, BATCH = 2048, 256  # the flow's own batches, which divide the images
PEER_IMAGES = 1024
STEPS, ETAS = [5, 10, 20, 50], [0.0, 0.2, 0.5, 1.0]


def in_turn(
    a: Callable[[], None],
    b: Callable[[], None],
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[list[float], list[float]]:
    """Times a and b alternately; returns their seconds, of one thread by `time.thread_time`."""
    seconds_a, seconds_b = [], []
    for _ in range(repeats):
        seconds_a.append(timed(a, clock))
        seconds_b.append(timed(b, clock))
    return seconds_a, seconds_b


def timed(work: Callable[[], None], clock: Callable[[], float] = time.perf_counter) -> float:
    began = clock()
    work()
    return clock() - began


def figure(name: str, a: list[float], b: list[float]) -> dict[str, Any]:
    """The ratio of medians, with the range of the paired ratios beside it."""
    ratios = [x / y for x, y in zip(a, b, strict=True)]
    record = {
        "name": name,
        "ratio": round(statistics.median(a) / statistics.median(b), 3),
        "lowest": round(min(ratios), 3),
        "highest": round(max(ratios), 3),
        "seconds": [round(statistics.median(a), 3), round(statistics.median(b), 3)],
        "repeats": len(a),
    }
    print(json.dumps(record), flush=True)
    return record


def sampling_figures(checkpoint: Path) -> list[dict[str, Any]]:
    """The sampling loop against its bare network calls, and against diffusers' own loop."""
    import torch

    from ddim_core.checkpoints.checkpoint import load_checkpoint
    from ddim_core.diffusion.sampling import Denoiser, ImageNoise, sample
    from ddim_core.diffusion.specs import SamplerSpec

    torch.set_num_threads(1)
    loaded = load_checkpoint(checkpoint)
    shape = (loaded.channels, loaded.resolution, loaded.resolution)
    spec = SamplerSpec(50, eta=1.0)

    def draw(start: int, n: int, model: Denoiser = loaded.model) -> None:
        noise = ImageNoise(0, range(start, start + n), shape)
        with torch.inference_mode():
            for _ in sample(model, loaded.require_schedule(), spec, noise.x_T(), noise):
                pass

    in_calls = 0.0

    def clocked(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        nonlocal in_calls
        began = time.thread_time()
        prediction = loaded.model(x, t)
        in_calls += time.thread_time() - began
        return prediction

    def loops() -> tuple[list[float], list[float]]:
        """Seconds of whole loops, and of the network calls inside each."""
        nonlocal in_calls
        whole, inside = [], []
        for _ in range(REPEATS):
            in_calls = 0.0
            whole.append(timed(lambda: draw(0, BATCH, clocked), time.thread_time))
            inside.append(in_calls)
        return whole, inside

    def everywhere() -> None:  # as the flow does: one thread a core, its own batches
        with ThreadPoolExecutor(
            os.cpu_count(), initializer=torch.set_num_threads, initargs=(1,)
        ) as pool:
            list(pool.map(lambda start: draw(start, BATCH), range(0, PEER_IMAGES, BATCH)))

    few = diffusers_loop(checkpoint, 100, 1)
    many = diffusers_loop(checkpoint, PEER_IMAGES, os.cpu_count() or 1)
    for work in (everywhere, few, many, lambda: draw(0, 100)):
        work()  # unmeasured: the first calls choose kernels
    loop = "diffusers' DDIM loop / ours"
    both = in_turn(few, lambda: draw(0, 100), REPEATS, time.thread_time)
    return [
        figure("sampling loop / its own U-Net calls, S = 50", *loops()),
        figure(f"{loop}, all cores, N = {PEER_IMAGES}", *in_turn(many, everywhere, REPEATS)),
        figure(f"{loop}, one thread, N = 100", *both),
    ]


def diffusers_loop(checkpoint: Path, n: int, threads: int) -> Callable[[], None]:
    """The loop of diffusers' DDIMPipeline, without its progress bar, in batches like ours."""
    import torch
    from diffusers import DDIMScheduler, UNet2DModel

    unet = UNet2DModel.from_pretrained(checkpoint / "unet").eval()
    scheduler = DDIMScheduler.from_pretrained(checkpoint / "scheduler")
    scheduler.set_timesteps(50)
    shape = (unet.config.in_channels, unet.config.sample_size, unet.config.sample_size)
    generator = torch.Generator().manual_seed(0)

    def loop() -> None:
        torch.set_num_threads(threads)
        for start in range(0, n, BATCH):
            image = torch.randn((min(BATCH, n - start), *shape), generator=generator)
            with torch.inference_mode():
                for step in scheduler.timesteps:
                    output = unet(image, step).sample
                    image = scheduler.step(
                        output, step, image, eta=1.0, generator=generator
                    ).prev_sample
        torch.set_num_threads(1)

    return loop


def grid_figures(checkpoint: Path) -> list[dict[str, Any]]:
    """The whole flow against a bare loop over the same cells on the same cores; and a rerun.

    Each grid draws with a seed of its own, so nothing of it is in the store; the checkpoint and
    the extractor are.
    """
    from flows.fid_grid import fid_grid
    from flows.run.runners import with_workers

    flow = with_workers(fid_grid, None)
    settings = {"checkpoint": str(checkpoint), "n_images": IMAGES}
    flow(**settings, steps=[2], etas=[0.0], sigma_hat=False)  # warms the extractor
    seeds = iter(range(1, 1000))

    def grid() -> None:
        flow(**settings, steps=STEPS, etas=ETAS, sigma_hat=True, seed=next(seeds))

    def bare() -> None:
        bare_grid(checkpoint, seed=next(seeds))

    figures = [
        figure(
            f"grid flow / bare loop of its cells, N = {IMAGES}", *in_turn(grid, bare, GRID_REPEATS)
        )
    ]
    tasks = tasks_of_the_last_flow()
    n_images = IMAGES * len(STEPS) * (len(ETAS) + 1)
    chosen = {
        "name": "Prefect tasks per 1,000 images",
        "ratio": round(1000 * tasks / n_images, 2),
        "tasks": tasks,
    }
    print(json.dumps(chosen), flush=True)
    again = [timed(lambda: flow(**settings, steps=STEPS, etas=ETAS, seed=1)) for _ in range(3)]
    record = {"name": "unchanged grid again, seconds", "seconds": [round(s, 2) for s in again]}
    print(json.dumps(record), flush=True)
    return [*figures, chosen, record]


def tasks_of_the_last_flow() -> int:
    """How many task runs the server knows of the flow run that was started last."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
    from prefect.client.schemas.sorting import FlowRunSort

    time.sleep(10)  # the server lags behind a flow
    with get_client(sync_client=True) as client:
        (last,) = client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=1)
        only = FlowRunFilter(id=FlowRunFilterId(any_=[last.id]))
        return len(client.read_task_runs(flow_run_filter=only, limit=200))


def bare_grid(checkpoint: Path, seed: int) -> None:
    """The sampling of the demo grid and nothing else: one thread a core, the flow's batches."""
    import torch

    from ddim_core.checkpoints.checkpoint import load_checkpoint
    from ddim_core.diffusion.sampling import ImageNoise, sample
    from ddim_core.diffusion.specs import SamplerSpec
    from ddim_core.images.pixels import to_uint8

    torch.set_num_threads(1)
    loaded = load_checkpoint(checkpoint)
    shape = (loaded.channels, loaded.resolution, loaded.resolution)
    specs = [SamplerSpec(s, eta=eta) for eta in ETAS for s in STEPS]
    specs += [SamplerSpec(s, variance="sigma_hat", clip=True) for s in STEPS]

    def batch(job: tuple[SamplerSpec, int]) -> None:
        spec, start = job
        noise = ImageNoise(seed, range(start, start + BATCH), shape)
        with torch.inference_mode():
            *_, last = sample(loaded.model, loaded.require_schedule(), spec, noise.x_T(), noise)
        to_uint8(last.x)

    jobs = [(spec, start) for spec in specs for start in range(0, IMAGES, BATCH)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(batch, jobs))


def demo_checkpoint() -> Path:
    """The demo's own model, trained if it is not there yet."""
    from tasks.storage.cell_rows import read_table
    from tasks.storage.store import ArtifactRef, get_folder

    rows = [row for row in read_table() if row.checkpoint == "toy-digits" and row.n_images >= 1000]
    if not rows:
        sys.exit("run `make demo` first: the benchmarks use its model")
    newest = max(rows, key=lambda row: row.created_at)
    return get_folder(ArtifactRef(artifact=newest.checkpoint_digest, kind="folder"))


def script(module: str, *words: str) -> str:
    """What another benchmark prints, run on one thread in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", module, *words], check=True, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ).stdout  # fmt: skip


def lora_figure() -> dict[str, Any]:
    """LoRA steps/s over a loop in the way of diffusers' script, on the base of 16 pixels."""
    found = json.loads(script("benchmarks.lora", "data/base", "--steps", "10"))
    record = {
        "name": "LoRA steps/s, ours / the way of diffusers' script, data/base",
        "ratio": round(found["steps_per_second_over_the_script"], 3),
        "seconds": [
            round(found[f"cpu_seconds_per_step{whose}"], 4) for whose in ("", "_as_the_script")
        ],
        "repeats": found["rounds"],
    }
    print(json.dumps(record), flush=True)
    return record


PARTS = {"sampling": sampling_figures, "grid": grid_figures}


def main() -> None:
    """Runs all benchmarks against a server of their own and appends a record of them."""
    checkpoint = demo_checkpoint().resolve()
    with tempfile.TemporaryDirectory() as folder:
        # Places are read when tasks are imported: a fresh process, with fresh data.
        environment = {**os.environ, "DDIM_DATA": folder, "PREFECT_HOME": f"{folder}/home"}
        environment |= {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
        environment |= {"PREFECT_LOGGING_LEVEL": "ERROR"}
        # Each in a process of its own: the flow's settings of BLAS and OpenMP, which count from
        # the first import of NumPy, must neither be missing there nor slow the peers' loop.
        output = "".join(
            subprocess.run(
                [sys.executable, "-m", "benchmarks.run", part, str(checkpoint)],
                env=environment, check=True, stdout=subprocess.PIPE, text=True,
            ).stdout
            for part in PARTS
        )  # fmt: skip
    output += script("benchmarks.scores", "peers", str(REPEATS))
    figures = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    figures.append(lora_figure())
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    record = {
        "commit": commit,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "figures": figures,
    }
    history = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    RESULTS.write_text(json.dumps([*history, record], indent=1) + "\n")
    for line in figures:
        print(f"{line['name']}: {line['ratio'] if 'ratio' in line else line['seconds']}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        PARTS[sys.argv[1]](Path(sys.argv[2]))
    else:
        main()
