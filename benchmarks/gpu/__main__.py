"""Measures a card: python -m benchmarks.gpu [--tiny --device cpu] [--seconds 460] [--out FOLDER]

Random weights of published shapes, built on the device. Figures are ratios of things run in turn
in one process; `gpu.json` and `gpu.md` are written anew after each.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PROJECT = Path(__file__).parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--tiny", action="store_true", help="small networks, for a CPU")
    parser.add_argument("--seconds", type=float, default=460.0, help="of the whole run")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/gpu-results"))
    parser.add_argument("--only", default="", help="names of work, separated by commas")
    parser.add_argument("--toy", type=Path, help="a trained checkpoint of digits")
    asked = parser.parse_args()
    if asked.tiny:
        os.environ["TORCH_COMPILE_DISABLE"] = "1"  # it takes minutes on a CPU
    with tempfile.TemporaryDirectory() as place:
        os.environ["DDIM_DATA"] = f"{place}/data"
        os.environ["PREFECT_HOME"] = f"{place}/data/prefect"
        _as_installed(Path(place))
        _measure(asked, Path(place))


def _as_installed(place: Path) -> None:
    """Has a checkout that is not installed say its version, which records of scores ask for."""
    try:
        version("ddim-flows")
    except PackageNotFoundError:
        told = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
        metadata = place / "site" / "ddim_flows-0.dist-info" / "METADATA"
        metadata.parent.mkdir(parents=True)
        metadata.write_text(
            f"Metadata-Version: 2.1\nName: {told['name']}\nVersion: {told['version']}\n"
        )
        sys.path.append(str(place / "site"))


def _measure(asked: argparse.Namespace, place: Path) -> None:
    import torch

    from benchmarks.gpu import features, grids, lora, native, pipelines, scores, training, tuning
    from benchmarks.gpu.record import Record
    from ddim_core.features import card_network

    tiny, device = asked.tiny, asked.device
    if tiny:
        card_network.BATCH = 4
    if device != "cpu":
        torch.zeros(1, device=device)
    record = Record(asked.out, device, asked.seconds)
    ref = native.stored(tiny, place)
    works = {  # by importance: first what no card has measured; each with its expected seconds
        "bits": (15, lambda: native.bits(record, tiny, device, ref)),
        "features": (60, lambda: features.measure(record, tiny, device, place)),
        "scores": (45, lambda: scores.measure(record, tiny, device)),
        "sd15": (30, lambda: pipelines.measure(record, "sd15", tiny, device)),
        "native": (40, lambda: native.measure(record, tiny, device, ref)),
        "tries": (25, lambda: pipelines.tries(record, "sd15", tiny, device)),
        "grid": (110, lambda: grids.measure(record, tiny, device, place)),
        "formats": (15, lambda: grids.formats(record, tiny, device, place, asked.toy)),
        "sdxl": (42, lambda: pipelines.measure(record, "sdxl", tiny, device)),
        "tuning": (60, lambda: tuning.measure(record, tiny, device, place)),
        "training": (15, lambda: training.measure(record, tiny, device, place)),
        "lora": (50, lambda: lora.measure(record, tiny, device, place)),
        "compiled": (65, lambda: pipelines.by_compiler(record, "sd15", tiny, device)),
        "dit": (20, lambda: pipelines.measure(record, "dit", tiny, device)),
        "native-compiled": (60, lambda: native.by_compiler(record, tiny, device, ref)),
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
