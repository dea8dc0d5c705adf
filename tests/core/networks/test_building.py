"""Seeds hold where threads share torch's global stream."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from ddim_core.features.classifier import train_classifier
from ddim_core.images.load import load_images
from ddim_core.networks.denoisers import toy_unet
from ddim_core.networks.specs import ClassifierSpec, ToyModelSpec

SPEC = ClassifierSpec(steps=20, batch_size=16, width=8)


def classifier() -> bytes:
    train, test = load_images("digits", "train"), load_images("digits", "test")
    return train_classifier(SPEC, train, test).to_bytes()


def unet() -> bytes:
    weights = toy_unet(ToyModelSpec(widths=(8, 16), norm_groups=4), seed=3).state_dict().values()
    return b"".join(w.numpy().tobytes() for w in weights)


def test_networks_made_side_by_side_are_those_made_alone() -> None:
    alone = [classifier(), unet()]
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(classifier)
        others = [pool.submit(unet) for _ in range(20)]
        assert first.result() == alone[0]
        assert {other.result() for other in others} == {alone[1]}
