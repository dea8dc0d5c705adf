"""The scorecard's measures, and the ill LoRAs it must tell from good ones, planted as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache

import numpy as np
import pytest
from accelerate import init_empty_weights
from numpy.typing import NDArray

from ddim_core.lora.scoring.likeness import ThumbnailFeatures
from ddim_core.lora.scoring.measures import MEANINGS, Knowledge, take_measures
from ddim_core.lora.scoring.scorecard import (
    Measure,
    best_correlation,
    change,
    copied,
    drift,
    frechet_measure,
    groups_of,
    likeness,
    mean_measure,
    nearest,
    nearest_others,
    share_measure,
    spread_within,
)
from ddim_core.lora.scoring.specs import PromptSet, require_scales
from ddim_core.networks.building import LOADING
from ddim_core.text2image.drawings import LOOKS
from ddim_core.text2image.embedded import embedded_judge
from ddim_core.text2image.judge import (
    EmojiJudge,
    asked_in,
    expected_of,
    random_views,
    train_judge,
)
from ddim_core.text2image.scenes import (
    BACKGROUNDS,
    SUBJECTS,
    Scene,
    draw_all,
    held_out_subjects,
    other_views,
    style_scenes,
    subject_scenes,
)
from ddim_core.text2image.specs import JudgeSpec

SIDE = 32
PER_PROMPT = 2
Images = NDArray[np.uint8]


@cache
def judge() -> EmojiJudge:
    place = embedded_judge()
    assert place is not None
    return EmojiJudge.from_bytes(place.read_bytes())


def views(scenes: Sequence[Scene], seed: int) -> Images:
    """Two pictures of every scene as a good model draws them: moved a little, not quite clean."""
    stream = np.random.default_rng(seed)
    moved = [
        Scene(s.subject, s.background, s.style, size=float(stream.uniform(0.88, 1.0)),
              shift=(float(stream.uniform(-0.05, 0.05)), float(stream.uniform(-0.05, 0.05))))
        for s in scenes
        for _ in range(PER_PROMPT)
    ]  # fmt: skip
    noise = stream.normal(0.0, 12.0, (len(moved), SIDE, SIDE, 3))
    return np.clip(draw_all(moved, SIDE) + noise, 0, 255).astype(np.uint8)


def asked_scenes(style: str) -> list[Scene]:
    """One scene for each of 19 held-out subjects, in one style."""
    colours = ("red", "green", "blue", "white")
    names = held_out_subjects()[::2]
    return [Scene(s, colours[i % 4], style) for i, s in enumerate(names)]  # type: ignore[arg-type]


def texts() -> list[str]:
    return [s.caption() for s in asked_scenes("twemoji") for _ in range(PER_PROMPT)]


def style_knowledge() -> Knowledge:
    def drawings(style: str) -> Images:
        return draw_all(
            [Scene(s.subject, b, style)  # type: ignore[arg-type]
             for s in asked_scenes(style) for b in ("red", "green", "blue", "white", "black")],
            SIDE,
        )  # fmt: skip

    return Knowledge(
        extractor=judge(),
        training=draw_all(style_scenes(), SIDE),
        real=drawings("openmoji"),
        style=drawings("openmoji"),
        base=drawings("twemoji"),
        asked=asked_in(texts()),
    )


def style_measures(pictures: Images) -> dict[str, Measure]:
    return take_measures(pictures, views(asked_scenes("twemoji"), 0), texts(), style_knowledge())


@cache
def base_and_good() -> tuple[dict[str, Measure], dict[str, Measure]]:
    """A base in the old style, and a LoRA that draws the new one."""
    return (
        style_measures(views(asked_scenes("twemoji"), 0)),
        style_measures(views(asked_scenes("openmoji"), 1)),
    )


def moved(name: str, after: dict[str, Measure], before: dict[str, Measure]) -> tuple[float, float]:
    found = change(after[name], before[name])
    assert found is not None
    return found.low, found.high


def test_a_good_style_lora_comes_nearer_to_the_style_and_leaves_the_base() -> None:
    base, good = base_and_good()
    assert moved("style_distance", good, base)[1] < 0.0
    assert moved("base_distance", good, base)[0] > 0.0
    assert moved("style_probability", good, base)[0] > 0.5


def test_a_lora_of_shuffled_captions_draws_the_style_but_not_what_was_asked() -> None:
    base, good = base_and_good()
    scenes = asked_scenes("openmoji")
    shuffled = style_measures(views([*scenes[5:], *scenes[:5]], 2))
    assert shuffled["style_probability"].value > 0.5
    assert moved("asked_subject", shuffled, good)[1] < -0.5
    assert moved("asked_subject", shuffled, base)[1] < -0.3


def test_a_lora_of_noise_is_further_from_the_style_than_the_base_was() -> None:
    base, good = base_and_good()
    noise = np.random.default_rng(3).integers(0, 256, (len(texts()), SIDE, SIDE, 3))
    of_noise = style_measures(noise.astype(np.uint8))
    assert moved("style_distance", of_noise, good)[0] > 0.0
    assert moved("style_distance", of_noise, base)[0] > 0.0
    assert moved("asked_subject", of_noise, base)[1] < -0.2


def test_memorised_training_images_raise_the_copy_risk() -> None:
    base, good = base_and_good()
    training = draw_all(style_scenes(), SIDE)
    learnt_by_heart = style_measures(training[np.arange(len(texts())) * 3 % len(training)])
    for space in ("features", "pixels"):
        name = f"copy_risk_{space}"
        assert learnt_by_heart[name].low is not None
        assert learnt_by_heart[name].low > 0.8
        assert moved(name, learnt_by_heart, base)[0] > 0.5
        assert good[name].value < 0.2
    assert learnt_by_heart["nearest_pixels"].value < 1e-6


def test_collapse_lowers_the_diversity() -> None:
    base, good = base_and_good()
    collapsed = np.repeat(views(asked_scenes("openmoji"), 1)[::PER_PROMPT], PER_PROMPT, axis=0)
    measures = style_measures(collapsed)
    assert measures["diversity"].value == pytest.approx(0.0, abs=1e-5)
    assert moved("diversity", measures, good)[1] < 0.0
    assert moved("diversity", measures, base)[1] < 0.0


def test_a_lora_without_prior_preservation_drifts_more_than_one_with_it() -> None:
    """Without, the class prompt gives the new subject; with it, the class a little changed."""
    horses = [Scene("horse", b) for b in BACKGROUNDS]
    prompts = [s.caption() for s in horses for _ in range(PER_PROMPT)]
    known = Knowledge(
        extractor=judge(),
        training=draw_all(subject_scenes(), SIDE),
        asked=asked_in(prompts),
        prior=True,
    )
    before = views(horses, 0)
    jitter = np.random.default_rng(1).integers(-8, 9, before.shape)
    kept = np.clip(before.astype(int) + jitter, 0, 255).astype(np.uint8)
    lost = views([Scene("unicorn", s.background) for s in horses], 0)
    base, with_prior, without = (
        take_measures(x, before, prompts, known) for x in (before, kept, lost)
    )
    assert base["prior_drift"].value == 0.0
    assert with_prior["prior_drift"].value < 1.0 < without["prior_drift"].value
    assert moved("prior_drift", without, with_prior)[0] > 0.0
    assert moved("asked_subject", without, with_prior)[1] < -0.2
    assert "copy_risk_pixels" not in base  # class pictures may look like anything


def test_a_learnt_subject_raises_its_likeness_and_correlation() -> None:
    colours = list(BACKGROUNDS)
    prompts = [f"a sks horse emoji on a {b} background" for b in colours for _ in range(PER_PROMPT)]
    views_of = draw_all(subject_scenes(), SIDE)
    known = Knowledge(
        extractor=judge(),
        training=views_of,
        real=draw_all(other_views(), SIDE),
        subject=views_of,
        asked=asked_in(prompts, {"sks horse": "unicorn"}),
    )
    before = views([Scene("horse", b) for b in colours], 0)
    after = views([Scene("unicorn", b) for b in colours], 0)
    base, learnt = (take_measures(x, before, prompts, known) for x in (before, after))
    for name in ("subject_likeness", "subject_correlation", "asked_subject"):
        assert moved(name, learnt, base)[0] > 0.0, name


def test_measures_are_named_with_their_meaning() -> None:
    base, _ = base_and_good()
    assert list(base) == [name for name in MEANINGS if name in base]


def test_the_judge_knows_unseen_views_of_real_drawings_in_many_hands() -> None:
    scenes = random_views(1, np.random.default_rng(7))[::9]
    assert {"twemoji", "openmoji", *LOOKS} == {scene.style for scene in scenes}
    asked = expected_of(scenes)
    del asked["style"]
    found = judge().answers(draw_all(scenes, SIDE), asked)
    assert found["subject"].mean() == pytest.approx(judge().about.accuracy["subject"], abs=0.03)
    assert found["background"].mean() > 0.98
    two = [scene for scene in scenes if not scene.is_by_other_hand]
    styles = judge().answers(draw_all(two, SIDE), {"style": [scene.style for scene in two]})
    assert styles["style"].mean() > 0.98
    learnt = train_judge(JudgeSpec(views=1, steps=60)).about
    assert learnt.n_test == len(random_views(1, np.random.default_rng(7)))
    assert learnt.accuracy["background"] > 0.5


def test_a_stored_judge_answers_as_the_trained_one() -> None:
    again = EmojiJudge.from_bytes(judge().to_bytes())
    scenes = style_scenes()[:20]
    images = draw_all(scenes, SIDE)
    assert again.digest == judge().digest
    np.testing.assert_array_equal(again(images), judge()(images))
    assert again.answers(images, expected_of(scenes))["subject"].mean() > 0.7
    whole = judge().to_bytes()
    for damaged in (b"", whole[:5], whole[: len(whole) // 2], whole[:-1]):
        with pytest.raises(ValueError, match=f"{len(damaged)} bytes are no stored judge"):
            EmojiJudge.from_bytes(damaged)


def test_a_judge_is_not_built_while_another_thread_opens_a_pipeline() -> None:
    """accelerate's context is what diffusers opens a part of a pipeline in; it is not of one thread
    alone, and layers made meanwhile would have no memory."""
    content = judge().to_bytes()
    with ThreadPoolExecutor(2) as pool:
        with LOADING, init_empty_weights():
            trained = pool.submit(train_judge, JudgeSpec(views=1, steps=1))
            stored = pool.submit(EmojiJudge.from_bytes, content)
            assert not wait([stored], timeout=1.0).done
        for found in (trained.result().network, stored.result().network):
            assert {p.device.type for p in found.parameters()} == {"cpu"}


def test_words_of_prompts_are_understood_and_unknown_ones_give_nothing() -> None:
    found = asked_in(["an emoji of a panda, blue background", "owl on orange"])
    assert found == {"subject": ["panda", "owl"], "background": ["blue", "orange"]}
    assert asked_in(["a photo of a cat"]) is None
    assert asked_in(["a panda and a cat on blue"]) is None
    aliased = asked_in(["a sks horse emoji on a red background"], {"sks horse": "unicorn"})
    assert aliased == {"subject": ["unicorn"], "background": ["red"]}


def test_every_drawing_has_every_style() -> None:
    for style in ("twemoji", "openmoji"):
        images = draw_all([Scene(s, "white", style) for s in SUBJECTS], SIDE)  # type: ignore[arg-type]
        assert (images.reshape(len(images), -1).std(axis=1) > 15).all()  # none came out blank
    assert len(set(held_out_subjects()) & {s.subject for s in style_scenes()}) == 0


def test_intervals_of_means_have_their_level() -> None:
    """The 95 % interval of a mean over 24 prompts of 2 alike pictures misses 5 % of the time.

    600 draws: five standard errors are 4.4 %.
    """
    stream = np.random.default_rng(0)
    prompts = [f"prompt {i}" for i in range(24) for _ in range(2)]
    groups = groups_of(prompts)
    missed = 0
    for _ in range(600):
        values = np.repeat(stream.normal(size=24), 2) + 0.1 * stream.normal(size=48)
        found = mean_measure(values, groups)
        assert found.low is not None
        assert found.high is not None
        missed += not found.low <= 0.0 <= found.high
    assert abs(missed / 600 - 0.05) < 0.045


def test_paired_change_is_tighter_than_two_intervals() -> None:
    stream = np.random.default_rng(1)
    groups = groups_of([f"prompt {i}" for i in range(30)])
    shared = stream.normal(size=30)
    before = mean_measure(shared, groups)
    after = mean_measure(shared + 0.2 + 0.05 * stream.normal(size=30), groups)
    found = change(after, before)
    assert found is not None
    assert found.low > 0.0
    assert before.high is not None
    assert before.high > after.value


def test_a_share_of_all_or_none_still_has_an_interval() -> None:
    groups = groups_of([f"prompt {i}" for i in range(20)])
    found = share_measure(np.ones(20), groups)
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(0.839, abs=1e-3)  # Wilson, 20 of 20


def test_one_group_has_no_interval() -> None:
    only = mean_measure([1.0], groups_of(["a"]))
    assert (only.low, only.high, change(only, only)) == (None, None, None)


def test_prompts_stay_together_in_a_group() -> None:
    prompts = [f"prompt {i}" for i in range(40) for _ in range(3)]
    groups = groups_of(prompts)
    assert len(set(groups)) == 24
    assert all(len(set(groups[i : i + 3])) == 1 for i in range(0, 120, 3))
    assert len(set(groups_of(["a", "a", "b", "b"]))) == 4


def test_drift_of_another_draw_is_one() -> None:
    features = np.random.default_rng(0).normal(size=(4000, 16)).astype(np.float32)
    other = np.random.default_rng(1).normal(size=(4000, 16)).astype(np.float32)
    prompts = [f"prompt {i}" for i in range(1000) for _ in range(4)]
    # 4,000 distances that differ by about 18 % each: five standard errors are 1.5 %.
    assert drift(other, features, prompts).mean() == pytest.approx(1.0, abs=0.015)


def test_spread_and_nearest_agree_with_plain_loops() -> None:
    stream = np.random.default_rng(2)
    x = stream.normal(size=(6, 5)).astype(np.float32)
    prompts = ["a", "b", "a", "a", "b", "b"]
    spread = spread_within(x, prompts)
    expected = np.mean([np.linalg.norm(x[0] - x[2]), np.linalg.norm(x[0] - x[3])])
    assert spread[0] == pytest.approx(expected, rel=1e-6)  # float32 features
    training = stream.normal(size=(7, 5))
    loop = [min(np.linalg.norm(row - other) for other in training) for row in x]
    np.testing.assert_allclose(nearest(x, training), loop, rtol=1e-6)
    others = nearest_others(training)
    assert others[3] == pytest.approx(
        min(np.linalg.norm(training[3] - training[i]) for i in range(7) if i != 3)
    )


def test_unseen_real_images_are_called_copied_one_time_in_twenty() -> None:
    stream = np.random.default_rng(3)
    training, held_out, fresh = (stream.normal(size=(n, 8)) for n in (300, 1000, 1000))
    share = copied(nearest(fresh, training), nearest(held_out, training)).mean()
    assert share == pytest.approx(0.05, abs=0.05)  # five errors of two samples of 1,000
    assert copied(nearest(training, training), nearest(held_out, training)).mean() == 1.0


def test_likeness_is_the_mean_cosine_and_correlation_the_best() -> None:
    a = np.array([[1.0, 0.0]], dtype=np.float32)
    subject = np.array([[1.0, 0.0], [0.0, 1.0]], dtype=np.float32)
    assert likeness(a, subject)[0] == pytest.approx(0.5)
    image = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3)).astype(np.uint8)
    assert best_correlation(image[:1], image)[0] == pytest.approx(1.0)
    assert best_correlation(255 - image[:1], image[:1])[0] == pytest.approx(1.0)  # same edges
    assert best_correlation(image[:1], image[1:])[0] < 0.9


def test_what_cannot_be_measured_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match="1 picture; diversity needs at least 2"):
        spread_within(np.ones((2, 3), np.float32), ["a", "b"])
    with pytest.raises(ValueError, match="not finite"):
        mean_measure([1.0, float("nan")], np.arange(2))
    with pytest.raises(ValueError, match="1 training image"):
        nearest_others(np.ones((1, 3)))
    with pytest.raises(ValueError, match="a scale is -1"):
        require_scales((0.0, -1.0))
    with pytest.raises(ValueError, match="prompts is empty"):
        PromptSet("trained", ())
    assert require_scales((1.0, 0.5, 1.0)) == (0.0, 0.5, 1.0)


def test_no_picture_of_a_prompt_set_shares_its_noise_with_another() -> None:
    asked = PromptSet("trained", ("a", "b"), per_prompt=3, seed=7)
    other = PromptSet("trained", ("a", "b"), per_prompt=3, seed=8)
    assert len({*asked.seeds, *other.seeds}) == 12
    assert asked.texts == ["a", "a", "a", "b", "b", "b"]


def test_frechet_distance_of_few_pictures_has_a_value_and_no_interval() -> None:
    x = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    from ddim_core.scores.distances.frechet import Reference
    from ddim_core.statistics.moments import FeatureMoments

    reference = Reference.of(FeatureMoments.from_features(x))
    found = frechet_measure(x, reference, np.arange(2))
    assert found.value == pytest.approx(0.0, abs=1e-6)
    assert found.low is None


def test_copies_are_found_where_held_out_or_training_images_repeat() -> None:
    """Each picture is a training image. A training image among the held-out ones, or given twice,
    would put the 5 % quantile of real distances at 0, below which nothing lies."""
    stream = np.random.default_rng(0)

    def noise(n: int) -> np.ndarray:
        return stream.integers(0, 256, (n, 8, 8, 3)).astype(np.uint8)

    training, fresh = noise(20), noise(18)
    prompts = [f"prompt {i}" for i in range(20)]
    pictures = np.maximum(training, 1)
    for given, real in (
        (training, np.concatenate([fresh, training[:2]])),
        (np.concatenate([training, np.minimum(training[:3], 254)]), None),
    ):
        known = Knowledge(ThumbnailFeatures(), given, real, style=training)
        found = take_measures(pictures, noise(20), prompts, known)
        for name in ("copies", "copy_risk_features", "copy_risk_pixels"):
            assert found[name].value == 1.0, name
    known = Knowledge(ThumbnailFeatures(), training, training[:2], style=training)
    with pytest.raises(ValueError, match="all held-out images are training images"):
        take_measures(pictures, noise(20), prompts, known)
