"""Files of other people's checkpoints, built from small diffusers networks.

The names are translated the other way round and written down independently of the project: from
diffusers to the official code's, and to the course's.
"""

from __future__ import annotations

import copy
import json
import re
import sys
import types
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    UNet2DModel,
    VQModel,
)
from torch import Tensor, nn

SETTINGS = {
    "data": {"image_size": 16, "rescaled": True},
    "model": {
        "type": "simple", "in_channels": 3, "out_ch": 3, "ch": 32, "ch_mult": [1, 2],
        "num_res_blocks": 1, "attn_resolutions": [8], "resamp_with_conv": True,
    },
    "diffusion": {
        "beta_schedule": "quad", "beta_start": 0.0001, "beta_end": 0.01,
        "num_diffusion_timesteps": 500,
    },
}  # fmt: skip


def small_unet(seed: int = 0, **changes: Any) -> UNet2DModel:
    """A network of 16x16 RGB images with attention at 8x8, every weight random."""
    made = _MADE.get(key := repr((seed, sorted(changes.items()))))
    if made is None:
        made = _MADE[key] = _small_unet(seed, changes)
    return copy.deepcopy(made)


_MADE: dict[str, UNet2DModel] = {}


def _small_unet(seed: int, changes: dict[str, Any]) -> UNet2DModel:
    torch.manual_seed(seed)
    settings: dict[str, Any] = {
        "sample_size": 16, "in_channels": 3, "out_channels": 3, "block_out_channels": (32, 64),
        "layers_per_block": 1, "attention_head_dim": None,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    }  # fmt: skip
    unet = UNet2DModel(**(settings | changes)).eval()
    for weight in unet.parameters():
        nn.init.normal_(weight, std=0.1)
    return unet


def official_like(seed: int = 0) -> UNet2DModel:
    """As diffusers' own conversion of DDPM checkpoints sets its networks up."""
    return small_unet(
        seed, flip_sin_to_cos=False, freq_shift=1, downsample_padding=0, norm_eps=1e-6
    )


def answer(model: Any, size: int = 16, channels: int = 3) -> Tensor:
    """What a network says to fixed images and timesteps."""
    torch.manual_seed(5)
    x, t = torch.randn(2, channels, size, size), torch.tensor([3, 400])
    with torch.no_grad():
        said = model(x, t)
    return said if isinstance(said, Tensor) else said.sample


def official_names(unet: UNet2DModel) -> dict[str, Tensor]:
    """A network's weights as the official DDIM code names and shapes them."""
    n_levels = len(unet.config["block_out_channels"])
    replacements = [
        (r"time_embedding\.linear_(\d)", lambda m: f"temb.dense.{int(m[1]) - 1}"),
        (r"conv_norm_out", "norm_out"),
        (r"down_blocks\.(\d+)", r"down.\1"),
        (r"up_blocks\.(\d+)", lambda m: f"up.{n_levels - 1 - int(m[1])}"),
        (r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}"),
        (r"mid_block\.attentions\.0", "mid.attn_1"),
        (r"\.resnets\.", ".block."),
        (r"\.attentions\.", ".attn."),
        (r"\.(down|up)samplers\.0", r".\1sample"),
        (r"time_emb_proj", "temb_proj"),
        (r"conv_shortcut", "nin_shortcut"),
        (r"group_norm", "norm"),
        (r"to_out\.0", "proj_out"),
        (r"to_([qkv])", r"\1"),
    ]
    found = {}
    for name, weight in unet.state_dict().items():
        if ".attentions." in name and weight.ndim == 2:
            weight = weight[:, :, None, None]
        for pattern, replacement in replacements:
            name = re.sub(pattern, replacement, name)
        found[name] = weight.clone()
    return found


