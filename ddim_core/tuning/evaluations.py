"""What was measured in a search: distances from the long run, kept as they are made."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ddim_core.common.digest import digest
from ddim_core.samplers.name import SamplerName

Distances = NDArray[np.float64]
Measure = Callable[[SamplerName, int, int], Distances]
"""Distances of the images of a chunk, for a sampler and its number of steps."""


class Evaluations:
    """Distances by sampler, steps and chunk, each measured once and written down at once.

    A search that was killed finds what it had measured, and goes on from there. A line that was cut
    off, or changed, is measured again.

    Args:
        measure: Measures what is not known.
        path: Lines of JSON, one for each evaluation; None keeps them in memory alone.
    """

    def __init__(self, measure: Measure, path: Path | None = None) -> None:
        self._measure, self._path = measure, path
        self._known: dict[str, Distances] = {}
        if path is not None and path.exists():
            for line in path.read_bytes().split(b"\n"):
                self._take(line)
            self._end_line()

    @property
    def n_measured(self) -> int:
        """How many evaluations there are, of this run and of earlier ones."""
        return len(self._known)

    def of(self, sampler: SamplerName, steps: int, chunk: int) -> Distances:
        """Returns the distances of a chunk's images, measured now or before."""
        key = f"{sampler.text} S={steps} chunk {chunk}"
        if key not in self._known:
            self._known[key] = self._measure(sampler, steps, chunk)
            self._write(key, self._known[key])
        return self._known[key]

    def _write(self, key: str, found: Distances) -> None:
        if self._path is None:
            return
        values = [float(value) for value in found]
        line = json.dumps({"of": key, "distances": values, "digest": digest(key, values)})
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def _take(self, line: bytes) -> None:
        try:
            told = json.loads(line)
            key, values = told["of"], [float(value) for value in told["distances"]]
            whole = told["digest"] == digest(key, values)
        except (ValueError, TypeError, KeyError, RecursionError):
            return
        if whole:
            self._known[key] = np.array(values)

    def _end_line(self) -> None:
        """What follows a line that was cut off stands on a line of its own."""
        assert self._path is not None
        if self._path.stat().st_size and not self._path.read_bytes().endswith(b"\n"):
            with self._path.open("a", encoding="utf-8") as file:
                file.write("\n")
