"""`import ddim_core` serves a script where neither Prefect nor MLflow is installed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from diffusers import UNet2DModel

import ddim_core
from tests import forked

PROJECT = Path(__file__).parents[2]
NAMES = {  # the contract of the design's section 3
    "NoiseSchedule", "timesteps", "SamplerSpec", "ddim_step", "sample", "encode", "slerp",
    "FeatureMoments", "frechet_distance", "kid", "chamfer_distance", "score",
}  # fmt: skip

# As if the two were not installed: whatever would find them finds nothing.
WITHOUT = """
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, *rest):
        hidden = name.split(".")[0] in ("prefect", "mlflow", "tasks", "flows")
        return None if hidden else self.finder.find_spec(name, *rest)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
for name in [name for name in sys.modules if name.split(".")[0] in ("prefect", "mlflow")]:
    del sys.modules[name]  # a fork has them
for absent in ("prefect", "mlflow"):
    try:
        __import__(absent)
    except ModuleNotFoundError:
        continue
    raise SystemExit(f"{absent} is still there")
"""


def apart(code: str, folder: Path, start: Callable[..., Any] = subprocess.run) -> str:
    """Runs code in a fresh Python, in which Prefect and MLflow are hidden; returns what it says."""
    done = start(
        [sys.executable, "-c", f"{WITHOUT}\nsys.path.insert(0, {str(PROJECT)!r})\n{code}"],
        cwd=folder, env=os.environ, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return str(done.stdout)


def test_importing_the_core_imports_nothing_else_until_it_is_asked(tmp_path: Path) -> None:
    code = (
        "import ddim_core\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('torch', 'numpy', 'diffusers')])\n"
        f"print(all(callable(getattr(ddim_core, name)) for name in {sorted(NAMES)}))\n"
    )
    assert apart(code, tmp_path).splitlines() == ["[]", "True"]


def test_public_names_are_listed_and_an_unknown_one_is_refused_with_them() -> None:
    assert set(dir(ddim_core)) >= NAMES
    with pytest.raises(AttributeError, match=r"no 'fid'.*frechet_distance"):
        ddim_core.fid  # noqa: B018


def test_the_readmes_script_samples_a_unet_and_scores_it_with_an_interval(tmp_path: Path) -> None:
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"## In a script of your own\n.*?```python\n(.*?)```", readme, re.DOTALL)
    UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8, 8), norm_num_groups=4,
        layers_per_block=1, down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
    ).save_pretrained(tmp_path / "unet")  # fmt: skip
    said = apart(script.replace("steps=20", "steps=3"), tmp_path, forked.run)
    found = re.fullmatch(r"FID ([\d.]+) \[([\d.]+), ([\d.]+)\], N = 256\n", said)
    assert found, said
    fid, low, high = (float(number) for number in found.groups())
    assert low < fid < high