def course_names(unet: Any) -> dict[str, Tensor]:
    """A network's weights as the course names and shapes them: blocks in one list a direction."""
    order: dict[str, int] = {}
    for direction, n in (("down", 1), ("up", 2)):
        index = 0
        for level in range(2):
            for block in range(n):
                order[f"{direction}_blocks.{level}.{block}"] = index
                index += 1
            if level == 0:
                order[f"{direction}_blocks.{level}.{direction}sample"] = index
                index += 1
    parts = {
        "norm1": "block1.0", "conv1": "block1.2", "time_emb_proj": "temb_proj.1",
        "norm2": "block2.0", "conv2": "block2.3", "conv_shortcut": "shortcut",
        "group_norm": "attn.group_norm", "to_q": "attn.proj_q", "to_k": "attn.proj_k",
        "to_v": "attn.proj_v", "to_out.0": "attn.proj", "conv": "main",
    }  # fmt: skip
    ends = {
        "conv_in": "head", "conv_norm_out": "tail.0", "conv_out": "tail.2",
        "time_embedding.linear_1": "time_embedding.mlp.0",
        "time_embedding.linear_2": "time_embedding.mlp.2", "class_embedding": "class_embedding",
    }  # fmt: skip
    found = {}
    for name, weight in unet.state_dict().items():
        stem, kind = name.rsplit(".", 1)
        if "attentions" in name and weight.ndim == 2:
            weight = weight[:, :, None, None]
        if stem in ends:
            new = ends[stem]
        elif match := re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d)\.(.+)", stem):
            new = f"middleblocks.{match[2]}.{parts[match[3]]}"
        elif match := re.fullmatch(r"((down|up)_blocks\.\d)\.\w+samplers\.0\.conv", stem):
            new = f"{match[2]}blocks.{order[f'{match[1]}.{match[2]}sample']}.main"
        else:
            match = re.fullmatch(r"((down|up)_blocks\.\d)\.\w+\.(\d)\.(.+)", stem)
            assert match, stem
            new = f"{match[2]}blocks.{order[f'{match[1]}.{match[3]}']}.{parts[match[4]]}"
        found[f"network.{new}.{kind}"] = weight.clone()
    return found


def pickled_modules(size: int) -> dict[str, Any]:
    """`hparams` as the course's DiffusionModule.save has them: whole modules, pickled by name."""
    made = {}
    for module, name in (("network", "UNet"), ("module", "Swish"), ("scheduler", "DDPMScheduler")):
        made[name] = type(name, (nn.Module,), {"__module__": module})
        sys.modules[module] = types.ModuleType(module)
        setattr(sys.modules[module], name, made[name])
    network = made["UNet"]()
    network.image_resolution = size
    network.tail = nn.Sequential(nn.GroupNorm(2, 4), made["Swish"](), nn.Conv2d(4, 3, 3))
    scheduler = made["DDPMScheduler"]()
    scheduler.num_train_timesteps = 500
    scheduler.register_buffer("betas", torch.linspace(1e-4, 0.02, 500))
    return {"network": network, "var_scheduler": scheduler}


def course_file(path: Path, state: dict[str, Tensor], hparams: Any) -> Path:
    betas = torch.linspace(1e-4, 0.02, 500)
    torch.save({"hparams": hparams, "state_dict": state | {"var_scheduler.betas": betas}}, path)
    for module in ("network", "module", "scheduler"):  # a reader does not have the course's code
        sys.modules.pop(module, None)
    return path


def pixel_pipeline(folder: Path, unet: UNet2DModel) -> Path:
    DDPMPipeline(unet, DDPMScheduler(beta_schedule="squaredcos_cap_v2")).save_pretrained(folder)
    return folder


def text_pipeline(folder: Path) -> Path:
    """A tiny Stable Diffusion: 8x8 latents of 16x16 images, letters as its vocabulary."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    letters = [chr(i) for i in range(97, 123)]
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{c}</w>" for c in letters)]
    folder.mkdir(parents=True)
    vocabulary, merges = folder.parent / "vocab.json", folder.parent / "merges.txt"
    vocabulary.write_text(json.dumps({word: i for i, word in enumerate(words)}))
    merges.write_text("#version: 0.2\n")
    torch.manual_seed(0)
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(words), hidden_size=16, intermediate_size=16, num_hidden_layers=2,
            num_attention_heads=2, max_position_embeddings=12, bos_token_id=0, eos_token_id=1,
            pad_token_id=1,
        )
    )  # fmt: skip
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        cross_attention_dim=16, attention_head_dim=2,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    for weight in unet.parameters():
        nn.init.normal_(weight, std=0.2)
    StableDiffusionPipeline(
        vae=_decoder(AutoencoderKL), text_encoder=text_encoder, unet=unet,
        tokenizer=CLIPTokenizer(str(vocabulary), str(merges), model_max_length=12),
        scheduler=DDIMScheduler(
            beta_schedule="scaled_linear", beta_start=8.5e-4, beta_end=0.012, clip_sample=False,
            set_alpha_to_one=False,
        ),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def latent_pipeline(folder: Path) -> Path:
    """A tiny unconditional LDM: 8x8 latents of 16x16 images, its decoder a VQModel."""
    from diffusers import LDMPipeline

    torch.manual_seed(1)
    unet = UNet2DModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(8, 16),
        layers_per_block=1, norm_num_groups=4, down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2, attention_head_dim=8,
    )  # fmt: skip
    scheduler = DDIMScheduler(clip_sample=False)
    LDMPipeline(vqvae=_decoder(VQModel), unet=unet, scheduler=scheduler).save_pretrained(folder)
    return folder


def _decoder(kind: Any) -> Any:
    return kind(
        in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(8, 8),
        norm_num_groups=4, down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, scaling_factor=0.5,
    )  # fmt: skip
