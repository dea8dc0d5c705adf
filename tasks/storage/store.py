"""The content-addressed store: artefacts under DDIM_DATA/store, named by the sha256 of their bytes.

Written whole or not at all, verified when read. A reference counts in cache keys by its `artifact`
alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import fsspec
import numpy as np
import safetensors.numpy

from ddim_core.common.digest import file_digest
from ddim_core.common.plain_files import PlainFileError, read_bytes
from ddim_core.images.image_table import from_arrow
from ddim_core.safe_files.claims.arrow_messages import STREAM_MAGIC
from ddim_core.safe_files.contained import contained
from tasks.storage import places
from tasks.storage.artifact import ArtifactRef as ArtifactRef

SHA256 = re.compile(r"[0-9a-f]{64}")
ATTEMPTS, PAUSE_SECONDS = 4, 0.5  # of an object store; the pause doubles
T = TypeVar("T")
Ref = TypeVar("Ref", bound=ArtifactRef)

_silent: set[str] = set()  # stores whose last answer did not come, however often it was asked for


class StoreError(Exception):
    """The store cannot be written or read; the message says where and what would help."""


class OccupiedError(StoreError, ValueError):
    """A folder lies where a file is to be put; who put it there has to take it away."""


class DamagedArtifactError(StoreError):
    """A stored artefact is missing or is not what its name says; it has to be made again."""


def write_whole(url: str, data: bytes) -> None:
    """Writes a file so that no reader, and no crash, ever sees half of it.

    Raises:
        StoreError: If the place cannot be written (full, read-only, not a folder); OccupiedError
            if a folder lies there.
    """
    try:
        if "://" in url:
            _write_remote(url, data)
            return
        target = Path(url)
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
        try:
            draft.write_bytes(data)
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)
    except IsADirectoryError as error:
        raise OccupiedError(
            f"cannot write {url}: a folder lies in its place; take it away and run this again"
        ) from error
    except OSError as error:
        raise StoreError(
            f"cannot write {url}: {error.strerror or error}; "
            "free the disk or point DDIM_DATA at a place that can be written"
        ) from error


def _write_remote(url: str, data: bytes) -> None:
    """Writes to an object store, which publishes an upload only when it is complete."""
    filesystem, path = located(url)
    try:
        _patiently(url, lambda: filesystem.pipe_file(path, data))
    except Exception as error:  # every store has its own kinds
        raise StoreError(f"cannot write {url}: {error}; DDIM_DATA must be writable") from error


def located(url: str) -> tuple[Any, str]:
    """Returns the filesystem of a URL, which remembers no listing of another moment, and the path
    there."""
    filesystem, path = fsspec.core.url_to_fs(url, use_listings_cache=False)
    return filesystem, path


def read(url: str) -> bytes:
    """Returns a file's bytes.

    Raises:
        FileNotFoundError: If there is no such file, or a pipe or a folder in its place.
        StoreError: If an object store does not answer.
    """
    if "://" not in url:
        return _read_local(url)
    filesystem, path = located(url)
    try:
        return bytes(_patiently(url, lambda: filesystem.cat_file(path)))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise FileNotFoundError(f"there is no file {url}") from error
    except Exception as error:  # every store has its own kinds
        raise StoreError(f"cannot read {url}: {error}") from error


def _read_local(url: str) -> bytes:
    try:
        return read_bytes(Path(url))
    except (FileNotFoundError, NotADirectoryError, PlainFileError) as error:
        raise FileNotFoundError(f"there is no file {url}: {error}") from error
    except OSError as error:
        raise StoreError(f"cannot read {url}: {error}") from error


def read_regular(url: str, most: int) -> bytes:
    """Returns a file's bytes, if it is a regular one of at most so many.

    Raises:
        ValueError: If it is a pipe, a device or a folder, or longer.
        FileNotFoundError, StoreError: As `read`; OSError where a local one cannot be read.
    """
    data = read(url) if "://" in url else read_bytes(Path(url), most)
    if len(data) > most:
        raise ValueError(f"it has {len(data)} bytes; at most {most} are read")
    return data


def remove(url: str) -> None:
    """Deletes a file; one that is not there is no error."""
    filesystem, path = located(url)
    try:
        _patiently(url, lambda: filesystem.rm_file(path))
    except FileNotFoundError:
        return
    except Exception as error:  # every store has its own kinds
        raise StoreError(f"cannot delete {url}: {error}") from error


def names_below(url: str) -> list[str]:
    """Returns the names of what lies directly in a folder; none if there is no folder."""
    filesystem, path = located(url)
    try:
        entries = _patiently(url, lambda: filesystem.ls(path, detail=False))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except Exception as error:  # every store has its own kinds
        raise StoreError(f"cannot list {url}: {error}") from error
    return [entry.rstrip("/").rsplit("/", 1)[-1] for entry in entries]


def _patiently(url: str, work: Callable[[], T]) -> T:
    """Asks an object store again when it fails; a disk means what it says the first time.

    A store that has failed to the end is asked once at a time until it answers: of one that is
    gone for good every task would wait through all attempts else.
    """
    scheme, remote, place = url.partition("://")
    where = f"{scheme}://{place.split('/')[0]}"
    for attempt in range(ATTEMPTS if remote and where not in _silent else 1):
        if attempt:
            time.sleep(PAUSE_SECONDS * 2 ** (attempt - 1))
        try:
            answer = work()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            _silent.discard(where)
            raise
        except Exception as error:  # every store has its own kinds
            failure = error
        else:
            _silent.discard(where)
            return answer
    _silent.add(where)
    raise failure


def check_writable() -> None:
    """Makes sure at the start that results can be kept.

    Raises:
        StoreError: If a mebibyte cannot be written below DDIM_DATA.
    """
    probe = places.data_url("store", f".probe-{uuid.uuid4().hex}")
    write_whole(probe, bytes(2**20))
    remove(probe)


def put(data: bytes, kind: str) -> ArtifactRef:
    """Stores bytes under their digest; storing the same bytes again writes nothing."""
    name = hashlib.sha256(data).hexdigest()
    ref = ArtifactRef(artifact=name, kind=kind)
    if not intact(ref):
        write_whole(_url(name), data)
    return ref


def get(ref: ArtifactRef) -> bytes:
    """Returns an artefact's bytes.

    Raises:
        DamagedArtifactError: If it is missing, or its bytes no longer have its digest.
        StoreError: If an object store does not answer.
    """
    if not SHA256.fullmatch(ref.artifact):  # planted: it would be a path to anywhere
        raise DamagedArtifactError(f"{ref.artifact[:80]!r} is no digest of an artefact")
    url, name = _url(ref.artifact), f"{ref.kind} {ref.artifact[:12]}"
    try:
        data = read(url)
        if hashlib.sha256(data).hexdigest() != ref.artifact and "://" in url:
            data = read(url)  # the way here may have damaged it, not the store
    except FileNotFoundError as error:
        raise DamagedArtifactError(f"the {name} is missing") from error
    if hashlib.sha256(data).hexdigest() != ref.artifact:
        raise DamagedArtifactError(f"the {name} at {url} is damaged")
    return data


def intact(ref: ArtifactRef) -> bool:
    """Tells whether an artefact, with all that it refers to, is there and undamaged."""
    if not SHA256.fullmatch(ref.artifact):
        return False
    try:
        data = get(ref)
    except DamagedArtifactError:
        return False
    if ref.kind != "folder":
        return True
    try:
        parts = [str(digest) for digest in json.loads(data).values()]
    except (ValueError, AttributeError):
        return False  # what was planted under this kind is no manifest
    return all(intact(ArtifactRef(artifact=part, kind="file")) for part in parts)


def put_arrays(arrays: dict[str, np.ndarray], kind: str) -> ArtifactRef:
    """Stores named arrays as safetensors bytes."""
    return put(
        safetensors.numpy.save({k: np.ascontiguousarray(v) for k, v in arrays.items()}), kind
    )


def get_arrays(ref: ArtifactRef) -> dict[str, np.ndarray]:
    """Returns stored arrays by name; of a prepared data set, `images` and, if any, `labels`. Raises
    as `get`, and DamagedArtifactError also of what holds no arrays."""
    data = get(ref)
    if data.startswith(STREAM_MAGIC):
        prepared = from_arrow(data)
        labels = {} if prepared.labels is None else {"labels": prepared.labels}
        return {"images": prepared.images, **labels}
    try:
        return dict(safetensors.numpy.load(data))
    except safetensors.SafetensorError as error:  # of another kind than a planted row says
        raise DamagedArtifactError(f"{ref.artifact[:12]} holds no arrays: {error}") from error


def bind(name: str, ref: ArtifactRef) -> None:
    """Gives an artefact a name of slash-separated parts, to be found again by `bound`."""
    text = json.dumps(ref if isinstance(ref, Mapping) else asdict(ref)).encode()
    check = _name_check(name, text).encode()
    write_whole(places.data_url("store", "names", name), check + b"\n" + text)


def bound(prefix: str, of: type[Ref]) -> dict[str, Ref]:
    """Returns the intact artefacts whose names lie directly under a prefix, by last part.

    Args:
        prefix: The names without their last parts.
        of: What was bound; an entry of another form is none.
    """
    found = {}
    for last in names_below(places.data_url("store", "names", prefix)):
        try:
            entry = read(places.data_url("store", "names", prefix, last))
        except (FileNotFoundError, ValueError):
            continue  # a folder, no name of ours, or another process's draft, which is gone
        check, _, text = entry.partition(b"\n")
        if check != _name_check(f"{prefix}/{last}", text).encode():
            continue  # a damaged name, or a killed writer's draft, is a name that is not there
        try:
            ref = of(**json.loads(text))
        except TypeError:
            continue
        if intact(ref):
            found[last] = ref
    return found


def _name_check(name: str, text: bytes) -> str:
    return hashlib.sha256(name.encode() + b"\n" + text).hexdigest()


def put_files(files: dict[str, bytes]) -> ArtifactRef:
    """Stores files, {relative path: content}, as `put_folder` stores a folder of them."""
    manifest = {name: put(data, "file").artifact for name, data in files.items()}
    return put(json.dumps(manifest, sort_keys=True).encode(), "folder")


def put_folder(folder: Path) -> ArtifactRef:
    """Stores a folder: each file by its content, and a manifest {relative path: digest}.

    The digest depends on names and contents only, not on where the folder lies, or when it was
    written; hidden files do not count.
    """
    manifest = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in name.parts):
            manifest[name.as_posix()] = put(path.read_bytes(), "file").artifact
    return put(json.dumps(manifest, sort_keys=True).encode(), "folder")


def get_folder(ref: ArtifactRef) -> Path:
    """Unpacks a stored folder below DDIM_DATA/checkpoints (once) and returns where it lies."""
    manifest: dict[str, str] = json.loads(get(ref))
    folder = places.local_dir("checkpoints", ref.artifact[:16])
    _remove_others(folder, manifest)
    for name, digest in manifest.items():
        try:
            path = contained(folder, name, f"the folder {ref.artifact[:12]} has a file whose name")
        except ValueError as error:
            raise DamagedArtifactError(str(error)) from error
        if not path.is_file() or file_digest(path) != digest:
            write_whole(str(path), get(ArtifactRef(artifact=digest, kind="file")))
    return folder


def _remove_others(folder: Path, manifest: Mapping[str, str]) -> None:
    """Deletes what a manifest does not name: libraries would read it (an index of shards, before
    the weights themselves). Drafts of other processes are hidden, and stay."""
    for here, folders, files in os.walk(folder):
        links = [name for name in folders if (Path(here) / name).is_symlink()]
        for path in (Path(here) / name for name in (*links, *files)):
            name = path.relative_to(folder).as_posix()
            if not path.name.startswith(".") and (name not in manifest or path.is_symlink()):
                path.unlink(missing_ok=True)


def _url(name: str) -> str:
    return places.data_url("store", name[:2], name)
