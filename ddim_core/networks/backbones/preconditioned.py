"""Networks of EDM's code as one family: called and sampled as diffusers' EDM schedulers have it.

    D(x, sigma) = c_skip x + c_out F(c_in x, c_noise)

Source: Karras et al. 2022 (arXiv:2206.00364), table 1. Diffusers' schedulers have its last column,
with r = sqrt(sigma^2 + s_d^2): c_skip = (s_d / r)^2, c_out = sigma s_d / r, c_in = 1 / r, c_noise =
log(sigma) / 4. A network of another column is made to answer the F that gives its own D there; s_d
is free then, and is EDM's 0.5.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ddim_core.common.foreign import Config
from ddim_core.networks.backbones.edm import DhariwalUNet, SongUNet
from ddim_core.networks.backbones.edm2 import EDM2UNet

CLASS_NAME = "EDMUNet"
MOST_LAYERS = 512  # of a network: its levels times the blocks of each
MOST_PLACES = 2**14  # that attend to each other
NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "SongUNet": SongUNet, "DhariwalUNet": DhariwalUNet, "UNet": EDM2UNet,
}  # fmt: skip
TELL_NOISE = ("freqs", "phases", "u")
OWN = ("EDMPrecond", "Precond")  # of EDM and EDM2: the column that diffusers' schedulers have


@dataclass(frozen=True)
class Column:
    """Another column of table 1 there: D = x + c_out F(c_in x, c_noise).

    Attributes:
        told: c_noise, of sigma [n], the constants and, of iDDPM, the noise levels that it knows.
        sign: Of sigma in c_out.
        scales: Whether c_in is 1 / sqrt(sigma^2 + 1), or 1.
        rounds: Whether it knows some noise levels only, and answers a variance besides.
    """

    told: Callable[[Tensor, Mapping[str, Any], Tensor | None], Tensor]
    sign: float
    scales: bool = True
    rounds: bool = False


def _vp(sigma: Tensor, constants: Mapping[str, Any], _levels: Tensor | None) -> Tensor:
    """(M - 1) t, where sigma^2 + 1 = exp(beta_d t^2 / 2 + beta_min t)."""
    beta_d, beta_min = constants["beta_d"], constants["beta_min"]
    root: Tensor = (beta_min**2 + 2.0 * beta_d * (1.0 + sigma**2).log()).sqrt()
    return (constants["M"] - 1) * (root - beta_min) / beta_d


def _ve(sigma: Tensor, _constants: Mapping[str, Any], _levels: Tensor | None) -> Tensor:
    return (0.5 * sigma).log()


def _iddpm(sigma: Tensor, constants: Mapping[str, Any], levels: Tensor | None) -> Tensor:
    """M - 1 - j, where u_j is the level nearest to sigma."""
    assert levels is not None
    nearest = (sigma[:, None] - levels).abs().argmin(1)
    told: Tensor = constants["M"] - 1 - nearest.to(sigma.dtype)
    return told


COLUMNS = {
    "VPPrecond": Column(_vp, -1.0),
    "VEPrecond": Column(_ve, 1.0, scales=False),
    "iDDPMPrecond": Column(_iddpm, -1.0, rounds=True),
}
"""By the class in NVlabs' code."""


class EDMUNet(nn.Module):
    """One of the networks, with its preconditioning.

    Args:
        config: `network`, a name in NETWORKS, and its `arguments`; `preconditioning`, in OWN or
            COLUMNS, and its `constants`; `sample_size`, `in_channels`, `out_channels`,
            `num_class_embeds` (one more than there are classes where the last is no class).

    Raises:
        ValueError: If it asks for absurdly many layers, or attends to too many places.
        KeyError: If it is of no such network.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config, self.constants = config, config["constants"]
        arguments, kind = config["arguments"], config["preconditioning"]
        _require_few(config["sample_size"], arguments)
        self.column = None if kind in OWN else COLUMNS[kind]
        rounds = self.column is not None and self.column.rounds
        self.n_classes = int(arguments["label_dim"])
        self.model = NETWORKS[config["network"]](
            img_resolution=config["sample_size"], in_channels=config["in_channels"],
            out_channels=config["out_channels"] * (2 if rounds else 1), **arguments,
        )  # fmt: skip
        self.u: Tensor | None
        self.register_buffer("u", torch.empty(self.constants["M"] + 1) if rounds else None)

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        class_labels: Tensor | None = None,
        return_dict: bool = False,
    ) -> tuple[Tensor]:
        """Answers F for c_in x [n, c, h, w] at log(sigma) / 4, [n]; classes int64 [n], or none."""
        classes = sample.new_zeros(len(sample), self.n_classes)
        if class_labels is not None:
            numbers = torch.arange(self.n_classes, device=sample.device)
            classes = (class_labels[:, None] == numbers).to(sample.dtype)
        wide = torch.promote_types(sample.dtype, torch.float32)
        told = timestep.to(wide).expand(len(sample))
        if self.column is None:
            return (self.model(sample, told, classes),)
        data, sigma = self.constants["sigma_data"], (4.0 * told).exp()
        level = sigma[:, None, None, None]
        scale = (level**2 + data**2).sqrt()
        c_in = 1.0 / (level**2 + 1.0).sqrt() if self.column.scales else 1.0
        told = self.column.told(sigma, self.constants, self.u)
        inside = (c_in * (scale * sample)).to(sample.dtype)
        said = self.model(inside, told, classes)[:, : sample.shape[1]]
        # x + c_out F' = c_skip x + c_out F with the columns' c_out, solved for the F on the right.
        return ((level * sample + self.column.sign * scale * said) / data,)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> EDMUNet:
        """As torch does, but what tells the noise (frequencies, levels) is float32 at least: in a
        network of bfloat16 it would tell another noise."""
        told = {n: b for n, b in self.named_buffers() if n.rpartition(".")[2] in TELL_NOISE}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, before in told.items():
            place, _, leaf = name.rpartition(".")
            now = self.get_buffer(name)
            if now.itemsize < before.itemsize:
                setattr(self.get_submodule(place), leaf, before.to(now.device))
        return self


def _require_few(side: int, arguments: Mapping[str, Any]) -> None:
    """Makes sure that laying a network out takes no time, and running it a known memory."""
    n_levels, n_blocks = len(arguments["channel_mult"]), int(arguments["num_blocks"])
    if n_blocks < 1 or not 1 <= n_levels * n_blocks <= MOST_LAYERS:
        raise ValueError(
            f"it has {n_levels} levels of {n_blocks} blocks; at least one, and at most "
            f"{MOST_LAYERS} together"
        )
    if side % (1 << (n_levels - 1)):
        raise ValueError(f"its {n_levels} levels do not halve {side} pixels evenly")
    attending = [side >> (n_levels - 1), *(s for s in arguments["attn_resolutions"] if s <= side)]
    if max(attending) ** 2 > MOST_PLACES:
        raise ValueError(
            f"{max(attending) ** 2} places would attend to each other; at most {MOST_PLACES}"
        )
