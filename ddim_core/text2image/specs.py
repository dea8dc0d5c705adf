"""What the small text-to-image base is, and how it and the judge of its pictures are trained."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field

from ddim_core.common.checks import MOST_STEPS, require_at_least, require_at_most, settle_types


@dataclass(frozen=True)
class BaseSpec:
    """A small text-to-image model.

    Attributes:
        resolution: Height and width of the images, in pixels; a multiple of 8.
        widths: Channels of the U-Net's levels.
        text_levels: How many of them, the deepest, attend to the text; the first never does.
        layers_per_block: Residual blocks per level.
        text_width: Channels of the text model.
        text_layers: Its layers.
        heads: Attention heads of both.
        vocabulary: Tokens at most, the 512 single bytes counted.
        max_tokens: Tokens of a caption, start and end counted; longer ones are cut.
        seed: Keys the initial weights.
    """

    resolution: int = 16
    widths: tuple[int, ...] = (32, 64, 80)
    text_levels: int = 2
    layers_per_block: int = 1
    text_width: int = 64
    text_layers: int = 2
    heads: int = 4
    vocabulary: int = 1024
    max_tokens: int = 16
    seed: int = 0

    @classmethod
    def of(cls, resolution: int, seed: int = 0) -> BaseSpec:
        """What suits a resolution: each doubling from 16 pixels on adds a level in front, so that a
        base may grow from one of half its resolution."""
        doublings = max(0, (resolution // cls.resolution).bit_length() - 1)
        widths = (cls.widths[0],) * doublings + cls.widths
        return cls(resolution=resolution, widths=widths, seed=seed)

    def __post_init__(self) -> None:
        require_at_least("vocabulary", self.vocabulary, 600)
        require_at_least("max_tokens", self.max_tokens, 3)
        if self.resolution % 8 or self.resolution < 8:
            raise ValueError(f"resolution is {self.resolution}; it must be a multiple of 8")
        if any(width % 8 for width in (*self.widths, self.text_width)):
            raise ValueError(
                f"widths are {self.widths} and {self.text_width}; each must be a multiple of 8"
            )


@dataclass(frozen=True)
class BaseTrainSpec:
    """How the base is trained. Its learning rate does not know the last step, so that a longer
    run goes on from a shorter one.

    Attributes:
        model: The pipeline's parts.
        steps: Optimiser steps in all.
        batch_size: Images per step.
        learning_rate: Largest rate of Adam.
        warmup_steps: Steps of linear rise.
        constant_steps: Steps from which the rate falls as 1 / sqrt(step).
        ema_decay: Largest decay of the moving average, in [0, 1).
        gradient_clip: Largest norm of the gradient.
        caption_drop: Share of captions that are emptied: the unconditional half of guidance.
        seed: Keys the initial weights, the batches, the timesteps and the noise.
        start: Digest of the base that it starts from; empty is none.
        looks: Further artists' drawings are among the pictures, and outlined ones.
    """

    model: BaseSpec = field(default_factory=BaseSpec)
    steps: int = 9900
    batch_size: int = 16
    learning_rate: float = 1e-3
    warmup_steps: int = 200
    constant_steps: int = 2000
    ema_decay: float = 0.9995
    gradient_clip: float = 1.0
    caption_drop: float = 0.1
    seed: int = 0
    start: str = ""
    looks: bool = False

    def __post_init__(self) -> None:
        settle_types(self)
        for name in ("steps", "batch_size", "constant_steps"):
            require_at_least(name, getattr(self, name), 1)
        require_at_most("steps", self.steps, MOST_STEPS)
        require_at_least("warmup_steps", self.warmup_steps, 0)
        if not 0.0 <= self.ema_decay < 1.0:
            raise ValueError(f"ema_decay is {self.ema_decay}; it must lie in [0, 1)")
        if not 0.0 <= self.caption_drop < 1.0:
            raise ValueError(f"caption_drop is {self.caption_drop}; it must lie in [0, 1)")
        if not 0.0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate is {self.learning_rate}; it must be positive")

    @property
    def but_for_steps(self) -> str:
        """What must agree for one run to go on from another: all but the number of steps."""
        return repr({name: value for name, value in asdict(self).items() if name != "steps"})


@dataclass(frozen=True)
class JudgeSpec:
    """How the judge is trained.

    Attributes:
        resolution: Of the images, in pixels.
        views: Random views of each subject and background by Twemoji and OpenMoji that it is
            trained on; of other hands it sees one.
        steps: Optimiser steps.
        batch_size: Images per step.
        learning_rate: Of the first step; it falls linearly to 0.
        width: Channels of the first convolution, a multiple of 8.
        n_features: d of the feature space that all three questions share.
        noise: Largest standard deviation of the noise added to a training image, pixels in
            [-1, 1]: what is generated is not as clean as what is drawn.
        seed: Keys the views, the weights, the batches and the noise.
    """

    resolution: int = 16
    views: int = 2
    steps: int = 2000
    batch_size: int = 128
    learning_rate: float = 3e-3
    width: int = 16
    n_features: int = 64
    noise: float = 0.15
    seed: int = 0

    def __post_init__(self) -> None:
        settle_types(self)
        for name in ("resolution", "views", "steps", "batch_size", "n_features"):
            require_at_least(name, getattr(self, name), 1)
        if self.width % 8 or self.width < 8:
            raise ValueError(f"width is {self.width}; it must be a multiple of 8 (group norms)")
