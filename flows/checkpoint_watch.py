"""Looks for checkpoints that were not scored yet, and has each scored, and tuned, once."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.logging import get_run_logger

from flows.early.refuse import refuse
from flows.fid_grid import fid_grid
from flows.grid.outcome import GridOutcome
from flows.lora_score import LoraScore, lora_score
from flows.requests.flat import Given
from flows.requests.watch import Job, Watch
from flows.run.naming import flow_name
from flows.tune import TuneOutcome
from flows.tune import tune as tune_flow
from tasks.checkpoints.addresses import listed_sources, require_source
from tasks.checkpoints.arrivals import Candidate, candidates, read_whole, recall, remember, stamp_of
from tasks.checkpoints.identity import is_scored, weights_of
from tasks.checkpoints.open import import_checkpoint
from tasks.images.prepare import content_of
from tasks.lora.epochs.files import digest_of_loras
from tasks.storage import places
from tasks.storage.store import check_writable

FLOWS: dict[str, Any] = {"fid-grid": fid_grid, "tune": tune_flow, "lora-score": lora_score}
COMMANDS = {
    "fid-grid": "grid --checkpoint",
    "tune": "tune --checkpoint",
    "lora-score": "lora score",
}
ENDED_BADLY = ("FAILED", "CRASHED")
BY_STATE = {"SCHEDULED": "started", "COMPLETED": "scored", "CANCELLED": "cancelled"}
# Nothing happened that anyone waits to hear of.
QUIET = ("scored", "cancelled", "under way", "given up")


class WatchError(RuntimeError):
    """A source does not answer, or a grid failed; the message names each."""


@dataclass(frozen=True)
class Seen:
    """What became of one candidate.

    Attributes:
        address: Where it is.
        weights: Its content digest; None while it is not whole.
        flow: What is done with it: `fid-grid`, `tune` or `lora-score`.
        outcome: `started`, `under way`, `scored`, `cancelled`, `given up`, `left` or `failed`.
        remark: The run, or why it was left.
    """

    address: str
    weights: str | None
    flow: str
    outcome: str
    remark: str = ""


@flow(name="checkpoint-watch", flow_run_name=flow_name, validate_parameters=True)
def checkpoint_watch(
    sources: list[str] = [],  # noqa: B006 (Prefect shows it in the form; never changed)
    grid: Given = {},  # noqa: B006
    settle_seconds: float = 5.0,
    attempts: int = 3,
    here: bool = False,
    tune: Given | None = None,
    lora: Given | None = None,
) -> list[Seen]:
    """Looks once at all sources, and starts the grid for every checkpoint that it has not scored;
    where `tune` is given, its tuning too. Where `lora` is given the sources are of LoRAs, and every
    new epoch has its folder scored.

    A checkpoint is known by its weights and settings: copied, touched or saved again it is the same
    one. However often this runs, restarts or overlaps, a grid is started once for it: the run's
    idempotency key is made of both digests and an attempt number, which rises when a run failed.

    Args:
        sources: Folders or patterns of paths, `models:/NAME`, `experiment:NAME`, `hub:OWNER/NAME`
            (`tasks.checkpoints.arrivals`); empty watches what DDIM_WATCH lists (commas between),
            or else DDIM_DATA/incoming.
        grid: Parameters of the `fid-grid` flow; what is left out has its default.
        settle_seconds: How long a checkpoint's files must stay as they are before it is read.
        attempts: How often a grid is started for one checkpoint while its runs fail.
        here: Run them in this process, where there is no deployment and no worker.
        tune: Parameters of the `tune` flow beside those of the grid that say of which model, images
            and scores; None tunes nothing. It looks at the lists of the checkpoint before, and
            says whether they still serve.
        lora: Parameters of the `lora-score` flow but for `loras`; None watches for checkpoints.

    Raises:
        ValueError: If `grid`, `tune` or `lora` holds what its flow does not take, or attempts or
            seconds cannot be.
        WatchError: After all work, if a source did not answer or a flow that ran here failed.
    """
    watch = Watch(sources, grid, settle_seconds, attempts, here, tune, lora)
    watch.check()
    for source in sources:
        require_source(source)
    check_writable()
    found, silent = look_at(sources or listed_sources())
    whole, seen = _whole(found, watch)
    for candidate, (path, weights) in whole.items():
        for job in watch.jobs(Path(path)):
            seen.append(_do(watch, job, candidate.address, weights))
    _tell(seen)
    failed = silent + [f"{one.address}: {one.remark}" for one in seen if one.outcome == "failed"]
    if failed:
        raise WatchError("; ".join(failed))
    return seen


def look_at(sources: list[str]) -> tuple[list[Candidate], list[str]]:
    """Returns what the sources show, and the words of those that do not answer."""
    found: dict[str, Candidate] = {}
    silent = []
    for source in sources:
        try:
            found.update({candidate.address: candidate for candidate in candidates(source)})
        except ValueError as error:
            silent.append(str(error))
    return list(found.values()), silent


def _whole(
    found: list[Candidate], watch: Watch
) -> tuple[dict[Candidate, tuple[str, str]], list[Seen]]:
    """Returns each whole checkpoint's place and digest, and those that are left for the next look.

    What has its stamp of an earlier look is not read again.
    """
    left = [
        Seen(ascii(c.address), None, watch.flow, "left", "its name is no UTF-8 text; rename it")
        for c in found
        if not _is_text(c.address)
    ]
    found = [c for c in found if _is_text(c.address)]
    known = {c: recall(c.address, c.stamp) for c in found}
    whole = {c: (p, w) for c, pair in known.items() if pair for p, w in [pair] if Path(p).exists()}
    fresh = [candidate for candidate in found if candidate not in whole]
    if any(candidate.is_local for candidate in fresh):
        time.sleep(watch.settle_seconds)
    for candidate in fresh:
        try:
            if candidate.is_local and stamp_of(Path(candidate.address)) != candidate.stamp:
                raise ValueError("it is still being written")
            path, weights = read_whole(candidate, partial(_digest_of, watch))
        except ValueError as error:
            left.append(Seen(candidate.address, None, watch.flow, "left", str(error)))
            continue
        remember(candidate.address, candidate.stamp, [str(path), weights])
        whole[candidate] = (str(path), weights)
    return whole, left


def _digest_of(watch: Watch, place: str) -> str:
    """The content digest of a checkpoint, or of all LoRAs of its folder."""
    if watch.lora is not None:
        return digest_of_loras([str(watch.loras(Path(place)))])
    described = str(watch.grid.get("configuration", "")) if Path(place).is_file() else ""
    return weights_of(import_checkpoint(place, configuration=described))


def _is_text(name: str) -> bool:
    """Tells what a server and a terminal can be told: a file's name may be any bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _do(watch: Watch, job: Job, address: str, weights: str) -> Seen:
    """Has a checkpoint scored or tuned, unless it is or is being."""
    try:
        request = job.request
    except ValueError as error:
        return Seen(address, weights, job.flow, "failed", str(error))
    identity = request.identity(data_content(request.real.dataset))
    if is_scored(identity, weights):
        return Seen(address, weights, job.flow, "scored")
    try:
        refuse(request)
    except ValueError as error:
        return Seen(address, weights, job.flow, "failed", str(error))
    key = f"{weights[:32]}-{identity[:32]}"
    if watch.here:
        return Seen(address, weights, job.flow, *_run_here(watch, job, key))
    outcome, remark = _start(watch, job, key)
    if outcome == "scored" and not is_scored(identity, weights):
        remark = f"{remark} says so, but its rows are gone; run ddim {COMMANDS[job.flow]}"
    return Seen(address, weights, job.flow, outcome, remark)


