"""What tuning can be asked for: which samplers at how many network calls, and the proof."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import Field

from ddim_core.common.checks import MOST_IMAGES, MOST_STEPS, require_at_least
from ddim_core.common.digest import digest
from ddim_core.common.redaction import redacted
from ddim_core.safe_files.weight_names import TENSORS
from ddim_core.samplers.name import parse_sampler
from ddim_core.tuning.tunable import require_tunable
from flows.requests.flat import Without, values
from flows.requests.grid import NOT_SCORED, GridRequest
from flows.requests.images import (
    NONE,
    PREVIOUS,
    ImageChoice,
    Machine,
    ScoreChoice,
    VerdictChoice,
)
from flows.requests.models import CheckpointChoice, Toy
from flows.requests.samplers.choice import LEAST_IMAGES, DtypeChoice, SamplerChoice, Seed
from flows.requests.samplers.guidance import apart

DDIM, AS_EULER = "ddim", "euler?timestep_spacing=leading"
"""DDIM of diffusers takes no list; with eta = 0 its steps are Euler's (Song et al. 2021,
arXiv:2010.02502, eq. 14), which takes one."""
ENDS, FID = "ends", "fid"  # distances
SEARCH = "search"
FAMILY = "family"


@dataclass(frozen=True)
class TuneChoice:
    """What is tuned."""

    samplers: Annotated[
        tuple[str, ...],
        Field(
            examples=[["dpmpp_2m", "ddim"]],
            description="Deterministic samplers, as dpmpp_2m,ddim; empty is dpmpp_2m, of a flow "
            "unipc and flow_euler. Its scheduler must take timesteps or sigmas; ddim is tuned as "
            "euler, which does the same steps and takes them.",
        ),
    ] = ()
    calls: Annotated[
        tuple[Annotated[int, Field(ge=1, le=100)], ...],
        Field(min_length=1, description="Numbers of network calls an image, without guidance."),
    ] = (4, 8)
    guidance: Annotated[
        tuple[float, ...],
        Field(min_length=1, description="Scales of classifier-free guidance; each has its list."),
    ] = (1.0,)
    guidance_interval: Annotated[
        tuple[float | Literal["search"], ...],
        Field(
            description="Guidance only at noise levels from LOW to HIGH, as of a grid, whose cells "
            "have it too; or `search`, which finds them by FID. Empty: at all."
        ),
    ] = ()
    tuning_images: Annotated[
        int | None,
        Field(
            ge=2,
            le=10_000,
            description="Images to tune on, and as many fresh ones to judge on; empty takes 128, "
            "by FID 512, or twice the features where these are more.",
        ),
    ] = None
    tuning_prompts: Annotated[
        str,
        Field(
            description="Prompts to tune and judge on, as `prompts`; empty deals out those: half "
            "are scored, of the others half are tuned on."
        ),
    ] = ""
    known: Annotated[
        tuple[str, ...],
        Field(
            description="Lists found on other checkpoints, as dpmpp_2m?timesteps=[...], or "
            "`previous` for those of the other checkpoint that was scored with any last: do they "
            "serve here? The search looks at them too."
        ),
    ] = ()
    distance: Annotated[
        Literal["ends", "features", "fid"],
        Field(
            description="What is made small: how far a short run is from the long one, by its ends "
            "(pixels, or a latent model's latents) or features (of `features`, which takes "
            "longer); or fid, the FID to the real images, on noise that no cell uses."
        ),
    ] = "ends"
    search: Annotated[
        Literal["list", "family"],
        Field(
            description="What is searched: list (each position by itself, after the family), or "
            "family (two ends and rho alone: a fifth of the candidates, for large models)."
        ),
    ] = "list"
    dtype: DtypeChoice = "float32"
    budget: Annotated[
        int,
        Field(
            ge=1,
            le=10**7,
            description="Most network calls on an image for one setting, over all candidates.",
        ),
    ] = 4000
    long_steps: Annotated[
        int | None,
        Field(
            ge=2,
            le=MOST_STEPS,
            description="Steps of the long run; empty doubles them until that moves little.",
        ),
    ] = None
    seed: Seed = 0


@dataclass(frozen=True)
class ProofChoice:
    """The proof."""

    n_images: Annotated[
        int,
        Field(
            ge=0,
            le=MOST_IMAGES,
            description="Images per cell of the grid that scores what was found; 0 leaves it out.",
        ),
    ] = 2048
    stock: Annotated[
        tuple[str, ...],
        Field(
            description="Samplers to compare with; empty is ddim (own of a flow, and where only a "
            "pipeline draws) and those tuned."
        ),
    ] = ()
    stock_steps: Annotated[
        tuple[int, ...], Field(description="Their S, besides those of the calls tuned for.")
    ] = (10, 20)
    margin: Annotated[
        float,
        Field(ge=0.0, le=1e6, description="A difference of FID that does not count."),
    ] = 0.1
    shard_size: Annotated[
        int,
        Field(
            ge=LEAST_IMAGES, le=MOST_IMAGES, description="Images per unit of work and of caching."
        ),
    ] = SamplerChoice.shard_size


@dataclass(frozen=True, kw_only=True)
class TuneRequest:
    """What is tuned, and how it is proven.

    Raises:
        ValueError: On construction, for the first parameter that cannot be, with its value.
    """

    model: Annotated[CheckpointChoice, Without(("guide",))]
    toy: Toy
    real: ImageChoice
    tune: TuneChoice
    proof: ProofChoice
    scores: Annotated[ScoreChoice, Without(("matrix_images",))]
    machine: Machine

    def __post_init__(self) -> None:
        if self.proof.n_images:
            require_at_least("n_images", self.proof.n_images, LEAST_IMAGES)
        for text in self.samplers:
            require_tunable(parse_sampler(text))
        for text in self.known:
            if text != PREVIOUS and parse_sampler(text).n_listed is None:
                raise ValueError(f"known has {text!r}, which lists no timesteps and no sigmas")
        if self.tune.tuning_prompts and not self.model.checkpoint:
            raise ValueError(
                f"tuning_prompts is {self.tune.tuning_prompts!r}; the toy model is told of no text"
            )
        if self.searches_interval and self.tune.distance != FID:
            raise ValueError(
                f"guidance_interval is {SEARCH}, and distance {self.tune.distance}: how far a run "
                "ends from one that is guided at all levels does not tell where guidance helps; "
                f"take distance {FID}"
            )
        if self.searches_interval and all(scale == 1.0 for scale in self.tune.guidance):
            raise ValueError(
                f"guidance_interval is {SEARCH}, and guidance is 1, which is none; give another "
                "scale"
            )
        encoded = [self.model.prompts.endswith(TENSORS), self.tune.tuning_prompts.endswith(TENSORS)]
        if self.tune.tuning_prompts and encoded[0] != encoded[1]:
            raise ValueError(
                f"prompts is {self.model.prompts!r} and tuning_prompts "
                f"{self.tune.tuning_prompts!r}; give both encoded ({TENSORS}), or both as text"
            )
        most = max(self.tune.calls)
        if self.tune.budget < most:
            raise ValueError(
                f"budget is {self.tune.budget} network calls an image; one candidate of {most} "
                f"calls takes {most}"
            )
        if self.tune.long_steps is not None and self.tune.long_steps <= most:
            raise ValueError(
                f"long_steps is {self.tune.long_steps}, and calls is {most}: a run is held against "
                "one of more steps; give more"
            )
        object.__setattr__(self, "real", self.grid(()).real)  # settled, and refused if it cannot be

    def tuning_images(self, n_features: int | None) -> int:
        """Returns how many images are tuned on; n_features are those of an FID, None of none."""
        return self.tune.tuning_images or (128 if n_features is None else max(512, 2 * n_features))

    @property
    def searches_interval(self) -> bool:
        """Whether the noise levels between which runs are guided are searched."""
        return self.tune.guidance_interval == (SEARCH,)

    @property
    def interval(self) -> tuple[float, ...]:
        """The noise levels that are given; empty where none are, or they are searched."""
        given = self.tune.guidance_interval
        if self.searches_interval:
            return ()
        if any(isinstance(level, str) for level in given):
            raise ValueError(f"guidance_interval is {','.join(map(str, given))}; give LOW,HIGH or "
                             f"{SEARCH} alone")  # fmt: skip
        return tuple(map(float, given))

    @property
    def samplers(self) -> tuple[str, ...]:
        """Those named, as they are searched."""
        named = [AS_EULER if text.strip() == DDIM else text for text in self.tune.samplers]
        return tuple(dict.fromkeys(parse_sampler(text).text for text in named))

    @property
    def known(self) -> tuple[str, ...]:
        """Lists found elsewhere, each in its one spelling and without a guidance of its own; or the
        word `previous`."""
        lists = (text if text == PREVIOUS else apart(text)[0] for text in self.tune.known)
        named = [text if text == PREVIOUS else parse_sampler(text).text for text in lists]
        return tuple(dict.fromkeys(named))

    def identity(self, content: str) -> str:
        """Returns the digest of what is tuned, whatever the checkpoint and wherever it is done.

        Args:
            content: The data set's content digest (`tasks.images.prepare.content_of`).
        """
        asked = {name: value for name, value in values(self).items()
                 if name not in {*values(self.machine), *NOT_SCORED}}  # fmt: skip
        later = {"image_scores": (), "search": "list", "guidance_interval": ()}
        for name, usual in later.items():  # as before there were any
            if asked[name] == usual:
                del asked[name]
        if self.tune.distance != FID:
            asked["tuning_images"] = self.tuning_images(None)
        return digest("tune", asked | self.machine.counts, content, self.scores.weights_content)

    def grid(
        self, tuned: tuple[str, ...], stock: tuple[str, ...] = (), prompts: str = ""
    ) -> GridRequest:
        """Returns the grid that scores tuned settings beside stock ones.

        Args:
            tuned: Samplers with their lists, each at its guidance.
            stock: Those to compare with, where the request names none.
            prompts: File of the prompts of its cells, instead of the request's.
        """
        model = replace(self.model, prompts=prompts) if prompts else self.model
        listed = [parse_sampler(apart(text)[0]).n_listed or 1 for text in tuned]
        choice = SamplerChoice(
            steps=tuple(sorted({*self.tune.calls, *self.proof.stock_steps, *listed})),
            samplers=(*(self.proof.stock or stock), *tuned),
            etas=(0.0,),
            sigma_hat=False,
            guidance=self.tune.guidance,
            guidance_interval=self.interval,
            dtype=self.tune.dtype,
            n_images=self.proof.n_images or LEAST_IMAGES,
            seed=self.tune.seed,
            shard_size=self.proof.shard_size,
        )
        return GridRequest(
            model=model, toy=self.toy, real=self.real, grid=choice, scores=self.scores,
            machine=self.machine, verdict=VerdictChoice(against=NONE),
        )  # fmt: skip

    @property
    def line(self) -> str:
        """What is about to be done, for people."""
        of = redacted(self.model.checkpoint) or "the toy model that is trained first"
        names = ", ".join(self.tune.samplers) or "the usual samplers"
        calls = ", ".join(map(str, self.tune.calls))
        return f"tune: {names} at {calls} network calls, of {of}"
