"""What training does with each option, and what it says when something cannot be."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch

from ddim_core.lora.specs import LoraExecution, LoraSpec
from ddim_core.lora.training.loop import LoraStep, memory_words, start, train
from ddim_core.lora.training.loss import Prompts
from ddim_core.lora.training.run import LoraJob
from tests.lora.material import ONE_THREAD, small_job
from tests.lora.tiny_base import write_tiny_base

BASIC = LoraSpec(steps=3, batch_size=2, learning_rate=1e-2)


def steps_of(job: LoraJob) -> list[LoraStep]:
    state = start(job.spec, job.base, job.execution)
    images, class_images = job.images()
    return list(train(job.spec, state, Prompts.from_arrays(job.embeddings), images, class_images))


def losses_of(base: Path, spec: LoraSpec, execution: LoraExecution = ONE_THREAD) -> list[float]:
    return [r.loss for r in steps_of(replace(small_job(base, spec), execution=execution))]


@cache
def basic_losses(base: Path) -> list[float]:
    """What most are compared with: the same each time, as `test_lora_resume.py` holds."""
    return losses_of(base, BASIC)


@pytest.mark.parametrize(
    "option",
    [
        {"dropout": 0.5}, {"targets": ("attention", "convolutions")}, {"targets": ("to_q",)},
        {"alpha": 16.0}, {"rslora": True}, {"text_encoder": True}, {"snr_gamma": 1.0},
        {"noise_offset": 0.5}, {"caption_dropout": 0.9}, {"schedule": "cosine", "warmup_steps": 2},
        {"seed": 1}, {"gradient_clip": 1e-3}, {"weight_decay": 10.0}, {"accumulation": 2},
    ],
)  # fmt: skip
def test_every_option_changes_what_is_learnt(base: Path, option: dict[str, object]) -> None:
    assert losses_of(base, replace(BASIC, **option)) != basic_losses(base)


def test_dora_starts_from_the_base_and_then_goes_its_own_way(base: Path) -> None:
    plain, dora = basic_losses(base), losses_of(base, replace(BASIC, dora=True))
    assert dora[0] == pytest.approx(plain[0], rel=1e-5)  # float32 rounding of the column norms
    assert dora[1:] != plain[1:]


def test_gradient_checkpointing_changes_nothing(base: Path) -> None:
    spec = replace(BASIC, text_encoder=True, dropout=0.3)
    less_memory = LoraExecution(threads=1, gradient_checkpointing=True)
    assert losses_of(base, spec, less_memory) == losses_of(base, spec)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_stays_near_float32(base: Path, precision: str) -> None:
    ours = losses_of(base, replace(BASIC, precision=precision))
    # bfloat16 has 8 bits: a relative step of 2^-8 a value, less in the mean of 256 errors.
    assert ours == pytest.approx(basic_losses(base), rel=2**-8)


def test_accumulated_halves_are_the_whole_batch(base: Path) -> None:
    """With one size of images, two forwards of two make the gradient of one of four."""
    whole = steps_of(small_job(base, replace(BASIC, steps=1, batch_size=6)))
    assert whole[0].gradient_norm > 0.0
    assert len(steps_of(small_job(base, replace(BASIC, steps=2, accumulation=3)))) == 2


def test_training_lowers_the_loss_on_what_it_saw(base: Path) -> None:
    spec = LoraSpec(rank=8, steps=60, batch_size=6, learning_rate=1e-2)
    losses = losses_of(base, spec)
    assert sum(losses[-15:]) < 0.9 * sum(losses[:15])


def test_prior_weight_zero_is_no_prior(base: Path) -> None:
    spec = replace(BASIC, prior_weight=0.0)
    with_class = steps_of(small_job(base, spec, with_class=True))
    assert with_class[0].loss != steps_of(small_job(base, BASIC, with_class=True))[0].loss


def test_a_base_that_predicts_v_is_taught_v(base: Path, tmp_path: Path) -> None:
    other = write_tiny_base(tmp_path / "v", "v_prediction")
    assert losses_of(other, BASIC)[0] != basic_losses(base)[0]


def test_a_base_that_predicts_x0_is_refused(tmp_path: Path) -> None:
    other = write_tiny_base(tmp_path / "x0", "sample")
    with pytest.raises(ValueError, match="predicts 'sample'; it must predict epsilon or v_pred"):
        start(BASIC, other, ONE_THREAD)


def test_an_unknown_target_is_named_with_the_layers_there_are(base: Path) -> None:
    with pytest.raises(ValueError, match=r"target module 'to_qq'.*groups are attention.*to_out\.0"):
        start(replace(BASIC, targets=("to_qq",)), base, ONE_THREAD)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"rank": 0}, "rank is 0; it must be at least 1"),
        ({"dropout": 1.0}, r"dropout is 1\.0; it must be below 1"),
        ({"learning_rate": 0.0}, r"learning_rate is 0\.0; it must be above 0"),
        ({"alpha": -1.0}, r"alpha is -1\.0; it must be above 0"),
        ({"schedule": "step"}, "schedule is 'step'; it must be one of"),
        ({"warmup_steps": 5}, "schedule constant has no warm-up"),
        ({"precision": "fp8"}, "precision is 'fp8'"),
        ({"targets": ()}, "targets is empty"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_a_setting_that_cannot_be_is_named(option: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        LoraSpec(**option)  # type: ignore[arg-type]


def test_a_diverging_training_stops_in_words(base: Path) -> None:
    with pytest.raises(ValueError, match=r"the loss is .* at step .*; lower the learning_rate"):
        losses_of(base, replace(BASIC, steps=20, learning_rate=1e18, gradient_clip=0.0))


def test_running_out_of_memory_names_the_settings_to_lower() -> None:
    """A real failure of torch to get memory: 4 PiB are more than any machine gives."""
    with (
        pytest.raises(MemoryError, match=r"at batch_size 2; lower batch_size .*gradient_checkp"),
        memory_words(BASIC),
    ):
        torch.empty(2**50)


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    with pytest.raises(RuntimeError, match="size"), memory_words(BASIC):
        torch.zeros(2) + torch.zeros(3)
