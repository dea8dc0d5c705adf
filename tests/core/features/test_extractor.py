"""Feature extractors: exact, stored exactly, and good enough to tell classes apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from ddim_core.features.classifier import ClassifierFeatures, _shifted, train_classifier
from ddim_core.features.extractor import PixelFeatures
from ddim_core.images.image_set import ImageSet
from ddim_core.images.load import load_images
from ddim_core.networks.specs import ClassifierSpec

TINY = ClassifierSpec(steps=3, batch_size=16, width=8)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def digits() -> tuple[ImageSet, ImageSet]:
    return load_images("digits", "train"), load_images("digits", "test")


@pytest.fixture(scope="module")
def classifier(digits: tuple[ImageSet, ImageSet]) -> ClassifierFeatures:
    return train_classifier(replace(ClassifierSpec(), steps=200), *digits)


def test_the_classifier_knows_unseen_digits(
    classifier: ClassifierFeatures, digits: tuple[ImageSet, ImageSet]
) -> None:
    test = digits[1]
    right = (classifier.logits(test.images).argmax(axis=1) == test.labels).mean()
    assert classifier.about.test_accuracy == right
    assert right > 0.97


def test_features_do_not_depend_on_the_batch(
    classifier: ClassifierFeatures, digits: tuple[ImageSet, ImageSet]
) -> None:
    images = digits[1].images[:130]
    features = classifier(images)
    assert features.shape == (130, classifier.dim)
    assert features.dtype == np.float32
    for size in (1, 7):
        parts = [classifier(images[i : i + size]) for i in range(0, 28, size)]
        assert np.array_equal(np.concatenate(parts), features[:28])
    assert np.array_equal(classifier(images[::-1]), features[::-1])
    torch.set_num_threads(2)
    assert np.array_equal(classifier(images), features)


def test_a_stored_classifier_comes_back_exactly(
    classifier: ClassifierFeatures, digits: tuple[ImageSet, ImageSet]
) -> None:
    data = classifier.to_bytes()
    got = ClassifierFeatures.from_bytes(data)
    assert got.to_bytes() == data
    assert got.digest == classifier.digest
    assert got.about == classifier.about
    images = digits[1].images[:10]
    assert np.array_equal(got(images), classifier(images))
    assert np.array_equal(got.logits(images), classifier.logits(images))
    scores = got.class_scores(got(images))
    np.testing.assert_allclose(scores, got.logits(images), atol=1e-5)  # the head in float32


def test_training_is_a_function_of_the_seed(digits: tuple[ImageSet, ImageSet]) -> None:
    digests = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(digests))  # the global stream must play no part
        digests.append(train_classifier(replace(TINY, seed=seed), *digits).digest)
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("resolution", [8, 12, 32])
def test_any_size_and_colour_will_do(resolution: int) -> None:
    shape = (20, resolution, resolution, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    data = ImageSet(images, np.arange(20) % 4, "noise", "train")
    got = train_classifier(TINY, data, data)
    assert got(images).shape == (20, 16 * TINY.width)
    assert got.logits(images).shape == (20, 4)


def test_a_shift_moves_whole_pixels_and_repeats_edges() -> None:
    x = torch.arange(16.0).reshape(1, 1, 4, 4).repeat(200, 1, 1, 1)
    moved = _shifted(x, 1, torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(x[:1], (1, 1, 1, 1), mode="replicate")[0, 0]
    allowed = {
        tuple(padded[i : i + 4, j : j + 4].ravel().tolist()) for i in range(3) for j in range(3)
    }
    assert {tuple(image.ravel().tolist()) for image in moved} == allowed


def test_sets_without_labels_are_refused(digits: tuple[ImageSet, ImageSet]) -> None:
    with pytest.raises(ValueError, match="digits test has no labels"):
        train_classifier(TINY, digits[0], replace(digits[1], labels=None))


def test_bytes_that_are_no_classifier_are_refused() -> None:
    with pytest.raises(ValueError, match="no stored classifier"):
        ClassifierFeatures.from_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00nonsense")


def test_images_of_another_shape_are_refused(classifier: ClassifierFeatures) -> None:
    with pytest.raises(ValueError, match="8, 8, 1"):
        classifier(np.zeros((2, 9, 9, 1), np.uint8))
    with pytest.raises(ValueError, match="uint8"):
        classifier(np.zeros((2, 8, 8, 1), np.float32))  # type: ignore[arg-type]


def test_pixel_features_are_the_pixels() -> None:
    images = np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3)
    extractor = PixelFeatures(2, 2, 3)
    assert extractor.dim == 12
    expected = images.reshape(2, 12).astype(np.float32) / np.float32(255)
    assert np.array_equal(extractor(images), expected)
    assert not extractor.has_classes
    with pytest.raises(ValueError, match="786432 pixel values, whose covariance fills memory"):
        PixelFeatures(512, 512, 3)
