"""Seconds and memory of work on a card, or on a CPU that stands in."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from benchmarks.gpu.record import Figure


def seconds(work: Callable[[], object]) -> float:
    """Returns the seconds of a piece of work, the card's included."""
    settle()
    began = time.perf_counter()
    work()
    settle()
    return time.perf_counter() - began


def settle() -> None:
    """Waits until the card has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def in_turn(repeats: int, *works: Callable[[], object]) -> list[list[float]]:
    """Times pieces of work in turn, after one unmeasured call of each; a list of seconds each."""
    for work in works:
        work()
    taken: list[list[float]] = [[] for _ in works]
    for _ in range(repeats):
        for work, mine in zip(works, taken, strict=True):
            mine.append(seconds(work))
    return taken


def ratio(name: str, a: list[float], b: list[float], goal: str = "", told: str = "") -> Figure:
    """The ratio of medians a / b, with the range of the paired ratios."""
    pairs = [x / y for x, y in zip(a, b, strict=True)]
    value = statistics.median(a) / statistics.median(b)
    return Figure(name, value, "ratio", goal, min(pairs), max(pairs), told)


def speed(name: str, n_images: int, taken: list[float], goal: str = "", told: str = "") -> Figure:
    """Images a second, by the median."""
    each = sorted(n_images / t for t in taken)
    return Figure(name, statistics.median(each), "images/s", goal, each[0], each[-1], told)


def peak_gb(work: Callable[[], object]) -> float:
    """Returns the card's most memory during a piece of work, in GB; 0 on a CPU."""
    if not torch.cuda.is_available():
        work()
        return 0.0
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    work()
    settle()
    return torch.cuda.max_memory_allocated() / 1e9
