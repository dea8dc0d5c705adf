"""Checkpoints by what people call them: a folder, an MLflow address, a name in the table, the start
of a digest, or a pattern of names."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from ddim_core.common.checks import nearest
from ddim_core.decisions.row import CellRow
from tasks.checkpoints.addresses import is_local, require_location

Rows = list[CellRow]
IN_MLFLOW = ("models:/", "runs:/")
LEAST_DIGITS = 6  # of a digest, to name a checkpoint
MOST_LISTED = 8  # names


def local_checkpoint(location: str) -> Path:
    """Returns a checkpoint's folder on this machine; an MLflow address is fetched, once.

    Raises:
        ValueError: If MLflow does not have it.
    """
    if not location.startswith(IN_MLFLOW):
        return Path(location)
    from tasks.tracking.models import download  # slow to import

    return download(location)


def weights_called(name: str, table: Rows) -> str:
    """Returns the content digest of a checkpoint given by its place, its name or a digest's start.

    Raises:
        ValueError: If the table has none of that name, or several.
    """
    if table and (name.startswith(IN_MLFLOW) or is_local(name)):
        require_location(name)
        from ddim_core.checkpoints.identity import weights_digest  # slow to import

        return weights_digest(local_checkpoint(name))
    found = {str(row.weights_digest) for row in table if row.checkpoint == name} or {
        str(row.weights_digest)
        for row in table
        if len(name) >= LEAST_DIGITS
        and any(d.startswith(name) for d in (str(row.weights_digest), row.checkpoint_digest))
    }
    if len(found) > 1:
        step = {row.weights_digest: row.training_step for row in table}
        told = {w: "" if step[w] is None else f" (step {step[w]})" for w in sorted(found)}
        several = ", ".join(f"{weights[:12]}{of}" for weights, of in told.items())
        raise ValueError(f"{name!r} names several checkpoints; give the digest of one: {several}")
    if not found:
        raise ValueError(_unknown(name, table))
    return found.pop()


def rows_called(name: str, table: Rows) -> Rows:
    """Returns the rows of a checkpoint, of any protocol.

    Raises:
        ValueError: If there are none, or it names several checkpoints.
    """
    weights = weights_called(name, table)
    found = [row for row in table if row.weights_digest == weights]
    if not found:
        raise ValueError(_unknown(name, table))
    return found


def twins_called(names: Sequence[str], table: Rows) -> list[Rows]:
    """Returns the rows of each training of a recipe, of any protocol.

    Args:
        names: Checkpoints, or patterns (`faces-seed*`) that stand for all whose name matches.
        table: Where their rows are.

    Raises:
        ValueError: If a name or a pattern has no rows, or a name stands for several checkpoints.
    """
    twins: list[Rows] = []
    for name in names:
        if not set("*?[") & set(name):
            twins.append(rows_called(name, table))
            continue
        matching: dict[str, Rows] = {}
        for row in table:
            if fnmatchcase(row.checkpoint, name):
                matching.setdefault(row.weights_digest, []).append(row)
        if not matching:
            raise ValueError(_unknown(name, table))
        twins += matching.values()
    return twins


def _unknown(name: str, table: Rows) -> str:
    if not table:
        return f"the table has no rows yet, and so none of {name!r:.200}; `ddim grid` makes some"
    names = list(dict.fromkeys(row.checkpoint for row in reversed(table)))
    more = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    return (
        f"the table has no rows of {name!r:.200}{nearest(name, names)}; it has rows of "
        f"{', '.join(names[:MOST_LISTED])}{more}, and `ddim grid --checkpoint` scores others"
    )
