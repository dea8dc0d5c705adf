"""Records what others' own code answers with small random networks, as tests/golden/networks.npz.

    python tests/peers/record_networks.py SOURCES PACKAGES

SOURCES is a folder with clones of openai/guided-diffusion, openai/improved-diffusion,
lucidrains/denoising-diffusion-pytorch and yang-song/score_sde_pytorch; PACKAGES one that `pip
install --target` filled with einops, ema-pytorch, ml-collections and absl-py. None of it is part of
the project. Of each network: its names and shapes, an answer at three timesteps, and the end of a
whole trajectory of its own sampler.
"""

from __future__ import annotations

import importlib
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch

HERE = Path(__file__).parent
GOLDEN = HERE.parent / "golden"
sys.path.insert(0, str(HERE.parents[1]))
from tests.peers.network_facts import drawn, noises, streams  # noqa: E402

SHAPE = (2, 3, 8, 8)
told: dict[str, Any] = {}
arrays: dict[str, np.ndarray] = {}


def normal(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.RandomState(3).standard_normal(shape).astype(np.float32))


def keep(name: str, meta: dict[str, Any], **tensors: torch.Tensor) -> None:
    told[name] = meta
    for key, tensor in tensors.items():
        arrays[f"{name}/{key}"] = tensor.detach().numpy()


def filled(network: torch.nn.Module, seed: int) -> dict[str, list[int]]:
    """Fills a network's parameters; its buffers stay what they are."""
    shapes = {name: list(p.shape) for name, p in network.named_parameters()}
    network.load_state_dict(drawn(shapes, seed), strict=False)
    network.eval().requires_grad_(False)
    return shapes


def guided(sources: Path) -> None:
    """guided-diffusion's U-Nets with its DDIM and its DDPM, and improved-diffusion's with DDIM."""
    empty = types.ModuleType("empty")
    empty.MPI = None  # type: ignore[attr-defined]
    sys.modules |= {"mpi4py": empty, "blobfile": empty}
    sys.path[:0] = [str(sources / "guided-diffusion"), str(sources / "improved-diffusion")]
    from guided_diffusion import script_util
    from guided_diffusion.unet import UNetModel
    from improved_diffusion import script_util as older
    from improved_diffusion.unet import UNetModel as OlderUNetModel

    x, t = normal(3, 3, 8, 8), torch.tensor([0, 133, 399])
    flags = {
        "image_size": 8, "num_channels": 32, "num_res_blocks": 1, "attention_resolutions": "4",
        "channel_mult": "1,2", "learn_sigma": True, "class_cond": True, "num_head_channels": 16,
        "resblock_updown": True, "use_new_attention_order": True, "noise_schedule": "cosine",
        "diffusion_steps": 400, "use_scale_shift_norm": True,
    }  # fmt: skip
    script_util.NUM_CLASSES = 5
    network, diffusion = script_util.create_model_and_diffusion(
        **{**script_util.model_and_diffusion_defaults(), **flags, "timestep_respacing": "ddim10"}
    )
    shapes, y = filled(network, 0), torch.tensor([0, 1, 4])
    end = diffusion.ddim_sample_loop(
        network, SHAPE, noise=x[:2], model_kwargs={"y": y[:2]}, device="cpu"
    )
    keep("adm", {"shapes": shapes, "settings": flags, "steps": 10}, x=x, t=t, y=y,
         said=network(x, t, y), end=end)  # fmt: skip

    flags = {
        "image_size": 8, "num_channels": 64, "num_res_blocks": 1, "attention_resolutions": "8,4",
        "channel_mult": "0.5,1", "learn_sigma": True, "num_heads": 4, "noise_schedule": "linear",
        "diffusion_steps": 50, "use_scale_shift_norm": False, "rescale_timesteps": True,
        "resblock_updown": False,
    }  # fmt: skip
    network = UNetModel(8, 3, 64, 6, 1, (1, 2), channel_mult=(0.5, 1), num_heads=4)
    diffusion = script_util.create_gaussian_diffusion(
        steps=50, learn_sigma=True, noise_schedule="linear", rescale_timesteps=True
    )
    shapes, t = filled(network, 1), torch.tensor([0, 21, 49])
    own, real = streams(), torch.randn_like
    torch.randn_like = lambda x: torch.stack([torch.randn(x.shape[1:], generator=g) for g in own])
    end = diffusion.p_sample_loop(network, SHAPE, noise=x[:2], device="cpu")
    torch.randn_like = real
    keep("adm_ddpm", {"shapes": shapes, "settings": flags, "steps": 50}, x=x, t=t,
         said=network(x, t.float() * 20.0), end=end)  # fmt: skip

    flags = {
        "image_size": 8, "num_channels": 32, "num_res_blocks": 1, "attention_resolutions": "8,4",
        "channel_mult": "1,2", "learn_sigma": True, "num_heads": 4, "noise_schedule": "cosine",
        "diffusion_steps": 400,
    }  # fmt: skip
    network = OlderUNetModel(
        3, 32, 6, 1, (1, 2), channel_mult=(1, 2), num_heads=4, use_scale_shift_norm=True
    )
    diffusion = older.create_gaussian_diffusion(
        steps=400, learn_sigma=True, noise_schedule="cosine", rescale_timesteps=True,
        timestep_respacing="ddim20",
    )  # fmt: skip
    shapes, t = filled(network, 2), torch.tensor([0, 133, 399])
    end = diffusion.ddim_sample_loop(network, SHAPE, noise=x[:2], device="cpu")
    keep("improved", {"shapes": shapes, "settings": flags, "steps": 20}, x=x, t=t,
         said=network(x, t.float() * 2.5), end=end)  # fmt: skip


