"""Records what DiT, SiT, REPA and LightningDiT say and draw, as tests/golden/transformers.npz.

    python tests/peers/record_transformers.py SOURCES PACKAGES

SOURCES is a folder with clones of facebookresearch/DiT, willisma/SiT, sihyun-yu/REPA and
hustvl/LightningDiT. PACKAGES is a folder that `pip install --target --no-deps` filled with timm,
torchdiffeq and einops. None of it is part of the project.

Weights are drawn for the networks' own names and shapes by NumPy's RandomState, whose stream is
fixed for ever, so that only names, inputs and outputs are kept. Noise on the way is that of
the project's streams of images 0 and 1, seed 0; LightningDiT's torch.compile is left out.
"""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ddim_core.samplers.streams import image_streams

GOLDEN = Path(__file__).parent.parent / "golden" / "transformers.npz"
SHAPE = (2, 4, 8, 8)  # of the latents
TINY = {"input_size": 8, "patch_size": 2, "in_channels": 4, "hidden_size": 32, "depth": 2,
        "num_heads": 4}  # fmt: skip
STEPS = 5
SEED = 0
GUIDANCE = 2.5
SAMPLE_EPS = 0.1  # where SBDM begins: at SiT's 0.001 it is 1000 times the usual diffusion


@contextmanager
def peer(folder: Path) -> Iterator[None]:
    """Inside, a clone's modules are found, and those of another are forgotten."""
    for name in ("models", "diffusion", "transport", "samplers"):
        for known in [n for n in sys.modules if n == name or n.startswith(f"{name}.")]:
            del sys.modules[known]
    sys.path.insert(0, str(folder))
    yield
    sys.path.remove(str(folder))


def filled(network: Any, seed: int) -> dict[str, list[int]]:
    """Gives a network its random weights; returns their shapes by name."""
    draw = np.random.RandomState(seed)
    shapes = {name: list(weight.shape) for name, weight in network.state_dict().items()}
    weights = {
        name: torch.from_numpy((0.1 * draw.standard_normal(shape)).astype(np.float32))
        for name, shape in sorted(shapes.items())
    }
    network.load_state_dict(weights)
    network.eval()
    return shapes


@contextmanager
def own_noise() -> Iterator[None]:
    """Inside, what torch draws as normal noise comes from the images' own streams, as here."""
    plain, streams = (torch.randn_like, torch.randn), image_streams(SEED, range(SHAPE[0]))

    def like(x: Any) -> Any:
        return drawn(x.shape).to(x)

    def drawn(*size: Any) -> Any:
        shape = tuple(size[0])
        return torch.cat([plain[1]((1, *shape[1:]), generator=own) for own in streams])

    torch.randn_like, torch.randn = like, drawn
    yield
    torch.randn_like, torch.randn = plain


