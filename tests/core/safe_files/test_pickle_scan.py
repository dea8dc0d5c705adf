"""Small pickles that would hash, copy or nest without end: each is refused by its opcodes, before
anything of it is unpickled."""

from __future__ import annotations

import io
import pickle
import struct
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from ddim_core.networks.checks import require_sane
from ddim_core.safe_files.pickles import modules
from ddim_core.safe_files.pickles.arrays import STAND_INS, read_array_pickle
from ddim_core.safe_files.pickles.modules import NAMES, read_plain_pickle
from ddim_core.safe_files.pickles.scan import scan

DOUBLED = b")q\x00" + b"".join(b"h%ch%c\x86q%c" % (i, i, i + 1) for i in range(45))
DEEP = b")" + b"\x85" * 10_000
LONGEST = 2**61 - 1


def text(of: str) -> bytes:
    return b"X" + struct.pack("<I", len(of)) + of.encode()


def number(of: int) -> bytes:
    data = of.to_bytes(of.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def looked_at(body: bytes, extra: frozenset[str] = NAMES | set(STAND_INS)) -> None:
    scan(io.BytesIO(b"\x80\x04" + body + b"."), lambda _key: -1, set(extra))


ORDERED, SET = b"ccollections\nOrderedDict\n", b"cbuiltins\nset\n"
COLLIDING = b"".join(number(LONGEST * i) + b"N" for i in range(1, 9))
COPIED = b"c_codecs\nencode\nq\x02" + text("latin1") + b"q\x03"
ENDLESS = {
    "below the top": DEEP + b"}",
    "below the top, in a key": b"}" + DEEP + b"Ns}",
    "a mark below the top": b"(}",
    "deep key": b"}" + DEEP + b"Ns",
    "deep, and its parts looked at first": b"](" + b")" + b"\x85" * 150 + b"q\x00"
    + b"h\x00" + b"\x85" * 150 + b"h\x00e",
    "wide key": b"}" + DOUBLED + b"Ns",
    "wide key of many": b"}(" + DOUBLED + b"Nu",
    "wide key at once": b"(" + DOUBLED + b"Nd",
    "wide member": b"\x8f(" + DOUBLED + b"\x90",
    "wide frozen member": b"(" + DOUBLED + b"\x91",
    "wide key of a pair": ORDERED + b"](" + DOUBLED + b"N\x86e\x85R",
    "wide key of a listed pair": ORDERED + b"](](" + DOUBLED + b"Nee\x85R",
    "wide member of a set": SET + b"](" + DOUBLED + b"e\x85R",
    "wide key of an older storage": b"(" + text("storage") + b"ctorch\nFloatStorage\n" + DOUBLED
    + text("cpu") + b"K\x00tQ",
    "large integers": b"}(" + COLLIDING + b"u",
    "large integers below nought": b"}" + number(-LONGEST) + b"Ns",
    "one text again and again": b"](" + text("a" * 99) + b"q\x01" + COPIED
    + b"h\x02h\x01h\x03\x86R" * 9 + b"e",
    "bytes of other bytes": b"cbuiltins\nbytearray\nC\x01a\x85R",
}  # fmt: skip


@pytest.mark.parametrize("kind", ENDLESS)
def test_what_would_hash_copy_or_nest_without_end_is_refused_unread(kind: str) -> None:
    with pytest.raises(pickle.UnpicklingError, match=r"^it .{10}"):
        looked_at(ENDLESS[kind])


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_keys_and_bytes_that_files_have_are_let_through(protocol: int) -> None:
    held: Any = {"a": {0: 1, -3: 2, True: 3, None: 4}, "b": {"x", "y"}, "c": [b"one", b"two"]}
    held["o"], held["p"] = OrderedDict(a=(1, 2)), OrderedDict([("a", 1)])
    scan(io.BytesIO(pickle.dumps(held, protocol)), lambda _key: -1, set())


def written(folder: Path, body: bytes) -> Path:
    (file := folder / "it.pkl").write_bytes(b"\x80\x04" + body + b".")
    return file


def test_statistics_are_looked_at_before_they_are_unpickled(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"it\.pkl is no pickle of plain arrays: it has a key"):
        read_array_pickle(written(tmp_path, b"}" + DEEP[:100] + b"Ns"))


def array(n: int, more: int, name: bytes = b"q\x01") -> bytes:
    """Of n bytes of one, with `more` sides of one."""
    kind = b"cnumpy\ndtype\n" + text("u1") + b"\x85R"
    shape = b"(J" + struct.pack("<i", n) + b"K\x01" * more + b"t"
    data = b"B" + struct.pack("<I", n) + b"\1" * n
    return b"cnumpy._core.numeric\n_frombuffer\n(" + data + kind + shape + text("C") + b"tR" + name


def test_arrays_are_listed_once_and_in_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = b"}" + text("x")
    found = read_plain_pickle(written(tmp_path, start + b"](" + array(9, 0) + b"h\x01" * 9 + b"es"))
    assert found["x"][0] == [1] * 9
    assert all(each is found["x"][0] for each in found["x"])
    with pytest.raises(pickle.UnpicklingError, match="has 60 dimensions; at most 8 may be"):
        read_plain_pickle(written(tmp_path, start + array(9, 59) + b"s"))
    monkeypatch.setattr(modules, "MOST_LISTED", 20)
    read_plain_pickle(written(tmp_path, start + array(9, 1) + b"s"))
    with pytest.raises(pickle.UnpicklingError, match="more than 20 numbers beside its weights"):
        read_plain_pickle(written(tmp_path, start + array(9, 2) + b"s"))


def test_what_is_shared_is_made_once(tmp_path: Path) -> None:
    body = b"}" + text("x") + b"](}" + text("n") + b"]Naq\x01s" + b"h\x01" * 9 + b"es"
    found = read_plain_pickle(written(tmp_path, body))["x"]
    assert all(each is found[0]["n"] for each in found[1:])


@pytest.mark.parametrize("key", [b"N", b"C\x01a", text("a" * 2000), b"G" + bytes(8)])
def test_a_key_that_is_no_name_is_refused(key: bytes, tmp_path: Path) -> None:
    with pytest.raises(pickle.UnpicklingError, match="where a name must be"):
        read_plain_pickle(written(tmp_path, b"}" + key + b"Ns"))


def stored(machine: bytes) -> bytes:
    told = (
        b"\x80\x02(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu")
        + b"K\x01NtQ."
    )  # fmt: skip
    magic, version = pickle.dumps(0x1950A86A20F9469CFC6C, 2), pickle.dumps(1001, 2)
    return magic + version + machine + told + pickle.dumps(["0"], 2) + struct.pack("<qf", 1, 1.0)


