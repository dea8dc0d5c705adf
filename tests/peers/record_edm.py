"""Records what EDM's and EDM2's own code makes of small networks, as tests/golden/edm.npz.

    python tests/peers/record_edm.py EDM EDM2

EDM and EDM2 are clones of NVlabs/edm and NVlabs/edm2, which are no part of the project. Weights are
drawn by NumPy's RandomState for the recorded names and shapes, so that only how a network was made,
its input and its output are kept; of its pickle, the names that it calls.
"""

from __future__ import annotations

import copy
import io
import json
import pickle
import pickletools
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

HERE = Path(__file__).parent
GOLDEN = HERE.parent / "golden" / "edm.npz"
SMALL = {
    "img_resolution": 8, "img_channels": 2, "model_channels": 8, "channel_mult": [1, 2],
    "num_blocks": 1, "attn_resolutions": [4],
}  # fmt: skip
SONG, ADM = {"model_type": "SongUNet"}, {"model_type": "DhariwalUNet", "model_channels": 64}
NCSN = {"embedding_type": "fourier", "channel_mult_noise": 2, "resample_filter": [1, 3, 3, 1]}
CASES: dict[str, dict[str, dict[str, Any]]] = {
    "edm": {
        "EDMPrecond ddpmpp": SMALL | SONG | {"label_dim": 3, "augment_dim": 9},
        "EDMPrecond adm": SMALL | ADM | {"label_dim": 3, "label_dropout": 0.1, "num_blocks": 2},
        "VPPrecond skip": SMALL | SONG | NCSN | {"encoder_type": "skip", "decoder_type": "skip",
                                                 "embedding_type": "positional"},
        "VEPrecond ncsnpp": SMALL | SONG | NCSN | {"encoder_type": "residual"},
        "iDDPMPrecond adm": SMALL | ADM | {"M": 60, "channel_mult": [1, 1]},
    },
    "edm2": {
        "Precond classes": SMALL | {"label_dim": 3, "channels_per_head": 8},
        "Precond other": SMALL | {
            "label_dim": 0, "channels_per_head": 8, "channel_mult_noise": 1, "channel_mult_emb": 3,
            "concat_balance": 0.6, "res_balance": 0.2, "attn_balance": 0.4, "clip_act": 2,
            "resample_filter": [1, 3, 3, 1],
        },
    },
}  # fmt: skip
N, STEPS = 2, 5
GUIDANCE = 1.7
AVERAGES = [f"network-snapshot-{kimg:07d}-{std}.pkl" for kimg in (2097, 4194)
            for std in ("0.050", "0.100")]  # fmt: skip
SIGMAS = (0.003, 0.3, 5.0, 79.0)
CHURN = {"S_churn": 4.0, "S_noise": 1.003}
PLAIN = (bool, int, float, str)


def drawn(shapes: dict[str, list[int]], seed: int) -> dict[str, torch.Tensor]:
    """The weights of a case: float32 numbers that float16 has too."""
    draw = np.random.RandomState(seed)
    return {
        name: torch.from_numpy(np.asarray(0.3 * draw.standard_normal(shape), np.float16)).float()
        for name, shape in sorted(shapes.items())
    }


def _noise_of(seeds: range) -> Any:
    streams = [torch.Generator().manual_seed(seed) for seed in seeds]
    return lambda x: torch.stack(
        [torch.randn(x.shape[1:], generator=own, dtype=x.dtype) for own in streams]
    )


def _called(data: bytes) -> list[str]:
    """The names that a pickle calls."""
    texts, memo, names = [], {}, set()
    for opcode, argument, _ in pickletools.genops(io.BytesIO(data)):
        if opcode.name == "STACK_GLOBAL":
            names.add(f"{texts[-2]}.{texts[-1]}")
        elif opcode.name == "MEMOIZE":
            memo[len(memo)] = texts[-1] if texts else ""
        elif "BINGET" in opcode.name:
            texts.append(memo[argument])
        elif "UNICODE" in opcode.name:
            texts.append(argument)
    return sorted(names)


