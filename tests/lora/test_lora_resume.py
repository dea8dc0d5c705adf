"""A training that was stopped, however, ends with the weights of one that was not."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from ddim_core.lora.specs import LoraSpec
from ddim_core.lora.training.run import (
    CHECKPOINT,
    STATE,
    LoraJob,
    _write_job,
    checkpoints,
    history_of,
    run,
)
from tests.forked import Forked
from tests.lora.material import small_job

PROJECT = Path(__file__).parents[2]
# All that draws numbers or has a memory: dropouts, accumulation, schedule, text encoder, prior.
SPEC = LoraSpec(
    steps=9, batch_size=2, learning_rate=1e-2, dropout=0.2, caption_dropout=0.3, accumulation=2,
    schedule="cosine", warmup_steps=2, text_encoder=True, snr_gamma=5.0, noise_offset=0.1,
    checkpoint_every=2, checkpoint_limit=2,
)  # fmt: skip
# Saves after every step and says so; the state of step k is on disk when "k" is printed.
CHILD = """
import sys, time
from pathlib import Path
import ddim_core.lora.training.run as lora_run
lora_run.SECONDS_PER_SAVE = -1.0
folder = Path(sys.argv[1])
for record in lora_run.run(lora_run._read_job(folder), folder):
    print(record.step, flush=True)
    time.sleep(0.05)
"""


def train(job: LoraJob, folder: Path) -> bytes:
    for _ in run(job, folder):
        pass
    return (folder / CHECKPOINT.format(job.spec.steps)).read_bytes()


def test_a_killed_training_ends_with_the_weights_of_an_undisturbed_one_bit_for_bit(
    base: Path, tmp_path: Path
) -> None:
    job = small_job(base, SPEC, with_class=True)
    undisturbed = train(job, tmp_path / "whole")
    folder = tmp_path / "killed"
    _write_job(job, folder)
    (tmp_path / "child.py").write_text(CHILD)
    child = Forked(
        tmp_path / "child.py", (str(folder),), PROJECT, os.environ, tmp_path / "said.log"
    )
    while "\n5\n" not in child.told():
        assert child.poll() is None, child.told()
        time.sleep(0.01)
    child.kill()
    child.wait(60)
    assert child.returncode == -signal.SIGKILL
    assert (folder / STATE).is_file()
    assert not (folder / CHECKPOINT.format(SPEC.steps)).is_file()
    assert train(job, folder) == undisturbed
    assert len(history_of(folder)) == SPEC.steps
    losses = [row[0] for row in history_of(folder)]
    assert losses == [row[0] for row in history_of(tmp_path / "whole")]


def test_only_the_newest_checkpoints_are_kept_besides_the_last_weights(
    base: Path, tmp_path: Path
) -> None:
    train(small_job(base, SPEC), tmp_path)
    assert list(checkpoints(tmp_path)) == [6, 8, 9]
    weights = [load_file(path) for path in checkpoints(tmp_path).values()]
    name = next(n for n in weights[0] if "lora_B" in n)
    assert not weights[0][name].equal(weights[1][name])


def test_a_damaged_state_means_a_new_start_and_the_same_weights(base: Path, tmp_path: Path) -> None:
    job = small_job(base, SPEC)
    undisturbed = train(job, tmp_path)
    content = bytearray((tmp_path / STATE).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / STATE).write_bytes(content)
    assert train(job, tmp_path) == undisturbed


def test_a_state_of_another_spec_is_not_taken_up(base: Path, tmp_path: Path) -> None:
    train(small_job(base, LoraSpec(steps=2, batch_size=2, learning_rate=1e-2)), tmp_path)
    other = small_job(base, LoraSpec(steps=3, batch_size=2, learning_rate=1e-2, noise_offset=0.5))
    assert train(other, tmp_path) == train(other, tmp_path / "fresh")


@pytest.mark.parametrize("accumulation", [1, 2])
def test_learning_rates_are_those_of_diffusers_schedule(
    base: Path, tmp_path: Path, accumulation: int
) -> None:
    spec = LoraSpec(
        steps=4, batch_size=1, learning_rate=1.0e-3, schedule="linear", warmup_steps=2,
        accumulation=accumulation,
    )  # fmt: skip
    train(small_job(base, spec), tmp_path)
    rates = [row[1] for row in history_of(tmp_path)]
    assert rates == pytest.approx([0.0, 0.5e-3, 1.0e-3, 0.5e-3])