def record(sources: Path) -> None:
    torch.set_grad_enabled(False)
    torch.manual_seed(0)
    torch.compile = lambda f: f  # type: ignore[assignment]
    x, y = torch.randn(SHAPE), torch.tensor([3, 7])
    both = torch.cat([x, x])
    arrays: dict[str, Any] = {"x": x, "y": y, "t": torch.tensor([0.137, 0.911])}
    shapes = {}
    with peer(sources / "DiT"):
        from diffusion import create_diffusion
        from models import DiT

        net = DiT(num_classes=10, **TINY)
        shapes["dit"] = filled(net, 0)
        arrays["dit_said"] = net(x, torch.tensor([137, 911]), y)
        ddim = create_diffusion(f"ddim{STEPS}")
        how: dict[str, Any] = {"clip_denoised": False, "device": "cpu"}
        arrays["dit_ddim"] = ddim.ddim_sample_loop(net, x.shape, x, model_kwargs={"y": y}, **how)
        told = {"y": torch.cat([y, torch.full_like(y, 10)]), "cfg_scale": GUIDANCE}
        guided = ddim.ddim_sample_loop(
            net.forward_with_cfg, both.shape, both, model_kwargs=told, **how
        )
        arrays["dit_ddim_guided"] = guided[:2]
        ddpm = create_diffusion(str(STEPS))
        with own_noise():
            arrays["dit_ddpm"] = ddpm.p_sample_loop(net, x.shape, x, model_kwargs={"y": y}, **how)
    with peer(sources / "SiT"):
        from models import SiT
        from transport import Sampler, create_transport
        from transport.transport import ModelType, PathType, Transport, WeightType

        net = SiT(num_classes=10, **TINY)
        shapes["sit"] = filled(net, 1)
        arrays["sit_said"] = net(x, arrays["t"], y)
        sampler = Sampler(create_transport())
        ode = sampler.sample_ode(sampling_method="euler", num_steps=STEPS + 1)
        arrays["sit_ode"] = ode(x, net, y=y)[-1]
        for form in ("sigma", "decreasing"):  # its others divide by 0, or fail on a float
            sde = sampler.sample_sde(diffusion_form=form, num_steps=STEPS)
            with own_noise():
                arrays[f"sit_sde_{form}"] = sde(x, net, y=y)[-1]
        for path, name in (("GVP", "gvp"), ("VP", "vp")):
            sampler = Sampler(create_transport(path_type=path))
            ode = sampler.sample_ode(sampling_method="euler", num_steps=STEPS + 1)
            arrays[f"sit_{name}_ode"] = ode(x, net, y=y)[-1]
            for form in ("sigma", "linear", "SBDM") if name == "vp" else ("sigma",):
                sde = sampler.sample_sde(diffusion_form=form, num_steps=STEPS)
                with own_noise():
                    arrays[f"sit_{name}_sde_{form}"] = sde(x, net, y=y)[-1]
        # `create_transport` starts at t = 0, where SBDM's diffusion is infinite on these paths.
        for path, name in ((PathType.LINEAR, "sit_sde"), (PathType.GVP, "sit_gvp_sde")):
            sde = Sampler(Transport(
                model_type=ModelType.VELOCITY, path_type=path, loss_type=WeightType.NONE,
                train_eps=0.0, sample_eps=SAMPLE_EPS,
            )).sample_sde(diffusion_form="SBDM", num_steps=STEPS)  # fmt: skip
            with own_noise():
                arrays[f"{name}_SBDM"] = sde(x, net, y=y)[-1]
    with peer(sources / "REPA"):
        from models.sit import SiT as Repa
        from samplers import euler_maruyama_sampler, euler_sampler

        net = Repa(
            decoder_hidden_size=32, z_dims=[8], projector_dim=16, encoder_depth=1, use_cfg=True,
            qk_norm=True, num_classes=1000, **TINY,
        )  # fmt: skip
        shapes["repa"] = filled(net, 2)
        arrays["repa_said"] = net(x, arrays["t"], y)[0]
        told = {"cfg_scale": GUIDANCE, "guidance_low": 0.3, "guidance_high": 0.7}
        arrays["repa_ode"] = euler_sampler(net, x, y, num_steps=STEPS, **told)
        with own_noise():
            arrays["repa_sde"] = euler_maruyama_sampler(net, x, y, num_steps=STEPS, **told)
    for name in ("", ".nn", ".nn.model_parallel", ".nn.model_parallel.initialize",
                 ".nn.model_parallel.layers"):  # fmt: skip
        module = sys.modules[f"fairscale{name}"] = types.ModuleType(f"fairscale{name}")
        for layer in ("ColumnParallelLinear", "ParallelEmbedding", "RowParallelLinear"):
            setattr(module, layer, None)  # imported beside the norm that is used, and not used
    with peer(sources / "LightningDiT"):
        from models.lightningdit import LightningDiT
        from transport import Sampler, create_transport

        more = {"use_swiglu": True, "use_rope": True, "use_rmsnorm": True}
        for name, others in (("lightning", {}), ("lightning_all", _ALL)):
            net = LightningDiT(num_classes=10, **TINY, **more, **others)
            shapes[name] = filled(net, 3)
            arrays[f"{name}_said"] = net(x, arrays["t"], y)
        net = LightningDiT(num_classes=10, **TINY, **more)
        filled(net, 3)
        ode = Sampler(create_transport()).sample_ode(
            sampling_method="euler", num_steps=STEPS + 1, timestep_shift=0.3
        )
        told = {"y": torch.cat([y, torch.full_like(y, 10)]), "cfg_scale": GUIDANCE,
                "cfg_interval": True, "cfg_interval_start": 0.11}  # fmt: skip
        arrays["lightning_ode"] = ode(both, net.forward_with_cfg, **told)[-1][:2]
    meta = {"shapes": shapes, "steps": STEPS, "guidance": GUIDANCE}
    np.savez_compressed(
        GOLDEN,
        meta=np.frombuffer(json.dumps(meta).encode(), np.uint8),
        **{name: value.numpy() for name, value in arrays.items()},
    )
    print(GOLDEN, GOLDEN.stat().st_size, "bytes")


_ALL = {"use_qknorm": True, "wo_shift": True}

if __name__ == "__main__":
    sys.path.insert(0, sys.argv[2])
    record(Path(sys.argv[1]))
