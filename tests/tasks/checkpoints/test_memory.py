"""Networks are built one at a time, in the core and in the tasks."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait

import pytest

from ddim_core.diffusion.specs import NoiseSpec
from ddim_core.features.classifier import ClassifierFeatures, train_classifier
from ddim_core.images.load import load_images
from ddim_core.networks.building import LOADING
from ddim_core.networks.denoisers import toy_unet
from ddim_core.networks.specs import ClassifierSpec, ToyModelSpec
from ddim_core.points import model
from ddim_core.points.specs import PointModelSpec
from tasks.cells import extractor_memory
from tasks.checkpoints import memory
from tasks.storage.store import ArtifactRef

Record = namedtuple("Record", ["extractor"])
WIDTHS = ToyModelSpec(widths=(8, 16), norm_groups=4)


def test_no_two_networks_are_built_at_once_wherever_they_are_built(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One lock for the core and the tasks; the thread that holds it may build a second network."""
    point_spec, noise = PointModelSpec(), NoiseSpec()
    points = model.to_bytes(model.PointModel(point_spec, noise))
    digits = load_images("digits", "test")
    spec = ClassifierSpec(steps=1, batch_size=4, width=8)
    stored = train_classifier(spec, digits, digits).to_bytes()
    ref = ArtifactRef(artifact="a" * 64, kind="weights")
    for room in (memory, extractor_memory):
        room.forget()
        monkeypatch.setattr(room, "_opened", lambda *_: toy_unet(WIDTHS, seed=0))
    monkeypatch.setattr(extractor_memory, "record_of", lambda _: Record("any"))
    builders: list[Callable[[], object]] = [
        lambda: toy_unet(WIDTHS, seed=3),
        lambda: model.from_bytes(points, point_spec, noise),
        lambda: ClassifierFeatures.from_bytes(stored),
        lambda: memory.checkpoint_in_memory(ref),
        lambda: extractor_memory.extractor_in_memory(ref, (8, 8, 1)),
    ]
    with ThreadPoolExecutor(len(builders)) as pool:
        with LOADING:
            toy_unet(WIDTHS, seed=3)
            waiting = [pool.submit(build) for build in builders]
            assert not wait(waiting, timeout=0.5).done
        for done in waiting:
            done.result(timeout=60)
    for room in (memory, extractor_memory):
        room.forget()
