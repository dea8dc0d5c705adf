"""Diffusion transformers on patches of an image or latent: DiT, SiT, REPA's SiT, LightningDiT.

One network with the originals' names, so that their weights are taken as they are. diffusers'
DiTTransformer2DModel is none of them: its time embedding spaces the frequencies otherwise
(`downscale_freq_shift=1`).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddim_core.common.foreign import Config
from ddim_core.networks.checks import MOST_PLACES

CLASS_NAME = "DiffusionTransformer"
TIME_FEATURES = 256
LONGEST = 10000.0  # period of the slowest sinusoid of the time, over 2 pi
EPS = 1e-6  # of norms over the width


class DiffusionTransformer(nn.Module):
    """A transformer whose layers are modulated by the time and the class (adaLN).

        h = h + gate attn(modulate(norm(h), shift, scale)),   likewise with the MLP

    Source: Peebles and Xie 2022 (arXiv:2212.09748), section 3.2, with what Ma et al. 2024 (SiT,
    arXiv:2401.08740), Yu et al. 2024 (REPA, arXiv:2410.06940) and Yao et al. 2025 (LightningDiT,
    arXiv:2501.01423) changed; weights have the names of their code.

    Args:
        config: `sample_size` and `patch_size` (pixels or latents along a side), `in_channels`,
            `out_channels` (twice as many where a variance is predicted too), `hidden_size`,
            `intermediate_size` (of the MLP), `num_hidden_layers`, `num_attention_heads`,
            `num_class_embeds`; whether it has `rms_norm` (LayerNorm otherwise), `qk_norm`, `swiglu`
            (GELU otherwise), `rope` and `shift` (adaLN's); `time_scale`, by which a timestep is
            divided; and `to_data`: its time runs from noise at 0 to data at 1 and its velocity
            with it, where a flow's timesteps here rise with the noise and its velocity is noise
            less data.

    Raises:
        ValueError: If patches do not make up the image, heads not the width, or too many places
            would attend to each other.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = dict(config)
        size, self.patch = config["sample_size"], config["patch_size"]
        width, heads = config["hidden_size"], config["num_attention_heads"]
        if size % self.patch or width % heads or (size // self.patch) ** 2 > MOST_PLACES:
            raise ValueError(
                f"an image of {size} along a side in patches of {self.patch}, a width of {width} "
                f"in {heads} heads; each must be a multiple, of at most {MOST_PLACES} patches"
            )
        places = (size // self.patch) ** 2
        self.x_embedder = nn.ModuleDict(
            {"proj": nn.Conv2d(config["in_channels"], width, self.patch, self.patch)}
        )
        self.t_embedder = nn.ModuleDict(
            {"mlp": nn.Sequential(
                nn.Linear(TIME_FEATURES, width), nn.SiLU(), nn.Linear(width, width)
            )}
        )  # fmt: skip
        self.y_embedder = nn.ModuleDict(
            {"embedding_table": nn.Embedding(config["num_class_embeds"], width)}
        )
        self.pos_embed = nn.Parameter(torch.zeros(1, places, width))
        if config["rope"]:
            self.feat_rope = nn.Module()
            for name in ("freqs_cos", "freqs_sin"):
                self.feat_rope.register_buffer(name, torch.zeros(places, width // heads))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config["num_hidden_layers"]))
        self.final_layer = FinalLayer(config)

    def forward(
        self, sample: Tensor, timestep: Tensor, class_labels: Tensor, return_dict: bool = False
    ) -> tuple[Tensor]:
        """Predicts noise (and what its variance is made of), or a flow's velocity.

        Args:
            sample: [batch, in_channels, sample_size, sample_size].
            timestep: [batch]; of a flow the share of noise times `time_scale`.
            class_labels: int64 [batch].
            return_dict: Of diffusers' networks; always False.

        Returns:
            [batch, out_channels, sample_size, sample_size], alone in a tuple.
        """
        t = timestep.float() / self.config["time_scale"]
        time = time_features(1.0 - t if self.config["to_data"] else t).to(sample.dtype)
        c = self.t_embedder["mlp"](time) + self.y_embedder["embedding_table"](class_labels)
        x = self.x_embedder["proj"](sample).flatten(2).transpose(1, 2) + self.pos_embed
        rope = None
        if self.config["rope"]:
            rope = self.feat_rope.freqs_cos, self.feat_rope.freqs_sin
        for block in self.blocks:
            x = block(x, c, rope)
        said = self._unpatched(self.final_layer(x, c))
        return (-said if self.config["to_data"] else said,)

    def _unpatched(self, x: Tensor) -> Tensor:
        """[batch, place, pixel x channel] to images."""
        side, p = self.config["sample_size"] // self.patch, self.patch
        x = x.reshape(-1, side, side, p, p, self.config["out_channels"])
        return x.permute(0, 5, 1, 3, 2, 4).reshape(-1, x.shape[-1], side * p, side * p)


class Block(nn.Module):
    """Attention and an MLP, each shifted, scaled and gated by the condition."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width, self.shifts = config["hidden_size"], config["shift"]
        self.norm1, self.norm2 = _norm(config), _norm(config)
        self.attn = Attention(config)
        self.mlp = (SwiGLU if config["swiglu"] else GELU)(width, config["intermediate_size"])
        n_parts = 6 if self.shifts else 4
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, n_parts * width))

    def forward(self, x: Tensor, c: Tensor, rope: tuple[Tensor, Tensor] | None) -> Tensor:
        parts = self.adaLN_modulation(c)[:, None].chunk(6 if self.shifts else 4, dim=-1)
        if self.shifts:
            shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = parts
            x = x + gate * self.attn(self.norm1(x) * (1 + scale) + shift, rope)
            return x + gate_mlp * self.mlp(self.norm2(x) * (1 + scale_mlp) + shift_mlp)
        scale, gate, scale_mlp, gate_mlp = parts
        x = x + gate * self.attn(self.norm1(x) * (1 + scale), rope)
        return x + gate_mlp * self.mlp(self.norm2(x) * (1 + scale_mlp))


class Attention(nn.Module):
    """Every patch looks at every one; queries and keys perhaps normed, and turned by their place.

    Source of the turning: Su et al. 2021 (RoPE, arXiv:2104.09864), in pairs of neighbours.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        width, self.heads = config["hidden_size"], config["num_attention_heads"]
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        norms = config["qk_norm"]
        kind = nn.RMSNorm if config["rms_norm"] else nn.LayerNorm
        eps = EPS if config["rms_norm"] else 1e-5  # torch's own, which the originals leave
        self.q_norm = kind(width // self.heads, eps=eps) if norms else nn.Identity()
        self.k_norm = kind(width // self.heads, eps=eps) if norms else nn.Identity()

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor] | None) -> Tensor:
        n, places, width = x.shape
        qkv = self.qkv(x).reshape(n, places, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        q, k = self.q_norm(q), self.k_norm(k)
        if rope is not None:
            q, k = turned(q, *rope), turned(k, *rope)
        seen = F.scaled_dot_product_attention(q, k, v)
        mixed: Tensor = self.proj(seen.transpose(1, 2).reshape(n, places, width))
        return mixed


class GELU(nn.Module):
    """DiT's MLP."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.fc2(F.gelu(self.fc1(x), approximate="tanh"))
        return made


class SwiGLU(nn.Module):
    """LightningDiT's MLP. Source: Shazeer 2020 (arXiv:2002.05202)."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.w12, self.w3 = nn.Linear(width, 2 * inner), nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.w12(x).chunk(2, dim=-1)
        made: Tensor = self.w3(F.silu(gate) * value)
        return made


class FinalLayer(nn.Module):
    """From the width to the pixels of a patch."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width = config["hidden_size"]
        self.norm_final = _norm(config)
        self.linear = nn.Linear(width, config["patch_size"] ** 2 * config["out_channels"])
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(c)[:, None].chunk(2, dim=-1)
        made: Tensor = self.linear(self.norm_final(x) * (1 + scale) + shift)
        return made


def time_features(t: Tensor) -> Tensor:
    """[cos(t f_i), sin(t f_i)], f_i = 10000^(-i / 128), i = 0..127, of times [batch]."""
    half = TIME_FEATURES // 2
    i = torch.arange(half, dtype=torch.float32, device=t.device)
    angles = t[:, None] * torch.exp(-math.log(LONGEST) * i / half)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns pairs of neighbouring features [..., place, feature] by their place's angles."""
    first, second = x[..., 0::2], x[..., 1::2]
    return x * cos + torch.stack([-second, first], dim=-1).flatten(-2) * sin


def _norm(config: Config) -> nn.Module:
    if config["rms_norm"]:
        return nn.RMSNorm(config["hidden_size"], eps=EPS)
    return nn.LayerNorm(config["hidden_size"], elementwise_affine=False, eps=EPS)
