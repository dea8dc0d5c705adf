"""Which results are used again: keys from inputs and code, and records that are exactly ours."""

from __future__ import annotations

import base64
import json
import re
import stat
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from prefect.results import ResultRecord
from prefect.serializers import JSONSerializer

from ddim_core.common.digest import code_digest
from ddim_core.diffusion.specs import Execution, GridCell, SamplerSpec
from tasks.cells.embed import embed_images
from tasks.cells.score import score_cell
from tasks.checkpoints.train import TrainedCheckpoint, train_toy
from tasks.reports.grid import render_report
from tasks.sampling.native import sample_shard
from tasks.storage import places, store
from tasks.storage.caching import (
    NOT_IN_KEY,
    RESULTS,
    InputsAndCode,
    PlainRecords,
    cached_task,
    refuse_untrusted,
    with_checksum,
)
from tasks.storage.store import ArtifactRef

ROOT = Path(__file__).parents[3]
PACKAGES = ("ddim_core", "tasks")
KEY = "0123456789abcdef" * 4


@dataclass(frozen=True)
class Noted(ArtifactRef):
    """What a task of these tests returns, and its own reference beside."""

    n: int
    parts: tuple[ArtifactRef, ...]
    fid: float | None = None


@cached_task
def note(text: str) -> Noted:
    return noted(text)


@cached_task
def anything(text: str) -> dict[str, Any]:
    return {"text": text}


def noted(text: str) -> Noted:
    return Noted(**vars(store.put(text.encode(), "note")), n=3, parts=(store.put(b"part", "part"),))


PLAIN: Any = anything.result_serializer


class Context:
    """As much of Prefect's TaskRunContext as a policy may look at."""

    def __init__(self, task: Any) -> None:
        self.task = task


def key(task: Any, **inputs: Any) -> str:
    return InputsAndCode().compute_key(Context(task), inputs, {})  # type: ignore[arg-type]


SHARD: dict[str, Any] = {
    "cell": GridCell(SamplerSpec(10)), "checkpoint": ArtifactRef("a" * 64, "folder"),
    "start": 0, "stop": 10, "execution": Execution(),
}  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"cell": GridCell(SamplerSpec(11))}, {"cell": GridCell(SamplerSpec(10), seed=1)},
        {"checkpoint": ArtifactRef("b" * 64, "folder")}, {"start": 1}, {"stop": 11},
    ],
)  # fmt: skip
def test_key_covers_every_input_that_changes_the_result(change: dict[str, Any]) -> None:
    assert key(sample_shard, **SHARD) != key(sample_shard, **{**SHARD, **change})


@pytest.mark.parametrize(
    "change",
    [
        {"execution": Execution("cpu", 7, 2)},
        {"checkpoint": TrainedCheckpoint("a" * 64, "folder", training_step=3)},
        {"cell": GridCell(SamplerSpec(10, eta=0, clip_range=1))},
    ],
)
def test_key_leaves_out_how_and_where_the_work_is_done(change: dict[str, Any]) -> None:
    assert key(sample_shard, **SHARD) == key(sample_shard, **{**SHARD, **change})


def test_key_knows_the_kind_of_card_and_not_which() -> None:
    on = {
        name: key(sample_shard, **{**SHARD, "execution": Execution(name)})
        for name in ("cpu", "cuda", "cuda:1", "cuda:0,cuda:2", "mps", "cpu:0")
    }
    assert on["cuda"] == on["cuda:1"] == on["cuda:0,cuda:2"]
    assert len(set(on.values())) == 4


def test_inputs_left_out_are_those_that_change_no_result() -> None:
    assert frozenset({"encoded", "execution", "location"}) == NOT_IN_KEY


def test_key_covers_the_task_and_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    assert key(sample_shard, x=1) != key(embed_images, x=1)
    before = key(sample_shard, x=1)
    monkeypatch.setattr("tasks.storage.caching.code_digest", lambda name: code_digest(name)[::-1])
    assert key(sample_shard, x=1) != before


def test_key_is_a_file_name_everywhere() -> None:
    assert len(key(sample_shard, **SHARD)) == 64
    assert set(key(sample_shard, **SHARD)) <= set("0123456789abcdef")


def reached(module: str) -> set[str]:
    """The modules of `ddim_core` whose code is in the keys of a task's module."""
    from ddim_core.common.digest import _closure

    return {name.rpartition(".")[2] for name in _closure(module) if "ddim_core" in name}