def data_content(dataset: str) -> str:
    """The data set's content digest, read again only when its files look changed."""
    path = Path(dataset)
    if not path.exists():
        return content_of(dataset)
    stamp = stamp_of(path.resolve())
    content = recall(f"content of {path.resolve()}", stamp) or content_of(dataset)
    remember(f"content of {path.resolve()}", stamp, content)
    return str(content)


def _start(watch: Watch, job: Job, key: str) -> tuple[str, str]:
    """Starts the deployment, once: a key that is known gives the run that has it."""
    deployment, name = f"{job.flow}/{job.flow}", job.name
    for attempt in range(1, watch.attempts + 1):
        try:
            run: Any = run_deployment(
                deployment, parameters=job.parameters, flow_run_name=f"{name} ({attempt})",
                timeout=0, as_subflow=False, idempotency_key=f"{key}-{attempt}",
                tags=["checkpoint-watch"],
            )  # fmt: skip
        except ObjectNotFound as error:
            raise WatchError(
                f"there is no deployment {deployment}; run `make serve` or `prefect deploy --all`, "
                "or run the flows here (--here)"
            ) from error
        kind = run.state.type.name if run.state else "PENDING"
        if kind not in ENDED_BADLY:
            return BY_STATE.get(kind, "under way"), f"run {run.id}"
    return (
        "given up",
        f"{watch.attempts} runs failed, the last is {run.id}; raise attempts to try again",
    )


def _run_here(watch: Watch, job: Job, key: str) -> tuple[str, str]:
    """Runs a flow in this process; another watch on this machine that runs it is left to it."""
    tried = int(recall(f"attempts {key}", "") or 0)
    if tried >= watch.attempts:
        return "given up", f"it failed {tried} times; raise attempts to try again"
    lock = FileLock(places.local_dir("work", "watch", f"{key}.lock"))
    Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
    try:
        with lock.acquire(blocking=False):
            state: Any = FLOWS[job.flow](**job.parameters, return_state=True)
    except Timeout:
        return "under way", "another watch runs it"
    if not state.is_completed():
        remember(f"attempts {key}", "", tried + 1)
        return "failed", str(state.message)
    return "started", _answer(job, state.result())


def _answer(job: Job, outcome: GridOutcome | TuneOutcome | LoraScore) -> str:
    """What came of a flow, in words; of a tuning a sentence for each list of the one before."""
    name = job.name
    if isinstance(outcome, LoraScore):
        return outcome.scorecard.reading[0]
    if isinstance(outcome, TuneOutcome):
        known = " ".join(said for said in outcome.reading if "found elsewhere" in said)
        return known or f"{name} is tuned: {', '.join(outcome.samplers)}"
    return outcome.verdict.sentences[0] if outcome.verdict else f"{name} is scored"


def _tell(seen: list[Seen]) -> None:
    """Puts what happened into the log, and into an artifact where anything did."""
    for one in seen:
        get_run_logger().info("%s: %s %s", one.address, one.outcome, one.remark)
    if any(one.outcome not in QUIET for one in seen):
        table = [{k: v or "-" for k, v in vars(one).items()} for one in seen]
        create_table_artifact(table, key="checkpoint-watch")
