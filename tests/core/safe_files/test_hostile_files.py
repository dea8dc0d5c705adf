"""Small files that would hang or fill the machine: each is refused in words, soon and in little
memory. Every file is made here."""

from __future__ import annotations

import io
import json
import os
import pickle
import resource
import shutil
import struct
import subprocess
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from ddim_core.checkpoints.convert import adopt, source_files
from ddim_core.checkpoints.identity import weights_digest
from ddim_core.common.plain_files import (
    PlainFileError,
    open_regular,
    parse_json,
    read_bytes,
    require_plain_tree,
    walk,
)
from ddim_core.features.registry import ExtractorChoice
from ddim_core.images.load import open_source
from ddim_core.images.sources.captions import listed_captions
from ddim_core.images.sources.decode import BrokenImageError, decode
from ddim_core.images.sources.table_file import table_of
from ddim_core.pipelines.single_file import holds_average
from ddim_core.safe_files.loras.files import epoch_files, lora_bytes
from ddim_core.safe_files.safe_load import read_weights, require_tensors
from ddim_core.safe_files.settings import parse_yaml, read_settings
from ddim_core.safe_files.tokenizer_files import require_plain_tokenizer
from tests.core.foreign_files import pixel_pipeline, small_unet

SECONDS = 20.0  # a refusal takes milliseconds; a busy machine is allowed the rest
MOST_MEMORY = 900 * 2**10  # KiB by which the peak may rise


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.monotonic() - began < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_MEMORY


def zipped(pickled: bytes, storages: dict[str, bytes], packed: int = 0) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", packed) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", "3\n")
        for key, data in storages.items():
            archive.writestr(f"archive/data/{key}", data)
    return file.getvalue()


def older(pickled: bytes) -> bytes:
    heads = (0x1950A86A20F9469CFC6C, 1001, {})
    return b"".join(pickle.dumps(head, 2) for head in heads) + pickled + pickle.dumps([], 2)


def called(name: str, number: int) -> bytes:
    module, _, function = name.rpartition(".")
    return (
        f"\x80\x02c{module}\n{function}\nJ".encode("latin-1")
        + struct.pack("<i", number)
        + b"\x85R."
    )


def claiming(numel: int, end: bytes = b"tQ") -> bytes:
    storage = (
        b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
    )
    return b"\x80\x02" + storage + b"\x8a\x08" + struct.pack("<q", numel) + end + b"."


def shared(n: int, as_key: bool = False) -> bytes:
    """Tuples of two of the last: 2^n of them, unfolded."""
    doubled = b"".join(b"h" + bytes([i]) * 1 + b"h" + bytes([i]) + b"\x86q" + bytes([i + 1])
                       for i in range(n))  # fmt: skip
    whole = b")q\x00" + doubled
    return b"\x80\x02" + (b"}" + whole + b"K\x01s." if as_key else whole + b".")


LARGEST = 2**31 - 1


def epoch_bytes(path: Path) -> bytes:
    return lora_bytes(epoch_files(path)[0])


PICKLES: dict[str, bytes] = {
    "bytearray": called("builtins.bytearray", LARGEST),
    "bytearray of Python 2": called("__builtin__.bytearray", LARGEST),
    "bytearray, zipped": zipped(called("builtins.bytearray", LARGEST), {}),
    "bytearray, older": older(called("builtins.bytearray", LARGEST)),
    "tensor": zipped(called("torch.Tensor", LARGEST), {}),
    "storage": zipped(called("torch.storage.UntypedStorage", LARGEST), {}),
    "more numbers than held": zipped(claiming(400), {"0": bytes(16)}),
    "no numbers held": zipped(claiming(2**40), {}),
    "more numbers than held, older": older(claiming(2**40, b"NtQ")),
    "fewer than none": zipped(claiming(-4), {"0": bytes(16)}),
    "shared": zipped(shared(60), {}),
    "shared as a key": zipped(shared(60, as_key=True), {}),
    "itself": zipped(b"\x80\x02]q\x00h\x00a.", {}),
    "deep": zipped(b"\x80\x02" + b"]" * 9999 + b"a" * 9998 + b".", {}),
    "long integer": zipped(b"\x80\x02\x8b\xff\xff\xff\x7f.", {}),
    "long text": zipped(b"\x80\x02X\xff\xff\xff\xff.", {}),
    "many digits": zipped(b"\x80\x02L" + b"9" * 10**6 + b"L\n.", {}),
    "packed": zipped(b"\x80\x02}." + bytes(10**7), {}, zipfile.ZIP_DEFLATED),
    "header": struct.pack("<Q", 2**30) + b'{"a"',
}


