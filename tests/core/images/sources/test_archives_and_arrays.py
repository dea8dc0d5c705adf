"""Archives and arrays as data sets: the same images as the folder, and nothing that leads out."""

from __future__ import annotations

import gzip
import io
import json
import re
import stat
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ddim_core.images.load import load_images, open_source
from ddim_core.images.sources.archives import LEAST_LIMIT, archive_tree
from ddim_core.images.sources.decode import BrokenImageError, decode
from ddim_core.lora.data import content_of, photo_sources, read_captioned, read_photos
from tests.picture_files import afhq, captioned, encoded, picture

ENDINGS = [".zip", ".tar", ".tar.gz", ".TGZ"]


def packed(folder: Path, ending: str, below: str = "") -> Path:
    """An archive of a folder's files, below a folder of its own or not."""
    path = folder.with_name(folder.name + ending)
    files = [f for f in sorted(folder.rglob("*"), reverse=True) if f.is_file()]
    if ending == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in files:
                archive.write(file, below + file.relative_to(folder).as_posix())
    else:
        with tarfile.open(path, "w" if ending == ".tar" else "w:gz") as archive:
            for file in files:
                archive.add(file, below + file.relative_to(folder).as_posix())
    return path


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("below", ["", "photos/"])
def test_an_archive_is_read_as_the_folder_it_was_made_of(
    tmp_path: Path, ending: str, below: str
) -> None:
    classes, texts = afhq(tmp_path / "animals"), captioned(tmp_path / "style")
    (classes / "train" / ".DS_Store").write_bytes(b"x")
    for folder in (classes, texts):
        archive = packed(folder, ending, below)
        one, other = (open_source(str(place)) for place in (folder, archive))
        assert one.content() == other.content()
        assert (one.splits, one.class_names, one.notes) == (
            other.splits,
            other.class_names,
            other.notes,
        )
        sets = [load_images(str(place), "train", 8) for place in (folder, archive)]
        assert sets[0].fingerprint == sets[1].fingerprint
    assert read_captioned(archive) == read_captioned(texts)
    assert content_of(photo_sources(archive)) == content_of(photo_sources(texts))


def test_datasets_reads_a_zip_with_metadata_in_it_as_we_do(tmp_path: Path) -> None:
    from datasets import load_dataset

    archive = packed(captioned(tmp_path / "style") / "train", ".zip")
    theirs = load_dataset(
        "imagefolder", data_files=str(archive), split="train", cache_dir=str(tmp_path / "cache")
    )
    ours = load_images(str(archive))
    assert ours.captions == tuple(theirs["text"])
    assert all(
        np.array_equal(a, np.asarray(b)) for a, b in zip(ours.images, theirs["image"], strict=True)
    )


def tar_with(path: Path, **entry: object) -> Path:
    info = tarfile.TarInfo("a.png")
    for name, value in entry.items():
        setattr(info, name, value)
    data = encoded(picture(0))
    info.size = len(data) if info.isreg() else 0
    with tarfile.open(path, "w") as archive:
        archive.addfile(info, io.BytesIO(data) if info.isreg() else None)
    return path


