"""Ctrl-C and SIGTERM: one line, no child left, 128 + the signal's number; at once the second time.

What is stored is whole or absent at every moment (it withstands `kill -9`), so there is nothing to
undo, and the process need not be asked: a thread ends it, whatever the main thread is busy with.
The signal reaches that thread through Python's wakeup pipe, also where a library has put a handler
of its own in place of ours. SIGINT is blocked in all other threads, and so in the children that
they start: a terminal sends it to them too, and each would die with a traceback of its own.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from typing import Any

ASKED = (signal.SIGINT, signal.SIGTERM)
NOTICE_SECONDS = 0.2
TELL_SECONDS = 1.0  # for a Prefect server to hear of it
GENTLE_SECONDS = 0.4  # from SIGTERM to SIGKILL
PR_SET_CHILD_SUBREAPER = 36
STOPPED = "stopped; what is finished is kept, run it again to go on"

_begun = threading.Event()
_flow_runs: list[Any] = []


def install() -> None:
    """From here on a signal ends this process and all that it has started; once a process."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    for number in ASKED:
        signal.signal(number, _leave_to_the_thread)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=_forget)
    if sys.platform == "linux":  # a child's child whose parent has died is ours to end as well
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    threading.Thread(target=_watch, args=(reader,), name="stopping", daemon=True).start()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # after the thread, which hears it


def remember(flow: Any) -> Any:
    """Returns a flow whose run is told to its server as cancelled when it is stopped."""

    def note(_flow: Any, flow_run: Any, _state: Any) -> None:
        _flow_runs.append(flow_run.id)

    return flow.with_options(on_running=[*(flow.on_running_hooks or []), note])


def forget() -> None:
    """From here on no run is under way that a server would have to be told of."""
    _flow_runs.clear()


def wait_if_stopping() -> None:
    """Keeps the main thread from ending the process with another exit code; it may be here, by a
    handler that raises, before the thread has taken the signal up."""
    _begun.wait(NOTICE_SECONDS)
    while _begun.is_set():
        time.sleep(1.0)


def _leave_to_the_thread(_number: int, _frame: object) -> None:
    """Does nothing: the wakeup pipe has the signal already."""


def _forget() -> None:
    """A forked child shares our pipe: its signals are its own."""
    signal.set_wakeup_fd(-1)
    for number in ASKED:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _watch(reader: int) -> None:
    while True:
        number = os.read(reader, 1)[0]
        if number not in ASKED:
            continue  # of a handler that some library has installed
        if _begun.is_set():
            _kill_children()
            os._exit(128 + number)
        _begun.set()
        threading.Thread(target=_stop, args=(number,), name="stop", daemon=True).start()


def _stop(number: int) -> None:
    _say_and_fall_silent()
    if _flow_runs and os.environ.get("PREFECT_API_URL"):
        telling = threading.Thread(target=_tell_prefect, daemon=True)
        telling.start()
        telling.join(TELL_SECONDS)
    _end_children()
    os._exit(128 + number)


def _say_and_fall_silent() -> None:
    """Says the line; what the interrupted work would print from now on is no news to anybody."""
    clear = "\r\x1b[K" if os.isatty(2) else ""
    with suppress(OSError):  # a terminal, or a reader of a pipe, that has gone
        os.write(2, f"{clear}{STOPPED}\n".encode())
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


def _tell_prefect() -> None:
    from prefect.client.orchestration import get_client
    from prefect.states import Cancelled

    with get_client(sync_client=True) as client:
        for flow_run in list(_flow_runs):
            client.set_flow_run_state(flow_run, Cancelled(message=STOPPED), force=True)


def _end_children() -> None:
    """Ends all that was started from here; what is started again meanwhile, as by a nanny, too."""
    import psutil

    for child in _children():
        with suppress(psutil.Error):
            child.terminate()
    deadline = time.monotonic() + GENTLE_SECONDS
    while _children() and time.monotonic() < deadline:
        time.sleep(0.02)
    _kill_children()


def _kill_children() -> None:
    import psutil

    for _ in range(5):
        children = _children()
        if not children:
            return
        for child in children:
            with suppress(psutil.Error):
                child.kill()
        psutil.wait_procs(children, timeout=0.1)


def _children() -> list[Any]:
    """The living processes below this one; the dead that nobody has waited for are none."""
    import psutil

    found = []
    with suppress(psutil.Error):
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                if child.status() != psutil.STATUS_ZOMBIE:
                    found.append(child)
    return found
