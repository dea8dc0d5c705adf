"""Class labels and guidance, from a folder on disk to the network's answer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDPMPipeline, UNet2DModel

from ddim_core.checkpoints.checkpoint import RECORD_NAME, Checkpoint, load_checkpoint, save_pipeline
from ddim_core.checkpoints.conditioning import conditioned
from ddim_core.diffusion.labels import asked_labels
from ddim_core.diffusion.specs import NoiseSpec, SamplerSpec
from ddim_core.networks.denoisers import UNetModel, toy_unet
from ddim_core.networks.specs import ToyModelSpec
from ddim_core.scores.per_class import class_accuracy

SPEC = ToyModelSpec(widths=(8, 16), norm_groups=4, n_classes=3)
X = torch.randn(7, 1, 8, 8, generator=torch.Generator().manual_seed(0))
T = torch.full((7,), 300)
INDICES = range(4, 11)
FLOAT32 = 1e-5  # a few roundings of values of order 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("conditional")
    save_pipeline(folder, toy_unet(SPEC, 1), NoiseSpec(), training_step=5)
    return folder


@pytest.fixture(scope="module")
def checkpoint(folder: Path) -> Checkpoint:
    return load_checkpoint(folder)


def answer(folder: Path, labels: torch.Tensor) -> torch.Tensor:
    unet = DDPMPipeline.from_pretrained(folder).unet.eval()
    with torch.inference_mode():
        return unet(X, T, class_labels=labels).sample


def test_every_class_is_asked_for_equally_often_and_an_image_keeps_its_own() -> None:
    labels = asked_labels(range(30), 3)
    assert torch.bincount(labels).tolist() == [10, 10, 10]
    assert torch.equal(asked_labels(range(12, 20), 3), labels[12:20])


@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0])
def test_guidance_mixes_what_diffusers_answers_with_and_without_the_class(
    folder: Path, checkpoint: Checkpoint, scale: float
) -> None:
    without = answer(folder, torch.full((7,), 3))
    with_class = answer(folder, asked_labels(INDICES, 3))
    assert not torch.allclose(with_class, without, atol=1e-3)
    guided = conditioned(checkpoint, INDICES, scale)(X, T)
    torch.testing.assert_close(
        guided, without + scale * (with_class - without), atol=FLOAT32, rtol=FLOAT32
    )


def test_a_checkpoint_says_its_classes(checkpoint: Checkpoint) -> None:
    assert (checkpoint.n_classes, checkpoint.null_label) == (3, 3)


def test_a_conditional_folder_of_others_has_classes_but_no_guidance(
    folder: Path, tmp_path: Path
) -> None:
    UNet2DModel.from_pretrained(folder / "unet").save_pretrained(tmp_path)
    other = load_checkpoint(tmp_path)
    assert (other.n_classes, other.null_label) == (4, None)
    conditioned(other, INDICES, 1.0)(X, T)
    with pytest.raises(ValueError, match="guidance is 3; the checkpoint has no label for an unkn"):
        conditioned(other, INDICES, 3.0)


def test_an_unconditional_checkpoint_is_not_guided(checkpoint: Checkpoint) -> None:
    plain = replace(checkpoint, n_classes=None, null_label=None)
    with pytest.raises(ValueError, match="guidance is 0; the checkpoint is unconditional"):
        conditioned(plain, INDICES, 0.0)


def test_a_null_label_that_is_not_the_last_is_refused(folder: Path, tmp_path: Path) -> None:
    save_pipeline(tmp_path, toy_unet(SPEC, 1), NoiseSpec(), training_step=5)
    (tmp_path / RECORD_NAME).write_text('{"training_step": 5, "null_label": 9}')
    with pytest.raises(ValueError, match="null_label is 9"):
        load_checkpoint(tmp_path)


def test_no_bit_of_a_guided_prediction_depends_on_the_batch(checkpoint: Checkpoint) -> None:
    whole = conditioned(checkpoint, INDICES, 3.0)(X, T)
    first = conditioned(checkpoint, INDICES[:2], 3.0)(X[:2], T[:2])
    assert torch.equal(whole[:2], first)


def test_a_network_of_two_lengths_of_input_keeps_a_trace_of_each(checkpoint: Checkpoint) -> None:
    model = UNetModel(toy_unet(replace(SPEC, n_classes=None), 0))
    small = torch.randn(2, 1, 4, 4)
    assert model(X, T).shape == X.shape
    assert model(small, T[:2]).shape == small.shape


def test_accuracy_is_the_share_of_images_of_the_class_asked_for() -> None:
    logits = np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 0, 0]]
    share, low, high = class_accuracy(logits, range(6))
    assert share == pytest.approx(4 / 6)
    # Wilson 1927: (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)
    z, n, p = 1.959963984540054, 6, 4 / 6
    middle, half = p + z * z / (2 * n), z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    scale = 1 + z * z / n
    assert (low, high) == pytest.approx(((middle - half) / scale, (middle + half) / scale))


@pytest.mark.parametrize("scale", [-1.0, float("nan"), float("inf")])
def test_a_guidance_scale_that_cannot_be_is_refused(scale: float) -> None:
    with pytest.raises(ValueError, match="guidance_scale is"):
        SamplerSpec(10, guidance_scale=scale)
