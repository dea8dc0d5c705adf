"""The files of lucidrains' denoising-diffusion-pytorch: its Unet within its GaussianDiffusion.

`Trainer.save` of lucidrains/denoising-diffusion-pytorch (2.x) writes the state dict of the whole
GaussianDiffusion, whose buffers say the schedule and, by the weight of its loss, what the network
predicts; and that of ema_pytorch's EMA, with both models in it. Image sizes stand nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ddim_core.checkpoints.formats.format import Format, Network, count, require_size, told_by
from ddim_core.diffusion.specs import NoiseSpec
from ddim_core.networks.backbones.lucidrains import CLASS_NAME

MARK, HELD = "init_conv.weight", "model."
README_SIZE = 128  # pixels, in the examples of its README
OBJECTIVES = {"pred_noise": "epsilon", "pred_x0": "sample", "pred_v": "v_prediction"}
BUFFERS = (
    "betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod", "log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod", "posterior_variance", "posterior_log_variance_clipped",
    "posterior_mean_coef1", "posterior_mean_coef2", "loss_weight",
)  # fmt: skip
HOW = "give the file that its Trainer.save writes (model-10.pt)"


def is_lucidrains(state: Mapping[str, Tensor]) -> bool:
    """Tells the names of its Unet, within its GaussianDiffusion or alone."""
    return any(at + MARK in state and at + "final_conv.weight" in state for at in (HELD, ""))


def lucidrains_network(state: Mapping[str, Tensor], settings: Any, hparams: Any = None) -> Network:
    """Reads a state dict of its GaussianDiffusion.

    Args:
        state: Weights by its names.
        settings: Those beside it; `image_size` and, where the weights do not tell, `objective`.
        hparams: Those in its file, such as Lightning's.

    Raises:
        ValueError: If it is of an older release, or of another diffusion than GaussianDiffusion.
    """
    weights = {n.removeprefix(HELD): w for n, w in state.items() if n.startswith(HELD)}
    if "betas" not in state or not weights:
        raise ValueError(
            "the weights are of denoising-diffusion-pytorch's Unet without the schedule of its "
            f"GaussianDiffusion (betas); {HOW}"
        )
    if "downs.0.0.block1.norm.g" not in weights:
        raise ValueError(
            "the weights are of an older release of denoising-diffusion-pytorch, whose blocks have "
            "no RMSNorm; only those since are read"
        )
    told = told_by(hparams, settings)
    size, assumed = README_SIZE, []
    if "image_size" in told:
        size = told["image_size"]
    else:
        assumed.append(
            f"The checkpoint does not say its image size: {README_SIZE} is assumed, that of "
            "denoising-diffusion-pytorch's examples; put image_size beside it, as config.json."
        )
    config = _config(weights, size)
    betas = state["betas"].double()
    objective, more = _objective(state, betas, told.get("objective"))
    noise = NoiseSpec("given", len(betas), betas=tuple(betas.tolist()))
    scheduler = {
        "_class_name": "DDPMScheduler", "num_train_timesteps": len(betas),
        "trained_betas": betas.tolist(), "prediction_type": OBJECTIVES[objective],
        "variance_type": "fixed_small",
    }  # fmt: skip
    n_in, n_out = config["in_channels"], config["out_channels"]
    if n_out == 2 * n_in:
        scheduler["variance_type"] = "learned_range"
    dims = ", ".join(map(str, config["dims"]))
    looks = f"denoising-diffusion-pytorch with dim {config['dim']} and levels of {dims} channels"
    return Network(
        config, weights, noise, scheduler, assumed=assumed + more, looks=looks
    )  # fmt: skip


def _config(weights: Mapping[str, Tensor], size: Any) -> dict[str, Any]:
    n_levels = count(weights, r"downs\.(\d+)\.")
    require_size(size, n_levels)
    try:
        dims = [len(weights[MARK])]
        for level in range(n_levels):
            end = f"downs.{level}.3" if level == n_levels - 1 else f"downs.{level}.3.1"
            dims.append(len(weights[f"{end}.weight"]))
        full = [f"downs.{level}.2.to_out.weight" in weights for level in range(n_levels)]
        memory = [weights[f"downs.{level}.2.mem_kv"].shape for level in range(n_levels)]
        time_dim, n_features = weights["time_mlp.1.weight"].shape
        n_out, n_seen = len(weights["final_conv.bias"]), weights[MARK].shape[1]
    except KeyError as error:
        raise ValueError(f"the weights lack {error.args[0]}") from error
    learned = n_features - 1 if "time_mlp.0.weights" in weights else 0
    self_condition = n_seen == 2 * n_out  # with a learned variance its authors have none
    return {
        "_class_name": CLASS_NAME, "sample_size": size,
        "in_channels": n_seen // (1 + self_condition), "out_channels": n_out,
        "num_class_embeds": None, "dim": time_dim // 4, "dims": dims, "full_attn": full,
        "attn_heads": [shape[1] for shape in memory],
        "attn_dim_head": [s[3] if f else s[2] for s, f in zip(memory, full, strict=True)],
        "num_mem_kv": memory[0][2 if full[0] else 3], "self_condition": self_condition,
        "learned_sinusoidal_dim": learned,
    }  # fmt: skip


def _objective(state: Mapping[str, Tensor], betas: Tensor, told: Any) -> tuple[str, list[str]]:
    """What the network predicts, by the weight of the loss at each timestep: of the noise 1, of x0
    the signal-to-noise ratio, of v that over one more; where the noise is the larger, whatever its
    min_snr_gamma (of at least 1)."""
    weight = state.get("loss_weight")
    alpha_bar = torch.cumprod(1 - betas, 0)
    snr = alpha_bar / (1 - alpha_bar)
    if weight is not None and weight.shape == snr.shape:
        seen = snr <= 1.0
        usual = {"pred_noise": torch.ones_like(snr), "pred_x0": snr, "pred_v": snr / (snr + 1)}
        for name, values in usual.items():
            if torch.allclose(weight.double()[seen], values[seen], rtol=1e-3, atol=1e-9):
                return name, []
    if told is not None and told not in OBJECTIVES:
        raise ValueError(f"objective is {told!r:.50}; it must be one of {', '.join(OBJECTIVES)}")
    if told is not None:
        return told, []
    return "pred_noise", [
        "The checkpoint does not say what its network predicts: the noise is assumed, the default "
        "of older releases; put objective beside it, as config.json."
    ]


LUCIDRAINS = Format(
    "denoising-diffusion-pytorch", is_lucidrains, lucidrains_network, (HELD + MARK, MARK), BUFFERS
)
