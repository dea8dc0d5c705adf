"""Networks are built one at a time: libraries change global defaults while they build one.

While diffusers opens a part of a pipeline, every layer that another thread makes has no memory
("device meta"), and torch's layers draw their weights from one stream that all threads share.
Running a network that is built is safe.
"""

from __future__ import annotations

from threading import RLock

LOADING = RLock()
"""The one lock of all packages, held while a network is built or opened, weights drawn included.

Who holds it may build another network meanwhile, as a part of the first.
"""
