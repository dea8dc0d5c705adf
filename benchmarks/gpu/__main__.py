"""Measures a card: python -m benchmarks.gpu [--tiny --device cpu] [--seconds 460] [--out FOLDER]

Random weights of published shapes, built on the device. Figures are ratios of things run in turn
in one process; `gpu.json` and `gpu.md` are written anew after each.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--tiny", action="store_true", help="small networks, for a CPU")
    parser.add_argument("--seconds", type=float, default=460.0, help="of the whole run")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/gpu-results"))
    parser.add_argument("--only", default="", help="names of work, separated by commas")
    parser.add_argument("--toy", type=Path, help="a trained checkpoint of digits")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        os.environ["DDIM_DATA"] = f"{place}/data"
        os.environ["PREFECT_HOME"] = f"{place}/data/prefect"
        _measure(asked, Path(place))


def _measure(asked: argparse.Namespace, place: Path) -> None:
    import torch

    from benchmarks.gpu import features, grids, lora, native, pipelines, training
    from benchmarks.gpu.record import Record
    from ddim_core.features import card_network

    tiny, device = asked.tiny, asked.device
    if tiny:
        card_network.BATCH = 4
    if device != "cpu":
        torch.zeros(1, device=device)
    record = Record(asked.out, device, asked.seconds)
    ref = native.stored(tiny, place)
    works = {  # by importance, each with the seconds that it is expected to take
        "bits": (20, lambda: native.bits(record, tiny, device, ref)),
        "features": (60, lambda: features.measure(record, tiny, device, place)),
        "sd15": (40, lambda: pipelines.measure(record, "sd15", tiny, device, False)),
        "grid": (70, lambda: grids.measure(record, tiny, device, place)),
        "training": (15, lambda: training.measure(record, tiny, device, place)),
        "lora": (70, lambda: lora.measure(record, tiny, device, place)),
        "formats": (30, lambda: grids.formats(record, tiny, device, place, asked.toy)),
        "sdxl": (50, lambda: pipelines.measure(record, "sdxl", tiny, device, False)),
        "dit": (25, lambda: pipelines.measure(record, "dit", tiny, device, False)),
        "native": (50, lambda: native.measure(record, tiny, device, ref, False)),
        "compiled": (120, lambda: pipelines.measure(record, "sd15", tiny, device, True)),
        "native-compiled": (90, lambda: native.measure(record, tiny, device, ref, True)),
    }
    chosen = [name for name in asked.only.split(",") if name] or list(works)
    if asked.toy is None:
        chosen = [name for name in chosen if name != "formats"]
    for name in chosen:
        expected, work = works[name]
        record.work(name, 0 if tiny else expected, work)
    grids.end()


if __name__ == "__main__":
    main()
