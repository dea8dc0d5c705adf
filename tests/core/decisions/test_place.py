"""One cell of a grid is named by S and eta or sampler, in whatever spelling."""

from __future__ import annotations

import json

import pytest

from ddim_core.decisions.place import Place, names_cell, read_place
from tests.core.rows import cell_row

OURS = cell_row(steps=20, eta=0.5, variance="eta", sampler="ddim", scheduler_config="")
HAT = cell_row(steps=20, eta=1.0, variance="sigma_hat", sampler="sigma-hat", scheduler_config="")
CONFIG = json.dumps({"steps_offset": 1, "timestep_spacing": "linspace", "use_karras_sigmas": False})
EULER = cell_row(steps=8, eta=0.0, variance="scheduler", sampler="euler", scheduler_config=CONFIG)
OFFSET = cell_row(steps=8, eta=0.0, variance="scheduler", sampler="euler?steps_offset=1",
                  scheduler_config=CONFIG)  # fmt: skip
TCD = cell_row(steps=4, eta=0.2, variance="scheduler", sampler="tcd", scheduler_config="{}")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("20,0.5", Place(20, "", 0.5)), (" 20 , .5 ", Place(20, "", 0.5)),
        ("20,unipc", Place(20, "unipc", 0.0)), ("4,tcd,0.2", Place(4, "tcd", 0.2)),
        ("8,euler?steps_offset=1", Place(8, "euler?steps_offset=1", 0.0)),
        ("2,euler?timesteps=[999,1]", Place(2, "euler?timesteps=[999,1]", 0.0)),
        ("x,1", None), ("20", None), ("", None),
    ],
)  # fmt: skip
def test_a_place_is_read(text: str, place: Place | None) -> None:
    assert read_place(text) == place


@pytest.mark.parametrize(
    ("row", "named", "others"),
    [
        (OURS, ["20,0.5", "20, 0.50", "20,ddim,0.5", "20,.5"], ["20,0.4", "10,0.5", "20,ddim"]),
        (HAT, ["20,sigma-hat"], ["20,1", "20,ddim,1"]),
        (EULER, ["8,euler", " 8, euler ", "8,EulerDiscreteScheduler", "8,euler/linear",
                 "8,euler?timestep_spacing=linspace&steps_offset=1.0"],
         ["8,euler?steps_offset=0", "8,euler/karras", "8,unipc", "8,0", "8,eular", "8,own"]),
        (OFFSET, ["8,euler?steps_offset=1", "8,euler?steps_offset=1.0"], ["8,euler"]),
        (TCD, ["4,tcd,0.2", "4,tcd,.20"], ["4,tcd", "4,tcd,0.3"]),
    ],
)  # fmt: skip
def test_a_cell_is_named_in_any_spelling_of_what_it_did(
    row: object, named: list[str], others: list[str]
) -> None:
    assert [text for text in named if not names_cell(row, text)] == []  # type: ignore[arg-type]
    assert [text for text in others if names_cell(row, text)] == []  # type: ignore[arg-type]
