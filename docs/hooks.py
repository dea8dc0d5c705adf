"""What mkdocs makes beside the written pages: one a command, one a room of the core, MathML."""

from __future__ import annotations

import ast
import html
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

from flows.cli.document import command_pages

PROJECT = Path(__file__).parents[1]
FORMULA = re.compile(
    r'<(span|div) class="arithmatex">(?:\\\(|\\\[)(.*?)(?:\\\)|\\\])</\1>', re.DOTALL
)
OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./([^)]+)\)")


def on_config(config: Any) -> Any:
    commands = {name: f"commands/{name.replace(' ', '-')}.md" for name in command_pages()}
    config.nav += [
        {"Commands": [{f"ddim {name}": place} for name, place in commands.items()]},
        {"Python": [{room: f"python/{room}.md"} for room in _rooms()]},
    ]
    return config


def on_files(files: Files, config: Any) -> Files:
    for name, text in command_pages().items():
        place = f"commands/{name.replace(' ', '-')}.md"
        files.append(File.generated(config, place, content=text))
    for room, modules in _rooms().items():
        files.append(File.generated(config, f"python/{room}.md", content=_room_page(room, modules)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """A link to a file beside the docs, which the site has not, becomes its name; and `a][b` of a
    pattern in a table is no link."""
    found = OUTSIDE.sub(r"\1 (`\2`)", markdown)
    return "\n".join(
        line.replace("][", "]\\[") if line.startswith("|") else line for line in found.split("\n")
    )


def on_page_content(content: str, **_: Any) -> str:
    """A formula becomes MathML, which browsers draw by themselves."""

    def drawn(found: re.Match[str]) -> str:
        display = "inline" if found[1] == "span" else "block"
        return convert(html.unescape(found[2]).strip(), display=display)

    return FORMULA.sub(drawn, content)


def _rooms() -> dict[str, list[str]]:
    """The rooms of the core, each with its public modules."""
    rooms: dict[str, list[str]] = {}
    for path in sorted((PROJECT / "ddim_core").rglob("*.py")):
        if path.name != "__init__.py":
            module = ".".join(path.relative_to(PROJECT).with_suffix("").parts)
            rooms.setdefault(module.rpartition(".")[0], []).append(module)
    return rooms


def _room_page(room: str, modules: list[str]) -> str:
    source = PROJECT.joinpath(*room.split("."), "__init__.py").read_text(encoding="utf-8")
    charter = ast.get_docstring(ast.parse(source)) or ""
    return f"# {room}\n\n{charter}\n\n" + "\n\n".join(f"::: {module}" for module in modules)