def tensors(data: bytes, n: int) -> bytes:
    """All of the same bytes, every other one of the same storage."""
    bytes_of = b"B" + struct.pack("<I", len(data)) + data + b"q\x01"
    load, rebuild = b"ctorch.storage\n_load_from_bytes\n", b"ctorch._utils\n_rebuild_tensor_v2\n("
    one = b"K\x00K\x01\x85K\x01\x85\x89NtR"
    again = rebuild + load + b"h\x01\x85Rq\x02" + one + rebuild + b"h\x02" + one
    return b"}" + text("x") + b"](" + bytes_of + again * n + b"es"


def test_a_storage_is_looked_at_once_and_has_a_short_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = io.BytesIO()
    torch.save(torch.ones(1)._typed_storage(), real, _use_new_zipfile_serialization=False)
    looks = []

    def counted(*given: Any) -> None:
        looks.append(given)
        scan(*given)

    monkeypatch.setattr(modules, "scan", counted)
    found = read_plain_pickle(written(tmp_path, tensors(real.getvalue(), 5)))["x"]
    assert [float(each) for each in found[1:]] == [1.0] * 10
    assert len(looks) == 1 + 5  # the file, and the head's five pickles once
    for machine in (b"\x80\x02](" + b"N" * 900 + b"e.", pickle.dumps(["a" * 2000], 2)):
        with pytest.raises((ValueError, pickle.UnpicklingError), match=r"opcodes|damaged"):
            read_plain_pickle(written(tmp_path, tensors(stored(machine), 1)))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [1.0, float("-inf")]])
def test_no_setting_of_a_network_is_endless(value: Any) -> None:
    with pytest.raises(ValueError, match=r"concat_balance is \S+ in it; it must be a finite"):
        require_sane({"concat_balance": value}, "it")
    require_sane({"concat_balance": 0.5, "lambda_min_clipped": float("-inf")}, "it")
