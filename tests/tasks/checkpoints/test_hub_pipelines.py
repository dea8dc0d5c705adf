"""Whole pipelines from a hub: what is fetched of them, and what a hub's refusal is told as."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from tasks.checkpoints.fetch import fetch_checkpoint, fetch_configuration
from tests.core.pipelines.tiny import PIPELINES
from tests.tasks.checkpoints.test_arrivals import Hub

pytestmark = pytest.mark.timeout(120)
REFUSALS = {"a/gated": (401, "GatedRepo"), "a/missing": (404, "RepoNotFound")}
OFFLINE, TEMPLATE = "HF_HUB_OFFLINE", "HUGGINGFACE_CO_URL_TEMPLATE"


class ManyHubs(Hub):
    """Three repositories: one that is whole, a gated one, and one that is not there."""

    def do_GET(self) -> None:
        """Answers as the hub does, where it refuses with its own code."""
        for name, (status, code) in REFUSALS.items():
            if name in self.path:
                self.send_response(status)
                self.send_header("X-Error-Code", code)
                self.send_header("X-Error-Message", f"{name} is refused")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
        super().do_GET()

    do_HEAD = do_GET  # noqa: N815


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A hub on loopback, which the client of this process asks."""
    folder = tmp_path / "sdxl"
    PIPELINES["sdxl"].make().save_pretrained(folder)
    for name in ("modeling.py", "unet/diffusion_pytorch_model.bin", "unet/notes.md",
                 "unet/diffusion_pytorch_model.fp16.safetensors"):  # fmt: skip
        (folder / name).write_text("raise SystemExit('run')")
    handler = type("At", (ManyHubs,), {"folder": folder})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    place = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr(constants, TEMPLATE, getattr(constants, TEMPLATE).replace(
        constants.ENDPOINT, place))  # fmt: skip
    monkeypatch.setattr(constants, "ENDPOINT", place)
    monkeypatch.setattr(constants, OFFLINE, False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    yield
    server.shutdown()


def files_in(place: Path) -> list[str]:
    inside = [path.relative_to(place) for path in place.rglob("*") if path.is_file()]
    return sorted(path.as_posix() for path in inside if path.parts[0] != ".cache")


def test_a_pipeline_is_fetched_as_data_and_refusals_are_told_in_words(
    hub: None, tmp_path: Path
) -> None:
    assert files_in(Path(fetch_checkpoint.fn("a/b", str(tmp_path / "fetched")))) == [
        "model_index.json", "scheduler/scheduler_config.json", "text_encoder/config.json",
        "text_encoder/model.safetensors", "text_encoder_2/config.json",
        "text_encoder_2/model.safetensors", "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors", "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    ]  # fmt: skip
    described = files_in(fetch_configuration("a/b", tmp_path / "described"))
    assert {Path(name).suffix for name in described} == {".json"}
    for name in REFUSALS:
        told = f"'{name}' here, .*refused by the hub.*for a private or gated one set HF_TOKEN"
        with pytest.raises(ValueError, match=told) as said:
            fetch_checkpoint.fn(name, str(tmp_path / name))
        assert "\n" not in str(said.value)
