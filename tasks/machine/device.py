"""Whether a torch device is here; torch itself is asked last, since importing it takes seconds."""

from __future__ import annotations

import sys
from pathlib import Path

from ddim_core.common.checks import nearest

KINDS = ("cpu", "cuda", "mps", "xpu", "meta")
OF_GPUS = ("nvidia*", "nvhost*", "nvmap", "kfd", "dxg")  # below /dev, where there is a GPU


def require_device(name: str) -> None:
    """Makes sure that a torch device is there.

    Raises:
        ValueError: If it is not.
    """
    kind, colon, index = name.partition(":")
    if name == "cpu":
        return
    if kind not in KINDS or (colon and not index.isdecimal()):
        raise ValueError(f"device is {name!r}{nearest(name, KINDS)}; it must be cpu or cuda")
    missing = f"device is {name!r}, which is not here; try cpu or cuda"
    if kind == "cuda" and sys.platform == "linux" and not _any_gpu():
        raise ValueError(missing)
    import torch

    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(missing) from error


def _any_gpu() -> bool:
    return any(any(Path("/dev").glob(pattern)) for pattern in OF_GPUS)
