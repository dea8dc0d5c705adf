"""Writes a folder's ddim.toml and prefect.yaml, with what a team has settled and every default."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from textwrap import wrap
from typing import Any

from flows.requests.flat import parameters
from flows.requests.grid import GridRequest
from flows.servers.deploy import OURS
from flows.team.defaults import NAME

DEPLOYMENTS = "prefect.yaml"
WATCHED = "&watched_grid {}"  # in the deployments that come with the project
WIDTH = 96  # characters of a comment
HEAD = f"""# What `ddim` takes where no option says otherwise: in this folder and in all below it,
# unless a nearer {NAME} or DDIM_CONFIG=FILE is there. What was taken is said in one line.
# A line without # is settled; after # stand the defaults. Write whole paths, as commands may run
# in any folder below.
# What a key means: `ddim grid --help`, docs/parameters.md.
"""
TAIL = """
# Of one flow alone, by its name (fid-grid, until-decided, tune, paper, lora-style, ...):
# [tune]
# calls = [4, 8]
"""


def write(folder: Path, settled: Mapping[str, Any]) -> list[Path]:
    """Writes both files; returns their places.

    Args:
        folder: Made if it is not there.
        settled: Parameters of a grid by name, as `build` takes them.

    In the clone the project's own deployments stay what they are, and ddim.toml alone is written.

    Raises:
        ValueError: If one of them is there already, or the folder cannot be written.
    """
    texts = {NAME: defaults_text(settled), DEPLOYMENTS: deployments_text(settled)}
    if (folder / DEPLOYMENTS).exists() and (folder / DEPLOYMENTS).samefile(OURS):
        del texts[DEPLOYMENTS]
    places = [folder / name for name in texts]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if there := [str(place) for place in places if place.exists() or place.is_symlink()]:
            are, them = ("are", "them") if len(there) > 1 else ("is", "it")
            said = f"{' and '.join(there)} {are} there already; edit {them}, or remove {them} first"
            raise ValueError(said)
        for place, text in zip(places, texts.values(), strict=True):
            with place.open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        raise ValueError(f"{folder} cannot be written: {error.strerror or error}") from None
    return places


def defaults_text(settled: Mapping[str, Any]) -> str:
    """Returns ddim.toml: every parameter of a grid with what it means, settled or commented out."""
    lines, group = [HEAD], ""
    for parameter in parameters(GridRequest):
        if parameter.group != group:
            group = parameter.group
            lines.append(f"\n# ---- {group}\n")
        lines += [f"# {line}\n" for line in wrap(parameter.description, WIDTH)]
        if parameter.name in settled:
            lines.append(f"{parameter.name} = {_toml(settled[parameter.name])}\n")
        elif parameter.default is None:
            lines.append(f"# {parameter.name} is not set\n")
        else:
            lines.append(f"# {parameter.name} = {_toml(parameter.default)}\n")
    return "".join(lines) + TAIL


def deployments_text(settled: Mapping[str, Any]) -> str:
    """Returns prefect.yaml: the project's own, whose grids are asked for what is settled."""
    text = OURS.read_text(encoding="utf-8")
    return text.replace(WATCHED, f"&watched_grid {_toml(dict(settled))}")  # JSON is YAML


def _toml(value: Any) -> str:
    """A value as TOML has it, which is how JSON writes text, numbers and lists."""
    return json.dumps(value, ensure_ascii=False)
