"""The store: written whole, verified when read, refusing what would leave it."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from tasks.storage import places, store
from tasks.storage.artifact import references
from tasks.storage.store import ArtifactRef, DamagedArtifactError, StoreError


@dataclass(frozen=True)
class Timed(ArtifactRef):
    """A reference with what it took."""

    seconds: float


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A DDIM_DATA for one test."""
    monkeypatch.setattr(places, "DATA_URL", str(tmp_path / "data"))
    return tmp_path / "data"


def files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file())


def only_file(folder: Path) -> Path:
    (path,) = files(folder)
    return path


def test_artefact_is_named_by_its_sha256_and_read_back(data: Path) -> None:
    ref = store.put(b"abc", "note")
    assert ref == ArtifactRef(hashlib.sha256(b"abc").hexdigest(), "note")
    assert only_file(data).name == ref.artifact
    assert store.get(ref) == b"abc"
    assert store.intact(ref)


def test_same_bytes_are_written_once(data: Path) -> None:
    store.put(b"abc", "note")
    before = only_file(data).stat().st_mtime_ns
    store.put(b"abc", "another note")
    assert only_file(data).stat().st_mtime_ns == before


def test_arrays_come_back_with_dtype_shape_and_values(data: Path) -> None:
    arrays = {
        "images": np.arange(24, dtype=np.uint8).reshape(2, 3, 4)[:, ::2],
        "labels": np.array([3, -1], dtype=np.int64),
        "features": np.array([[0.1, np.inf]], dtype=np.float32),
    }
    back = store.get_arrays(store.put_arrays(arrays, "images"))
    assert set(back) == set(arrays)
    for name, array in arrays.items():
        assert back[name].dtype == array.dtype
        np.testing.assert_array_equal(back[name], array)


@pytest.mark.parametrize("damage", ["delete", "empty", "truncate", "flip", "garbage", "folder"])
def test_damaged_artefact_is_never_trusted_and_can_be_put_again(data: Path, damage: str) -> None:
    content = bytes(range(200))
    ref = store.put(content, "note")
    path = only_file(data)
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "delete":
        position = random.Random(0).randrange(len(content))
        flipped = bytearray(content)
        flipped[position] ^= 1
        broken = {
            "empty": b"", "truncate": content[:-1], "flip": bytes(flipped), "garbage": b"\xff{[",
        }  # fmt: skip
        path.write_bytes(broken[damage])
    assert not store.intact(ref)
    with pytest.raises(DamagedArtifactError, match=r"missing|damaged"):
        store.get(ref)
    if damage == "folder":
        with pytest.raises(StoreError, match="cannot write"):
            store.put(content, "note")
        return
    assert store.put(content, "note") == ref
    assert store.get(ref) == content


@pytest.mark.parametrize("name", ["../outside", "x" * 64, "", "A" * 64])
def test_reference_that_is_no_digest_is_not_intact(data: Path, name: str) -> None:
    assert not store.intact(ArtifactRef(name, "note"))


def test_writer_that_dies_leaves_no_partial_file(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = data / "results" / "row"
    store.write_whole(str(target), b"old")

    def half(self: Path, content: bytes) -> int:
        with self.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(KeyboardInterrupt):
        store.write_whole(str(target), b"a much longer new content")
    assert only_file(data) == target
    assert target.read_bytes() == b"old"


def test_draft_that_a_killed_writer_left_is_no_name(data: Path) -> None:
    ref = store.put(b"abc", "note")
    store.bind("cell/10", ref)
    folder = data / "store" / "names" / "cell"
    (folder / ".10.deadbeef.tmp").write_bytes((folder / "10").read_bytes())
    assert set(store.bound("cell", ArtifactRef)) == {"10"}


def test_names_are_found_by_their_last_part(data: Path) -> None:
    one, two = store.put(b"1", "shard"), store.put(b"2", "shard")
    timed = Timed(one.artifact, one.kind, 1.5)
    store.bind("cell/10", timed)
    store.bind("cell/20", two)
    store.bind("cells/30", two)
    assert store.bound("cell", Timed) == {"10": timed}  # the other knows no seconds
    assert store.bound("cells", ArtifactRef) == {"30": two}
    assert store.bound("nothing", ArtifactRef) == {}


@pytest.mark.parametrize("damage", ["empty", "truncate", "flip", "garbage", "folder", "another's"])
def test_damaged_name_is_a_name_that_is_not_there(data: Path, damage: str) -> None:
    ref = Timed(**vars(store.put(b"abc", "note")), seconds=12.5)
    store.bind("cell/10", ref)
    store.bind("cell/20", ref)
    path, other = (data / "store" / "names" / "cell" / n for n in ("10", "20"))
    sound = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage == "flip":  # any byte: no part of a name is without its check
        for i in range(len(sound)):
            path.write_bytes(sound[:i] + bytes([sound[i] ^ 1]) + sound[i + 1 :])
            assert set(store.bound("cell", Timed)) == {"20"}, i
    else:
        broken = {"empty": b"", "truncate": sound[:-1], "garbage": b"\xff\xfe[",
                  "another's": other.read_bytes()}  # fmt: skip
        path.write_bytes(broken[damage])
    assert store.bound("cell", Timed) == {"20": ref}


def test_name_of_a_damaged_artefact_is_not_found(data: Path) -> None:
    ref = store.put(b"abc", "note")
    store.bind("cell/10", ref)
    (data / "store" / ref.artifact[:2] / ref.artifact).write_bytes(b"abd")
    assert store.bound("cell", ArtifactRef) == {}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "checkpoint"
    (made / "unet").mkdir(parents=True)
    (made / "config.json").write_text("{}")
    (made / "unet" / "weights").write_bytes(bytes(range(256)))
    return made


def test_folder_is_known_by_its_content_wherever_it_lies(
    data: Path, folder: Path, tmp_path: Path
) -> None:
    ref = store.put_folder(folder)
    (folder / ".hidden").write_text("an editor's")
    os.utime(folder / "config.json", (0, 0))
    moved = folder.rename(tmp_path / "elsewhere")
    assert store.put_folder(moved) == ref
    (moved / "config.json").rename(moved / "other.json")
    assert store.put_folder(moved) != ref


def test_folder_comes_back_whole_also_where_its_copy_was_damaged(data: Path, folder: Path) -> None:
    ref = store.put_folder(folder)
    copy = store.get_folder(ref)
    (copy / "unet" / "weights").write_bytes(b"damaged")
    (copy / "config.json").unlink()
    assert store.get_folder(ref) == copy
    for original in files(folder):
        assert (copy / original.relative_to(folder)).read_bytes() == original.read_bytes()


def test_a_folder_planted_where_a_file_is_unpacked_is_told_as_bad_input(
    data: Path, folder: Path
) -> None:
    ref = store.put_folder(folder)
    place = store.get_folder(ref) / "config.json"
    place.unlink()
    (place / "planted").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"config.json: a folder lies in its place; take it away"):
        store.get_folder(ref)


