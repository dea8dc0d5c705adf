"""Numbers of a configuration that no weight vouches for are refused by name, before anything is
built: sizes, paddings, how often a decoder doubles its picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from diffusers import AutoencoderKL, UNet2DModel

from ddim_core.checkpoints.convert import adopt, source_files
from ddim_core.networks.checks import laid_out, require_picture_side, require_sane
from tests.core.foreign_files import pixel_pipeline, small_unet, text_pipeline

UNJUSTIFIED: list[tuple[str, Any]] = [
    ("downsample_padding", 1000), ("downsample_padding", -1), ("downsample_padding", 2),
    ("downsample_padding", True), ("downsample_padding", "1"), ("downsample_padding", 0.5),
    ("downsample_padding", None), ("freq_shift", 16), ("freq_shift", -3), ("freq_shift", "1"),
    ("conv_in_kernel", 4), ("conv_out_kernel", 0), ("conv_in_kernel", 2**16 + 1),
    ("dropout", 1.5), ("dropout", "0"), ("image_size", 2**16), ("num_channels", 2**16),
    ("patch_size", 0), ("upsample_type", 7), ("downsample_type", ["conv"]),
    ("downsample_type", "none"), ("time_embedding_dim", -1), ("num_class_embeds", 0),
    ("chunk_size_feed_forward", -1),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), UNJUSTIFIED)
def test_a_size_or_padding_that_no_weight_vouches_for_is_refused_by_name(
    name: str, value: Any
) -> None:
    with pytest.raises(ValueError, match=rf"{name} is .* in it; it must be"):
        require_sane({name: value}, "it")


def test_the_paddings_and_sizes_of_real_networks_are_kept() -> None:
    for padding in (0, 1):
        require_sane({"downsample_padding": padding, "freq_shift": padding}, "it")
    require_sane({"image_size": 518, "patch_size": 14, "num_class_embeds": None}, "it")
    require_sane({"image_size": 336, "patch_size": 14, "conv_in_kernel": 3, "dropout": 0}, "it")


@pytest.mark.parametrize("config", [{"patch_size": 1}, {"patch_size": 2, "image_size": 512}])
def test_patches_so_small_that_thousands_attend_to_each_other_are_refused(
    config: dict[str, int],
) -> None:
    with pytest.raises(ValueError, match=r"patch_size is .* patches would attend"):
        require_sane(config, "it")


def test_a_size_that_the_levels_cannot_halve_is_refused_before_anything_is_drawn() -> None:
    config = dict(small_unet().config) | {"sample_size": 15}
    with pytest.raises(ValueError, match=r"sample_size is 15 .* must be a multiple of 2"):
        laid_out(UNet2DModel, config, 100, "it")


def test_more_layers_than_weights_are_refused_in_either_direction() -> None:
    config = dict(small_unet().config) | {"reverse_transformer_layers_per_block": [[120], [120]]}
    with pytest.raises(ValueError, match="more layers than it has weights"):
        laid_out(UNet2DModel, config, 100, "it")


def test_a_decoder_that_doubles_a_picture_too_often_is_refused(tmp_path: Path) -> None:
    require_picture_side({"sample_size": 128}, {"block_out_channels": [1] * 4}, "it")
    with pytest.raises(ValueError, match="it draws pictures of 65536 pixels along a side"):
        require_picture_side({"sample_size": 8}, {"block_out_channels": [1] * 14}, "it")
    folder = text_pipeline(tmp_path / "pipeline")
    AutoencoderKL(
        latent_channels=4, block_out_channels=(1,) * 14, norm_num_groups=1,
        down_block_types=("DownEncoderBlock2D",) * 14, up_block_types=("UpDecoderBlock2D",) * 14,
    ).save_pretrained(folder / "vae")  # fmt: skip
    (tmp_path / "out").mkdir()
    with pytest.raises(ValueError, match="pixels along a side; at most"):
        adopt(source_files(folder), tmp_path / "out")


def test_a_checkpoint_with_such_a_padding_is_refused_when_it_is_adopted(tmp_path: Path) -> None:
    folder = pixel_pipeline(tmp_path / "pipeline", small_unet())
    path = folder / "unet" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"downsample_padding": 1000}))
    (tmp_path / "out").mkdir()
    with pytest.raises(ValueError, match="downsample_padding is 1000 in unet; it must be 0 or 1"):
        adopt(source_files(folder), tmp_path / "out")
