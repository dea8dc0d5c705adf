"""What is being done just now, for those who wait: flows name a stage, cached tasks themselves.

Only this process knows of it, and nothing is decided by it. The command line shows it where nothing
else has been said for a while (`flows.run.waiting`).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

_lock = Lock()
_stage = ("", 0.0)
_running: dict[object, tuple[str, float]] = {}


def begin(words: str) -> None:
    """Names what is done from now on, where no task of this process says it more exactly."""
    global _stage
    with _lock:
        _stage = (words, time.monotonic())


@contextmanager
def running(task: str) -> Iterator[None]:
    """Counts a task as being at work in this process."""
    key = object()
    with _lock:
        _running[key] = (task, time.monotonic())
    try:
        yield
    finally:
        with _lock:
            del _running[key]


def now() -> tuple[str, float]:
    """Returns what is being done, and since how many seconds."""
    with _lock:
        words, since = _stage
        if _running:
            counted = Counter(name for name, _ in _running.values())
            words = ", ".join(f"{name} (x{n})" if n > 1 else name for name, n in counted.items())
            since = min(start for _, start in _running.values())
    return words, time.monotonic() - since
