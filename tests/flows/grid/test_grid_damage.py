"""Whatever happens to the files of the store and to the results, the next run heals it."""

from __future__ import annotations

import base64
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from prefect.serializers import JSONSerializer

from tasks.cells import extractor_memory
from tasks.checkpoints import memory
from tasks.storage import places
from tasks.storage.caching import RESULTS
from tests.flows.grids import KEPT_IN, GridRun, lasting

pytestmark = pytest.mark.timeout(240)
RunGrid = Callable[..., GridRun]
SMALL: dict[str, Any] = {
    "checkpoint": "", "train_steps": 3, "seed": 201, "n_images": 14, "steps": [2],
}  # fmt: skip


def files(*folders: str) -> list[Path]:
    found = [p for f in folders for p in places.local_dir(f).rglob("*") if p.is_file()]
    assert len(found) > 5
    return sorted(found)


def delete(path: Path, _: random.Random) -> None:
    path.unlink()


def truncate(path: Path, chance: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: chance.randrange(max(1, len(content)))])


def flip(path: Path, chance: random.Random) -> None:
    content = bytearray(path.read_bytes())
    if content:  # locks are empty
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(content)


def in_a_new_process() -> None:
    """Forgets the models in memory, so that they are read from the damaged files."""
    memory.forget()
    extractor_memory.forget()


def damage(paths: list[Path], how: Callable[[Path, random.Random], None], seed: int) -> None:
    chance = random.Random(seed)
    for path in chance.sample(paths, k=(len(paths) + 1) // 2):
        how(path, chance)
    in_a_new_process()


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the files of the undamaged grid are kept."""
    return tmp_path_factory.mktemp("sound")


@pytest.fixture(scope="module")
def sound(run_grid: RunGrid, wipe: Callable[[], None], kept: Path) -> list[dict[str, Any]]:
    """The undamaged grid's rows; it is alone in its store."""
    wipe()
    rows = lasting(run_grid(**SMALL).rows)
    for folder in KEPT_IN:
        if places.local_dir(folder).exists():
            shutil.copytree(places.local_dir(folder), kept / folder)
    return rows


@pytest.fixture
def few_files(wipe: Callable[[], None], sound: list[dict[str, Any]], kept: Path) -> None:
    """A store that holds this grid alone, undamaged."""
    wipe()
    for folder in kept.iterdir():
        shutil.copytree(folder, places.local_dir(folder.name), dirs_exist_ok=True)


def in_some_way(path: Path, chance: random.Random) -> None:
    chance.choice([delete, truncate, flip])(path, chance)


@pytest.mark.usefixtures("few_files")
def test_half_of_the_stores_files_damaged_again_and_again_heal(
    run_grid: RunGrid, sound: list[dict[str, Any]]
) -> None:
    for seed in range(3):
        damage(files("store", "checkpoints"), in_some_way, seed)
        healed = run_grid(**SMALL)
        assert healed.state == "Completed"
        assert healed.computed
        assert lasting(healed.rows) == sound
    assert not run_grid(**SMALL).computed


@pytest.mark.usefixtures("few_files")
def test_all_that_is_local_deleted_truncated_or_flipped_at_once_heals(
    run_grid: RunGrid, sound: list[dict[str, Any]]
) -> None:
    damage(files("store", "checkpoints", "work"), flip, seed=10)
    damage(files("prefect", "results", "store"), truncate, seed=11)
    damage(files("prefect", "results", "store", "work"), delete, seed=12)
    assert lasting(run_grid(**SMALL).rows) == sound
    assert not run_grid(**SMALL).computed


@pytest.mark.usefixtures("few_files")
def test_result_records_that_were_planted_are_refused_and_made_again(
    run_grid: RunGrid, sound: list[dict[str, Any]], tmp_path: Path
) -> None:
    proof = tmp_path / "proof"
    records = sorted(path for path in RESULTS.iterdir() if path.is_file())
    contents = [path.read_bytes() for path in records]
    plants: list[Callable[[int, dict[str, Any]], bytes]] = [
        lambda i, record: b"\x00garbage",
        lambda i, record: pickled(record, proof),
        lambda i, record: decoded(record, proof),
        lambda i, record: contents[i - 1],  # its neighbour's
    ]
    for i, path in enumerate(records):
        path.write_bytes(plants[i % len(plants)](i, json.loads(contents[i])))
    healed = run_grid(**SMALL)
    assert healed.state == "Completed"
    assert lasting(healed.rows) == sound
    assert healed.computed["sample-shard"] == 4
    assert healed.result.images_drawn == 0  # the pictures themselves were sound
    assert not proof.exists()


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.path, "the planted code has run")


def pickled(record: dict[str, Any], proof: Path) -> bytes:
    record["metadata"]["serializer"] = {"type": "pickle", "picklelib": "cloudpickle"}
    record["result"] = base64.encodebytes(cloudpickle.dumps(Payload(proof))).decode()
    return json.dumps(record).encode()


def decoded(record: dict[str, Any], proof: Path) -> bytes:
    """A record whose decoder is a function of its own choice: here, one that writes the proof."""
    proof_writer = proof.with_name("planted_decoder.py")
    proof_writer.write_text(f"import pathlib\npathlib.Path({str(proof)!r}).write_text('ran')\n")
    decoder = JSONSerializer(object_encoder=None, object_decoder="planted_decoder.anything")
    record["metadata"]["serializer"] = decoder.model_dump()
    return json.dumps(record).encode()


def test_planted_records_run_their_code_when_prefect_alone_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.results import ResultRecord

    proof = tmp_path / "proof"
    metadata = {"storage_key": "k", "serializer": JSONSerializer()}
    ours = json.loads(ResultRecord(result={"a": 1}, metadata=metadata).serialize())
    ResultRecord.deserialize(pickled(json.loads(json.dumps(ours)), proof))
    assert proof.exists()
    proof.unlink()
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(Exception, match="planted_decoder"):
        ResultRecord.deserialize(decoded(ours, proof))
    assert proof.exists()
