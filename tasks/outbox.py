"""What MLflow has still to be told: one JSON message a run below DDIM_DATA/outbox.

A message is put here before it is sent and taken away when it has arrived, so that neither a
tracking server that is away nor a kill loses it. Sending a message twice does no harm.
"""

from __future__ import annotations

import json
import logging
from typing import Any

from tasks import places, store

Message = dict[str, Any]

logger = logging.getLogger(__name__)


def keep(name: str, message: Message) -> None:
    """Keeps a message, in place of an older one of the same name."""
    store.write_whole(_url(name), json.dumps(message).encode())


def waiting() -> dict[str, Message]:
    """Returns the messages that have not arrived yet, by name; one that cannot be read is told of
    and left where it lies."""
    found = {}
    for name in store.names_below(places.data_url("outbox")):
        if not name.endswith(".json"):
            continue  # another process's draft
        try:
            found[name.removesuffix(".json")] = json.loads(
                store.read(places.data_url("outbox", name))
            )
        except FileNotFoundError:
            continue  # another process has sent it
        except ValueError:
            logger.warning("outbox/%s is not readable; run its grid again, then delete it", name)
    return found


def arrived(name: str) -> None:
    """Takes a message away; that another process has done so already is fine."""
    store.remove(_url(name))


def _url(name: str) -> str:
    return places.data_url("outbox", f"{name}.json")
