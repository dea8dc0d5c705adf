"""Names in the figures of a tuning: short, but never one name for two samplers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from tasks.reports.tuning import _courses


def tuned(stock: str, timesteps: tuple[float, ...]) -> Any:
    return SimpleNamespace(stock=stock, calls=2, guidance=1.0, timesteps=timesteps,
                           stock_timesteps=(999.0, 499.0))  # fmt: skip


def test_samplers_of_one_name_are_told_apart_by_their_keys() -> None:
    heun = "dpmpp_2m?solver_type=heun"
    alone = _courses([tuned(heun, (800.0, 200.0)), tuned("euler", (700.0, 100.0))])
    assert [course.name for course in alone if course.tuned] == [
        "dpmpp_2m, 2 calls, tuned", "euler, 2 calls, tuned",
    ]  # fmt: skip
    both = _courses([tuned(heun, (800.0, 200.0)), tuned("dpmpp_2m", (700.0, 100.0))])
    assert [course.name for course in both if course.tuned] == [
        f"{heun}, 2 calls, tuned", "dpmpp_2m, 2 calls, tuned",
    ]  # fmt: skip