@pytest.mark.parametrize("name", ["../a.png", "/etc/a.png", "x/../../a.png"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_entry_that_leads_out_is_refused(tmp_path: Path, kind: str, name: str) -> None:
    path = tmp_path / f"bad.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, encoded(picture(0)))
    else:
        tar_with(path, name=name)
    with pytest.raises(ValueError, match="leads out of it"):
        load_images(str(path))
    with pytest.raises(ValueError, match="leads out of it"):
        read_photos(path, "a photo")


def test_links_devices_encryption_and_repetition_are_refused(tmp_path: Path) -> None:
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
        path = tar_with(tmp_path / "bad.tar", type=kind, linkname="/etc/passwd")
        with pytest.raises(ValueError, match="is a link or a device"):
            load_images(str(path))
    path = tmp_path / "bad.zip"
    info = zipfile.ZipInfo("a.png")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(ValueError, match="is a link or a device"):
        load_images(str(path))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", encoded(picture(0)))
        archive.writestr("./a.png", encoded(picture(1)))
    with pytest.raises(ValueError, match=r"a\.png' twice"):
        load_images(str(path))


@pytest.mark.parametrize("kind", ["zip", "tgz"])
def test_a_small_archive_that_unpacks_to_gigabytes_is_refused(tmp_path: Path, kind: str) -> None:
    path, n = tmp_path / f"bomb.{kind}", LEAST_LIMIT // 2**24 + 1
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for i in range(n):
                archive.writestr(f"{i}.bmp", bytes(2**24))
    else:
        with tarfile.open(path, "w:gz", compresslevel=1) as tar:
            for i in range(n):
                info = tarfile.TarInfo(f"{i}.bmp")
                info.size = 2**24
                tar.addfile(info, io.BytesIO(bytes(2**24)))
    assert path.stat().st_size < 2**22
    with pytest.raises(ValueError, match="unpacks to more than"):
        load_images(str(path))


def test_a_damaged_archive_is_refused_and_a_damaged_image_in_it_named(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    for k in range(3):
        folder.mkdir(exist_ok=True)
        (folder / f"{k}.ppm").write_bytes(encoded(picture(k), "PPM"))
    path = packed(folder, ".tar")
    whole = path.read_bytes()
    with tarfile.open(path) as archive:
        second = archive.getmembers()[1]
    bad = tmp_path / "bad.tar"
    header = bytearray(whole)
    header[second.offset + 150] ^= 1  # a checksum: tarfile would stop there in silence
    for content, wanted in (
        (bytes(header), "damaged after 1"),
        (whole[: second.offset_data + 600], "ends within"),
    ):
        bad.write_bytes(content)
        with pytest.raises(ValueError, match=wanted):
            load_images(str(bad))
    path = packed(folder, ".zip")
    data = bytearray(path.read_bytes())
    data[60] ^= 255
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"2\.ppm cannot be"):
        load_images(str(path))
    for name in ("a.zip", "a.tar", "a.tgz"):
        (tmp_path / name).write_bytes(b"no archive at all")
        with pytest.raises(ValueError, match=f"{name} cannot be read as an archive"):
            load_images(str(tmp_path / name))


X = np.stack([picture(k) for k in range(4)])


@pytest.mark.parametrize(
    ("name", "array", "told"),
    [
        ("a.npy", X, ""),
        ("b.NPZ", X, ""),
        ("c.npy", X.transpose(0, 3, 1, 2), "channels come first"),
        ("d.npz", (X / 255).astype(np.float32), r"float32 in \[0, 1\]"),
        ("e.npz", (X.transpose(0, 3, 1, 2) / 127.5 - 1).astype(np.float16), r"\[-1, 1\]"),
    ],
)
def test_arrays_of_any_key_layout_and_stated_range_are_images(
    tmp_path: Path, name: str, array: np.ndarray, told: str
) -> None:
    path = tmp_path / name
    with path.open("wb") as file:
        if name.lower().endswith("npy"):
            np.save(file, array)
        else:
            np.savez(file, whatever=array, labels=np.array([[0], [1], [1], [0]]))
    found = load_images(str(path))
    assert np.array_equal(found.images, X)
    assert (found.labels is not None) == name.lower().endswith("npz")
    assert bool(found.notes) == bool(told)
    assert re.search(told, " ".join(found.notes))
    photos = read_photos(path, "a photo")
    assert np.array_equal(np.asarray(decode(photos[3].data)), X[3])


def test_keys_of_an_npz_that_name_splits_are_splits(tmp_path: Path) -> None:
    grey = X[..., 0]
    np.savez(tmp_path / "m.npz", x_train=grey, x_test=grey[:3], y_train=np.arange(4),
             y_test=np.arange(3))  # fmt: skip
    assert open_source(str(tmp_path / "m.npz")).splits == ("train", "test")
    test = load_images(str(tmp_path / "m.npz"), "test")
    assert np.array_equal(test.images[..., 0], grey[:3])
    assert test.labels is not None
    assert test.labels.tolist() == [0, 1, 2]
    assert len(test.class_names) == 4


@pytest.mark.parametrize(
    ("arrays", "wanted"),
    [
        ({"a": X.astype(np.float32)}, r"floats from 3 to 255; images must lie in \[0, 1\]"),
        ({"a": np.full((2, 4, 4, 3), np.nan)}, "floats from nan"),
        ({"a": np.zeros((2, 3, 3, 3), np.uint8)}, "channels first or last"),
        ({"a": X, "b": X}, "several arrays of images"),
        ({"a": X.astype(np.uint16)}, "it must hold images"),
        ({"a": X[0]}, "it must hold images"),
        ({"mu": np.zeros(3), "sigma": np.eye(3)}, "holds statistics and no images"),
        ({"a": np.array([None])}, "it must hold images|no .npz of plain arrays"),
    ],
)
def test_arrays_that_are_no_images_are_refused(
    tmp_path: Path, arrays: dict[str, np.ndarray], wanted: str
) -> None:
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(ValueError, match=wanted):
        load_images(str(tmp_path / "bad.npz"))


def test_a_header_that_claims_more_than_there_is_is_refused(tmp_path: Path) -> None:
    header = io.BytesIO()
    about = {"descr": "|u1", "fortran_order": False, "shape": (10**6, 160, 160, 3)}
    np.lib.format.write_array_header_1_0(header, about)
    with zipfile.ZipFile(tmp_path / "bad.npz", "w") as archive:
        archive.writestr("images.npy", header.getvalue() + bytes(100))
    (tmp_path / "bad.npy").write_bytes(header.getvalue() + bytes(100))
    for name in ("bad.npz", "bad.npy"):
        with pytest.raises(ValueError, match="claims 76800000000 bytes"):
            load_images(str(tmp_path / name))


def deep_ppm() -> bytes:
    return b"P6\n2 2\n65535\n" + bytes(24)


def deep_png() -> bytes:
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress((b"\0" + bytes(12)) * 2))
    return b"\x89PNG\r\n\x1a\n" + header + body + chunk(b"IEND", b"")


@pytest.mark.parametrize("data", [deep_png(), deep_ppm()], ids=["png", "ppm"])
def test_colours_of_sixteen_bits_are_refused_as_greys_are(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(BrokenImageError, match="8 bits a channel"):
        decode(data)
    (tmp_path / "deep.png").write_bytes(data)
    for read in (lambda: load_images(str(tmp_path)), lambda: read_photos(tmp_path, "a photo")):
        with pytest.raises(ValueError, match=r"deep\.png has .*8 bits"):
            read()


def test_lora_has_the_grids_guards_and_reads_plain_bytes_of_parquet(tmp_path: Path) -> None:
    Image.fromarray(picture(0)).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png cannot be read as an image: it is none of"):
        read_photos(tmp_path, "a photo")
    frames = [Image.fromarray(picture(k)) for k in range(3)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    with pytest.raises(ValueError, match=r"a\.png has several frames"):
        read_photos(tmp_path, "a photo")
    (tmp_path / "a.png").write_bytes(encoded(picture(0)))
    (tmp_path / "loop").symlink_to(tmp_path)
    assert [item.name for item in read_photos(tmp_path, "a photo")] == ["a.png"]
    pq.write_table(
        pa.table({"image": [encoded(picture(0))], "caption": ["A"]}), tmp_path / "x.parquet"
    )
    assert [i.caption for i in read_captioned(tmp_path / "x.parquet")] == ["A"]
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "a.png", "text": "B"}))
    assert [i.caption for i in read_captioned(tmp_path)] == ["B"]