@pytest.mark.parametrize("kind", PICKLES)
def test_weights_that_claim_more_than_they_hold_are_refused_by_name(
    kind: str, tmp_path: Path
) -> None:
    (tmp_path / "model.ckpt").write_bytes(PICKLES[kind])
    with pytest.raises(ValueError, match=r"^model\.ckpt .{10}"):
        read_weights(tmp_path / "model.ckpt")


@pytest.mark.parametrize("read", [read_weights, weights_digest, epoch_bytes, holds_average])
def test_a_header_of_a_hundred_megabytes_is_never_parsed(
    read: Callable[[Path], object], tmp_path: Path
) -> None:
    """It took 70 s and 1.2 GB."""
    path = tmp_path / "a.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 90_000_000) + b"{")
        file.truncate(90_000_008)
    with pytest.raises(ValueError, match="header claims 90000000 bytes; at most 16777216"):
        read(path)


def test_one_storage_under_many_names_is_refused_and_tied_weights_are_read(tmp_path: Path) -> None:
    one = torch.zeros(10**6)
    torch.save({f"w{i}": one for i in range(1000)}, tmp_path / "many.ckpt")
    with pytest.raises(ValueError, match="a few numbers stand for many"):
        require_tensors(read_weights(tmp_path / "many.ckpt"), "many.ckpt")
    torch.save({"a": one, "b": one}, tmp_path / "tied.ckpt")
    assert len(require_tensors(read_weights(tmp_path / "tied.ckpt"), "tied.ckpt")) == 2


def bomb(merge: bool) -> str:
    star = "<<: [*a{0}, *a{0}]" if merge else "x: [*a{0}, *a{0}]"
    return "a0: &a0 {k: 1}\n" + "".join(
        f"a{i + 1}: &a{i + 1}\n  {star.format(i)}\n" for i in range(40)
    )


@pytest.mark.parametrize(
    "text",
    [bomb(False), bomb(True), "<<: {<<: {a: 1}}\n", "[" * 5000, "a: " + "1:" * 10**4 + "1.5",
     "a: " + "1:" * 10**5 + "1",
     "a: 0x" + "f" * 10**5, "a: !!int ''", "a: .nan", "a: !!timestamp x", "a: *none"],
)  # fmt: skip
def test_yaml_stands_for_nothing_elsewhere(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_text(text)
    with pytest.raises(ValueError, match=r"config\.yml .{10}"):
        read_settings(tmp_path / "config.yml")


def test_settings_that_people_write_are_read() -> None:
    assert parse_yaml("a: [1, 2.5, -.inf]\nb: {c: d}\n", "it")["b"] == {"c": "d"}
    assert parse_json('{"a": [1e30, -Infinity, null, "x"]}', "it")["a"][3] == "x"


@pytest.mark.parametrize(
    "text",
    ["[" * 10**5, "[" * 300 + "]" * 300, '{"a": NaN}', '{"a": 1' + "0" * 5000 + "}",
     '{"a": ' + "9" * 60 + "}", "[" + "[]," * 2**21 + "0]"],
)  # fmt: skip
def test_absurd_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^it (is|has) "):
        parse_json(text, "it")


def nested(folder: Path, n: int) -> None:
    here = Path.cwd()
    try:
        os.chdir(folder)
        for _ in range(n):
            Path("n").mkdir()
            os.chdir("n")
    finally:
        os.chdir(here)


def test_pipes_devices_and_circles_are_told_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "self").symlink_to(".")
    for name in ("pipe", "loop", "zero", "self"):
        with pytest.raises(OSError, match=name):
            read_bytes(tmp_path / name)
    assert [path.name for path in walk(tmp_path)] == ["loop", "pipe", "zero"]
    with pytest.raises(ValueError, match="loop in"):
        require_plain_tree(tmp_path)
    (tmp_path / "deep").mkdir()
    nested(tmp_path / "deep", 1200)
    (tmp_path / "doubled").mkdir()
    for i in range(41):
        (tmp_path / "doubled" / f"{i}").mkdir()
    for i in range(40):
        for name in "ab":
            (tmp_path / "doubled" / f"{i}" / name).symlink_to(f"../{i + 1}")
    try:
        with pytest.raises(ValueError, match="64 deep"):
            walk(tmp_path / "deep")
    finally:  # too deep for pytest's own clean-up, which recurses
        subprocess.run(["rm", "-rf", tmp_path / "deep"], check=True)
    with pytest.raises(ValueError, match="links to folders"):
        walk(tmp_path / "doubled")


def table(folder: Path, data: object, **how: object) -> Path:
    pq.write_table(data, folder / "train.parquet", **how)
    return folder / "train.parquet"


@pytest.mark.parametrize("kind", ["rows", "list", "page"])
def test_a_small_table_that_unpacks_to_gigabytes_is_refused(kind: str, tmp_path: Path) -> None:
    made: dict[str, Callable[[], Path]] = {
        "rows": lambda: table(tmp_path, pa.table({"image": pa.nulls(10**8)})),
        "list": lambda: table(
            tmp_path,
            pa.table({"image": pa.ListArray.from_arrays([0, 7 * 10**7], pa.nulls(7 * 10**7))}),
        ),
        "page": lambda: table(
            tmp_path, pa.table({"image": [bytes(3 * 10**8)]}), compression="brotli",
            use_dictionary=False, write_statistics=False,
        ),
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"train\.parquet cannot be read as a table: it unpacks"):
        list(open_source(str(made[kind]())).rows("train"))


def captions_of(data: bytes) -> dict[PurePosixPath, str | None]:
    image = PurePosixPath("a.png")
    return listed_captions(PurePosixPath("metadata.parquet"), data, [image])


def test_captions_that_unpack_to_gigabytes_or_whose_footer_lies_are_refused(
    tmp_path: Path,
) -> None:
    long = {"file_name": [bytes(3 * 10**8)]}
    many = {"file_name": pa.nulls(10**8)}
    for columns in (long, many):
        data = table(
            tmp_path, pa.table(columns), compression="zstd", use_dictionary=False,
            write_statistics=False,
        ).read_bytes()  # fmt: skip
        with pytest.raises(ValueError, match=r"metadata\.parquet cannot be read.* unpacks to over"):
            captions_of(data)
    data = table(tmp_path, pa.table({"file_name": ["a.png"], "text": ["é"]})).read_bytes()
    assert captions_of(data) == {PurePosixPath("a.png"): "é"}
    for place in range(len(data) - 200, len(data)):
        with suppress(ValueError):
            captions_of(data[:place] + bytes([data[place] ^ 64]) + data[place + 1 :])


@pytest.mark.parametrize("form", ["new_file", "new_stream"])
def test_packed_arrow_is_read_and_gigabytes_of_it_are_refused(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "train.arrow"

    def write(columns: dict[str, object], packing: str | None) -> pa.Table:
        found = pa.table(columns)
        options = pa.ipc.IpcWriteOptions(compression=packing)
        with getattr(pa.ipc, form)(str(path), found.schema, options=options) as writer:
            writer.write_table(found, max_chunksize=300)
        return found

    words = pa.array(["u", "v"] * 500).dictionary_encode()
    for packing in (None, "lz4", "zstd"):
        found = write({"image": [bytes(1000)] * 1000, "word": words}, packing)
        assert table_of(path).equals(found)
    piece = pa.array([bytes(2**26)])
    write({"image": pa.chunked_array([piece] * 5)}, "zstd")
    monkeypatch.delattr(pa.ipc, "open_stream")  # nothing is unpacked to find that out
    with pytest.raises(ValueError, match="it unpacks to more than"):
        table_of(path)


def test_what_lies_beside_a_table_is_refused_before_a_library_opens_it(tmp_path: Path) -> None:
    import gzip

    for name, content, said in (
        ("a.jsonl.gz", gzip.compress(bytes(10**6)), "unpack it first"),
        ("README.md", b"---\n" + bomb(True).encode() + b"\n---\n", "aliases"),
        ("dataset_info.json", b"[" * 10**5, "not JSON"),
    ):
        folder = tmp_path / name
        folder.mkdir()
        table(folder, pa.table({"image": [b"x"]}))
        (folder / name).write_bytes(content)
        with pytest.raises(ValueError, match=said):
            open_source(str(folder))
    (tmp_path / "piped").mkdir()
    table(tmp_path / "piped", pa.table({"image": [b"x"]}))
    os.mkfifo(tmp_path / "piped" / "more.parquet")
    with pytest.raises(ValueError, match=r"more\.parquet is a pipe"):
        open_source(str(tmp_path / "piped"))


def test_a_pipe_in_a_files_place_is_named_and_never_taken_for_a_missing_file(
    tmp_path: Path, pipeline: Path
) -> None:
    for name in ("model_index.json", "unet/config.json", "scheduler/scheduler_config.json"):
        folder = tmp_path / name.replace("/", "-")
        shutil.copytree(pipeline, folder)
        (folder / name).unlink()
        os.mkfifo(folder / name)
        with pytest.raises(ValueError, match=f"{Path(name).name} is a pipe"):
            adopt(source_files(folder), tmp_path / "out")
    os.mkfifo(tmp_path / "pipe")
    for asked in (
        lambda: open_source(str(tmp_path / "pipe")),
        lambda: source_files(tmp_path / "pipe"),
        lambda: weights_digest(tmp_path / "pipe"),
        lambda: ExtractorChoice("inception-v3", str(tmp_path / "pipe")),
    ):
        with pytest.raises(ValueError, match="pipe is a pipe; it must be a regular file"):
            asked()


ABSURD = {
    "unet/config.json": [
        {"sample_size": 8192}, {"sample_size": 0}, {"sample_size": -8}, {"sample_size": 1.5},
        {"norm_eps": "x"}, {"norm_eps": 0}, {"mid_block_scale_factor": 0}, {"norm_eps": True},
        {"mid_block_scale_factor": float("inf")},
        {"sample_size": "64"}, {"sample_size": True}, {"block_out_channels": [10**9, 10**9]},
        {"layers_per_block": 10**6}, {"layers_per_block": 100}, {"in_channels": 0},
        {"norm_num_groups": 0}, {"attention_head_dim": -1}, {"out_channels": 2**16},
    ],
    "scheduler/scheduler_config.json": [
        {"num_train_timesteps": 10**12}, {"num_train_timesteps": 0}, {"beta_start": float("nan")},
        {"beta_schedule": "linear", "beta_end": float("inf")}, {"_class_name": "os.system"},
        {"beta_schedule": ["linear"] * 200},
    ],
    "model_index.json": [
        {"unet": ["os", "system"]}, {"scheduler": ["os", "system"]}, {"_class_name": "system"},
        {"other": ["os", "system"]}, {"vae": ["../x", "AutoencoderKL"]},
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pixel_pipeline(tmp_path_factory.mktemp("it") / "pipeline", small_unet())


@pytest.mark.parametrize("name", ABSURD)
def test_a_configuration_that_its_weights_do_not_justify_is_refused(
    name: str, pipeline: Path, tmp_path: Path
) -> None:
    path = pipeline / name
    whole = path.read_text()
    for i, changes in enumerate(ABSURD[name]):
        path.write_text(json.dumps(json.loads(whole) | changes))
        (tmp_path / f"{i}").mkdir()
        try:
            with pytest.raises(ValueError, match=r"\S+ .{15}"):
                adopt(source_files(pipeline), tmp_path / f"{i}")
        finally:
            path.write_text(whole)


def test_only_what_was_understood_is_written(pipeline: Path, tmp_path: Path) -> None:
    more = {"../x": "y", "run_me": "os.system", "auto": {"a": 1}, "extra": [None, None]}
    names = ("model_index.json", "unet/config.json", "scheduler/scheduler_config.json")
    whole = {name: (pipeline / name).read_text() for name in names}
    for name, text in whole.items():
        (pipeline / name).write_text(json.dumps(json.loads(text) | more))
    try:
        adopt(source_files(pipeline), tmp_path)
    finally:
        for name, text in whole.items():
            (pipeline / name).write_text(text)
    for name, text in whole.items():
        got = json.loads((tmp_path / name).read_text())
        assert got == json.loads(text) | ({"extra": [None, None]} if "index" in name else {})


def test_a_tokenizer_brings_no_patterns_of_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "base" / "tokenizer"
    folder.mkdir(parents=True)
    split = {"type": "Split", "pattern": {"Regex": "(a+)+$"}}
    content = {"model": {"type": "BPE", "vocab": {"a": 0}}, "pre_tokenizer": split}
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="not CLIP's"):
        require_plain_tokenizer(folder)
    split["pattern"]["Regex"] = r"\s+"
    (folder / "tokenizer.json").write_text(json.dumps(content))
    require_plain_tokenizer(folder)


def test_a_file_that_is_nearly_all_holes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "holes.npy"
    path.write_bytes(b"x")
    os.truncate(path, 2**33)
    with pytest.raises(PlainFileError, match="holes"):
        open_regular(path)


@pytest.mark.parametrize("kind", ["nulls", "same"])
def test_a_table_of_millions_of_rows_in_a_few_bytes_is_refused(tmp_path: Path, kind: str) -> None:
    images = pa.nulls(200_000, pa.binary()) if kind == "nulls" else pa.array([b"x"] * 200_000)
    pq.write_table(pa.table({"image": images}), tmp_path / "rows.parquet")
    with pytest.raises(ValueError, match="200000 rows in"):
        table_of(tmp_path / "rows.parquet")


def test_a_table_whose_description_is_nested_absurdly_is_refused(tmp_path: Path) -> None:
    told = {b"huggingface": b'{"info":{"features":{"image":' + b"[" * 50_000}
    table = pa.table({"image": [b"x"]}).replace_schema_metadata(told)
    with pa.ipc.new_file(str(tmp_path / "told.arrow"), table.schema) as file:
        file.write_table(table)
    with pytest.raises(ValueError, match="describes its columns wrongly"):
        _ = open_source(str(tmp_path / "told.arrow")).class_names


def test_a_picture_whose_header_has_no_end_is_told_at_once() -> None:
    began = time.monotonic()
    with pytest.raises(BrokenImageError):
        decode(b"P6\n#" + b"x" * 2**24)
    assert time.monotonic() - began < 1.0
