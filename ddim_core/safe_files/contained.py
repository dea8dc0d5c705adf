"""A place is what its name says: names that lead nowhere but to where they stand.

Whatever a file of somebody else names (a shard, a split, an image, a figure) lies in its own
folder, or it is refused. One set of rules for all of them.
"""

from __future__ import annotations

import re
from pathlib import Path

from ddim_core.common.printable import printable

LONGEST = 255  # bytes of one part of a path, as file systems have it
SHOWN = 100  # characters of a wrong name
ADDRESS = re.compile(r"://|::|\A(data|https?|file|ftp):|\A[A-Za-z]:[\\/]")


def require_plain_path(name: object, what: str) -> str:
    r"""Returns a relative path that leads below where it stands, whatever lies there.

    Args:
        name: Parts with `/` between: no `..`, no `\`, no address (`http://`, `C:\`), not absolute.
        what: What names it, to begin the sentence with.

    Raises:
        ValueError: If it is anything else.
    """
    shown = printable(str(name))[:SHOWN]
    if not isinstance(name, str) or not name:
        raise ValueError(f"{what} {shown!r} is no name")
    if ADDRESS.search(name):
        raise ValueError(f"{what} {shown!r} is an address; only files beside it are read")
    if "\0" in name or "\\" in name:
        raise ValueError(rf"{what} {shown!r} must have no \ and no NUL; write / between folders")
    if name.startswith(("/", "~")) or ".." in name.split("/"):
        raise ValueError(f"{what} {shown!r} leads out of its folder")
    if any(len(part.encode("utf-8", "surrogateescape")) > LONGEST for part in name.split("/")):
        raise ValueError(f"{what} {shown!r} is too long; a name has at most {LONGEST} bytes")
    return name


def require_plain_name(name: object, what: str) -> str:
    """Returns the name of one file or folder: a plain path of one part, in characters that print.

    Raises:
        ValueError: If it is anything else.
    """
    plain = require_plain_path(name, what)
    if "/" in plain or plain == "." or not plain.isprintable():
        raise ValueError(f"{what} {printable(plain)[:SHOWN]!r} must be one plain name, no path")
    return plain


def contained(folder: Path, name: object, what: str) -> Path:
    """Returns the path of what is named relative to a folder, if it lies there; a link that leads
    out of the folder does not.

    Raises:
        ValueError: If the name is no plain path, or leads out.
    """
    path = folder / require_plain_path(name, what)
    try:
        inside = path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError) as error:  # a circle of links
        raise ValueError(f"{what} {printable(str(name))[:SHOWN]!r} leads in a circle") from error
    if not inside:
        raise ValueError(f"{what} {printable(str(name))[:SHOWN]!r} leads out of its folder")
    return path
