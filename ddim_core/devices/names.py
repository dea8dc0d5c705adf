"""Devices by name, without torch: which of them are cards."""

from __future__ import annotations

CPU, AUTO = "cpu", "auto"


def kind_of(device: str) -> str:
    """Returns the kind of a device by its name: `cuda` of `cuda:0,cuda:1`."""
    return device.partition(":")[0]


def is_card(device: str) -> bool:
    """Tells whether work on a device takes one card for itself: all but the plain `cpu`, where
    tasks share cores. `cpu:0,cpu:1` are two stand-ins for cards."""
    return device != CPU


def card_kind(device: str) -> str | None:
    """Returns the kind of the cards that a device names; None of a CPU. It is part of every result
    that is worked out there."""
    return kind_of(device) if is_card(device) else None
