"""Models trained on cards, for which a CPU stands in: two at once, each on a card of its own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ddim_core.diffusion.specs import Execution
from ddim_core.networks.specs import ClassifierSpec, ToyModelSpec, TrainSpec
from ddim_core.text2image.specs import BaseSpec, BaseTrainSpec
from tasks.cells.extractor import train_extractor
from tasks.checkpoints import train as train_task
from tasks.checkpoints.train import train_toy
from tasks.storage import store
from tasks.storage.store import ArtifactRef
from tasks.text2image.train_base import train_text2image

CARDS = Execution(device="cpu:0,cpu:1")
MODEL = ToyModelSpec(widths=(8, 8), norm_groups=4)


def pictures() -> ArtifactRef:
    images = np.random.RandomState(0).randint(0, 256, (30, 8, 8, 1)).astype(np.uint8)
    return store.put_arrays({"images": images, "labels": np.arange(30) % 3}, "images")


def test_two_models_are_trained_at_once_and_each_is_what_it_would_be_alone() -> None:
    images = pictures()

    def trained(seed: int, steps: int = 5) -> str:
        spec = TrainSpec(MODEL, steps=steps, batch_size=8, warmup_steps=1, seed=seed)
        return train_toy.fn(spec, images, CARDS).artifact

    with ThreadPoolExecutor(2) as pool:
        at_once = list(pool.map(trained, [1, 2]))
    assert at_once == [trained(1), trained(2)]
    assert at_once[0] != at_once[1]


def test_a_model_of_a_card_has_a_state_of_its_own_beside_a_cpus() -> None:
    spec = TrainSpec(MODEL, steps=5, batch_size=8, warmup_steps=1, seed=3)
    images = pictures()
    before = train_toy.fn(spec, images, Execution()).artifact
    assert train_toy.fn(spec, images, CARDS).artifact != before  # whole batches, not halves
    assert train_toy.fn(spec, images, Execution()).artifact == before


def test_a_classifier_and_a_base_are_trained_on_a_card() -> None:
    images = pictures()
    extractor = train_extractor.fn(ClassifierSpec(steps=3), images, None, CARDS)
    assert extractor.n_classes == 3
    model = BaseSpec(resolution=8, widths=(8, 8), text_width=8, text_layers=1, heads=2)
    base = train_text2image.fn(BaseTrainSpec(model, steps=2, batch_size=2), CARDS)
    assert (store.get_folder(base) / "unet").is_dir()


def test_no_state_is_saved_of_a_training_that_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A card may be steps ahead of the last loss that was looked at: a state is saved after its own
    was."""
    saved: list[int] = []
    monkeypatch.setattr(train_task, "STEPS_PER_SAVE", 2)
    monkeypatch.setattr(train_task, "_save", lambda spec, state, path: saved.append(state.step))
    spec = TrainSpec(MODEL, steps=12, batch_size=8, warmup_steps=1, seed=9, learning_rate=1e30)
    with pytest.raises(
        ValueError, match=r"the loss is (nan|inf) at step .*lower the learning_rate"
    ):
        train_toy.fn(spec, pictures(), CARDS)
    assert saved in ([], [2])
