"""Networks are built one at a time: libraries change global defaults while they build one.

While diffusers opens a part of a pipeline, every layer that another thread makes has no memory
("device meta"). Running a network that is built is safe.
"""

from __future__ import annotations

from threading import Lock

LOADING = Lock()
"""Held while a network is built or opened, wherever another thread may open one."""
