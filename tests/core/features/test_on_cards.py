"""Feature networks as a card runs them, for which a CPU stands in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ddim_core.features import card_network
from ddim_core.features.classifier import train_classifier
from ddim_core.features.clip_dino import ClipFeatures
from ddim_core.features.inception import InceptionFeatures
from ddim_core.features.network import NetworkFeatures
from ddim_core.images.image_set import ImageSet
from ddim_core.networks.specs import ClassifierSpec
from ddim_core.scores.distances.frechet import frechet_distance
from ddim_core.statistics.moments import FeatureMoments
from tests.networks import save_clip, save_fid_inception

CARD = "cpu:0"


def some_images(n: int, side: int = 32) -> NDArray[np.uint8]:
    return np.random.RandomState(0).randint(0, 256, (n, side, side, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_fid_inception(tmp_path_factory.mktemp("on-cards") / "weights.pth")


@pytest.mark.parametrize("resize", ["tf1", "clean"])
def test_inception_on_a_card(weights: Path, resize: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(card_network, "BATCH", 2)
    images = some_images(3)  # a whole batch and a part of one
    wanted = InceptionFeatures(str(weights), resize)(images)
    extractor = InceptionFeatures(str(weights), resize)
    digest = extractor.digest
    extractor.to_card(CARD)
    got = extractor(images)
    assert np.abs(got - wanted).max() <= 1e-4 * np.abs(wanted).max()
    assert np.array_equal(extractor(images[:1]), got[:1])
    assert np.array_equal(extractor(images[1:])[::-1], extractor(images[:0:-1]))
    assert extractor.digest == digest
    assert np.allclose(extractor.class_scores(got), extractor.class_scores(wanted), atol=1e-3)


def test_batch_norms_are_folded_into_their_convolutions(weights: Path) -> None:
    extractor = InceptionFeatures(str(weights))
    extractor.to_card(CARD)
    left = [m for m in extractor._network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert not left


@pytest.mark.parametrize("resize", ["clean", "pillow", "crop", "bicubic"])
def test_clip_on_a_card(resize: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(card_network, "BATCH", 4)
    folder = save_clip(tmp_path / "clip")
    images = some_images(5, 40)
    wanted = ClipFeatures(str(folder), resize)(images)
    extractor: NetworkFeatures = ClipFeatures(str(folder), resize)
    extractor.to_card(CARD)
    assert np.abs(extractor(images) - wanted).max() <= 1e-4 * np.abs(wanted).max()


def test_a_classifier_on_a_card_gives_the_same_distance() -> None:
    images = some_images(300, 8)
    labels = np.arange(300) % 3
    images[..., 0] = (labels * 80)[:, None, None]
    data = ImageSet(images, labels, "three", "train")
    extractor = train_classifier(ClassifierSpec(steps=3), data, data)
    halves = images[:150], images[150:]
    before = [extractor(half) for half in halves]
    logits = extractor.logits(images)
    extractor.to_card(CARD)
    after = [extractor(half) for half in halves]
    assert np.allclose(extractor.logits(images), logits, atol=1e-4)
    plain, carded = (
        frechet_distance(*map(FeatureMoments.from_features, side)) for side in (before, after)
    )
    assert abs(plain - carded) <= 1e-4 * plain


def test_a_classifier_trained_on_a_card_sees_the_same_draws_and_comes_back_to_the_cpu() -> None:
    data = ImageSet(some_images(60, 8), np.arange(60) % 3, "noise", "train")
    here, there = (
        train_classifier(ClassifierSpec(steps=4), data, data, device) for device in ("cpu", CARD)
    )
    assert there.digest == here.digest  # the stand-in's arithmetic is the CPU's
