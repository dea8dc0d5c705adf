"""Devices by name: which of them are cards, which cards are here, and a card taken by one task.

Torch itself is asked last, since importing it takes seconds.
"""

from __future__ import annotations

import fcntl
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import wraps
from inspect import signature
from pathlib import Path
from typing import ParamSpec, TypeVar

from ddim_core.common.checks import nearest
from ddim_core.devices.names import AUTO, CPU, is_card, kind_of

P = ParamSpec("P")
R = TypeVar("R")

KINDS = (CPU, "cuda", "mps", "xpu", "meta")
KNOWN = (*KINDS, AUTO)
OF_GPUS = ("nvidia*", "nvhost*", "nvmap", "kfd", "dxg")  # below /dev, where there is a GPU
LOOK_SECONDS = 0.005  # between looks at whether a card is free


def require_device(name: str) -> None:
    """Makes sure that a torch device is there, or each of several cards.

    Raises:
        ValueError: If it is not, or they are of several kinds.
    """
    if name in (CPU, AUTO):
        return
    each = [one.strip() for one in name.split(",")]
    for one in each:
        _require_one(one, name)
    if len({kind_of(one) for one in each}) > 1 or len(set(each)) < len(each) or CPU in each:
        raise ValueError(f"device is {name!r}; several cards must be of one kind, each named once")


def _require_one(one: str, name: str) -> None:
    kind, colon, index = one.partition(":")
    if kind not in KINDS or (colon and not index.isdecimal()):
        raise ValueError(
            f"device is {name!r}{nearest(name, KNOWN)}; it must be cpu, cuda, mps or auto, or name "
            "cards as cuda:0 or cuda:0,cuda:1"
        )
    if kind == CPU:
        return
    missing = f"device is {name!r}, which is not here; try cpu or cuda"
    if kind == "cuda" and sys.platform == "linux" and not _any_gpu():
        raise ValueError(missing)
    import torch

    try:
        torch.empty(0, device=one)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(missing) from error


def settled(name: str) -> str:
    """Returns the device that `auto` stands for here: CUDA where there is one, else Apple's, else
    the CPU; any other as it is."""
    if name != AUTO:
        return name
    if sys.platform == "linux" and not _any_gpu():
        return CPU
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else CPU


def cards_of(device: str) -> list[str]:
    """Returns the cards that a device names: those listed, or all of the host of its kind."""
    if "," in device or ":" in device:
        return [one.strip() for one in device.split(",")]
    if device == "cuda":
        import torch

        return [f"cuda:{i}" for i in range(torch.cuda.device_count())] or ["cuda:0"]
    return [device]


@contextmanager
def card(device: str, dtype: str = "float32") -> Iterator[str]:
    """Inside, one of a device's cards belongs to the caller alone, of all threads and processes of
    this user on this host; waits until one is free. On the plain CPU nothing is waited for.

    The lock is the system's own on a file, which a process that dies lets go.

    Args:
        device: As of `Execution`.
        dtype: Number format of what is computed, see `ddim_core.devices.arithmetic`.
    """
    if not is_card(device):
        yield device
        return
    from ddim_core.devices.arithmetic import arithmetic

    with _taken(cards_of(device)) as mine, arithmetic(dtype):
        yield mine


def on_a_card(function: Callable[P, R]) -> Callable[P, R]:
    """Has a task that takes an `execution`, and perhaps a `cell`, run on a card of its own, which
    its `execution.device` then is."""

    @wraps(function)
    def placed(*args: P.args, **kwargs: P.kwargs) -> R:
        told = signature(function).bind(*args, **kwargs)
        execution, cell = told.arguments["execution"], told.arguments.get("cell")
        with card(execution.device, cell.dtype if cell else "float32") as mine:
            told.arguments["execution"] = replace(execution, device=mine)
            return function(*told.args, **told.kwargs)

    return placed


@contextmanager
def _taken(cards: list[str]) -> Iterator[str]:
    folder = Path(tempfile.gettempdir(), f"ddim-flows-cards-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    with ExitStack() as opened:
        files = {name: opened.enter_context((folder / _of_host(name)).open("ab")) for name in cards}
        mine = None
        while mine is None:
            mine = next((name for name, file in files.items() if _locked(file.fileno())), None)
            if mine is None:
                time.sleep(LOOK_SECONDS)
        yield mine


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _of_host(name: str) -> str:
    """A card's name on the host, which a process may see under another number."""
    kind, _, index = name.partition(":")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if kind == "cuda" else []
    number = int(index or 0)
    return f"{kind}-{visible[number].strip() if number < len(visible) and visible[0] else number}"


def _any_gpu() -> bool:
    return any(any(Path("/dev").glob(pattern)) for pattern in OF_GPUS)