def lucidrains(sources: Path) -> None:
    """denoising-diffusion-pytorch's Unet, with all its kinds of layers, and its DDIM."""
    sys.path.insert(0, str(sources / "denoising-diffusion-pytorch"))
    from denoising_diffusion_pytorch.denoising_diffusion_pytorch import GaussianDiffusion, Unet
    from ema_pytorch import EMA

    for name, more, how in (
        ("lucidrains", {}, {}),
        ("lucidrains_x0", {"self_condition": True, "full_attn": (True, False)},
         {"objective": "pred_x0", "beta_schedule": "cosine", "min_snr_loss_weight": True}),
        ("lucidrains_noise", {}, {"objective": "pred_noise", "beta_schedule": "linear"}),
    ):  # fmt: skip
        unet = Unet(8, dim_mults=(1, 2), attn_heads=2, attn_dim_head=8, **more)
        diffusion = GaussianDiffusion(
            unet, image_size=8, timesteps=100, sampling_timesteps=10, **how
        )
        shapes = filled(diffusion, 3)
        buffers = {f"buffer/{key}": value for key, value in diffusion.named_buffers()}
        average = sorted(EMA(diffusion).state_dict())
        x, t, real = normal(3, 3, 8, 8), torch.tensor([0, 33, 99]), torch.randn
        torch.randn = lambda *_, x=x, **__: x[:2].clone()
        end = diffusion.ddim_sample(SHAPE) * 2 - 1
        torch.randn = real
        meta = {"shapes": shapes, "settings": {"image_size": 8}, "steps": 10, "ema": average}
        keep(name, meta, x=x, t=t, said=unet(x, t), end=end, **buffers)


