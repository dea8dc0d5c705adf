"""The files that a score of images is made of: found in a folder, or fetched once.

Nothing but these comes from a hub, and none of them is code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from ddim_core.common.plain_files import is_regular, is_there
from ddim_core.features.model_folder import hub_file
from ddim_core.safe_files.hub import fetched


@dataclass(frozen=True)
class Part:
    """Files that belong together, such as weights with their configuration.

    Attributes:
        what: For messages: `weights`.
        forms: Alternatives, the best first: the names of each, patterns among them.
        elsewhere: A hub id that has them, where the place of the others does not.
    """

    what: str
    forms: tuple[tuple[str, ...], ...]
    elsewhere: str = ""

    @property
    def wanted(self) -> str:
        """The alternatives, for people."""
        return ", or ".join(" and ".join(form) for form in self.forms)


@dataclass(frozen=True)
class Source:
    """Where files are: a repository of the hub, with the names that are taken of it (all that its
    parts may have if empty), or a file at an address, with its sha256."""

    place: str
    names: tuple[str, ...] = ()
    sha256: str = ""


CLIP_WEIGHTS = Part(
    "weights",
    (
        ("config.json", "model.safetensors"),
        ("config.json", "pytorch_model.bin"),
        ("open_clip_config.json", "open_clip_model.safetensors"),
        ("open_clip_config.json", "open_clip_pytorch_model.safetensors"),
        ("open_clip_config.json", "open_clip_pytorch_model.bin"),
        ("open_clip_model.safetensors",),
        ("open_clip_pytorch_model.safetensors",),
        ("open_clip_pytorch_model.bin",),
    ),
)
CLIP_TOKENIZER = Part(
    "tokenizer", (("vocab.json", "merges.txt"), ("tokenizer.json",)),
    "openai/clip-vit-large-patch14",
)  # fmt: skip


def files_of(
    name: str, place: str, parts: Sequence[Part], places: dict[str, tuple[Source, ...]]
) -> dict[str, Path]:
    """Finds a score's files.

    Args:
        name: Of the score, for messages.
        place: A folder, a hub id, or a short name of `places`; empty is the first of these.
        parts: What it needs.
        places: Where that usually is.

    Returns:
        Their paths by name.

    Raises:
        ValueError: If they cannot be had, with what is missing.
    """
    found: dict[str, Path] = {}
    sources = places.get(place or next(iter(places)), (Source(place),))
    local = Path(place) if place and Path(place).is_dir() else None
    for part in parts:
        files = in_folder(local, part, name) if local else _from(sources, part, name)
        if not files and part.elsewhere:
            files = _of_hub(Source(part.elsewhere), part, name)
        if not files:
            raise ValueError(
                f"image_scores: {place or next(iter(places))!r} has no {part.what} of {name}; "
                f"it must hold {part.wanted}"
            )
        found |= files
    return found


def require_parts(name: str, folder: Path, parts: Sequence[Part]) -> None:
    """Makes sure that a folder holds what a score needs and no hub has, by names alone.

    Raises:
        ValueError: If it does not, with what is missing.
    """
    for part in parts:
        if not in_folder(folder, part, name) and not part.elsewhere:
            raise ValueError(
                f"image_scores: the folder {str(folder)!r} has no {part.what} of {name}; it must "
                f"hold {part.wanted}"
            )


def _from(sources: Sequence[Source], part: Part, name: str) -> dict[str, Path]:
    for source in sources:
        found = _at_address if "://" in source.place else _of_hub
        if files := found(source, part, name):
            return files
    return {}


def _of_hub(source: Source, part: Part, name: str) -> dict[str, Path]:
    """The first form of a part that a repository has; the others are not fetched."""
    sought = (
        f"image_scores: {source.place!r}, {part.what} of {name}, is no local folder, and as a hub"
    )
    for form in part.forms:
        names = [n for n in source.names if any(Path(n).match(pattern) for pattern in form)]
        if source.names and len(names) < len(form):
            continue
        folder = fetched(source.place, names or form, sought=f"{sought} id it")
        if files := _form(folder, tuple(names or form), name):
            return files
    return {}


def _at_address(source: Source, part: Part, name: str) -> dict[str, Path]:
    """A file of the web, downloaded once into torch.hub's folder and held against its sha256."""
    file = unquote(source.place.rsplit("/", 1)[-1])
    if not any(Path(file).match(pattern) for form in part.forms for pattern in form):
        return {}
    path = hub_file(source.place)
    if not is_there(path):
        from torch.hub import download_url_to_file  # slow to import

        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            download_url_to_file(source.place, str(path), source.sha256, False)
        except (OSError, RuntimeError) as error:
            raise ValueError(
                f"image_scores: {file}, {part.what} of {name}, could not be downloaded ({error}); "
                "give a folder with it"
            ) from error
    return {file: path}


def in_folder(folder: Path, part: Part, name: str) -> dict[str, Path]:
    """Returns the files of the best form of a part that a folder has; none if it has none.

    Raises:
        ValueError: If a pattern fits several.
    """
    return next((files for form in part.forms if (files := _form(folder, form, name))), {})


def _form(folder: Path, form: Sequence[str], name: str) -> dict[str, Path]:
    """The files of one form, if all of them are there."""
    found: dict[str, Path] = {}
    for pattern in form:
        paths = [path for path in sorted(folder.glob(pattern)) if is_regular(path)]
        if not paths:
            return {}
        if len(paths) > 1:
            raise ValueError(
                f"image_scores: {str(folder)!r} holds {', '.join(path.name for path in paths)}, "
                f"and {name} is made of one of them; give a folder with that one"
            )
        found[paths[0].name] = paths[0]
    return found
