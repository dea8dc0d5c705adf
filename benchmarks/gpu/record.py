"""A run's figures, written anew after each, so that a run that is cut off counts."""

from __future__ import annotations

import json
import platform
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch


@dataclass(frozen=True)
class Figure:
    """A number that was measured.

    Attributes:
        name: What it is.
        value, low, high: Median, and the range of the repeats.
        unit: `ratio`, `images/s`, ...
        goal: In words; empty where there is none.
        told: What it was made of.
    """

    name: str
    value: float
    unit: str
    goal: str = ""
    low: float | None = None
    high: float | None = None
    told: str = ""


class Record:
    """Figures as JSON and as a table.

    Args:
        folder: Where `gpu.json` and `gpu.md` are written.
        device: Of torch.
        seconds: Of the whole run; work that is expected to take longer than what is left is not
            begun.
    """

    def __init__(self, folder: Path, device: str, seconds: float) -> None:
        self._folder, self._ends = folder, time.monotonic() + seconds
        self._figures: list[Figure] = []
        self._failed: dict[str, str] = {}
        self._seconds: dict[str, float] = {}
        self.about = {
            "device": torch.cuda.get_device_name(device) if device != "cpu" else "cpu",
            "machine": platform.processor() or platform.machine(),
            "python": platform.python_version(),
            **{name: _version(name) for name in ("torch", "diffusers", "torch-fidelity")},
            "began": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, *figures: Figure) -> None:
        """Takes figures in, and writes all."""
        for figure in figures:
            print(f"{figure.name}: {figure.value:.4g} {figure.unit} {figure.told}", flush=True)
        self._figures += figures
        self._write()

    def work(self, name: str, expected: float, measure: Callable[[], None]) -> None:
        """Measures something, if there is time for it; an error is written down."""
        left, began = self._ends - time.monotonic(), time.monotonic()
        if left < expected:
            self._failed[name] = f"not begun: {left:.0f} s were left, and it takes {expected:.0f}"
            self._write()
            return
        print(f"== {name} ({left:.0f} s left)", flush=True)
        try:
            measure()
        except Exception as error:  # whatever it is, the others are measured
            traceback.print_exc()
            self._failed[name] = f"{type(error).__name__}: {error}"[:400]
        self._seconds[name] = round(time.monotonic() - began, 1)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self._write()

    def _write(self) -> None:
        told = {
            **self.about,
            "figures": [asdict(figure) for figure in self._figures],
            "failed": self._failed,
            "seconds": self._seconds,
        }
        (self._folder / "gpu.json").write_text(json.dumps(told, indent=1) + "\n")
        rows = ["| figure | seen | goal | made of |", "|---|---|---|---|"]
        for figure in self._figures:
            spread = "" if figure.low is None else f" ({figure.low:.4g} to {figure.high:.4g})"
            seen = f"{figure.value:.4g}{spread}" + f" {figure.unit}" * (figure.unit != "ratio")
            rows.append(f"| {figure.name} | {seen} | {figure.goal} | {figure.told} |")
        (self._folder / "gpu.md").write_text("\n".join(rows) + "\n")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"
