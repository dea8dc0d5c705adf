"""The usual places of scores: of each repository only what a score is made of is fetched."""

from __future__ import annotations

import hashlib
import shutil
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from ddim_core.image_scores.aesthetic import AESTHETIC
from ddim_core.image_scores.networks.clip import open_clip
from ddim_core.image_scores.parts import Source, files_of
from ddim_core.image_scores.registry import SCORES, choices_of
from tests.core.image_scores import tiny
from tests.core.image_scores.folders import clip_folder, hps_folder, reward_folder
from tests.tasks.checkpoints.test_arrivals import Hub

OFFLINE, TEMPLATE = "HF_HUB_OFFLINE", "HUGGINGFACE_CO_URL_TEMPLATE"
TOKENIZER = "openai/clip-vit-large-patch14"


class Hubs(Hub):
    """Several repositories below one folder; any other is not there."""

    root: Path

    def do_GET(self) -> None:
        """Answers for the repository that is asked for."""
        parts = self.path.split("?")[0].removeprefix("/api/models").split("/")
        self.folder = self.root.joinpath(*parts[1:3])
        if self.folder.is_dir():
            super().do_GET()
            return
        self.send_response(404)
        self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET  # noqa: N815


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The repositories of a hub on loopback, which the client of this process asks."""
    root = tmp_path / "hub"
    (root / "xswu").mkdir(parents=True)
    hps = hps_folder(root / "xswu" / "HPSv2")
    shutil.copy(hps / "HPS_v2.1_compressed.pt", hps / "HPS_v2_compressed.pt")
    pick, made = root / "yuvalkirstain" / "PickScore_v1", clip_folder(tmp_path / "made")
    open_clip(made, "pick-score").network.save_pretrained(pick)
    (root / "THUDM").mkdir()
    reward = reward_folder(root / "THUDM" / "ImageReward")
    words = root / "google-bert" / "bert-base-uncased"
    words.mkdir(parents=True)
    (reward / "vocab.txt").rename(words / "vocab.txt")
    letters = root / TOKENIZER
    letters.mkdir(parents=True)
    tiny.write_clip_tokenizer(letters)
    for folder in (hps, pick, reward):
        for name in ("modeling.py", "pytorch_model.bin", "README.md"):
            (folder / name).write_text("raise SystemExit('run')")
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("At", (Hubs,), {"root": root}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    place = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr(constants, TEMPLATE, getattr(constants, TEMPLATE).replace(
        constants.ENDPOINT, place))  # fmt: skip
    monkeypatch.setattr(constants, "ENDPOINT", place)
    monkeypatch.setattr(constants, OFFLINE, False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    yield root
    server.shutdown()


def test_scores_are_made_of_their_usual_repositories_and_no_code_comes(
    hub: Path, tmp_path: Path
) -> None:
    asked = ["hpsv2=v2.0", "pick-score", "image-reward"]
    found = {choice.name: choice.files() for choice in choices_of(asked)}
    letters = ["merges.txt", "vocab.json"]
    assert {name: sorted(files) for name, files in found.items()} == {
        "hpsv2": ["HPS_v2_compressed.pt", *letters],
        "pick-score": ["config.json", "merges.txt", "model.safetensors", "vocab.json"],
        "image-reward": ["ImageReward.pt", "med_config.json", "vocab.txt"],
    }
    fetched = {path.name for path in (tmp_path / "cache").rglob("snapshots/**/*") if path.is_file()}
    assert fetched == {name for files in found.values() for name in files}
    pictures = tiny.pictures("small")
    for name, files in found.items():
        folder = tmp_path / name
        folder.mkdir()
        for file, path in files.items():
            shutil.copy(path, folder / file)
        assert SCORES[name].open(folder)(pictures, tiny.PROMPTS).shape == (len(pictures),)
    assert set(choices_of(["hpsv2"])[0].files()) == {"HPS_v2.1_compressed.pt", *letters}


def test_a_repository_that_lacks_a_score_or_is_not_there_is_refused(hub: Path) -> None:
    with pytest.raises(ValueError, match=f"'{TOKENIZER}' has no weights of clip-score"):
        choices_of([f"clip-score={TOKENIZER}"])[0].files()
    with pytest.raises(ValueError, match="'a/b', weights of clip-score, is no local folder, and"):
        choices_of(["clip-score=a/b"])[0].files()


def test_a_file_of_the_web_is_held_against_its_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    path, layers = tmp_path / "a+b.pth", AESTHETIC.parts[1]
    path.write_bytes(b"layers")
    address = f"file://{tmp_path}/a%2Bb.pth"
    places = {
        name: (Source(address, sha256=sha256),)
        for name, sha256 in (("other", "0" * 64), ("right", hashlib.sha256(b"layers").hexdigest()))
    }
    with pytest.raises(ValueError, match="layers of aesthetic, could not be downloaded"):
        files_of("aesthetic", "other", [layers], places)
    found = files_of("aesthetic", "right", [layers], places)
    assert {name: file.read_bytes() for name, file in found.items()} == {"a+b.pth": b"layers"}
