"""Cells of cards are not shipped: no script of their own draws their bits."""

from __future__ import annotations

import pytest

from tasks.shipping.ship import _require_device
from tests.core.rows import cell_row


@pytest.mark.parametrize(("device", "at_once"), [("cuda", 256), ("cpu", 48), ("mps", None)])
def test_a_cell_of_a_card_is_refused_before_anything_is_drawn(
    device: str, at_once: int | None
) -> None:
    row = cell_row(device=device, dtype="bfloat16", images_at_once=at_once)
    with pytest.raises(ValueError, match=rf"drawn on a card \({device}, bfloat16\).*--device cpu"):
        _require_device(row)
    _require_device(cell_row(device="cpu", dtype="float32"))