def test_sampling_code_is_in_the_keys_of_samples_but_of_neither_data_nor_training() -> None:
    assert {"sampling", "noise", "prediction", "schedule", "denoisers"} <= reached(
        "tasks.sampling.native"
    )
    for module in (
        "tasks.images.prepare",
        "tasks.checkpoints.train",
        "tasks.cells.extractor",
        "tasks.cells.embed",
        "tasks.cells.score",
    ):
        assert "sampling" not in reached(module), module


def test_code_that_is_chosen_by_name_is_in_the_keys_of_what_it_draws() -> None:
    from ddim_core.schedulers import registry

    of_name = {name: registry.scheduler_class(name) for name in registry.OURS}
    assert [kind.__name__ for kind in of_name.values()] == list(registry.OURS)
    for module in ("tasks.sampling.scheduled", "tasks.sampling.pipeline", "tasks.tuning.tune"):
        assert {kind.__module__.rpartition(".")[2] for kind in of_name.values()} <= reached(module)


def test_no_module_of_ours_is_imported_in_a_way_that_keys_do_not_follow() -> None:
    """But by what hands out the names of `ddim_core`, and what stands for slow libraries."""
    texts = {file: file.read_text() for of in PACKAGES for file in (ROOT / of).rglob("*.py")}
    by_name = {file for file, text in texts.items() if "import_module(" in text}
    assert by_name == {ROOT / "ddim_core/__init__.py", ROOT / "ddim_core/common/late.py",
                       ROOT / "ddim_core/common/digest.py"}  # fmt: skip
    late = {found for text in texts.values() for found in re.findall(r'late\("(\w+)', text)}
    assert "diffusers" in late
    assert not {*PACKAGES, "flows"} & late


def test_every_page_is_in_the_key_of_a_module_beside_it() -> None:
    pages = [*(ROOT / "tasks").rglob("*.html")]
    assert len(pages) > 10
    for page in pages:  # race.snapshots.html is a companion of race.py
        assert page.with_name(f"{page.name.partition('.')[0]}.py").exists(), page.name


def test_report_code_is_in_the_key_of_the_report_alone() -> None:
    assert {"grid_figures", "grid_sentences"} <= reached("tasks.reports.grid")
    for task in (sample_shard, embed_images, score_cell, train_toy):
        assert not {"grid_figures", "grid_sentences"} & reached(task.fn.__module__)
    assert render_report.fn.__module__ == "tasks.reports.grid"


def record(result: Any, stored_as: str = KEY, serializer: Any = None) -> bytes:
    """A result record as Prefect writes it, with another serializer if that is wanted."""
    metadata = {
        "storage_key": stored_as, "expiration": None, "prefect_version": "3.8.8",
        "serializer": serializer or PLAIN.model_dump(), "storage_block_id": None,
    }  # fmt: skip
    text = result if isinstance(result, str) else json.dumps(with_checksum(result))
    return json.dumps({"metadata": metadata, "result": text}).encode()


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.path, "the planted code has run")


def planted_pickle(path: Path) -> bytes:
    pickled = base64.encodebytes(cloudpickle.dumps(Payload(path))).decode()
    return record(pickled, serializer={"type": "pickle", "picklelib": "cloudpickle"})


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(places, "DATA_URL", str(tmp_path / "data"))
    return tmp_path / KEY


def test_sound_record_is_kept(path: Path) -> None:
    path.write_bytes(record({**vars(store.put(b"abc", "note")), "n": 3}))
    refuse_untrusted(path, PLAIN)
    assert path.exists()


def test_record_form_is_the_one_prefect_writes(path: Path) -> None:
    serializer: Any = note.result_serializer
    ours = json.loads(record(asdict(noted("abc")), serializer=serializer.model_dump()))
    metadata = {"storage_key": KEY, "serializer": serializer}
    theirs = json.loads(ResultRecord(result=noted("abc"), metadata=metadata).serialize())
    assert theirs == ours


def test_record_comes_back_as_it_was_with_all_inside(path: Path) -> None:
    serializer: Any = note.result_serializer
    made = noted("abc")
    metadata = {"storage_key": KEY, "serializer": serializer}
    path.write_bytes(ResultRecord(result=made, metadata=metadata).serialize())
    refuse_untrusted(path, serializer)
    assert ResultRecord.deserialize(path.read_bytes()).result == made


