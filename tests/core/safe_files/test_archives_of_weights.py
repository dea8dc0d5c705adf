"""The pickle that is looked at is the one that torch reads: of other archives none is opened."""

from __future__ import annotations

import io
import pickle
import struct
import warnings
import zipfile
from pathlib import Path

import pytest
import torch

from ddim_core.safe_files.safe_load import read_weights

GOOD = pickle.dumps({"step": 1}, 2)
EVIL = b"\x80\x02cbuiltins\nbytearray\nJ" + struct.pack("<i", 2**20) + b"\x85R."


def archive(*entries: tuple[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as written, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that stand twice
        for name, data in entries:
            written.writestr(name, data)
        written.writestr("a/version", b"3\n")
    return file.getvalue()


def two_directories() -> bytes:
    """Whoever goes by the place that the end names reads one table, whoever counts back from the
    end another."""
    one, other = (archive(("a/data.pkl", pickled)) for pickled in (EVIL, GOOD))
    place = struct.unpack("<I", one[-6:-2])[0]
    return one[:-22] + other[:-6] + struct.pack("<I", place) + other[-2:]


ARCHIVES = {
    "deeper first": archive(("a/x/data.pkl", GOOD), ("a/data.pkl", EVIL)),
    "deeper last": archive(("a/data.pkl", GOOD), ("a/x/data.pkl", EVIL)),
    "two folders": archive(("b/data.pkl", GOOD), ("a/data.pkl", EVIL)),
    "not in the first folder": archive(("b/version", b"3\n"), ("a/data.pkl", GOOD)),
    "capitals": archive(("a/data.pkl", GOOD), ("a/DATA.PKL", EVIL)),
    "capitals first": archive(("a/DATA.PKL", EVIL), ("a/data.pkl", GOOD)),
    "capitals alone": archive(("a/Data.pkl", GOOD)),
    "capitals of the folder": archive(("a/data.pkl", GOOD), ("A/data.pkl", EVIL)),
    "twice": archive(("a/data.pkl", GOOD), ("a/data.pkl", EVIL)),
    "a storage twice": archive(("a/data.pkl", GOOD), ("a/data/0", b"x"), ("a/data/0", b"y")),
    "no folder": archive(("data.pkl", GOOD)),
    "a name cut by a null": archive(("a/data.pkl", GOOD), ("a/dataXpkl", EVIL)).replace(
        b"a/dataXpkl", b"a/data\0pkl"
    ),
    "a backslash": archive(("a/data.pkl", GOOD), ("aXdata.pkl", EVIL)).replace(b"aX", b"a\\"),
    "two directories": two_directories(),
    "a comment": archive(("a/data.pkl", GOOD))[:-2] + b"\x02\x00ab",
    "bytes behind": archive(("a/data.pkl", GOOD)) + b"abc",
    "bytes before the directory": archive(("a/data.pkl", GOOD))[:-22]
    + archive(("a/data.pkl", GOOD))[-22:-6] + b"\x01\0\0\0\0\0",
}  # fmt: skip


@pytest.mark.parametrize("kind", ARCHIVES)
def test_an_archive_that_could_be_read_in_two_ways_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    path.write_bytes(ARCHIVES[kind])
    with pytest.raises(ValueError, match=r"x.ckpt (holds|has an entry|is damaged|is an archive)"):
        read_weights(path)


def test_what_torch_writes_is_read_with_and_without_the_records_of_a_long_archive(
    tmp_path: Path,
) -> None:
    path = tmp_path / "größe.ckpt"
    torch.save({"a": torch.arange(3.0)}, path)
    assert read_weights(path)["a"].tolist() == [0.0, 1.0, 2.0]
    data = bytearray(path.read_bytes())
    assert data[-42:-38] == b"PK\6\7"  # torch writes them always
    with zipfile.ZipFile(path) as whole:
        entries = [(name, whole.read(name)) for name in whole.namelist()]
    with zipfile.ZipFile(tmp_path / "short.ckpt", "w") as short:
        for name, content in entries:
            short.writestr(name, content)
    assert b"PK\6\7" not in (tmp_path / "short.ckpt").read_bytes()
    assert read_weights(tmp_path / "short.ckpt")["a"].tolist() == [0.0, 1.0, 2.0]
    data[-6] ^= 4  # the last record names another place than the one before it
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"größe.ckpt is damaged: its table"):
        read_weights(path)


@pytest.mark.parametrize(
    "pickled",
    [
        b"\x80\x02X\x01\x00\x00\x00a(\x8c\x01bo.", b"\x80\x02]q\x00(K\x01e\x96" + b"\0" * 9 + b".",
        b"\x80\x04\x8c\x01a\x94\x8f.", b"\x80\x02)\x81.", b"\x80\x02N.", b"\x80\x05\x97.",
        b"\x80\x02I1\n.", b"\x80\x02Nb.", b"\x80\x02\x80\x09N.",
    ],
)  # fmt: skip
@pytest.mark.parametrize("is_zip", [True, False])
def test_torchs_advice_to_load_a_file_with_all_its_code_is_never_passed_on(
    pickled: bytes, is_zip: bool, tmp_path: Path
) -> None:
    path = tmp_path / "x.ckpt"
    heads = b"".join(pickle.dumps(head, 2) for head in (0x1950A86A20F9469CFC6C, 1001, {}))
    path.write_bytes(
        archive(("a/data.pkl", pickled)) if is_zip else heads + pickled + pickle.dumps([], 2)
    )
    try:
        told = str(read_weights(path))
    except ValueError as error:
        told = str(error)
        assert "x.ckpt" in told
    assert not any(word in told for word in ("weights_only", "safe_globals", "arbitrary code"))


def test_the_advice_is_left_out_of_what_torch_found() -> None:
    from ddim_core.safe_files.safe_load import _refusal

    advice = (
        "Weights only load failed. Re-running `torch.load` with `weights_only` set to `False` will "
        "likely succeed, but it can result in arbitrary code execution.{}"
    )
    bare = _refusal(Path("x.ckpt"), pickle.UnpicklingError(advice.format("")))
    assert "x.ckpt is damaged, or a pickle of more than weights (it holds what is no" in bare
    why = _refusal(
        Path("x.ckpt"),
        pickle.UnpicklingError(advice.format("\nWeightsUnpickler error: Unsupported operand 149")),
    )
    assert "(Unsupported operand 149)" in why
    assert "weights_only" not in bare + why
