"""`ddim score --as` beside torch-fidelity's and pytorch-fid's whole programs, at all 2048 features.

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


def by_torch_fidelity(a: str, b: str, weights: Path) -> dict[str, float]:
    import torch_fidelity

    return torch_fidelity.calculate_metrics(
        input1=a, input2=b, fid=True, kid=True, isc=True, kid_subset_size=min(N, M), cuda=False,
        cache=False, verbose=False, batch_size=5, feature_extractor_weights_path=str(weights),
        save_cpu_ram=True,
    )  # fmt: skip


def by_pytorch_fid(a: str, b: str, weights: Path) -> dict[str, float]:
    from pytorch_fid import fid_score, inception

    state = torch.load(weights, weights_only=True)
    with mock.patch.object(inception, "load_state_dict_from_url", return_value=state):
        return {"fid": float(fid_score.calculate_fid_given_paths([a, b], 50, "cpu", 2048, 0))}


def by_us(a: str, b: str, weights: Path, peer: str) -> dict[str, float]:
    command = [sys.executable, "-m", "flows.cli.app", "score", a, b, "--json", "--as", peer,
               "--feature-weights", str(weights)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)["as_scores"]
    return {name: number["value"] for name, number in told.items()}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        weights = save_fid_inception(root / "weights.pth")
        a = save_images(root / "a", N, 0, 120)
        b = save_images(root / "b", M, 60, 255)
        for name, peer in (("torch-fidelity", by_torch_fidelity), ("pytorch-fid", by_pytorch_fid)):
            began = time.process_time()
            theirs = peer(a, b, weights)
            seconds = time.process_time() - began
            ours = by_us(a, b, weights, name)
            print(f"{name}, {seconds:.0f} CPU s:")
            for number, value in theirs.items():
                print(f"  {number}: {value:.9f}, ours {ours[number]:.9f}, relative difference "
                      f"{ours[number] / value - 1 if value else ours[number]:.1e}")  # fmt: skip


if __name__ == "__main__":
    main()
