"""How a checkpoint's place is written: a place here, a hub id, or an address of MLflow."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ddim_core.checkpoints.posthoc_ema import kept_in
from ddim_core.common.checks import nearest
from ddim_core.common.digest import digest, file_digest
from ddim_core.common.plain_files import is_folder, is_regular, walk_regular
from ddim_core.common.redaction import has_credentials, has_password, redacted
from ddim_core.safe_files.weight_names import DECODER_FOLDERS, OF_TRAINING, STATS, WEIGHTS
from tasks.storage import places

MLFLOW = re.compile(r"(runs|models|mlflow-artifacts):/")
HUB = "hub:"
SOURCES = ("models", "experiment", "hub")
SCHEME = re.compile(r"([A-Za-z][A-Za-z-]+):")
HUB_ID = re.compile(r"(hub:)?\w[\w.-]*/\w[\w.-]*(@[\w./-]+)?")
OF_CHECKPOINTS = (".json", *sorted(WEIGHTS))
MARKS = frozenset({"model_index.json", "config.json"})  # files of a checkpoint's folder
BESIDE = frozenset({*DECODER_FOLDERS, STATS})  # what belongs to all snapshots of a folder
UNFINISHED = (".tmp", ".part", ".partial", ".incomplete", ".crdownload")
PATTERN = re.compile(r"[*?\[]")
POSTHOC = "posthoc:"
AVERAGED = re.compile(r"posthoc:(?P<folder>.+)\?std=(?P<std>[^&?]+)(?:&kimg=(?P<kimg>\d{1,12}))?")
LARGEST_STD = 12.0**-0.5  # of a plain mean, as of a uniform profile
KNOWN = (
    "a folder or file here, a hub id such as google/ddpm-cifar10-32, or an MLflow address "
    "(runs:/ID/path, models:/name@alias, mlflow-artifacts:/path)"
)


@dataclass(frozen=True)
class Averaged:
    """Averages of other widths, of the snapshots of one EDM2 run: posthoc:FOLDER?std=0.08,0.1.

    Attributes:
        folder: Of the snapshots.
        stds: Widths of the averages, each a checkpoint.
        kimg: Where they end, in thousands of images; None for the last snapshot.
    """

    folder: str
    stds: tuple[str, ...]
    kimg: int | None = None

    @property
    def each(self) -> list[str]:
        """The location of each."""
        end = "" if self.kimg is None else f"&kimg={self.kimg}"
        return [f"{POSTHOC}{self.folder}?std={std}{end}" for std in self.stds]

    @property
    def std(self) -> float:
        """Of the first."""
        return float(self.stds[0])


def averaged(location: str) -> Averaged | None:
    """Reads such a location; None of any other.

    Raises:
        ValueError: If it is not written so, or an std can be of no average.
    """
    if not location.startswith(POSTHOC):
        return None
    match = AVERAGED.fullmatch(location)
    if match is None:
        raise ValueError(
            f"{location!r} is no average; write posthoc:FOLDER?std=0.08, several as std=0.05,0.1, "
            "and &kimg=134217 for one before the last snapshot"
        )
    stds = match["std"].split(",")
    for std in stds:
        if not re.fullmatch(r"0?\.\d{1,9}", std) or not 0.0 < float(std) < LARGEST_STD:
            raise ValueError(
                f"std is {std!r:.40} in {location!r}; it must be a number above 0 and below "
                f"{LARGEST_STD:.4f}, such as 0.08"
            )
    each = tuple({float(std): std for std in stds}.values())  # 0.08 and 0.080 are one
    return Averaged(match["folder"], each, int(match["kimg"]) if match["kimg"] else None)


def require_location(location: str, empty: str = "train the toy model") -> None:
    """Makes sure that a checkpoint's location is one of those known, without asking anybody.

    Args:
        location: It.
        empty: What leaving it out does, for people.

    Raises:
        ValueError: If it is not, is not there, or carries a password.
    """
    if has_credentials(location) or has_password(location):
        raise ValueError(
            f"the checkpoint {redacted(location)!r} carries credentials, which logs would keep; "
            "set MLFLOW_TRACKING_URI, MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, and "
            "leave them out here"
        )
    if is_local(location):
        _require_some_file(Path(location))
        return
    if of := averaged(location):
        if len(of.stds) > 1:
            raise ValueError(
                f"{location!r} names {len(of.stds)} averages; give one std here (`ddim grid "
                "--checkpoint` ranks several)"
            )
        if not (is_local(of.folder) and Path(of.folder).is_dir()):
            raise ValueError(f"there is no folder {of.folder!r} of snapshots")
        kept_in(Path(of.folder), of.kimg)
        return
    if MLFLOW.match(location):
        return
    is_file = location.lower().endswith(OF_CHECKPOINTS)  # which the hub has no repository of
    if is_file or "://" in location or not HUB_ID.fullmatch(location) or "--" in location:
        raise ValueError(
            f"there is no checkpoint folder or file {redacted(location)!r}; give {KNOWN}, or "
            f"leave it empty to {empty}"
        )


def is_local(location: str) -> bool:
    """Tells a folder or file that is there."""
    try:
        return Path(location).exists()
    except (OSError, ValueError):  # too long, or no text of a path
        return False


def may_hold_several(location: str) -> bool:
    """Tells, by names alone, what may stand for several checkpoints: a folder that is none by
    itself, or a pattern of paths."""
    if is_local(location):
        place = Path(location)
        return place.is_dir() and not any(is_regular(place / mark) for mark in MARKS)
    if of := averaged(location):
        return len(of.stds) > 1
    return "://" not in location and PATTERN.search(location) is not None


def a_place_of(location: str) -> str:
    """Returns a location, or of a pattern the first path where a checkpoint may be, by names alone.

    Raises:
        ValueError: If it can be no location, or a pattern names no such path.
    """
    if not may_hold_several(location) or is_local(location):
        require_location(location)
        return location
    if of := averaged(location):
        require_location(of.each[0])
        return of.each[0]
    reason = "no path is called so"
    for path in paths_of(location):
        try:
            require_location(str(path))
        except ValueError as error:
            reason = str(error)
        else:
            return str(path)
    raise ValueError(f"{location!r} holds no checkpoint: {reason}")


def paths_of(source: str) -> list[Path]:
    """Returns the paths that a folder or a pattern names now, in order of name, without what is
    hidden, named as unfinished, of a training's optimiser, or of a decoder beside.

    Raises:
        ValueError: If it is no pattern of paths, or the folder cannot be read.
    """
    given = Path(source).expanduser().absolute()
    try:
        if given.is_dir() and not any(is_regular(given / mark) for mark in MARKS):
            found = list(given.iterdir())
        elif given.exists():
            found = [given]
        else:
            found = list(Path(given.anchor).glob(str(given.relative_to(given.anchor))))
    except (OSError, ValueError, RecursionError, NotImplementedError) as error:
        reason = str(error) or type(error).__name__
        raise ValueError(f"{source!r} is no pattern of paths here: {reason}") from error
    return sorted(path for path in found if _may_be(path))


def _may_be(path: Path) -> bool:
    """Tells what may be a checkpoint by its name."""
    if path.name.startswith((".", "_")) or path.name.endswith(UNFINISHED) or path.name in BESIDE:
        return False
    if path.is_symlink() and not is_folder(path) and not is_regular(path):
        return True  # it leads nowhere, or in a circle: the look tells so, and goes on
    return is_folder(path) or (path.suffix in WEIGHTS and not OF_TRAINING.fullmatch(path.name))


def _require_some_file(place: Path) -> None:
    """Refuses at once a folder without any file of a checkpoint where one is looked for."""
    level = [place] if place.is_dir() else []
    for _ in range(4):  # a checkpoint is looked for three folders deep, and has unet/ below
        try:
            entries = [entry for folder in level for entry in folder.iterdir()]
        except OSError:  # whoever opens it says why
            return
        if any(entry.suffix in OF_CHECKPOINTS for entry in entries):
            return
        level = [entry for entry in entries if is_folder(entry)]
    if place.is_dir():
        raise ValueError(
            f"{place.name} holds no checkpoint: no file in it ends with {', '.join(OF_CHECKPOINTS)}"
        )


def content_at(location: str) -> str:
    """Returns a digest of all files of a local place; what is elsewhere stands for itself.

    A file is read again only when its size or time has changed.

    Raises:
        PlainFileError: If a folder cannot be read.
    """
    if not is_local(location) and (of := averaged(location)):
        return digest([location, content_at(of.folder)])
    if not is_local(location):
        return location
    place = Path(location)
    inside = walk_regular(place) if place.is_dir() else [Path()]
    return digest([[name.as_posix(), _digest_of(place / name)] for name in inside])


def _digest_of(file: Path) -> str:
    status = file.stat()
    return _digest_at(file.resolve(), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4096)
def _digest_at(file: Path, _size: int, _time: int) -> str:
    return file_digest(file)


def name_of(location: str) -> str:
    """What people call a checkpoint: the last part of its place."""
    if is_local(location):
        path = Path(location).resolve()
        return path.name if path.is_dir() else path.stem
    if of := averaged(location):
        end = "" if of.kimg is None else f"-{of.kimg:07d}"
        return f"{Path(of.folder).resolve().name}{end}-{','.join(of.stds)}"
    return redacted(location.rstrip("/").rsplit("/", 1)[-1])


def listed_sources() -> list[str]:
    """The sources that DDIM_WATCH lists, or DDIM_DATA/incoming."""
    listed = [source.strip() for source in os.environ.get("DDIM_WATCH", "").split(",")]
    return [source for source in listed if source] or [str(places.local_dir("incoming"))]


def require_source(source: str) -> None:
    """Makes sure that there can be such a source, without asking anybody.

    Raises:
        ValueError: If there is none of its kind, or it carries a password.
    """
    if has_credentials(source) or has_password(source):
        raise ValueError(
            f"the source {redacted(source)!r} carries credentials, which would be printed and "
            "kept; leave them out"
        )
    if "://" in source:
        raise ValueError(
            f"{redacted(source)!r} is no source; give a path, models:/, experiment: or hub:"
        )
    kind = SCHEME.match(source)
    if kind and kind[1] not in SOURCES and not is_local(source):
        raise ValueError(
            f"{source!r} is no source{nearest(kind[1], SOURCES)}; give a path, models:/, "
            "experiment: or hub: (a path with such a name: ./ before it)"
        )
