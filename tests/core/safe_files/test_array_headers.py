"""Headers of NumPy's arrays: looked at before anything is unpacked or evaluated."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from ddim_core.images.sources.arrays import array_headers, read_arrays

PLAIN = "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 8, 8, 3), }"


def array(header: str, version: int = 1, length: int | None = None, data: bytes = b"") -> bytes:
    text = header.encode()
    size = len(text) if length is None else length
    told = struct.pack("<H" if version == 1 else "<I", size)
    return b"\x93NUMPY" + bytes([version, 0]) + told + text + data


DAMAGED = {
    "a header of 2 GB": array(PLAIN, 2, 2**31),
    "a header longer than the file": array(PLAIN, 2, 60_000),
    "a header over 64 kB that is there": array(PLAIN + " " * 2**17, 2),
    "open brackets": array("(" * 100),
    "brackets without end": array("(" * 60_000),
    "minus without end": array("-" * 60_000 + "1"),
    "a truth value in the shape": array(PLAIN.replace("(2,", "(True,")),
    "a text in the shape": array(PLAIN.replace("(2,", "('2',")),
    "a fraction in the shape": array(PLAIN.replace("(2,", "(2.0,")),
    "a negative shape": array(PLAIN.replace("(2,", "(-2,")),
    "no tuple": array(PLAIN.replace("(2, 8, 8, 3)", "192")),
    "a hundred axes": array(PLAIN.replace("(2,", "(" + "1," * 100)),
    "no type": array(PLAIN.replace("|u1", "|zz")),
    "a type that is a number": array(PLAIN.replace("'|u1'", "7")),
    "another entry": array(PLAIN.replace("}", "'x': 1}")),
    "an entry less": array("{'descr': '|u1', 'shape': (1,)}"),
    "an unhashable key": array("{[]: 1}"),
    "code": array("__import__('os').system('x')"),
    "a null": array("\0" * 20),
    "no dict": array("7"),
    "an unknown version": array(PLAIN, 9),
    "a text as order": array(PLAIN.replace("False", "'False'")),
    "nothing": b"",
    "half a magic": b"\x93NUM",
    "fewer values than it says": array(PLAIN, data=bytes(10)),
}


@pytest.mark.parametrize("kind", DAMAGED)
@pytest.mark.parametrize("packed", [None, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_damaged_header_is_refused_in_words_without_numpys_advice(
    kind: str, packed: int | None, tmp_path: Path
) -> None:
    path = tmp_path / ("x.npy" if packed is None else "x.npz")
    if packed is None:
        path.write_bytes(DAMAGED[kind])
    else:
        with zipfile.ZipFile(path, "w", packed) as archive:
            archive.writestr("images.npy", DAMAGED[kind])
    with pytest.raises(ValueError, match=r"x.np[yz] is no .np[yz] of plain arrays: ") as refused:
        array_headers(path)
    assert "allow_pickle" not in str(refused.value)
    assert "max_header_size" not in str(refused.value)


def test_how_much_an_array_unpacks_to_is_looked_at_before_it_is_unpacked(tmp_path: Path) -> None:
    for packed, wanted in (
        (zipfile.ZIP_BZIP2, "another method than deflate"),
        (zipfile.ZIP_LZMA, "another method than deflate"),
        (zipfile.ZIP_DEFLATED, "it unpacks to .* bytes from .*; that is too many"),
    ):
        with zipfile.ZipFile(tmp_path / "x.npz", "w", packed) as archive:
            archive.writestr("images.npy", array(PLAIN, 2, 2**25, bytes(2**25)))
        with pytest.raises(ValueError, match=f"images: .*{wanted}"):
            array_headers(tmp_path / "x.npz")


def test_a_key_that_stands_twice_is_refused_and_its_array_is_taken_for_no_other_entry(
    tmp_path: Path,
) -> None:
    good = array(PLAIN, data=bytes(384))
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("images", b"no array")
        archive.writestr("images.npy", good)
    assert read_arrays(tmp_path / "x.npz", ["images"])["images"].shape == (2, 8, 8, 3)
    with (
        zipfile.ZipFile(tmp_path / "x.npz", "a") as archive,
        pytest.warns(UserWarning, match="Dup"),
    ):
        archive.writestr("images.npy", good)
    with pytest.raises(ValueError, match="it holds 'images' twice"):
        array_headers(tmp_path / "x.npz")


def test_pickled_objects_are_refused_and_what_numpy_writes_is_read(tmp_path: Path) -> None:
    objects = np.array([{}, None], dtype=object)
    np.savez(tmp_path / "o.npz", images=objects)
    np.save(tmp_path / "o.npy", objects)
    for path, key in ((tmp_path / "o.npz", "images"), (tmp_path / "o.npy", "")):
        with pytest.raises(ValueError, match="holds Python objects, which are pickled") as refused:
            read_arrays(path, [key])
        assert "allow_pickle" not in str(refused.value)
    whole = np.arange(2 * 8 * 8 * 3, dtype=np.uint8).reshape(2, 8, 8, 3)
    named = np.zeros(2, dtype=[("a", "<f4"), ("ü", "<i8")])
    np.savez_compressed(tmp_path / "x.npz", images=np.asfortranarray(whole), more=named)
    assert (read_arrays(tmp_path / "x.npz", ["images"])["images"] == whole).all()
    old = array(PLAIN.replace("(2, 8, 8, 3)", "(2L, 8L, 8L, 3L)"), data=whole.tobytes())
    (tmp_path / "old.npy").write_bytes(old)
    assert array_headers(tmp_path / "old.npy")[""].shape == (2, 8, 8, 3)
