"""Inception features on a card: ours beside torch-fidelity's and clean-fid's own extraction."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from benchmarks.gpu.record import Figure, Record
from benchmarks.gpu.timing import in_turn, ratio, speed
from ddim_core.devices.arithmetic import arithmetic
from ddim_core.features.inception import InceptionFeatures
from ddim_core.scores.distances.frechet import frechet_distance
from ddim_core.statistics.moments import FeatureMoments
from tests.networks import save_fid_inception

FEW = 100  # for the CPU, which takes a second for ten


def measure(record: Record, tiny: bool, device: str, folder: Path) -> None:
    """Images a second, and how far features of the card are from those of a CPU."""
    n, repeats = (4, 1) if tiny else (4096, 3)
    weights = save_fid_inception(folder / "inception.pth")
    images = smooth_images(n)
    few = images[: min(n, FEW)]
    wanted, wanted_clean = (InceptionFeatures(str(weights), how)(few) for how in ("tf1", "clean"))
    times = {}
    for resize, dtype in (("tf1", "float32"), ("tf1", "tf32"), ("clean", "tf32")):
        extractor = InceptionFeatures(str(weights), resize)
        extractor.to_card(device if device != "cpu" else "cpu:0")

        def ours(extractor: InceptionFeatures = extractor, dtype: str = dtype) -> None:
            with arithmetic(dtype):
                extractor(images)

        times[resize, dtype] = in_turn(repeats, ours)[0]
        record.add(
            speed(f"Inception features, ours, {resize}, {dtype}", n, times[resize, dtype],
                  ">= 2,000", "32 x 32 images in memory, resized to 299")
        )  # fmt: skip
        if resize == "tf1":
            with arithmetic(dtype):
                _difference(record, dtype, extractor(few), wanted)
    _in_float16(record, extractor, images, few, wanted_clean, repeats)
    workers = 0 if tiny else 12
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic = True, False  # as usual
    for name, resize, work in (
        ("torch-fidelity", "tf1", torch_fidelitys(weights, images, device)),
        ("clean-fid", "clean", clean_fids(weights, images, device, folder / "png", workers)),
    ):
        theirs = in_turn(repeats, work)[0]
        record.add(
            speed(f"Inception features, {name}", n, theirs),
            ratio(f"{name}'s seconds / ours, {resize}", theirs, times[resize, "tf32"],
                  ">= 2", "both with TF32 in convolutions, torch's usual setting"),
        )  # fmt: skip


def _in_float16(
    record: Record,
    extractor: InceptionFeatures,
    images: NDArray[np.uint8],
    few: NDArray[np.uint8],
    wanted: NDArray[np.float32],
    repeats: int,
) -> None:
    """What the network would gain in float16, whose numbers have as many digits as TF32's, and how
    far that would move an FID: nothing of the project is done so."""
    card = extractor._card
    assert card is not None
    half = card._network.half()
    card._network = lambda x: half(x.half()).float()  # type: ignore[assignment]
    card._run = None
    taken = in_turn(repeats, lambda: extractor(images))[0]
    record.add(speed("Inception features, clean, tried in float16", len(images), taken))
    _difference(record, "float16, clean", extractor(few), wanted)


def smooth_images(n: int, side: int = 32) -> NDArray[np.uint8]:
    """Random images with structure: noise of 4 x 4, made larger."""
    stream = np.random.RandomState(0)
    coarse = torch.from_numpy(stream.rand(n, 3, 4, 4).astype(np.float32))
    fine = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic")
    return (fine.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def _difference(
    record: Record, dtype: str, got: NDArray[np.float32], wanted: NDArray[np.float32]
) -> None:
    half = len(wanted) // 2
    distances = [
        frechet_distance(*(FeatureMoments.from_features(part) for part in (x[:half], x[half:])))
        for x in (wanted, got)
    ]
    record.add(
        Figure(f"largest difference of features, card and CPU, {dtype}",
               float(np.abs(got - wanted).max() / np.abs(wanted).max()), "of the largest"),
        Figure(f"FID by the card's features / by the CPU's - 1, {dtype}",
               distances[1] / distances[0] - 1.0, "of FID", told=f"FID {distances[0]:.4g}"),
    )  # fmt: skip


class Bytes(torch.utils.data.Dataset[Tensor]):
    """Images as torch-fidelity takes them: uint8 [3, h, w]."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        self.images = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> Tensor:
        return self.images[i]


def torch_fidelitys(weights: Path, images: NDArray[np.uint8], device: str) -> Callable[[], object]:
    """Its own `get_featuresdict_from_dataset` with its usual batch."""
    from torch_fidelity.utils import create_feature_extractor, get_featuresdict_from_dataset

    cuda = device != "cpu"
    network = create_feature_extractor(
        "inception-v3-compat", ["2048"], cuda=cuda, feature_extractor_weights_path=str(weights),
        verbose=False,
    )  # fmt: skip
    batch = min(64, len(images))
    data = Bytes(images)
    return lambda: get_featuresdict_from_dataset(data, network, batch, cuda, False, False)


def clean_fids(
    weights: Path, images: NDArray[np.uint8], device: str, folder: Path, n_workers: int
) -> Callable[[], object]:
    """Its own `get_files_features`, which reads files and resizes them in processes, with torch-
    fidelity's network: its own file is not to be had here."""
    from cleanfid.fid import get_files_features  # type: ignore[import-untyped]

    trunk = InceptionFeatures(str(weights), "clean")._network.eval().to(device)
    folder.mkdir(exist_ok=True)
    files = [str(folder / f"{i}.png") for i in range(len(images))]
    for file, image in zip(files, images, strict=True):
        Image.fromarray(image).save(file)
    return lambda: get_files_features(
        files, lambda x: trunk((x - 128.0) / 128.0), num_workers=n_workers, batch_size=128,
        device=torch.device(device), mode="clean", verbose=False,
    )  # fmt: skip
