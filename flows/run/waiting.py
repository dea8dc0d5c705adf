"""Nobody is left before a silent terminal: a first line at once, then a bar, or a line in a pipe.

In a terminal a bar of the stage's seconds stands where no other bar does, and the others are kept
moving. Into a file or a pipe a line goes at least every ten seconds.
"""

from __future__ import annotations

import os
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from tasks.storage import stages

FIRST_SECONDS = 0.7  # a command that has said nothing by then says its name
SILENT_SECONDS = 5.0  # well within ten, also on a busy machine
TICK_SECONDS = 0.5

_said = threading.Event()
_last = time.monotonic()


def say(line: str) -> None:
    """Puts a line into the terminal, beside the bars that may stand there."""
    from tqdm import tqdm

    said()
    tqdm.write(line)


def said() -> None:
    """Notes that something has been said just now."""
    global _last
    _last = time.monotonic()
    _said.set()


def first_line_of(command: str) -> None:
    """Says a command's name soon, unless it has said more by then."""

    def speak() -> None:
        if not _said.wait(FIRST_SECONDS):
            _to_stderr(f"ddim {command}: reading what is asked for")

    threading.Thread(target=speak, name="first-line", daemon=True).start()


@contextmanager
def shown(line: str) -> Iterator[None]:
    """Says what is about to be done, and shows until the end of the block that it goes on."""
    _to_stderr(line)
    stages.begin("starting")
    over = threading.Event()
    show = _lines
    if sys.stderr.isatty():
        show = _bars
        _give_columns()
    thread = threading.Thread(target=show, args=(over,), name="waiting", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _lines(over: threading.Event) -> None:
    while not over.wait(TICK_SECONDS):
        if time.monotonic() - _last >= SILENT_SECONDS:
            words, seconds = stages.now()
            _to_stderr(f"still {words}: {seconds:.0f} s")


def _bars(over: threading.Event) -> None:
    from tqdm import tqdm

    own: Any = None
    while not over.wait(TICK_SECONDS):
        others = [bar for bar in list(getattr(tqdm, "_instances", ())) if bar is not own]
        if others and own is not None:
            own.close()
            own = None
        for bar in others:
            bar.refresh()  # its clock goes on
        if not others:
            words, _ = stages.now()
            if own is None:
                own = tqdm(bar_format="{desc}: {elapsed}", leave=False)
            own.set_description_str(words)
    if own is not None:
        own.close()


def _give_columns() -> None:
    """A terminal that says it has no columns (a pseudo-terminal does) would show empty bars."""
    with suppress(OSError):
        if os.get_terminal_size(2).columns == 0:
            termios.tcsetwinsize(2, (24, 80))


def _to_stderr(line: str) -> None:
    said()
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:  # whoever read it has gone; the work is what counts
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123 (until the process ends)
