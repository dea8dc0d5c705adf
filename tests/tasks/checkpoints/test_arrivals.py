"""What is a checkpoint to watch, when it is whole, and what MLflow and the hub show of them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from mlflow import MlflowClient

from ddim_core.checkpoints.checkpoint import save_pipeline
from ddim_core.checkpoints.convert import source_digest, source_files
from ddim_core.checkpoints.identity import weights_digest
from ddim_core.diffusion.specs import NoiseSpec
from ddim_core.networks.denoisers import toy_unet
from ddim_core.networks.specs import ToyModelSpec
from tasks.checkpoints.addresses import a_place_of, averaged, may_hold_several, require_source
from tasks.checkpoints.arrivals import (
    candidates,
    read_whole,
    recall,
    remember,
    snapshots_in,
    stamp_of,
)
from tasks.checkpoints.convert import convert_checkpoint
from tasks.checkpoints.identity import first_of_content, weights_of
from tasks.tracking import models

pytestmark = pytest.mark.timeout(120)
WEIGHTS = Path("unet", "diffusion_pytorch_model.safetensors")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources") / "saved"
    save_pipeline(folder, toy_unet(ToyModelSpec(widths=(8, 8)), seed=0), NoiseSpec(), 7)
    return folder


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "run" / "step-1"))


def digest_of(location: str) -> str:
    """As the watch opens a checkpoint, without a server."""
    source = source_digest(source_files(Path(location)))
    return weights_of(first_of_content(convert_checkpoint.fn(source, "ema", location)))


def names(source: str) -> list[str]:
    return [Path(candidate.address).name for candidate in candidates(source)]


def test_a_folder_means_what_lies_in_it_and_a_checkpoint_means_itself(copy: Path) -> None:
    for name in (".hidden", "step-2.tmp", "logs.txt", "vae"):
        (copy.parent / name).mkdir()
    for name in ("loss.csv", "network-snapshot-000100.pkl", "training-state-000100.pt"):
        (copy.parent / name).touch()
    assert names(f"{copy.parent.parent}/**/step-*") == ["step-1"]
    # No system call takes it; `**` of Python 3.11.2 follows it, and is refused then.
    (copy.parent / "long").symlink_to("x" * 300)
    shown = ["logs.txt", "long", "network-snapshot-000100.pkl", "step-1"]
    assert names(str(copy.parent)) == shown
    assert names(str(copy)) == ["step-1"]
    assert names(f"{copy.parent}/step-*") == ["step-1"]
    assert names(str(copy.parent / "nothing-*")) == []


def test_a_folder_or_pattern_of_several_stands_for_these_and_says_what_is_none(
    copy: Path, tmp_path: Path
) -> None:
    runs = copy.parent
    alone = str(copy)
    assert snapshots_in(alone) == ([alone], [])
    assert snapshots_in(str(runs)) == ([str(runs)], [])  # the one in it, as a grid opens it
    shutil.copytree(copy, runs / "step-2")
    shutil.copytree(copy / "unet", runs / "step-10")  # a bare network
    (runs / "logs").mkdir()
    (runs / "circle").symlink_to(runs)
    (runs / "long").symlink_to("x" * 300)
    (runs / "step-4.tmp").mkdir()
    steps = [str(runs / f"step-{n}") for n in (1, 2, 10)]
    found, left_out = snapshots_in(str(runs))
    assert found == steps
    assert [line.split(" is left out:")[0] for line in left_out] == ["circle", "logs", "long"]
    assert snapshots_in(f"{runs}/step-[12]") == (steps[:2], [])
    assert snapshots_in(f"{runs}/*") == (steps, left_out)
    assert a_place_of(f"{runs}/[ls]*") == steps[0]  # and not the logs
    assert snapshots_in("owner/name") == (["owner/name"], [])
    for kept in ("a-0000002-0.050.pkl", "a-0000002-0.100.pkl"):
        (tmp_path / kept).touch()
    averages = [f"posthoc:{tmp_path}?std={std}&kimg=2" for std in ("0.06", "0.08")]
    both = f"posthoc:{tmp_path}?std=0.06,0.08&kimg=2"
    assert (snapshots_in(both), may_hold_several(both)) == ((averages, []), True)
    assert (snapshots_in(averages[0]), may_hold_several(averages[0])) == ((averages[:1], []), False)
    for nothing in (str(tmp_path / "empty"), f"{runs}/none-*", f"{runs}/logs*"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(ValueError, match="holds no checkpoint"):
            snapshots_in(nothing)


def test_a_whole_checkpoint_is_read_with_its_content(copy: Path) -> None:
    (candidate,) = candidates(str(copy))
    assert read_whole(candidate, digest_of) == (copy, weights_digest(copy))


@pytest.mark.parametrize("missing", ["unet/config.json", str(WEIGHTS)])
def test_a_checkpoint_that_lacks_a_file_is_not_whole(copy: Path, missing: str) -> None:
    (copy / missing).unlink()
    (candidate,) = candidates(f"{copy.parent}/step-*")
    with pytest.raises(ValueError, match=r"missing|cannot be opened|no checkpoint|lacks"):
        read_whole(candidate, digest_of)


def test_a_checkpoint_whose_weights_are_still_growing_is_not_whole(copy: Path) -> None:
    whole = (copy / WEIGHTS).read_bytes()
    (copy / WEIGHTS).write_bytes(whole[: len(whole) // 2])
    (candidate,) = candidates(str(copy))
    with pytest.raises(ValueError, match="is damaged"):
        read_whole(candidate, digest_of)
    (copy / WEIGHTS).write_bytes(whole)
    assert stamp_of(copy) != candidate.stamp
    with pytest.raises(ValueError, match="still being written"):
        read_whole(candidate, digest_of)


def test_what_was_worked_out_is_remembered_until_the_files_change(copy: Path) -> None:
    assert recall(str(copy), stamp_of(copy)) is None
    remember(str(copy), stamp_of(copy), ["place", "digest"])
    assert recall(str(copy), stamp_of(copy)) == ["place", "digest"]
    os.utime(copy / WEIGHTS, (1, 1))
    assert recall(str(copy), stamp_of(copy)) is None


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("s3://bucket/run", "is no source"),
        ("models:/nobody", "no registered model 'nobody'"),
        ("models:/nobody@champion", "no models:/nobody@champion"),
        ("experiment:nothing", "no experiment 'nothing'"),
    ],
)
def test_a_source_that_is_not_there_is_named(source: str, wanted: str) -> None:
    with pytest.raises(ValueError, match=wanted):
        candidates(source)


@pytest.mark.parametrize("source", ["models:/faces", "models:/faces@champion"])
def test_a_server_out_of_reach_is_said_without_its_password(
    source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ann:hunter22@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(ValueError, match="in MLflow") as caught:
        candidates(source)
    assert "hunter22" not in "".join(traceback.format_exception(caught.value))


def test_a_registered_model_shows_its_versions_and_its_champion(saved: Path) -> None:
    digest = weights_digest(saved)
    assert models.champion("faces") is None
    first = models.promote.fn("faces", str(saved), digest, None, "first")
    again = models.promote.fn("faces", str(saved), digest, None, "better")
    other = models.promote.fn("faces", str(saved), "other", None, "better")
    assert (first, again, other) == ("models:/faces/1", "models:/faces/1", "models:/faces/2")
    assert models.champion("faces") == "models:/faces/2"
    shown = candidates("models:/faces")
    assert [c.address for c in shown] == ["models:/faces/1", "models:/faces/2"]
    assert [c.address for c in candidates("models:/faces@champion")] == ["models:/faces/2"]
    path, weights = read_whole(shown[0], digest_of)
    assert path.name.startswith("faces-1-")
    assert weights == digest
    assert MlflowClient().get_model_version("faces", "2").tags["ddim.verdict"] == "better"


def test_an_experiment_shows_its_finished_runs_that_hold_a_checkpoint(saved: Path) -> None:
    client = MlflowClient()
    experiment = client.create_experiment("training")
    runs = [client.create_run(experiment).info.run_id for _ in range(3)]
    client.log_artifacts(runs[0], str(saved), "checkpoint")
    client.log_artifacts(runs[1], str(saved), "last")
    client.log_artifacts(runs[2], str(saved), "checkpoint")
    for run in runs[:2]:
        client.set_terminated(run)
    (shown,) = candidates("experiment:training")
    assert shown.address == f"runs:/{runs[0]}/checkpoint"
    assert read_whole(shown, digest_of)[1] == weights_digest(saved)
    assert [c.address for c in candidates("experiment:training#last")] == [f"runs:/{runs[1]}/last"]


def test_an_offline_hub_is_said_to_be_out_of_reach() -> None:
    with pytest.raises(ValueError, match=r"the hub does not give 'a/b' .*watch its folder"):
        candidates("hub:a/b")


class Hub(BaseHTTPRequestHandler):
    """One repository at one commit, by the hub's own protocol."""

    folder: Path

    def do_GET(self) -> None:
        """Answers the four questions that the hub's client asks."""
        path = self.path.split("?")[0]
        files = [
            f.relative_to(self.folder).as_posix() for f in self.folder.rglob("*") if f.is_file()
        ]
        if path.endswith("/refs"):
            head = {"name": "main", "ref": "refs/heads/main", "targetCommit": COMMIT}
            self._json({"branches": [head], "tags": [{**head, "name": "v1"}], "converts": []})
        elif "/api/models/" in path and "/tree/" in path:
            tree = [{"type": "file", "path": f, "size": (self.folder / f).stat().st_size, "oid": f}
                    for f in files]  # fmt: skip
            self._json(tree)
        elif "/api/models/" in path:
            self._json({"id": "a/b", "sha": COMMIT, "siblings": [{"rfilename": f} for f in files]})
        elif "/resolve/" in path:
            self._file(self.folder / path.split(f"/resolve/{COMMIT}/")[1])

    do_HEAD = do_GET  # noqa: N815

    def _json(self, answer: object) -> None:
        self._send(json.dumps(answer).encode())

    def _file(self, file: Path) -> None:
        self._send(file.read_bytes())

    def _send(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{len(body)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub(copy: Path) -> Iterator[str]:
    (copy / "modeling.py").write_text("raise SystemExit('run')")
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("At", (Hub,), {"folder": copy}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


FETCH = """
import shutil
from tasks.checkpoints.hub import hub_download, hub_heads
heads = hub_heads("a/b")
folder = hub_download(heads[0])
print(heads, folder)
planted = shutil.copytree(folder, folder.with_name("kept")) and next(folder.rglob("*.safetensors"))
planted.unlink()
(planted / "in the way").mkdir(parents=True)
folder.with_name(f".{folder.name}.whole").unlink()
shutil.rmtree(folder / ".cache")
try:
    hub_download(heads[0])
except ValueError as error:
    print(error)
"""


def test_a_repository_on_a_hub_is_fetched_at_its_heads_without_its_code(
    hub: str, saved: Path, tmp_path: Path
) -> None:
    own = {"HF_HOME": str(tmp_path / "hf"), "DDIM_DATA": str(tmp_path / "data")}
    environment = {**os.environ, **own, "HF_ENDPOINT": hub, "HF_HUB_OFFLINE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", FETCH], env=environment, capture_output=True, text=True,
        timeout=100, check=False, cwd=Path(__file__).parents[3],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    first, planted = done.stdout.strip().split("\n")
    heads, folder = first.rsplit(" ", 1)
    folder = str(Path(folder).with_name("kept"))
    assert heads == f"['hub:a/b@{COMMIT}']"  # a branch and a tag, one commit
    assert weights_digest(Path(folder)) == weights_digest(saved)
    assert not list(Path(folder).rglob("*.py"))
    assert "safetensors is in the way" in planted


@pytest.mark.parametrize("source", ["modles:/x", "experiments:x", "hbu:owner/name"])
def test_a_source_of_no_known_kind_is_refused(source: str) -> None:
    with pytest.raises(ValueError, match="did you mean"):
        require_source(source)


def test_one_width_written_in_two_ways_is_one_average() -> None:
    found = averaged("posthoc:/x?std=0.08,0.080,0.1")
    assert found is not None
    assert [float(std) for std in found.stds] == [0.08, 0.1]