def test_folder_is_not_intact_if_one_of_its_files_is_damaged(data: Path, folder: Path) -> None:
    ref = store.put_folder(folder)
    assert store.intact(ref)
    weights = hashlib.sha256(bytes(range(256))).hexdigest()
    (data / "store" / weights[:2] / weights).write_bytes(b"x")
    assert not store.intact(ref)


@pytest.mark.parametrize("name", ["../outside", "unet/../../outside", "/tmp/ddim-flows-outside"])
def test_manifest_that_leaves_its_folder_is_refused(data: Path, name: str) -> None:
    inside = store.put(b"planted", "file").artifact
    ref = store.put(json.dumps({name: inside}).encode(), "folder")
    with pytest.raises(DamagedArtifactError, match="outside"):
        store.get_folder(ref)
    assert not Path("/tmp/ddim-flows-outside").exists()
    assert not list(data.rglob("outside"))


def test_references_are_found_at_any_depth() -> None:
    one, two = ({"artifact": name, "kind": "x"} for name in "ab")
    result: dict[str, Any] = {"page": {**one, "n": 3}, "figures": [{"deep": two}], "reading": ["a"]}
    assert list(references(result)) == [ArtifactRef("a", "x"), ArtifactRef("b", "x")]


def one_sentence(error: StoreError) -> str:
    text = str(error)
    assert text.startswith("cannot write ")
    assert text.endswith("free the disk or point DDIM_DATA at a place that can be written")
    assert "\n" not in text
    return text


