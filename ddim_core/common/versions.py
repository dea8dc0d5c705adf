"""Versions of the libraries behind a number, for its record."""

from __future__ import annotations

import platform
from importlib.metadata import version

NETWORK_LIBRARIES = ("torch", "torchvision", "torch-fidelity", "transformers", "pillow")
SCORE_LIBRARIES = ("ddim-flows", "numpy", "scipy")


def network_versions() -> dict[str, str]:
    """Versions of what computes features."""
    return _versions(NETWORK_LIBRARIES)


def score_versions() -> dict[str, str]:
    """Versions of what computes scores from features."""
    return _versions(SCORE_LIBRARIES) | {"python": platform.python_version()}


def _versions(names: tuple[str, ...]) -> dict[str, str]:
    return {name: version(name) for name in names}