def score_sde(sources: Path) -> None:
    """score_sde's VP networks; its ancestral sampler of discrete ones, at whole timesteps."""
    folder = sources / "score_sde_pytorch"
    sys.path.insert(0, str(folder))
    code = (folder / "op" / "upfirdn2d.py").read_text()  # its CUDA kernel is compiled on import
    op: Any = types.ModuleType("op")
    scope = {"torch": torch, "F": torch.nn.functional}
    exec(code[code.index("def upfirdn2d(") :], scope)
    op.upfirdn2d, sys.modules["op"] = scope["upfirdn2d"], op
    import sampling
    import sde_lib
    from models import ddpm, ncsnpp, utils  # noqa: F401 (they register themselves)

    for name, n in (("ddpm.cifar10", 65), ("cifar10_ddpmpp", 65), ("cifar10_ncsnpp_continuous", 1000)):  # fmt: skip # noqa: E501
        config = importlib.import_module(f"configs.vp.{name}").get_config()
        config.device = torch.device("cpu")
        config.model.nf, config.model.ch_mult, config.model.num_res_blocks = 32, (1, 2), 1
        config.data.image_size, config.model.attn_resolutions = 8, (4,)
        config.model.num_scales = n
        network = utils.create_model(config)
        shapes = filled(network, 4)
        sde = sde_lib.VPSDE(config.model.beta_min, config.model.beta_max, n)
        continuous = config.training.continuous
        score = utils.get_score_fn(sde, network, continuous=continuous)
        x, i = normal(3, 3, 8, 8), torch.tensor([0, n // 3, n - 1])
        t = (i + 1) / n if continuous else i / (n - 1)
        std = sde.marginal_prob(x, t)[1] if continuous else sde.sqrt_1m_alphas_cumprod[i]
        kept = {"x": x, "t": i, "said": -score(x, t) * std[:, None, None, None], "std": std}
        if not continuous:
            each, real = iter(noises(n, SHAPE)), (torch.randn, torch.randn_like)
            torch.randn = lambda *_, x=x, **__: x[:2].clone()
            torch.randn_like = lambda _, each=each: next(each)
            sampler = sampling.get_pc_sampler(
                sde, SHAPE, sampling.AncestralSamplingPredictor, sampling.NoneCorrector,
                lambda x: x, snr=0.1, continuous=False, eps=0.0, device="cpu",
            )  # fmt: skip
            kept["end"] = sampler(network)[0]
            torch.randn, torch.randn_like = real
        settings = json.loads(json.dumps(config.to_dict(), default=str))
        meta = {"shapes": shapes, "settings": settings, "steps": n}
        keep(f"score_sde_{name}", meta, sigmas=network.module.sigmas, **kept)


def exploding() -> None:
    """score_sde's continuous VE network; after `score_sde`, which imports its modules."""
    import sde_lib
    from models import utils

    config = importlib.import_module("configs.ve.cifar10_ncsnpp_continuous").get_config()
    config.device = torch.device("cpu")
    config.model.nf, config.model.ch_mult, config.model.num_res_blocks = 32, (1, 2), 1
    config.data.image_size, config.model.attn_resolutions = 8, (4,)
    network = utils.create_model(config)
    shapes = filled(network, 4)
    sde = sde_lib.VESDE(config.model.sigma_min, config.model.sigma_max, config.model.num_scales)
    x, t = normal(3, 3, 8, 8), torch.tensor([0.1, 0.5, 1.0])
    std = sde.marginal_prob(x, t)[1]  # of pixels in [0, 1]
    noisy = 0.5 + std[:, None, None, None] * x
    score = utils.get_score_fn(sde, network, continuous=True)(noisy, t)
    denoised = noisy + std[:, None, None, None] ** 2 * score
    meta = {"shapes": shapes, "settings": json.loads(json.dumps(config.to_dict(), default=str))}
    arrays["ve/meta"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    for key, value in (("noisy", noisy), ("std", std), ("denoised", denoised)):
        arrays[f"ve/{key}"] = value.detach().numpy()


def main() -> None:
    sources, packages = (Path(p).resolve() for p in sys.argv[1:])
    sys.path.append(str(packages))
    torch.set_num_threads(1)
    with torch.no_grad():
        guided(sources)
        lucidrains(sources)
        score_sde(sources)
        exploding()
    meta = np.frombuffer(json.dumps(told).encode(), np.uint8)
    np.savez_compressed(GOLDEN / "networks.npz", meta=meta, **arrays)
    for name in told:
        print(name, {k: v.shape for k, v in arrays.items() if k.startswith(f"{name}/")})


if __name__ == "__main__":
    main()
