"""`ddim score` beside torch-fidelity's and pytorch-fid's whole programs, at all 2048 features.

Not run by default: the peers' square roots of 2048 x 2048 matrices take two CPU minutes. By hand:

    python tests/peers/whole_fid.py

It saves one random Inception state dict and two folders of PNG files, asks all three programs, and
prints how far they are apart.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))
from networks import save_fid_inception

N, M = 12, 10


def save_images(folder: Path, n: int, low: int, high: int) -> str:
    folder.mkdir()
    random = np.random.default_rng(low)
    for i in range(n):
        small = random.integers(low, high, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(small).resize((32, 24), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
    return str(folder)


def by_torch_fidelity(a: str, b: str, weights: Path) -> float:
    import torch_fidelity

    return torch_fidelity.calculate_metrics(
        input1=a, input2=b, fid=True, cuda=False, cache=False, verbose=False, batch_size=5,
        feature_extractor_weights_path=str(weights), save_cpu_ram=True,
    )["frechet_inception_distance"]  # fmt: skip


def by_pytorch_fid(a: str, b: str, weights: Path) -> float:
    from pytorch_fid import fid_score, inception

    state = torch.load(weights, weights_only=True)
    with mock.patch.object(inception, "load_state_dict_from_url", return_value=state):
        return float(fid_score.calculate_fid_given_paths([a, b], 50, "cpu", 2048, 0))


def by_us(a: str, b: str, weights: Path, resize: str) -> float:
    command = [sys.executable, "-m", "flows.cli.app", "score", a, b, "--json", "--resize", resize,
               "--features", "inception-v3", "--feature-weights", str(weights)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["fid"]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        weights = save_fid_inception(root / "weights.pth")
        a = save_images(root / "a", N, 0, 120)
        b = save_images(root / "b", M, 60, 255)
        for name, peer, resize in (
            ("torch-fidelity", by_torch_fidelity, "tf1"),
            ("pytorch-fid", by_pytorch_fid, "torch"),
        ):
            began = time.process_time()
            theirs = peer(a, b, weights)
            seconds = time.process_time() - began
            ours = by_us(a, b, weights, resize)
            print(f"{name}: {theirs:.9f} in {seconds:.0f} CPU s; ddim score --resize {resize}: "
                  f"{ours:.9f}; relative difference {ours / theirs - 1:.1e}")  # fmt: skip


if __name__ == "__main__":
    main()
