"""Single bits flipped in the rows of every table: none may change a number unseen.

`python -m tests.faults.flips [FLIPS]` (a million unless said otherwise): each flip of a real file
has to be named as damage. It may not be read as another row, nor pass for a row of an older
version, which has no seal; and nothing but the planned errors may come of it.
"""

from __future__ import annotations

import io
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.lora.scoring.table import LORAS
from tasks.points.table import POINTS
from tasks.reports import verdict
from tasks.storage import row_files
from tasks.storage.artifact import ArtifactRef, Report
from tasks.storage.cell_rows import CELLS
from tasks.storage.row_files import UNREADABLE, RowFiles
from tasks.tracking import outbox

TABLES = (CELLS, POINTS, LORAS)
ROWS_OF_EACH = 5
Outcome = str  # "named", "unchanged" or "silent"


def full_row(schema: pa.Schema, identity: str, seed: int) -> dict[str, Any]:
    """A row with a value in every column, as long as real ones."""
    draw = random.Random(seed)

    def value(name: str, kind: pa.DataType) -> Any:
        if pa.types.is_list(kind):
            return [value("digest", kind.value_type) for _ in range(20)]
        if pa.types.is_string(kind):
            return f"{draw.getrandbits(256):064x}" if name.endswith("digest") else f"some {name}"
        if pa.types.is_boolean(kind):
            return draw.random() < 0.5
        if pa.types.is_integer(kind):
            return draw.randrange(2048)
        if pa.types.is_floating(kind):
            return draw.uniform(0.0, 100.0)
        return datetime(2026, 1, 1 + seed, tzinfo=UTC)

    row = {field.name: value(field.name, field.type) for field in schema} | {identity: identity}
    for name in [name for name in row if {f"{name}_low", f"{name}_high"} <= row.keys()]:
        around = (f"{name}_low", name, f"{name}_high")
        row |= dict(zip(around, sorted(row[part] for part in around), strict=True))
    return row


def written(rows: list[dict[str, Any]], schema: pa.Schema) -> bytes:
    """The bytes of a sealed file of these rows."""
    with tempfile.TemporaryDirectory() as folder:
        return Path(row_files.write_sealed(f"{folder}/a.parquet", rows, schema)).read_bytes()


def unsealed(content: bytes) -> bytes:
    """The same rows in a file of a version before the seal."""
    file = io.BytesIO()
    pq.write_table(pq.read_table(io.BytesIO(content)), file)
    return file.getvalue()


def of_table(table: RowFiles, seed: int) -> tuple[bytes, Callable[[bytes], Outcome]]:
    row = full_row(table.schema, table.identity, seed)
    name = f"{seed:064x}"
    content = written([row | {table.identity: name}], table.schema)
    whole, _ = table.parsed(content, name)
    assert whole is not None

    def outcome(flipped: bytes) -> Outcome:
        try:
            found, sealed = table.parsed(flipped, name)
        except UNREADABLE:
            return "named"
        return "unchanged" if sealed and whole.equals(found) else "silent"

    return content, outcome


def of_verdict(seed: int) -> tuple[bytes, Callable[[bytes], Outcome]]:
    rows = [full_row(verdict.SCHEMA, "verdict_digest", seed + i) for i in range(3)]

    def outcome(flipped: bytes) -> Outcome:
        try:
            return "unchanged" if row_files.is_sealed(flipped) else "silent"
        except ValueError:
            return "named"

    return written(rows, verdict.SCHEMA), outcome


def of_message(seed: int) -> tuple[bytes, Callable[[bytes], Outcome]]:
    row = full_row(CELLS.schema, "cell_digest", seed) | {"created_at": ""}
    ref = ArtifactRef(f"{seed:064x}", "report")
    parent = outbox.Entry("a", "a grid", {}, row, {"fid": 1.5})
    report = Report(ref, {"heat_map": ref}, ["so"])
    message = outbox.Message("fid-grid", parent, [], report, "FINISHED")
    told = asdict(message)
    content = json.dumps({"message": told, "sha256": outbox._digest(told)}).encode()
    assert outbox.opened(content) == message

    def outcome(flipped: bytes) -> Outcome:
        try:
            return "unchanged" if outbox.opened(flipped) == message else "silent"
        except ValueError:
            return "named"

    return content, outcome


def subjects() -> Iterator[tuple[str, bytes, Callable[[bytes], Outcome]]]:
    for seed in range(ROWS_OF_EACH):
        for table in TABLES:
            yield table.name, *of_table(table, seed)
        yield "verdicts", *of_verdict(seed)
        yield "outbox", *of_message(seed)


def flip_all(flips: int, seed: int = 0) -> dict[str, Counter[Outcome]]:
    """Flips so many bits, each another one, spread over all kinds; counts what came of it."""
    draw = random.Random(seed)
    found: dict[str, Counter[Outcome]] = {}
    files = list(subjects())
    for place, (kind, content, outcome) in enumerate(files):
        share = flips // len(files) + (place < flips % len(files))
        bits = 8 * len(content)
        seen = found.setdefault(kind, Counter())
        for bit in draw.sample(range(bits), min(share, bits)):
            flipped = bytearray(content)
            flipped[bit // 8] ^= 1 << bit % 8
            seen[outcome(bytes(flipped))] += 1
    return found


def main() -> None:
    flips = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    began = time.monotonic()
    found = flip_all(flips)
    total = sum(counts.total() for counts in found.values())
    for kind, counts in found.items():
        print(f"{kind:>9}: {counts.total():>8} flips: {dict(counts)}")
    silent = sum(counts["silent"] for counts in found.values())
    print(f"{total} flips in {time.monotonic() - began:.0f} s, {silent} silent")
    assert total == flips, f"the files have too few bits for {flips} flips"
    assert silent == 0, "a flip changed a row unseen"


if __name__ == "__main__":
    main()
