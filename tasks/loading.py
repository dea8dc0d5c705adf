"""Networks are loaded one at a time.

Loading is the one moment that is not safe between threads (libraries change global defaults
while they build a network); running a loaded network is.
"""

from __future__ import annotations

from threading import Lock

LOADING = Lock()
