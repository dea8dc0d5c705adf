"""Training images to latents, once: sizes, cuts, mirrors, and the autoencoder's moments."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import cpu_count
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ddim_core.common.last import one_ahead
from ddim_core.common.late import late
from ddim_core.devices.placing import laid_out
from ddim_core.devices.transfer import sent
from ddim_core.lora.data import Captioned, decode
from ddim_core.lora.recipes import recipe_of
from ddim_core.lora.specs import LatentSpec
from ddim_core.networks.batches import in_fixed_batches
from ddim_core.text2image.base_folder import load_vae

if TYPE_CHECKING:
    import diffusers
    from torchvision.transforms import functional as images
else:
    diffusers = late("diffusers")
    images = late("torchvision.transforms.functional")

LARGEST_ASPECT = 2.0
PIXELS_AT_ONCE = 2**21  # that a card encodes: 8 images of 512 x 512
CHUNK = 64  # images that are decoded and cut while a card encodes as many
Size = tuple[int, int]
# Of one image: its variants' moments, and what SDXL is told of each.
Encoded = tuple[NDArray[np.float32], list[list[int]]]


@dataclass(frozen=True)
class Cuts:
    """An image's variants, all of one size, and what SDXL is told of each."""

    size: Size
    images: list[Image.Image]
    told: list[list[int]]


def encode_latents(
    base: Path, items: list[Captioned], spec: LatentSpec, step: int, device: str = "cpu"
) -> dict[str, NDArray[np.float32]]:
    """Encodes every image in each of its variants (cuts, each plain and mirrored).

    Moments are kept, not samples: training draws z = (mean + std n - shift) scaling anew at each
    visit, as diffusers' scripts do.

    Args:
        base: The base's folder; its autoencoder is used.
        items: The images.
        spec: How they are cut.
        step: What height and width must be multiples of, from `lora_base.size_step`.
        device: The CPU, which takes them one by one, or a card: batches of one number of images for
            each size, so that no image depends on its neighbours.

    Returns:
        `moments/<i>` float32 [variants, 2 c, h, w]: mean and log variance of image i; `sizes/<i>`
        float32 [variants, 6]: height and width of the original, top and left of the cut, height
        and width of the cut, in pixels, which SDXL is told; `scaling_factor` and
        `shift_factor` [1], 0 where there is none.

    Raises:
        ValueError: If the resolution does not fit the base, or an image cannot be read.
    """
    sizes = bucket_sizes(spec, step)
    vae = load_vae(base)
    factors = (vae.config.scaling_factor, vae.config.get("shift_factor") or 0.0)
    arrays = {
        name: np.array([factor], dtype=np.float32)
        for name, factor in zip(("scaling_factor", "shift_factor"), factors, strict=True)
    }
    bilinear = recipe_of(base).bilinear

    def cut(index: int) -> Cuts:
        image = decode(items[index].data, items[index].name)
        size = nearest_size(image.size, sizes)
        made, told = zip(*_variants(image, size, spec, index, bilinear), strict=True)
        return Cuts(size, list(made), list(told))

    indices = range(len(items))
    encoded = (
        (
            (np.stack([_moments(vae, x) for x in cuts.images]), cuts.told)
            for cuts in map(cut, indices)
        )
        if device == "cpu"
        else _on_card(vae, cut, indices, torch.device(device))
    )
    for index, (moments, told) in enumerate(encoded):
        arrays[f"moments/{index:06d}"] = moments
        arrays[f"sizes/{index:06d}"] = np.array(told, dtype=np.float32)
    return arrays