def test_record_of_another_task_or_form_is_deleted(path: Path) -> None:
    serializer: Any = note.result_serializer
    whole = asdict(noted("abc"))
    for result, written_by in (
        (whole, PLAIN),
        (whole, PlainRecords(task="sample-shard")),
        ({name: value for name, value in whole.items() if name != "n"}, serializer),
        ({**whole, "parts": [1]}, serializer),
        ({**whole, "parts": [{"artifact": "0" * 64, "kind": "part"}]}, serializer),
    ):
        path.write_bytes(record(result, serializer=written_by.model_dump()))
        refuse_untrusted(path, serializer)
        assert not path.exists(), result
    path.write_bytes(record(whole, serializer=serializer.model_dump()))
    refuse_untrusted(path, serializer)
    assert path.exists()


def test_missing_record_is_no_error(path: Path) -> None:
    refuse_untrusted(path, PLAIN)
    assert not path.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"\x00\xff", b"null", b"[]", b"3", b"{}", b'{"metadata": null, "result": "1"}',
        record({"a": 1})[:-10], record("no JSON"), record({"a": 1}, stored_as="f" * 64),
        b'{"metadata": {"storage_key": 3, "serializer": {}}, "result": "1"}',
        record({"a": 1}).replace(b'"result"', b'"more": 1, "result"'), b"[" * 100_000,
        record({"a": 1}, serializer={"type": "pickle", "picklelib": "cloudpickle"}),
        record({"a": 1}, serializer=JSONSerializer().model_dump()),  # Prefect's own decoder
        record({"a": 1}, serializer={**PLAIN.model_dump(), "object_decoder": "os.system"}),
        record({"a": 1}, serializer={"type": "compressed/pickle"}),
        record({"artifact": "0" * 64, "kind": "note"}),  # there is no such artefact
        record({"artifact": "../../x", "kind": "note"}),
        record({"a": [{"artifact": 1, "kind": 2}]}),
        record({"fid": 1.25}).replace(b"1.25", b"1.24"),  # a flipped bit
        record(json.dumps({"fid": 1.25})),
    ],
    ids=range(23),
)  # fmt: skip
def test_record_that_is_not_exactly_ours_is_deleted(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    refuse_untrusted(path, PLAIN)
    assert not path.exists()


def test_record_of_a_folder_that_is_no_manifest_is_deleted(path: Path) -> None:
    for content in (b"no JSON", b"[1]", b'{"a": 1}', b"3"):
        path.write_bytes(record({**vars(store.put(content, "note")), "kind": "folder"}))
        refuse_untrusted(path, PLAIN)
        assert not path.exists(), content


def test_planted_pickle_would_run_under_prefect_and_never_does_here(
    path: Path, tmp_path: Path
) -> None:
    proof = tmp_path / "proof"
    content = planted_pickle(proof)
    ResultRecord.deserialize(content)  # the danger is real: this is how Prefect reads a record
    assert proof.read_text() == "the planted code has run"
    proof.unlink()
    path.write_bytes(content)
    refuse_untrusted(path, PLAIN)
    assert not path.exists()
    assert not proof.exists()


@pytest.mark.parametrize("damage", ["delete", "truncate", "flip"])
def test_record_is_deleted_when_anything_it_points_to_is_damaged(
    path: Path, tmp_path: Path, damage: str
) -> None:
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "weights").write_bytes(b"weights")
    result = {
        "page": vars(store.put(b"page", "report")),
        "figures": {"map": vars(store.put(b"figure", "figure"))},
        "more": [vars(store.put_folder(tmp_path / "checkpoint"))],
    }
    written = sorted(p for p in (tmp_path / "data").rglob("*") if p.is_file())
    assert len(written) == 4
    for victim in written:
        sound = victim.read_bytes()
        path.write_bytes(record(result))
        refuse_untrusted(path, PLAIN)
        assert path.exists()
        if damage == "delete":
            victim.unlink()
        else:
            victim.write_bytes(sound[:-1] if damage == "truncate" else sound[:-1] + b"!")
        refuse_untrusted(path, PLAIN)
        assert not path.exists(), victim
        victim.write_bytes(sound)


def test_results_are_private() -> None:
    key(sample_shard, **SHARD)
    assert stat.S_IMODE(RESULTS.stat().st_mode) == 0o700
