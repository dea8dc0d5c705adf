"""The console script: Ctrl-C is minded before anything else is imported, and lines come as said."""

from __future__ import annotations

import sys

from flows import stopping


def main() -> None:
    """Runs the `ddim` command."""
    stopping.install()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # in a pipe as well
    try:
        from flows.cli import app

        app()
    finally:
        stopping.wait_if_stopping()


if __name__ == "__main__":
    main()
