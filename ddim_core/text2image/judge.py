"""The judge of emoji scenes: which subject, which background, which style; and a feature space."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor, nn

from ddim_core.features.classifier import ClassifierNet
from ddim_core.features.extractor import require_images
from ddim_core.images.pixels import from_uint8
from ddim_core.networks.batches import in_fixed_batches
from ddim_core.networks.building import LOADING, seeded_weights
from ddim_core.text2image.scenes import (
    BACKGROUNDS,
    NEW_SUBJECT,
    SUBJECTS,
    Scene,
    draw_all,
    other_hands,
)
from ddim_core.text2image.specs import JudgeSpec

BATCH = 64
HEADER = "emoji-judge"
UNASKED = -100  # what cross_entropy leaves out
CLASSES: dict[str, tuple[str, ...]] = {
    "subject": (*SUBJECTS, NEW_SUBJECT),
    "background": tuple(BACKGROUNDS),
    "style": ("twemoji", "openmoji"),
}


class JudgeNet(nn.Module):
    """Convolutions, d features, and the logits of the three questions side by side."""

    def __init__(self, resolution: int, width: int, n_features: int) -> None:
        super().__init__()
        self.trunk = ClassifierNet(resolution, 3, width, 1).features
        self.embed = nn.Linear(16 * width, n_features)
        self.head = nn.Linear(n_features, sum(map(len, CLASSES.values())))

    def features(self, x: Tensor) -> Tensor:
        return nn.functional.silu(self.embed(self.trunk(x)))

    def forward(self, x: Tensor) -> Tensor:
        """Maps float images [n, 3, h, w] in [-1, 1] to logits [n, all classes]."""
        return self.head(self.features(x))


@dataclass(frozen=True)
class Training:
    """How a judge was trained, and how well it judges.

    Attributes:
        spec: How it was trained.
        accuracy: By question, the share of unseen views of real drawings that it answers rightly.
        n_test: The number of these views.
    """

    spec: JudgeSpec
    accuracy: dict[str, float] = field(default_factory=dict)
    n_test: int = 0

    def to_json(self) -> str:
        told = asdict(self)
        return json.dumps(told.pop("spec") | told, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Training:
        told = json.loads(text)
        spec = JudgeSpec(**{f.name: told.pop(f.name) for f in fields(JudgeSpec)})
        return cls(spec, **told)

    def network(self) -> JudgeNet:
        return JudgeNet(self.spec.resolution, self.spec.width, self.spec.n_features)


class EmojiJudge:
    """A trained judge; also a feature extractor.

    Args:
        network: The trained network.
        about: How it was trained, and how well it judges.
    """

    name = "emoji-judge"

    def __init__(self, network: JudgeNet, about: Training) -> None:
        self.network = network.eval().requires_grad_(False)
        self.about = about
        self.shape = (about.spec.resolution, about.spec.resolution, 3)
        self.dim = about.spec.n_features
        self.digest = hashlib.sha256(self.to_bytes()).hexdigest()

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Maps uint8 [n, h, w, 3] to features, float32 [n, d]."""
        require_images(images, self.shape)
        return in_fixed_batches(self.network.features, BATCH, from_uint8(images)).numpy()

    def probabilities(self, images: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """By question the probability of each of its `CLASSES`, float32 [n, classes]."""
        require_images(images, self.shape)
        logits = in_fixed_batches(self.network, BATCH, from_uint8(images))
        parts = logits.split([len(names) for names in CLASSES.values()], dim=1)
        return {q: part.softmax(1).numpy() for q, part in zip(CLASSES, parts, strict=True)}

    def answers(
        self, images: NDArray[np.uint8], expected: Mapping[str, Sequence[str]]
    ) -> dict[str, NDArray[np.bool_]]:
        """By question whether the likeliest class is the expected one, bool [n]."""
        probabilities = self.probabilities(images)
        return {
            question: probabilities[question].argmax(axis=1) == _indices(question, names)
            for question, names in expected.items()
        }

    def to_bytes(self) -> bytes:
        """The content of a safetensors file; what it is about is JSON in the file's header."""
        tensors = {k: v.contiguous() for k, v in self.network.state_dict().items()}
        return safetensors.torch.save(tensors, {HEADER: self.about.to_json()})

    @classmethod
    def from_bytes(cls, data: bytes) -> EmojiJudge:
        """Reads what `to_bytes` made; ValueError if it is something else."""
        length = int.from_bytes(data[:8], "little")
        try:
            about = Training.from_json(json.loads(data[8 : 8 + length])["__metadata__"][HEADER])
            with LOADING:
                network = about.network()
            network.load_state_dict(safetensors.torch.load(data))
        except (ValueError, KeyError, TypeError, SafetensorError, RuntimeError) as error:
            raise ValueError(f"{len(data)} bytes are no stored judge of emoji") from error
        return cls(network, about)


def train_judge(spec: JudgeSpec) -> EmojiJudge:
    """Trains the judge on random views of all drawings; every draw follows from the seed.

    Subjects and backgrounds are learnt from all artists' hands, since a LoRA's pictures are like
    no drawing; the style is asked of two alone.
    """
    scenes = random_views(spec.views, np.random.default_rng([spec.seed, 0]))
    unseen = random_views(1, np.random.default_rng([spec.seed, 1]))
    about = Training(spec)
    with LOADING, seeded_weights(spec.seed):
        network = about.network()
    _fit(network.train(), spec, from_uint8(draw_all(scenes, spec.resolution)), _labels(scenes))
    labels = _labels(unseen).numpy()
    found = EmojiJudge(network, about).probabilities(draw_all(unseen, spec.resolution))
    accuracy = {
        question: float((found[question].argmax(1) == asked)[asked != UNASKED].mean())
        for question, asked in zip(CLASSES, labels.T, strict=True)
    }
    return EmojiJudge(network, replace(about, accuracy=accuracy, n_test=len(unseen)))


def random_views(n: int, stream: np.random.Generator) -> list[Scene]:
    """Draws n views of every subject, background and style, and one of each of `other_hands`:
    mirrored, smaller, moved a little."""
    scenes = [
        Scene(subject, background, style)  # type: ignore[arg-type]
        for _ in range(n)
        for style in CLASSES["style"]
        for subject in CLASSES["subject"]
        for background in BACKGROUNDS
    ]
    return [
        replace(
            scene,
            mirrored=bool(stream.random() < 0.5),
            size=float(stream.uniform(0.85, 1.0)),
            shift=(float(stream.uniform(-0.06, 0.06)), float(stream.uniform(-0.06, 0.06))),
        )
        for scene in scenes + other_hands()
    ]


def expected_of(scenes: Sequence[Scene]) -> dict[str, list[str]]:
    """By question what the judge should answer for each scene."""
    return {question: [getattr(scene, question) for scene in scenes] for question in CLASSES}


def asked_in(
    prompts: Sequence[str], aliases: Mapping[str, str] | None = None
) -> dict[str, list[str]] | None:
    """By question what the words of each prompt ask for; None if some prompt names no subject.

    Args:
        prompts: Such as "a panda emoji on a blue background".
        aliases: Words that stand for a subject, such as those of an instance prompt.
    """
    found: dict[str, list[str]] = {"subject": [], "background": []}
    for prompt in prompts:
        text = prompt
        for words, subject in (aliases or {}).items():
            text = text.replace(words, subject)
        for question, names in found.items():
            named = [name for name in CLASSES[question] if re.search(rf"\b{name}\b", text)]
            if len(named) != 1:
                return None
            names.append(named[0])
    return found


def _fit(network: JudgeNet, spec: JudgeSpec, pixels: Tensor, labels: Tensor) -> None:
    stream = torch.Generator().manual_seed(spec.seed)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.01, fused=True)
    for step in range(spec.steps):
        for group in optimizer.param_groups:
            group["lr"] = spec.learning_rate * (1.0 - step / spec.steps)
        rows = torch.randint(0, len(pixels), (spec.batch_size,), generator=stream)
        spread = torch.rand((spec.batch_size, 1, 1, 1), generator=stream) * spec.noise
        x = pixels[rows] + spread * torch.randn(pixels[rows].shape, generator=stream)
        parts = network(x).split([len(names) for names in CLASSES.values()], dim=1)
        losses = [
            nn.functional.cross_entropy(logits, labels[rows, i], label_smoothing=0.05)
            for i, logits in enumerate(parts)
        ]
        optimizer.zero_grad()
        torch.stack(losses).sum().backward()
        optimizer.step()


def _labels(scenes: Sequence[Scene]) -> Tensor:
    """int64 [n, questions]; the style of other hands is not asked."""
    columns = [
        [
            UNASKED if question == "style" and scene.is_by_other_hand else names.index(asked)
            for scene, asked in zip(scenes, expected_of(scenes)[question], strict=True)
        ]
        for question, names in CLASSES.items()
    ]
    return torch.tensor(columns).T.contiguous()


def _indices(question: str, names: Sequence[str]) -> NDArray[np.int64]:
    places = {name: i for i, name in enumerate(CLASSES[question])}
    return np.array([places[name] for name in names], dtype=np.int64)
