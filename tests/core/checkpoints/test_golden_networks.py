"""The real networks' answers: recorded from ermongroup/ddim's Model and the course's UNet.

Weights are drawn for the recorded names and shapes by NumPy's RandomState, whose stream is fixed
for ever, so that only names, input and output had to be kept.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from ddim_core.checkpoints.checkpoint import Checkpoint, load_checkpoint
from ddim_core.checkpoints.convert import adopt, source_files
from ddim_core.safe_files.safe_load import COURSE_CLASSES, COURSE_MODULES, TORCH_CLASSES

GOLDEN = Path(__file__).parents[2] / "golden"
FLOAT32 = 2e-6  # rounding through some twenty layers, on answers of about 0.2; measured 3e-7


def recorded(name: str, seed: int) -> tuple[dict[str, Any], dict[str, torch.Tensor], Any]:
    arrays = np.load(GOLDEN / name)
    meta = json.loads(arrays["meta"].tobytes())
    draw = np.random.RandomState(seed)
    state = {
        name: torch.from_numpy((0.1 * draw.standard_normal(shape)).astype(np.float32))
        for name, shape in sorted(meta["shapes"].items())
    }
    return meta, state, arrays


def opened(path: Path, out: Path) -> Checkpoint:
    out.mkdir()
    adopt(source_files(path), out)
    return load_checkpoint(out)


def test_the_official_network_answers_as_its_own_code(tmp_path: Path) -> None:
    meta, state, arrays = recorded("official_unet.npz", 0)
    torch.save([state, {}, 1, 2, state], tmp_path / "ckpt.pth")
    (tmp_path / "config.yml").write_text(yaml.safe_dump(meta["settings"]))
    got = opened(tmp_path / "ckpt.pth", tmp_path / "out")
    said = got.model(torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["t"]))
    np.testing.assert_allclose(said.numpy(), arrays["y"], rtol=0, atol=FLOAT32)


def test_the_courses_network_answers_as_its_own_code(tmp_path: Path) -> None:
    _, state, arrays = recorded("course_unet.npz", 1)
    torch.save({"hparams": {"image_resolution": 8}, "state_dict": state}, tmp_path / "last.ckpt")
    got = opened(tmp_path / "last.ckpt", tmp_path / "out")
    said = got.model(torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["t"]))
    np.testing.assert_allclose(said.numpy(), arrays["y"], rtol=0, atol=FLOAT32)


@pytest.mark.parametrize("asked", json.loads(np.load(GOLDEN / "course_unet.npz")["meta"].tobytes())["globals"])  # fmt: skip # noqa: E501
def test_every_name_in_the_courses_real_pickle_is_read_as_data(asked: str) -> None:
    inert = {f"{module}.{name}" for module in COURSE_MODULES for name in COURSE_CLASSES}
    inert |= {f"torch.nn.modules.{name}" for name in TORCH_CLASSES}
    by_torch = {
        "__builtin__.set", "collections.OrderedDict", "torch.FloatStorage", "torch.LongStorage",
        "torch._utils._rebuild_parameter", "torch._utils._rebuild_tensor_v2",
    }  # fmt: skip
    assert asked in inert | by_torch
