"""Two processes of accelerate on CPUs against one: the same LoRA, up to rounding.

    python tests/faults/lora_processes.py

Not part of the test suite: each process takes some ten seconds to start. GPUs are untested.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors.torch import load_file

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / "lora"), str(TESTS.parent)]
from ddim_core.lora.specs import LoraExecution, LoraSpec  # noqa: E402
from ddim_core.lora.training.run import CHECKPOINT, history_of, run, run_apart  # noqa: E402
from tests.lora.material import small_job  # noqa: E402 (after the path)
from tests.lora.tiny_base import write_tiny_base  # noqa: E402

SPEC = LoraSpec(
    steps=6, batch_size=3, accumulation=2, learning_rate=1e-2, text_encoder=True, snr_gamma=5.0
)


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        job = small_job(write_tiny_base(folder / "base"), SPEC, with_class=True)
        for _ in run(job, folder / "one"):
            pass
        shared = replace(job, execution=LoraExecution(threads=1, processes=2))
        run_apart(shared, folder / "two")
        losses = [np.array(history_of(folder / name))[:, 0] for name in ("one", "two")]
        weights = [
            load_file(folder / name / CHECKPOINT.format(SPEC.steps)) for name in ("one", "two")
        ]
    print("losses, one process: ", losses[0])
    print("losses, two processes:", losses[1])
    apart = max(float((weights[0][k] - weights[1][k]).abs().max()) for k in weights[0])
    print(f"largest difference of a weight: {apart:g}")
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)  # float32 sums in another order
    # Adam turns a gradient that is rounding only into a step of full size, at most one rate a step.
    assert apart < SPEC.steps * SPEC.learning_rate


if __name__ == "__main__":
    main()
