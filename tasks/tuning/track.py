"""MLflow: one run for each tuning, and one below it for each setting that was tuned."""

from __future__ import annotations

from prefect import task

from ddim_core.common.digest import digest
from ddim_core.decisions.row import interval_text
from tasks.machine.secrets import without_secrets
from tasks.storage.artifact import Report
from tasks.storage.naming import run_name
from tasks.tracking.client import track
from tasks.tracking.outbox import Entry
from tasks.tuning.found import Tuned

EXPERIMENT = "tune"
JUDGED = ("tuned", "stock", "gain", "on_tuning")


@task(name="track-tuning", task_run_name=run_name("track-tuning"), retries=2, retry_delay_seconds=2)
@without_secrets
def track_tuning(
    tuned: list[Tuned], checkpoint: str, weights: str, proof: str, report: Report
) -> str:
    """Logs what was tuned, and its report; returns the id of its run, whose metrics are those of
    the setting that gained most.

    Args:
        tuned: What was found; figures are distances from the long run, or FIDs (`by_fid`).
        checkpoint, weights: Its name, and the digest of its content.
        proof: First digits of the identity of the grid that scores them, whose runs are in the
            experiment `fid-grid`; empty where it was left out.
        report: Its page.
    """
    identity = digest("tuning", weights, tuned, proof)
    tags = {"ddim.checkpoint_name": checkpoint, "ddim.weights": weights, "ddim.proof": proof}
    best = max(tuned, key=lambda one: one.judged.gain.mean)
    parent = Entry(
        identity, f"tune {checkpoint} {identity[:8]}", {"ddim.identity": identity, **tags},
        {"settings": len(tuned), "n_images": best.n_images, "by_fid": best.by_fid,
         "features": best.features, "long_steps": best.long_steps},
        {f"best_{name}": value for name, value in _metrics(best).items()},
    )  # fmt: skip
    children = [_entry(one, checkpoint, weights, identity) for one in tuned]
    return track(EXPERIMENT, parent, children, report)


def _entry(one: Tuned, checkpoint: str, weights: str, tuning: str) -> Entry:
    identity = digest("tuned", weights, one)
    levels = one.narrowed.interval if one.narrowed else None
    at = f"guidance {one.guidance:g}"
    parameters = {
        "sampler": one.sampler, "stock": one.stock, "steps": one.steps, "calls": one.calls,
        "guidance_scale": one.guidance, "guidance_interval": interval_text(levels),
        "n_images": one.n_images, "by_fid": one.by_fid, "features": one.features,
        "long_steps": one.long_steps,
    }  # fmt: skip
    return Entry(
        identity, f"{one.stock}, {one.calls} calls, {at}, of {checkpoint} {tuning[:8]}",
        {"ddim.identity": identity, "ddim.checkpoint_name": checkpoint}, parameters, _metrics(one),
    )  # fmt: skip


def _metrics(one: Tuned) -> dict[str, float]:
    apart = {name: getattr(one.judged, name) for name in JUDGED} | {"long": one.long}
    judged = {
        f"{name}{end}": value
        for name, figure in apart.items()
        if figure
        for end, value in (("", figure.mean), ("_low", figure.low), ("_high", figure.high))
    }
    spent = {"candidates": float(one.found.n_tried), "network_calls_an_image": one.found.spent}
    return judged | spent
