"""Prefect's pages show a run; they never decide how it ends."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

logger = logging.getLogger(__name__)


@contextmanager
def if_server_answers() -> Iterator[None]:
    """Shows something on a Prefect server; one that is away, or restarting, is only told of."""
    try:
        yield
    except (httpx.HTTPError, OSError) as error:
        logger.warning("the Prefect server did not take an artifact: %r", error)