def bucket_sizes(spec: LatentSpec, step: int) -> list[Size]:
    """Returns the sizes (width, height) that images may be cut to, the square first.

    With buckets these are all multiples of `step` whose area is at most resolution^2, as large as
    they can be, and whose sides differ at most by a factor of 2 (the rule of sd-scripts).

    Raises:
        ValueError: If the resolution is no multiple of `step`.
    """
    side = spec.resolution
    if side % step:
        low = side // step * step
        near = " or ".join(str(x) for x in (low, low + step) if x)
        raise ValueError(f"resolution is {side}; this base needs a multiple of {step}: {near}")
    if not spec.buckets:
        return [(side, side)]
    widths = range(step, int(side * math.sqrt(LARGEST_ASPECT)) + 1, step)
    pairs = ((width, side * side // width // step * step) for width in widths)
    wide = [(w, h) for w, h in pairs if h and max(w / h, h / w) <= LARGEST_ASPECT]
    return list(dict.fromkeys([(side, side), *wide, *((h, w) for w, h in wide)]))


def nearest_size(size: Size, sizes: list[Size]) -> Size:
    """Returns the bucket whose aspect ratio is nearest to an image's; of equals the first."""
    aspect = math.log(size[0] / size[1])
    return min(sizes, key=lambda bucket: abs(math.log(bucket[0] / bucket[1]) - aspect))


def _variants(
    image: Image.Image, size: Size, spec: LatentSpec, index: int, bilinear: bool
) -> list[tuple[Image.Image, list[int]]]:
    """The cuts of an image, each followed by its mirror image where asked; what SDXL is told."""
    resized = _cover(image, size, bilinear)
    width, height = size
    stream = np.random.default_rng([spec.seed, index])
    found = []
    for _ in range(max(1, spec.crops)):
        if spec.crops:
            top = int(stream.integers(0, resized.height - height + 1))
            left = int(stream.integers(0, resized.width - width + 1))
        else:
            top = int(round((resized.height - height) / 2.0))
            left = int(round((resized.width - width) / 2.0))
        part = images.crop(resized, top, left, height, width)
        told = [image.height, image.width, top, left, height, width]
        found.append((part, told))
        if spec.flip:
            mirrored_left = resized.width - width - left
            found.append((images.hflip(part), [*told[:3], mirrored_left, *told[4:]]))
    return found


def _cover(image: Image.Image, size: Size, bilinear: bool) -> Image.Image:
    """Resizes the image to cover the size, one side exactly, the way that diffusers' scripts do."""
    width, height = size
    if width / image.width >= height / image.height:
        new = (width, max(height, int(width * image.height / image.width)))
    else:
        new = (max(width, int(height * image.width / image.height)), height)
    if new == image.size:
        return image
    modes = images.InterpolationMode
    return images.resize(image, [new[1], new[0]], modes.BILINEAR if bilinear else modes.LANCZOS)


def _on_card(
    vae: diffusers.AutoencoderKL, cut: Callable[[int], Cuts], indices: range, device: torch.device
) -> Iterator[Encoded]:
    """Encodes images on a card while threads decode and cut the next ones."""
    laid_out(vae).to(device)
    with ThreadPoolExecutor(cpu_count(), "cut") as pool:
        chunks = (indices[first : first + CHUNK] for first in range(0, len(indices), CHUNK))
        for cutting in one_ahead([pool.submit(cut, i) for i in chunk] for chunk in chunks):
            yield from _encoded(vae, [future.result() for future in cutting], device)


def _encoded(
    vae: diffusers.AutoencoderKL, chunk: list[Cuts], device: torch.device
) -> list[Encoded]:
    by_size: dict[Size, list[int]] = defaultdict(list)
    for place, cuts in enumerate(chunk):
        by_size[cuts.size].append(place)

    def moments(rows: Tensor) -> Tensor:
        pixels = sent(rows, device).permute(0, 3, 1, 2).float().div(255).sub(0.5).div(0.5)
        x = pixels.contiguous(memory_format=torch.channels_last)
        parameters: Tensor = vae.encode(x).latent_dist.parameters
        return parameters.float()

    found: dict[int, NDArray[np.float32]] = {}
    for (width, height), places in by_size.items():
        rows = np.stack([np.asarray(x) for place in places for x in chunk[place].images])
        batch = max(1, PIXELS_AT_ONCE // (width * height))
        made = in_fixed_batches(moments, batch, torch.from_numpy(rows)).cpu().numpy()
        found |= dict(zip(places, np.split(made, len(places)), strict=True))
    return [(found[place], cuts.told) for place, cuts in enumerate(chunk)]


def _moments(vae: diffusers.AutoencoderKL, image: Image.Image) -> NDArray[np.float32]:
    pixels = images.normalize(images.to_tensor(image), [0.5], [0.5])[None]
    with torch.inference_mode():
        moments = vae.encode(pixels).latent_dist.parameters[0]
    return moments.float().numpy()
