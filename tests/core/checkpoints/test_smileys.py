"""The model of smileys that comes with the project: what is shipped opens, and draws smileys."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, DDPMPipeline

from ddim_core.images.load import load_images

FOLDER = Path(__file__).parents[3] / "data" / "smileys"


def nearest(images: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Root mean squared distance of each image to its nearest real one, pixels in [0, 1]."""
    apart = images[:, None].astype(np.float32) - real[None].astype(np.float32)
    found: np.ndarray = np.sqrt(np.square(apart / 255.0).mean(axis=(2, 3, 4))).min(axis=1)
    return found


def test_the_shipped_model_is_small_and_draws_smileys() -> None:
    """Its pictures lie nearer to drawings than the means of two drawings do, which have all of
    their colours and none of their shapes, and they are not all one picture."""
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 6e6
    assert "CC-BY 4.0" in (FOLDER / "README.md").read_text()
    real = load_images("smileys", resolution=32).images
    assert len(real) == 171
    pipeline = DDPMPipeline.from_pretrained(FOLDER)  # float16 on disk, float32 here
    assert pipeline.unet.dtype == torch.float32
    scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, timestep_spacing="trailing")
    scheduler.set_timesteps(10)
    x = torch.randn((12, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for t in scheduler.timesteps:
            x = scheduler.step(pipeline.unet(x, t).sample, t, x).prev_sample
    pixels = ((x.clamp(-1.0, 1.0) + 1.0) * 127.5).round().to(torch.uint8)
    drawn = pixels.permute(0, 2, 3, 1).numpy()
    half = len(real) // 2
    between = ((real[:half].astype(int) + real[-half:]) // 2).astype(np.uint8)
    assert np.median(nearest(drawn, real)) < np.median(nearest(between, real))
    apart = np.square(drawn[:, None].astype(int) - real[None]).mean(axis=(2, 3, 4))
    assert len(set(apart.argmin(axis=1).tolist())) > 3
