"""EDM's U-Nets: SongUNet (DDPM++ and NCSN++) and DhariwalUNet (ADM's), by the names of NVlabs/edm.

Source: Karras et al. 2022 (arXiv:2206.00364), appendix F; Song et al. 2021 (arXiv:2011.13456);
Dhariwal and Nichol 2021 (arXiv:2105.05233). How their answers become those of one family of
networks is in `preconditioned`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddim_core.networks.backbones.edm_layers import (
    Block,
    BlockKind,
    Conv,
    Fourier,
    Place,
    Sinusoids,
    attends_at,
    decoder_places,
    encoder_places,
    norm,
)


class SongUNet(nn.Module):
    """DDPM++ (the defaults) and NCSN++ (`fourier`, `residual` or `skip`, four taps).

    Args:
        img_resolution, in_channels, out_channels, label_dim: Of what it sees and says; classes.
        resample_filter: Taps: two of DDPM++, four of NCSN++; what they are, the weights say.
        model_channels, channel_mult, num_blocks, attn_resolutions: Widths, depth, attention.
        channel_mult_emb, channel_mult_noise: Widths of the embeddings, by model_channels.
        embedding_type, encoder_type, decoder_type: Of noise; of what is added besides the skips.

    Raises:
        ValueError: If one of the last three is another word than NVlabs' code has.
    """

    def __init__(
        self, img_resolution: int, in_channels: int, out_channels: int, label_dim: int = 0,
        model_channels: int = 128, channel_mult: Sequence[int] = (1, 2, 2, 2),
        channel_mult_emb: int = 4, num_blocks: int = 4, attn_resolutions: Sequence[int] = (16,),
        embedding_type: str = "positional", channel_mult_noise: int = 1,
        encoder_type: str = "standard", decoder_type: str = "standard",
        resample_filter: Sequence[int] = (1, 1),
    ) -> None:  # fmt: skip
        super().__init__()
        for name, word, known in (
            ("embedding_type", embedding_type, ("positional", "fourier")),
            ("encoder_type", encoder_type, ("standard", "skip", "residual")),
            ("decoder_type", decoder_type, ("standard", "skip")),
        ):
            if word not in known:
                raise ValueError(f"{name} is {word!r:.60}; it must be one of {', '.join(known)}")
        n_noise, n_emb = model_channels * channel_mult_noise, model_channels * channel_mult_emb
        taps, self.label_dim, self.encoder_type = len(resample_filter), label_dim, encoder_type
        kind = BlockKind(n_emb, True, math.sqrt(0.5), 1e-6, taps, True, False)
        is_fourier = embedding_type == "fourier"
        self.map_noise = Fourier(n_noise) if is_fourier else Sinusoids(n_noise, with_end=True)
        if label_dim:
            self.map_label = nn.Linear(label_dim, n_noise)
        self.map_layer0, self.map_layer1 = nn.Linear(n_noise, n_emb), nn.Linear(n_emb, n_emb)
        widths = [model_channels * mult for mult in channel_mult]
        self._enc = list(
            encoder_places(img_resolution, in_channels, model_channels, widths, num_blocks)
        )
        skips = [place.n_out for place in self._enc]
        self._dec = list(decoder_places(img_resolution, skips, widths, num_blocks))
        self.enc, self.dec = nn.ModuleDict(), nn.ModuleDict()
        beside = in_channels
        for place in self._enc:
            first = place.what == "conv"
            attends = place.is_block and place.side in attn_resolutions
            self.enc[place.name] = (
                Conv(place.n_in, place.n_out, 3) if first else Block(place, kind, attends)
            )
            aux = f"{place.side}x{place.side}_aux"
            if place.what == "down" and encoder_type == "skip":
                self.enc[f"{aux}_down"] = Conv(beside, beside, 0, down=True, resample=taps)
                self.enc[f"{aux}_skip"] = Conv(beside, place.n_out, 1)
            if place.what == "down" and encoder_type == "residual":
                self.enc[f"{aux}_residual"] = Conv(
                    beside, place.n_out, 3, down=True, resample=taps, fused=True
                )
                beside = place.n_out
        self._last = f"block{num_blocks}"
        self._ends = [place.side for place in self._dec if place.what == self._last]
        self._ends = self._ends if decoder_type == "skip" else self._ends[-1:]
        for place in self._dec:
            ends = place.what == self._last
            attends = place.what == "in0" or (ends and place.side in attn_resolutions)
            self.dec[place.name] = Block(place, kind, attends)
            aux = f"{place.side}x{place.side}_aux"
            if ends and place.side in self._ends:
                if place.side != self._ends[0]:
                    self.dec[f"{aux}_up"] = Conv(
                        out_channels, out_channels, 0, up=True, resample=taps
                    )
                self.dec[f"{aux}_norm"] = norm(place.n_out, 1e-6)
                self.dec[f"{aux}_conv"] = Conv(place.n_out, out_channels, 3)

    def forward(self, x: Tensor, noise_label: Tensor, classes: Tensor) -> Tensor:
        """Answers images [n, c, h, w] at noise labels [n], of classes one-hot [n, label_dim],
        or zeros for none."""
        cosines, sines = self.map_noise(noise_label).to(x.dtype).chunk(2, dim=1)
        embedding = torch.cat([sines, cosines], dim=1)
        if self.label_dim:
            embedding = embedding + self.map_label(classes * math.sqrt(self.label_dim))
        embedding = F.silu(self.map_layer1(F.silu(self.map_layer0(embedding))))
        skips, beside = [], x
        for place in self._enc:
            layer = self.enc[place.name]
            x = layer(x) if place.what == "conv" else layer(x, embedding)
            aux = f"{place.side}x{place.side}_aux"
            if place.what == "down" and self.encoder_type == "skip":
                beside = self.enc[f"{aux}_down"](beside)
                x = x + self.enc[f"{aux}_skip"](beside)
            if place.what == "down" and self.encoder_type == "residual":
                x = beside = (x + self.enc[f"{aux}_residual"](beside)) / math.sqrt(2.0)
            skips.append(x)
        said: Tensor | None = None
        for place in self._dec:
            x = torch.cat([x, skips.pop()], dim=1) if place.is_block else x
            x = self.dec[place.name](x, embedding)
            if place.what == self._last and place.side in self._ends:
                aux = f"{place.side}x{place.side}_aux"
                more = self.dec[f"{aux}_conv"](F.silu(self.dec[f"{aux}_norm"](x)))
                said = more if said is None else self.dec[f"{aux}_up"](said) + more
        assert said is not None
        return said


class DhariwalUNet(nn.Module):
    """ADM's; arguments as of `SongUNet`."""

    def __init__(
        self, img_resolution: int, in_channels: int, out_channels: int, label_dim: int = 0,
        model_channels: int = 192, channel_mult: Sequence[int] = (1, 2, 3, 4),
        channel_mult_emb: int = 4, num_blocks: int = 3,
        attn_resolutions: Sequence[int] = (32, 16, 8),
    ) -> None:  # fmt: skip
        super().__init__()
        n_emb, self.label_dim = model_channels * channel_mult_emb, label_dim
        kind = BlockKind(n_emb, False, 1.0, 1e-5, 2, False, True)
        self.map_noise = Sinusoids(model_channels, with_end=False)
        self.map_layer0 = nn.Linear(model_channels, n_emb)
        self.map_layer1 = nn.Linear(n_emb, n_emb)
        if label_dim:
            self.map_label = nn.Linear(label_dim, n_emb, bias=False)
        widths = [model_channels * mult for mult in channel_mult]
        self._enc = list(encoder_places(img_resolution, in_channels, widths[0], widths, num_blocks))
        skips = [place.n_out for place in self._enc]
        self._dec = list(decoder_places(img_resolution, skips, widths, num_blocks))

        def layer(place: Place) -> nn.Module:
            if place.what == "conv":
                return Conv(place.n_in, place.n_out, 3)
            return Block(place, kind, attends_at(place, attn_resolutions))

        self.enc = nn.ModuleDict({place.name: layer(place) for place in self._enc})
        self.dec = nn.ModuleDict({place.name: layer(place) for place in self._dec})
        self.out_norm = norm(widths[0], 1e-5)
        self.out_conv = Conv(widths[0], out_channels, 3)

    def forward(self, x: Tensor, noise_label: Tensor, classes: Tensor) -> Tensor:
        """As of `SongUNet`."""
        embedding = F.silu(self.map_layer0(self.map_noise(noise_label).to(x.dtype)))
        embedding = self.map_layer1(embedding)
        if self.label_dim:
            embedding = embedding + self.map_label(classes)
        embedding, skips = F.silu(embedding), []
        for place in self._enc:
            layer = self.enc[place.name]
            x = layer(x) if place.what == "conv" else layer(x, embedding)
            skips.append(x)
        for place in self._dec:
            x = torch.cat([x, skips.pop()], dim=1) if place.is_block else x
            x = self.dec[place.name](x, embedding)
        said: Tensor = self.out_conv(F.silu(self.out_norm(x)))
        return said