def test_place_below_a_file_gives_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setattr(places, "DATA_URL", str(tmp_path / "file" / "data"))
    with pytest.raises(StoreError) as caught:
        store.check_writable()
    assert "Not a directory" in one_sentence(caught.value)


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file system of 2 MiB, where this machine lets us mount one."""
    mount = tmp_path / "disk"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(mount)]
    try:
        made = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        made = False
    if not made:
        pytest.skip("mounting a small file system needs root")
    monkeypatch.setattr(places, "DATA_URL", str(mount))
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


def test_full_disk_gives_one_sentence_and_loses_nothing(small_disk: Path) -> None:
    store.check_writable()
    assert files(small_disk) == []
    kept = store.put(b"abc", "note")
    (small_disk / "filler").write_bytes(bytes(3 * 2**19))
    with pytest.raises(StoreError) as caught:
        store.check_writable()
    assert "No space left" in one_sentence(caught.value)
    with pytest.raises(StoreError, match="No space left"):
        store.put(random.Random(0).randbytes(2**20), "note")
    assert store.get(kept) == b"abc"
    assert len(files(small_disk)) == 2  # and no draft of what did not fit


def test_read_only_disk_gives_one_sentence_and_can_still_be_read(small_disk: Path) -> None:
    kept = store.put(b"abc", "note")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StoreError) as caught:
        store.check_writable()
    assert "Read-only" in one_sentence(caught.value)
    assert store.get(kept) == b"abc"
    assert store.put(b"abc", "note") == kept  # nothing has to be written


def test_store_may_lie_behind_any_fsspec_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "DATA_URL", "memory://bucket/data")
    store.check_writable()
    ref = store.put(b"abc", "note")
    store.bind("cell/10", ref)
    assert store.get(ref) == b"abc"
    assert store.bound("cell", ArtifactRef) == {"10": ref}
    assert store.bound("nothing", ArtifactRef) == {}
    assert not store.intact(ArtifactRef("0" * 64, "note"))


class Unsteady(MemoryFileSystem):
    """A store that fails a few times before it answers, and once answers with damaged bytes."""

    protocol = "unsteady"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    failures = 0
    damaged = 0

    def cat_file(self, path: str, *args: Any, **kwargs: Any) -> bytes:
        self._fail()
        data = bytes(super().cat_file(path, *args, **kwargs))
        if Unsteady.damaged:
            Unsteady.damaged -= 1
            return data[:-1] + bytes([data[-1] ^ 1])
        return data

    def pipe_file(self, path: str, *args: Any, **kwargs: Any) -> None:
        self._fail()
        super().pipe_file(path, *args, **kwargs)

    def ls(self, path: str, *args: Any, **kwargs: Any) -> list[Any]:
        self._fail()
        return list(super().ls(path, *args, **kwargs))

    def _fail(self) -> None:
        if Unsteady.failures:
            Unsteady.failures -= 1
            raise TimeoutError("no answer")


@pytest.fixture
def unsteady(monkeypatch: pytest.MonkeyPatch) -> type[Unsteady]:
    fsspec.register_implementation("unsteady", Unsteady, clobber=True)
    monkeypatch.setattr(places, "DATA_URL", "unsteady://bucket/data")
    monkeypatch.setattr(store, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(store, "_silent", set())
    monkeypatch.setattr(Unsteady, "failures", 0)
    monkeypatch.setattr(Unsteady, "damaged", 0)
    Unsteady.store.clear()
    return Unsteady


def test_store_that_fails_for_a_moment_is_asked_again(unsteady: type[Unsteady]) -> None:
    unsteady.failures = store.ATTEMPTS - 1
    ref = store.put(b"abc", "note")
    unsteady.failures = store.ATTEMPTS - 1
    store.bind("cell/10", ref)
    for ask in (
        lambda: store.get(ref),
        lambda: store.bound("cell", ArtifactRef),
        lambda: store.intact(ref),
    ):
        unsteady.failures = store.ATTEMPTS - 1
        assert ask()


def test_store_that_stays_away_gives_one_sentence_and_is_not_taken_for_empty(
    unsteady: type[Unsteady],
) -> None:
    ref = store.put(b"abc", "note")
    for ask in (
        lambda: store.get(ref), lambda: store.intact(ref), lambda: store.put(b"d", "note"),
        lambda: store.names_below(places.data_url("store")),
    ):  # fmt: skip
        unsteady.failures = 10_000
        with pytest.raises(StoreError, match="no answer"):
            ask()


def test_bytes_damaged_on_the_way_are_asked_for_once_more(unsteady: type[Unsteady]) -> None:
    ref = store.put(b"abc", "note")
    unsteady.damaged = 1
    assert store.get(ref) == b"abc"
    unsteady.damaged = 2
    with pytest.raises(DamagedArtifactError, match="damaged"):
        store.get(ref)


def test_store_that_is_gone_is_asked_once_at_a_time_until_it_answers(
    unsteady: type[Unsteady],
) -> None:
    ref = store.put(b"abc", "note")
    unsteady.failures = 1000
    with pytest.raises(StoreError):
        store.get(ref)
    after_first = unsteady.failures
    with pytest.raises(StoreError):
        store.get(ref)
    assert (1000 - after_first, after_first - unsteady.failures) == (store.ATTEMPTS, 1)

    unsteady.failures = 0
    assert store.get(ref) == b"abc"
    unsteady.failures = store.ATTEMPTS - 1
    assert store.get(ref) == b"abc"


def test_a_pipe_in_the_place_of_an_artefact_or_name_is_none_and_is_replaced(data: Path) -> None:
    ref = store.put(b"abc", "note")
    store.bind("notes/first", ref)
    for path in files(data):
        path.unlink()
        os.mkfifo(path)
    assert not store.intact(ref)
    assert store.bound("notes", ArtifactRef) == {}
    assert store.put(b"abc", "note") == ref
    assert store.get(ref) == b"abc"


def test_what_was_planted_beside_an_unpacked_network_is_not_read(
    data: Path, tmp_path: Path
) -> None:
    ref = store.put_files({"unet/config.json": b"{}", "unet/weights": b"w"})
    folder = store.get_folder(ref)
    (folder / "unet/weights.index.json").write_text("{}")
    (folder / "more").mkdir()
    (folder / "more/file").write_text("x")
    (folder / "unet/.draft.tmp").write_text("of another process")
    (folder / "unet/config.json").unlink()
    (folder / "unet/config.json").symlink_to(tmp_path / "elsewhere")
    assert store.get_folder(ref) == folder
    there = [file.relative_to(folder).as_posix() for file in files(folder)]
    assert there == ["unet/.draft.tmp", "unet/config.json", "unet/weights"]
    assert (folder / "unet/config.json").read_bytes() == b"{}"
