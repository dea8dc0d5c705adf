"""Where one cell of a grid is named: S, then eta or the sampler, as `20,0.5`, `20,unipc`,
`20,tcd,0.2`; in whatever spelling."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from ddim_core.decisions.row import DDIM, SIGMA_HAT, CellRow, is_ours, place_of, sampler_of
from ddim_core.samplers.catalogue import FLAGS
from ddim_core.samplers.name import SamplerName, parse_sampler

NUMBER = r"(?:\d+(?:\.\d*)?|\.\d+)"


@dataclass(frozen=True)
class Place:
    """What somebody wrote: S, a sampler ("" is DDIM), eta (0 where none is written)."""

    steps: int
    sampler: str
    eta: float


def read_place(text: str) -> Place | None:
    """Reads it; None if it is no place."""
    steps, _, place = "".join(text.split()).partition(",")
    if not (steps.isascii() and steps.isdigit() and place):
        return None
    alone = re.fullmatch(NUMBER, place)
    behind = re.fullmatch(rf"(.+),({NUMBER})", place)
    if alone:
        return Place(int(steps), "", float(place))
    if behind:
        return Place(int(steps), behind[1], float(behind[2]))
    return Place(int(steps), place, 0.0)


def names_cell(row: CellRow, text: str) -> bool:
    """Tells whether S and eta or sampler, as `20,0.5`, `20,sigma-hat`, `20,unipc`, name a cell.

    What a sampler's name says besides counts as said where the cell was drawn with it: `euler` is
    also named by `euler?steps_offset=0` where that is what it did.
    """
    asked = read_place(text)
    if asked is None or asked.steps != row.steps:
        return False
    if is_ours(row):
        if row.variance == "sigma_hat":
            return asked.sampler == SIGMA_HAT
        return asked.sampler in ("", DDIM) and asked.eta == row.eta
    if "".join(text.split()) == f"{row.steps},{place_of(row)}":
        return True
    try:
        written, there = parse_sampler(asked.sampler), parse_sampler(sampler_of(row))
        config = json.loads(row.scheduler_config or "{}")
    except ValueError:
        return False
    return asked.eta == row.eta and _is_same(written, there, config)


def _is_same(written: SamplerName, there: SamplerName, config: dict[str, object]) -> bool:
    """Whether one spelling is another, for what was done: a scheduler's whole configuration."""
    rules = [rule for flag, rule in FLAGS.items() if config.get(flag)]
    done = rules[0] if rules else "linear"
    lists = [(name.timesteps, name.own_sigmas) for name in (written, there)]
    said = dict(written.options)
    return (
        written.name == there.name
        and lists[0] == lists[1]
        and (written.sigmas == there.sigmas or (not there.sigmas and written.sigmas == done))
        and all(key in said for key, _ in there.options)
        and all(config.get(key) == _plain(value) for key, value in said.items())
    )


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
