"""Libraries that take seconds to import, imported when something of them is first used.

    if TYPE_CHECKING:
        import diffusers
    else:
        diffusers = late("diffusers")

Whoever asks for a flow's parameters, deploys it, or looks whether there is anything to do waits for
none of them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from threading import RLock
from types import ModuleType
from typing import Any

# Libraries whose modules import each other in circles hand half of a module to a second thread.
_one_at_a_time = RLock()
_to_settle: dict[str, list[Callable[[Any], None]]] = {}


class _Late(ModuleType):
    def __getattr__(self, name: str) -> Any:
        with _one_at_a_time:
            return getattr(_imported(self.__name__), name)


def late(name: str) -> ModuleType:
    """Stands for a library until something of it is asked for; then that is what it gives."""
    return _Late(name)


def when_imported(name: str, settle: Callable[[Any], None]) -> None:
    """Has a setting made in a library: now if it is imported, else before it is first used late."""
    with _one_at_a_time:
        _to_settle.setdefault(name, []).append(settle)
        if name in sys.modules:
            _imported(name)


def _imported(name: str) -> ModuleType:
    module = import_module(name)
    for settle in _to_settle.pop(name, []):
        settle(module)
    return module