def tar_head(kind: bytes, content: bytes) -> bytes:
    entry = tarfile.TarInfo("head")
    entry.type, entry.size = kind, len(content)
    return entry.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % 512)


@pytest.mark.parametrize(
    "heads",
    [
        tar_head(tarfile.XHDTYPE, b"6 a=b\n" * 100_000),
        tar_head(tarfile.XHDTYPE, b"8 a=bcd\n") * 3000,
        tar_head(tarfile.GNUTYPE_LONGNAME, b"a.png\0") * 3000,
        tar_head(tarfile.DIRTYPE, b"") * 100_001,
    ],
)
def test_a_tar_of_heads_alone_is_refused(tmp_path: Path, heads: bytes) -> None:
    path = tmp_path / "heads.tgz"
    path.write_bytes(gzip.compress(heads + bytes(1024)))
    with pytest.raises(ValueError, match=r"heads\.tgz cannot be read as an archive"):
        archive_tree(path)


def test_what_is_black_is_decided_over_all_splits_of_an_array_file(tmp_path: Path) -> None:
    train = np.linspace(-1, 1, 4 * 8 * 8 * 3, dtype=np.float32).reshape(4, 8, 8, 3)
    np.savez(tmp_path / "x.npz", x_train=train, x_test=np.zeros((2, 8, 8, 3), np.float32))
    grey = load_images(str(tmp_path / "x.npz"), "test")
    assert (grey.images == 128).all()  # the middle of [-1, 1], and no black
    assert any("x_test: float32 in [-1, 1]" in note for note in grey.notes)


def test_a_table_of_no_rows_is_said_to_hold_none(tmp_path: Path) -> None:
    for codec in ("snappy", "none"):
        table = pa.table({"image": pa.array([], pa.binary()), "label": pa.array([], pa.int64())})
        pq.write_table(table, tmp_path / "x.parquet", compression=codec)
        with pytest.raises(ValueError, match=r"no .*image") as refused:
            load_images(str(tmp_path / "x.parquet"))
        assert "outside of the file" not in str(refused.value)
        with pytest.raises(ValueError, match="holds no captioned image"):
            read_captioned(tmp_path / "x.parquet")
