"""Tables of sealed rows: nothing changes in one unseen, and one bad file spoils no other."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from flows.cli.app import app
from tasks.cells.lookup import find_cell
from tasks.checkpoints import identity as content
from tasks.lora.scoring.table import LORAS
from tasks.points.table import POINTS, read_point_rows
from tasks.storage import places, row_files, store
from tasks.storage.artifact import ArtifactRef
from tasks.storage.cell_rows import CELLS, read_rows
from tasks.storage.row_files import UNREADABLE, DamagedRowError, RowFiles
from tasks.tracking import outbox
from tests.faults.flips import ROWS_OF_EACH, TABLES, flip_all, full_row, unsealed, written

NAMES = [f"{i:064x}" for i in (10, 11, 12, 13)]


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(places, "data_url", lambda *parts: str(tmp_path.joinpath(*parts)))
    return tmp_path


def fill(table: RowFiles) -> list[Path]:
    rows = [full_row(table.schema, table.identity, i) for i in range(len(NAMES))]
    return [
        Path(table.write(table.record(**(row | {table.identity: name}))))
        for row, name in zip(rows, NAMES, strict=True)
    ]


def flip(path: Path, byte: int = 4000) -> None:
    whole = bytearray(path.read_bytes())
    whole[byte] ^= 1
    path.write_bytes(whole)


def test_no_single_flip_in_any_kind_of_row_is_silent() -> None:
    found = flip_all(5_000)
    assert set(found) == {"cells", "points", "lora", "verdicts", "outbox"}
    assert {outcome for counts in found.values() for outcome in counts} <= {"named", "unchanged"}
    assert sum(counts["named"] for counts in found.values()) > 4_990


def test_a_flip_that_no_seal_is_asked_about_is_found_to_be_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(row_files, "is_sealed", lambda content: True)
    assert sum(counts["silent"] for counts in flip_all(500).values()) > 5


def test_every_bit_of_a_seal_and_what_is_next_to_it_is_minded() -> None:
    whole = written([full_row(CELLS.schema, "cell_digest", 0)], CELLS.schema)
    first = whole.index(row_files.MARK)
    near = range(first - 40, first + row_files.SEAL_LENGTH + 40)
    for byte in (*range(8), *near, *range(len(whole) - 8, len(whole))):
        for bit in range(8):
            flipped = bytearray(whole)
            flipped[byte] ^= 1 << bit
            with pytest.raises(ValueError, match="not what was written"):
                row_files.is_sealed(bytes(flipped))


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_bytes_lost_added_or_zeroed_are_never_another_row(table: RowFiles) -> None:
    draw = random.Random(1)
    whole = written([full_row(table.schema, table.identity, 0)], table.schema)
    for _ in range(150):
        start, length = draw.randrange(len(whole)), draw.choice([1, 16, 100, 512, 4096])
        end = start + length
        for damaged in (
            whole[:start],
            whole[:start] + whole[end:],
            whole[:start] + bytes(len(whole[start:end])) + whole[end:],
            whole[:start] + draw.randbytes(length) + whole[start:],
        ):
            if damaged != whole:
                with pytest.raises(UNREADABLE):
                    table.parsed(damaged, "0" * 64)


def test_a_damaged_row_without_a_seal_is_read_or_named_and_nothing_else(data: Path) -> None:
    (first, *_) = fill(POINTS)
    older = unsealed(first.read_bytes())
    draw = random.Random(2)
    n_named = 0
    for bit in draw.sample(range(8 * len(older)), 300):
        flipped = bytearray(older)
        flipped[bit // 8] ^= 1 << bit % 8
        first.write_bytes(flipped)
        try:
            table, sealed = POINTS.row(NAMES[0])
        except DamagedRowError:
            n_named += 1
            continue
        assert not sealed
        assert table is not None
        table.to_pandas().to_dict("records")
    assert n_named > 20


def spoilt_files(folder: Path, sound: bytes) -> dict[str, str]:
    """Puts one of each kind of bad file into a folder of rows; what is said of each."""
    rows = pq.read_table(io.BytesIO(sound))
    files = {
        "foreign": pa.table({"a": [1]}),
        "two": pa.concat_tables([rows, rows]),
        "none": rows[:0],
    }
    for name, table in files.items():
        pq.write_table(table, folder / f"{name}.parquet")
    pq.write_table(
        pa.table({"cell_digest": ["other"], "x": [[0] * 2**21]}), folder / "long.parquet"
    )
    (folder / "empty.parquet").write_bytes(b"")
    (folder / "text.parquet").write_text("PAR1 is how it begins" * 9)
    (folder / "copy of it.parquet").write_bytes(sound)
    (folder / "folder.parquet").mkdir()
    os.mkfifo(folder / "pipe.parquet")
    (folder / "loop.parquet").symlink_to("loop.parquet")
    (folder / "gone.parquet").symlink_to("nowhere")
    with (folder / "huge.parquet").open("wb") as file:
        file.truncate(2**40)
    (folder / ".hidden.parquet").write_bytes(b"")
    return {
        "foreign": "no column cell_digest", "two": "2 rows", "none": "0 rows",
        "long": "its name does not say",
        "empty": "", "text": "", "copy of it": "its name does not say", "folder": "a folder",
        "pipe": "a pipe", "loop": "", "gone": "", "huge": "bytes",
    }  # fmt: skip


def test_bad_files_of_every_kind_are_named_and_the_sound_rows_are_shown(data: Path) -> None:
    sound = [path.read_bytes() for path in fill(CELLS)]
    reasons = spoilt_files(data / "results" / "cells", sound[0])
    found = read_rows()
    assert sorted(found.frame["cell_digest"]) == NAMES
    assert (found.unverified, len(found.damaged)) == (0, len(reasons))
    for name, reason in reasons.items():
        (said,) = [text for text in found.damaged if f"/{name}.parquet " in text]
        assert reason in said
        assert "delete it" in said
    with pytest.raises(DamagedRowError, match="copy of it"):
        found.whole()


def test_rows_of_an_older_version_are_shown_beside_new_ones_and_counted(data: Path) -> None:
    paths = fill(CELLS)
    frame = read_rows().frame
    paths[1].write_bytes(unsealed(paths[1].read_bytes()))
    paths[2].write_bytes(unsealed(paths[2].read_bytes()))
    found = read_rows()
    assert (found.unverified, found.damaged) == (2, ())
    pd.testing.assert_frame_equal(found.frame, frame)
    told = CliRunner().invoke(app, ["table"])
    assert told.exit_code == 0
    assert told.stderr.count("2 of 4 rows carry no seal") == 1
    for reader in (
        pd.read_parquet(data / "results" / "cells"),
        duckdb.sql(f"select * from '{data}/results/cells/*.parquet'").df(),
        pq.read_table(data / "results" / "cells").to_pandas(),
    ):
        reader = reader.sort_values("cell_digest", ignore_index=True)
        assert list(reader["cell_digest"]) == NAMES
        assert np.array_equal(reader["fid"], frame.sort_values("cell_digest")["fid"])


@pytest.mark.parametrize(
    "command",
    [["table"], ["table", "--json"], ["table", "--compare"], ["table", "--cell", NAMES[0]],
     ["curve"], ["verdict", "some checkpoint"]],
    ids=" ".join,
)  # fmt: skip
def test_commands_name_a_damaged_row_and_end_with_1(data: Path, command: list[str]) -> None:
    flip(fill(CELLS)[0])
    told = CliRunner().invoke(app, command)
    assert told.exit_code == 1, told.output
    assert told.stderr.count(f"{NAMES[0]}.parquet is damaged and left out") == 1
    if command == ["table", "--json"]:
        assert len(json.loads(told.stdout)) == len(NAMES) - 1


def test_a_damaged_cell_is_neither_scored_nor_exported_nor_taken_for_done(data: Path) -> None:
    paths = fill(CELLS)
    content.mark_scored("grid", "weights", NAMES)
    assert content.is_scored("grid", "weights")
    shutil.copy(paths[0], paths[0].with_name(f"{NAMES[0]} (copy).parquet"))
    assert find_cell(NAMES[0]).steps == full_row(CELLS.schema, "cell_digest", 0)["steps"]
    flip(paths[0])
    assert not content.is_scored("grid", "weights")
    with pytest.raises(DamagedRowError, match=NAMES[0]):
        find_cell(NAMES[0])
    told = CliRunner().invoke(app, ["export", NAMES[0], str(data / "out")])
    assert (told.exit_code, (data / "out").exists()) == (1, False)


def test_points_and_loras_are_read_by_the_same_rules(data: Path) -> None:
    for table, read in ((POINTS, read_point_rows), (LORAS, LORAS.read)):
        flip(fill(table)[2])
        found = read()
        assert list(found.frame[table.identity]) != []
        assert NAMES[2] not in set(found.frame[table.identity])
        assert NAMES[2] in found.damaged[0]


def planted(**report: object) -> dict[str, object]:
    ref = {"artifact": "0" * 64, "kind": "report"}
    return {
        "experiment": "e", "children": [], "status": "FINISHED",
        "parent": {"identity": "i", "name": "n", "tags": {}, "parameters": {}, "metrics": {}},
        "report": {"page": ref, "figures": {"a": ref}, "reading": []} | report,
    }  # fmt: skip


def keep(name: str, content: dict[str, object]) -> None:
    """Writes a message with its digest, as whoever plants one can."""
    envelope = {"message": content, "sha256": outbox._digest(content)}
    store.write_whole(places.data_url("outbox", f"{name}.json"), json.dumps(envelope).encode())


def test_a_message_is_sent_only_as_it_was_kept_and_with_plain_names(data: Path) -> None:
    ref = {"artifact": "0" * 64, "kind": "figure"}
    keep("good", planted())
    for i, name in enumerate(["../x", "/tmp/x", "a/b", "..", "", "a\0b", "a\\b", "file:///x"]):
        keep(f"named-{i}", planted(figures={name: ref}))
    keep("page", planted(page={"artifact": "../../etc/passwd", "kind": "report"}))
    keep("none", {"report": None})
    keep("short", planted() | {"parent": {"identity": "i"}})
    folder = data / "outbox"
    (folder / "older.json").write_text(json.dumps(planted()))
    (folder / "changed.json").write_bytes(
        (folder / "good.json").read_bytes().replace(b"FINISHED", b"FINISHEE")
    )
    os.mkfifo(folder / "pipe.json")
    (folder / "deep.json").write_text("[" * 100_000)
    sent, left = outbox.look()
    assert set(sent) == {"good", "older"}
    assert set(left) == {
        *(f"named-{i}" for i in range(8)), "page", "none", "short", "changed", "pipe", "deep",
    }  # fmt: skip
    assert set(outbox.waiting()) == {"good", "older"}
    told = CliRunner().invoke(app, ["track"])
    assert told.exit_code == 1
    assert "outbox/changed.json" in told.stderr


def test_the_store_knows_no_names_that_lead_out_of_it(tmp_path: Path) -> None:
    for name in ("../../etc/passwd", "/etc/passwd", "", "a" * 63):
        with pytest.raises(store.DamagedArtifactError, match="no digest"):
            store.get(ArtifactRef(name, "file"))
    for part in ("..", "../x", "a/../b", "/x", "a\0", "a\\..\\b", "http://x", ""):
        with pytest.raises(ValueError, match="below DDIM_DATA the name"):
            places.data_url("reports", part)
        with pytest.raises(ValueError, match="below DDIM_DATA the name"):
            store.bind(f"{part}", ArtifactRef("0" * 64, "file"))
    for name in ("../x", "/tmp/x", "a/../../x", "a\0b"):
        ref = store.put(json.dumps({name: "0" * 64}).encode(), "folder")
        with pytest.raises(store.DamagedArtifactError, match=r"a file whose name|the name"):
            store.get_folder(ref)


def test_there_are_rows_enough_for_a_million_flips() -> None:
    sizes = [len(written([full_row(t.schema, t.identity, 0)], t.schema)) for t in TABLES]
    assert 8 * min(sizes) * ROWS_OF_EACH > 100_000


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"fid": 1.0, "fid_low": 16.9, "fid_high": 20.0}, "not within"),
        ({"fid": float("nan")}, "it has no fid"),
        ({"steps": None}, "it has no steps"),
        ({"checkpoint_digest": None}, "it has no checkpoint_digest"),
        ({"fid_leave_one_out": None}, "it has no fid_leave_one_out"),
        ({"steps": -1}, "its steps is -1"),
        ({"eta": float("inf")}, "its eta is inf"),
        ({"checkpoint": "x\x1b[31m"}, "no line of text"),
    ],
)
def test_a_row_without_a_seal_that_no_version_wrote_is_left_out(
    data: Path, changed: dict[str, object], said: str
) -> None:
    (path, *_) = fill(CELLS)
    row = pq.read_table(path).to_pylist()[0] | changed
    pq.write_table(pa.Table.from_pylist([row], schema=CELLS.schema), path)
    found = read_rows()
    assert found.table.num_rows == len(NAMES) - 1
    assert said in found.damaged[0]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_a_row_without_a_seal_has_what_its_table_is_sorted_by(data: Path, table: RowFiles) -> None:
    (path, *_) = fill(table)
    row = pq.read_table(path).to_pylist()[0] | {table.order[0]: None}
    pq.write_table(pa.Table.from_pylist([row], schema=table.schema), path)
    assert f"it has no {table.order[0]}" in table.read().damaged[0]
