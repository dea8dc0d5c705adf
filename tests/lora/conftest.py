"""The tiny base, written once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.lora.tiny_base import write_tiny_base


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Stable Diffusion folder; tests must not write into it."""
    torch.set_num_threads(1)
    return write_tiny_base(tmp_path_factory.mktemp("base") / "tiny")