def record(peer: str) -> dict[str, np.ndarray]:
    """Runs the cases of one clone, the first on sys.path."""
    if peer == "edm":
        from generate import edm_sampler
        from training import networks
    else:
        from generate_images import edm_sampler
        from training import networks_edm2 as networks
    kept: dict[str, np.ndarray] = {}
    for seed, (name, made_with) in enumerate(CASES[peer].items()):
        net = getattr(networks, name.split()[0])(**made_with).eval().requires_grad_(False)
        shapes = {n: list(w.shape) for n, w in net.state_dict().items() if n != "u"}
        net.load_state_dict(drawn(shapes, seed), strict=False)
        inner = net.model if peer == "edm" else net.unet
        told = {
            "class_name": type(net).__name__, "inner": type(inner).__name__, "shapes": shapes,
            "made_with": dict(inner.init_kwargs), "seed": seed,
            "has": {k: v for k, v in vars(net).items() if isinstance(v, PLAIN) and k[0] != "_"},
            "calls": _called(pickle.dumps({"ema": net})),
        }  # fmt: skip
        kept[f"{name}/meta"] = np.frombuffer(json.dumps(told).encode(), np.uint8)
        if hasattr(net, "u"):
            kept[f"{name}/u"] = net.u.numpy()
        x = torch.from_numpy(np.random.RandomState(99).standard_normal((N, 2, 8, 8))).float()
        labels = (
            torch.eye(net.label_dim)[torch.arange(N) % net.label_dim] if net.label_dim else None
        )
        answers = []
        for level in SIGMAS:
            sigma = torch.tensor(level)
            sigma = net.round_sigma(sigma) if peer == "edm" else sigma
            answers.append(net(x * (1 + sigma**2).sqrt(), sigma.expand(N), labels).numpy())
        kept[f"{name}/x"], kept[f"{name}/answers"] = x.numpy(), np.stack(answers)
        if net.label_dim:
            kept[f"{name}/no_class"] = net(x, torch.ones(N), torch.zeros(N, net.label_dim)).numpy()
        asked: dict[str, Any] = {"num_steps": STEPS}
        asked |= {"dtype": torch.float64} if peer == "edm2" else {}
        kept[f"{name}/heun"] = edm_sampler(net, x, labels, **asked).numpy()
        # Of churn between levels EDM draws noise a step, and EDM2 only between them.
        ends = {"S_min": 0.05, "S_max": 50.0} if peer == "edm" else {}
        kept[f"{name}/churn"] = edm_sampler(
            net, x, labels, randn_like=_noise_of(range(N)), **asked, **CHURN, **ends
        ).numpy()
    if peer == "edm2":
        kept |= _of_edm2() | _guided(networks, edm_sampler) | _reconstructed(networks)
    return kept


def _guided(networks: Any, edm_sampler: Any) -> dict[str, np.ndarray]:
    """Autoguidance: the network with classes led away from one of other weights, and from the one
    without classes."""
    kept, nets = {}, []
    for name, seed in (("classes", 0), ("classes", 7), ("other", 1)):
        net = networks.Precond(**CASES["edm2"][f"Precond {name}"]).eval().requires_grad_(False)
        shapes = {n: list(w.shape) for n, w in net.state_dict().items()}
        net.load_state_dict(drawn(shapes, seed))
        nets.append(net)
    x = torch.from_numpy(np.random.RandomState(99).standard_normal((N, 2, 8, 8))).float()
    for name, guide in zip(("autog", "uncond"), nets[1:], strict=True):
        kept[f"Precond classes/{name}"] = edm_sampler(
            nets[0], x, torch.eye(3)[:N], gnet=guide, guidance=GUIDANCE, num_steps=STEPS,
            dtype=torch.float64,
        ).numpy()  # fmt: skip
    return kept


def _reconstructed(networks: Any) -> dict[str, np.ndarray]:
    """What the average of std 0.075 says, of snapshots of two widths at two times."""
    import reconstruct_phema

    made_with = CASES["edm2"]["Precond classes"]
    with tempfile.TemporaryDirectory() as place:
        for seed, name in enumerate(AVERAGES):
            net = networks.Precond(**made_with).eval().requires_grad_(False)
            shapes = {n: list(w.shape) for n, w in net.state_dict().items()}
            fixed = {n: w for n, w in drawn(shapes, 0).items() if "fourier" in n}
            net.load_state_dict({**drawn(shapes, 10 + seed), **fixed})
            Path(place, name).write_bytes(pickle.dumps({"ema": net.to(torch.float16)}))
        kept = reconstruct_phema.list_input_pickles(place)
        *_, step = reconstruct_phema.reconstruct_phema(kept, [0.075], verbose=False)
    net = step.out[0].net.to(torch.float32)
    x = torch.from_numpy(np.random.RandomState(99).standard_normal((N, 2, 8, 8))).float()
    said = net(x, torch.full((N,), 0.3), torch.eye(3)[:N])
    return {"phema/said": said.numpy()}


def _of_edm2() -> dict[str, np.ndarray]:
    """The latents of its encoder, and the coefficients of a moving average made afterwards."""
    from training import encoders, phema

    encoder = encoders.StabilityVAEEncoder()
    data = pickle.dumps({"encoder": copy.deepcopy(encoder)})
    told = {"vae_name": encoder.vae_name, "calls": _called(data)}
    to = [[8e6, 8e6, 6e6], [0.075, 0.15, 0.1]]
    ofs, std = np.repeat([2e6, 4e6, 8e6], 2), np.tile([0.05, 0.1], 3)
    return {
        "encoder/meta": np.frombuffer(json.dumps(told).encode(), np.uint8),
        "encoder/scale": encoder.scale, "encoder/bias": encoder.bias,
        "phema/of": np.stack([ofs, std]), "phema/to": np.array(to),
        "phema/coefficients": phema.solve_posthoc_coefficients(ofs, std, *to),
    }  # fmt: skip


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1] == "--one":  # a clone each in a process of its own: both have the same names
        sys.path.insert(0, sys.argv[3])
        np.savez_compressed(sys.argv[4], **record(sys.argv[2]))
    else:
        whole: dict[str, np.ndarray] = {}
        for peer, place in zip(("edm", "edm2"), sys.argv[1:3], strict=True):
            part = GOLDEN.with_name(f".{peer}.npz")
            subprocess.run([sys.executable, __file__, "--one", peer, place, str(part)], check=True)
            whole |= dict(np.load(part))
            part.unlink()
        np.savez_compressed(GOLDEN, **whole)
