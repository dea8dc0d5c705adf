"""The console script: Ctrl-C is minded before anything else is imported, and lines come as said."""

from __future__ import annotations

import os
import sys

from flows.run import stopping, waiting


def main() -> None:
    """Runs the `ddim` command."""
    command = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    if command != "serve":  # which minds its signals, and says its lines, itself
        stopping.install()
    os.environ["MPLBACKEND"] = "agg"  # pictures go to files; a notebook names one of its own
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # in a pipe as well
    if command not in ("", "serve") and "--help" not in sys.argv:
        waiting.first_line_of(command)
    try:
        from flows.cli.app import app

        app()
    finally:
        stopping.wait_if_stopping()


if __name__ == "__main__":
    main()
