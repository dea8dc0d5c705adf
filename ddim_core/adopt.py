"""Other people's checkpoints, brought into the one layout that sampling knows.

`source_files` says which files make up a checkpoint, without reading weights; `adopt` converts
them. Known are: a diffusers pipeline folder (DDPM, DDIM, LDM, Stable Diffusion 1.x and 2.x), a
folder of a training with `unet_ema`, the folder of a bare UNet2DModel, one file of its weights
with a configuration beside it, and the files of the official DDIM code, of pytorch_diffusion and
of KAIST's course.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from diffusers import AutoencoderKL, UNet2DConditionModel, UNet2DModel, VQModel
from torch import Tensor

from ddim_core.checkpoint import RECORD_NAME, WEIGHTS_NAME, load_checkpoint
from ddim_core.digest import file_digest
from ddim_core.fitting import require_fit, require_sane
from ddim_core.foreign import NO_SCHEDULE, adopt_file, step_in_name
from ddim_core.settings import read_settings
from ddim_core.specs import Weights
from ddim_core.untrusted import read_weights, require_tensors

SUFFIXES = frozenset({".safetensors", ".ckpt", ".pth", ".pt", ".bin"})
SETTINGS_SUFFIXES = (".json", ".yml", ".yaml")
INDEX, SCHEDULER = "model_index.json", "scheduler/scheduler_config.json"
NETWORK_FILES = (
    WEIGHTS_NAME, "diffusion_pytorch_model.fp16.safetensors", "diffusion_pytorch_model.bin",
    "diffusion_pytorch_model.fp16.bin",
)  # fmt: skip
TEXT_FILES = (
    "model.safetensors", "model.fp16.safetensors", "pytorch_model.bin", "pytorch_model.fp16.bin",
)  # fmt: skip
TOKENIZER_FILES = (
    "vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json",
)  # fmt: skip
NETWORK_CLASSES: dict[str, Any] = {
    "UNet2DModel": UNet2DModel, "UNet2DConditionModel": UNet2DConditionModel,
    "AutoencoderKL": AutoencoderKL, "VQModel": VQModel,
}  # fmt: skip
PARTS: dict[str, tuple[str, ...]] = {
    "unet": ("config.json", *NETWORK_FILES), "unet_ema": ("config.json", *NETWORK_FILES),
    "vae": ("config.json", *NETWORK_FILES), "vqvae": ("config.json", *NETWORK_FILES),
    "text_encoder": ("config.json", *TEXT_FILES), "tokenizer": TOKENIZER_FILES,
    "scheduler": ("scheduler_config.json",),
}  # fmt: skip
ROOT_PARTS = ("unet", "scheduler")
# What diffusers' EMAModel writes into its network's config.
EMA_SETTINGS = frozenset(
    {"decay", "min_decay", "optimization_step", "update_after_step", "use_ema_warmup",
     "inv_gamma", "power"}
)  # fmt: skip
DEPTH = 3  # folders below an MLflow artefact in which a checkpoint is looked for


def source_files(path: Path) -> dict[str, Path]:
    """Returns the files that make up a checkpoint, by their part in it.

    Args:
        path: A weights file, or a folder that is, or holds, exactly one checkpoint.

    Raises:
        ValueError: If there is nothing there, no checkpoint, or several.
    """
    if path.is_file():
        return _file_and_settings(path)
    if not path.is_dir():
        raise ValueError(f"there is no checkpoint {str(path)!r}, neither a folder nor a file")
    level = [path]
    for _ in range(DEPTH):
        found = [files for folder in level if (files := _checkpoint_in(folder))]
        if len(found) == 1:
            return found[0]
        if found:
            raise ValueError(f"{path.name} holds {len(found)} checkpoints; name one of them")
        level = [child for folder in level for child in sorted(folder.iterdir()) if child.is_dir()]
    raise ValueError(
        f"{path.name} holds no checkpoint: neither model_index.json, nor a config.json with "
        f"weights, nor one weights file ({', '.join(sorted(SUFFIXES))})"
    )


def source_digest(files: Mapping[str, Path]) -> str:
    """Returns a digest over the content of a checkpoint's files, wherever they lie."""
    parts = [[part, file_digest(path)] for part, path in sorted(files.items())]
    step = step_in_name(files["weights"]) if "weights" in files else None
    return hashlib.sha256(json.dumps([parts, step]).encode()).hexdigest()


def adopt(files: Mapping[str, Path], out: Path, weights: Weights = "ema") -> None:
    """Writes a checkpoint's files as a folder that `load_checkpoint` opens, and opens it.

    Pipelines of pixels are then also what `DDPMPipeline.from_pretrained` opens. Weights that are
    safetensors of diffusers already are copied byte for byte.

    Args:
        files: As of `source_files`.
        out: An empty folder.
        weights: `ema` takes the moving average where the source has both, `raw` the others.

    Raises:
        ValueError: If a file is damaged, asks to run code, or is of a network that is not known.
    """
    if "weights" in files:
        adopt_file(files, out, weights)
    elif "config.json" in files:
        _adopt_network(files, "", NETWORK_FILES, out)
        _copy(files, out, RECORD_NAME)
    else:
        _adopt_pipeline(files, out, weights)
    load_checkpoint(out)


def _checkpoint_in(folder: Path) -> dict[str, Path]:
    has_parts = (folder / INDEX).is_file() or any(
        (folder / part / "config.json").is_file() for part in ("unet", "unet_ema")
    )
    if has_parts:
        return _pipeline_files(folder)
    found = {name: folder / name for name in ("config.json", RECORD_NAME, *NETWORK_FILES)}
    bare = {name: path for name, path in found.items() if path.is_file()}
    if "config.json" in bare and (
        any(name in bare for name in NETWORK_FILES) or _is_diffusers(bare["config.json"])
    ):
        return bare
    candidates = sorted(p for p in folder.iterdir() if p.suffix in SUFFIXES and p.is_file())
    if len(candidates) > 1:
        names = ", ".join(path.name for path in candidates[:3])
        raise ValueError(f"{folder.name} holds {len(candidates)} weights files ({names}); name one")
    return _file_and_settings(candidates[0]) if candidates else {}


def _is_diffusers(config: Path) -> bool:
    try:
        return "_class_name" in read_settings(config)
    except ValueError:
        return True  # damaged, which is told when it is read


def _pipeline_files(folder: Path) -> dict[str, Path]:
    names = [INDEX, RECORD_NAME]
    names += [f"{part}/{name}" for part, known in PARTS.items() for name in known]
    found = {name: folder / name for name in names if (folder / name).is_file()}
    for part in ROOT_PARTS:  # some older repositories of the hub have these without a folder
        if INDEX in found and not (folder / part).is_dir():
            flat = {f"{part}/{name}": folder / name for name in PARTS[part]}
            found |= {name: path for name, path in flat.items() if path.is_file()}
    beside = folder.parent / SCHEDULER  # a training's folder, below the pipeline it ends with
    if INDEX not in found and SCHEDULER not in found and beside.is_file():
        found[SCHEDULER] = beside
    return found


def _file_and_settings(path: Path) -> dict[str, Path]:
    folder = path.parent
    found = {"weights": path}
    names = [f"{stem}{suffix}" for stem in (path.stem, "config") for suffix in SETTINGS_SUFFIXES]
    yaml = [p for p in sorted(folder.iterdir()) if p.suffix in (".yml", ".yaml") and p.is_file()]
    candidates = [folder / name for name in names] + (yaml if len(yaml) == 1 else [])
    for candidate in candidates:
        if candidate.is_file() and candidate != path:
            found["settings"] = candidate
            break
    for place in (folder / "scheduler_config.json", folder / SCHEDULER, folder.parent / SCHEDULER):
        if place.is_file():
            found["scheduler"] = place
            break
    return found


def _adopt_pipeline(files: Mapping[str, Path], out: Path, weights: Weights) -> None:
    _require_parts(files)
    has_both = "unet_ema/config.json" in files and "unet/config.json" in files
    has_ema = "unet_ema/config.json" in files
    use_ema = has_ema and (weights == "ema" or not has_both)
    told = _adopt_network(files, "unet_ema/" if use_ema else "unet/", NETWORK_FILES, out / "unet")
    for part in ("vae", "vqvae"):
        if any(name.startswith(f"{part}/") for name in files):
            _adopt_network(files, f"{part}/", NETWORK_FILES, out / part)
    if any(name.startswith("text_encoder/") for name in files):
        _adopt_network(files, "text_encoder/", TEXT_FILES, out / "text_encoder")
        for name in TOKENIZER_FILES:
            _copy(files, out, f"tokenizer/{name}")
    record = read_settings(files[RECORD_NAME]) if RECORD_NAME in files else {}
    _write_pipeline_ends(files, out, record)
    if has_ema:
        record["weights"] = "ema" if use_ema else "raw"
    if "optimization_step" in told:
        record.setdefault("training_step", int(told["optimization_step"]))
    if record and (has_ema or RECORD_NAME not in files):
        (out / RECORD_NAME).write_text(json.dumps(record, indent=2) + "\n")
    else:
        _copy(files, out, RECORD_NAME)


def _require_parts(files: Mapping[str, Path]) -> None:
    """Makes sure that every part that a pipeline's index names is there."""
    index = read_settings(files[INDEX]) if INDEX in files else {}
    there = {name.partition("/")[0].replace("unet_ema", "unet") for name in files}
    for part in PARTS:
        named = index.get(part)
        if isinstance(named, list) and named and named[0] and part not in there:
            raise ValueError(f"{INDEX} names the part {part!r}, which is not there")


def _write_pipeline_ends(files: Mapping[str, Path], out: Path, record: dict[str, Any]) -> None:
    """Copies index and scheduler, or makes those of a DDPM where a training has none yet."""
    if SCHEDULER in files:
        require_sane(read_settings(files[SCHEDULER]), SCHEDULER)
        _copy(files, out, SCHEDULER)
    elif INDEX not in files:
        (out / SCHEDULER).parent.mkdir(parents=True)
        scheduler = {"_class_name": "DDPMScheduler", "num_train_timesteps": 1000}
        scheduler |= {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}
        (out / SCHEDULER).write_text(json.dumps(scheduler, indent=2) + "\n")
        record["assumed"] = [NO_SCHEDULE]
    index = {
        "_class_name": "DDPMPipeline", "scheduler": ["diffusers", "DDPMScheduler"],
        "unet": ["diffusers", "UNet2DModel"],
    }  # fmt: skip
    told = read_settings(files[INDEX]) if INDEX in files else index
    kept = {name: _without_unused(name, value) for name, value in told.items()}
    if INDEX in files and kept == told:
        _copy(files, out, INDEX)
    else:
        (out / INDEX).write_text(json.dumps(kept, indent=2) + "\n")


def _without_unused(name: str, value: Any) -> Any:
    """An entry of an index; parts that play no role in sampling, such as a safety checker, stay
    behind."""
    if name == "requires_safety_checker":
        return False
    return [None, None] if isinstance(value, list) and name not in PARTS else value


def _adopt_network(
    files: Mapping[str, Path], prefix: str, names: tuple[str, ...], out: Path
) -> dict[str, Any]:
    """Checks one network and writes it under its usual names; returns its settings as found."""
    where = prefix.rstrip("/") or "the checkpoint"
    if f"{prefix}config.json" not in files:
        raise ValueError(f"{prefix}config.json is missing; a checkpoint must have it")
    told = read_settings(files[f"{prefix}config.json"])
    source = next((files[prefix + name] for name in names if prefix + name in files), None)
    if source is None:
        raise ValueError(f"{where} holds no weights; {names[0]} is missing")
    config = {k: v for k, v in told.items() if k not in EMA_SETTINGS}
    state = require_tensors(read_weights(source), f"{where}/{source.name}")
    kind = config.get("_class_name")
    if kind in NETWORK_CLASSES:
        require_fit(NETWORK_CLASSES[kind], config, state, where)
    else:  # a text encoder; others are refused when they are opened
        require_sane(config, where)
    out.mkdir(parents=True, exist_ok=True)
    if config == told:
        shutil.copyfile(files[f"{prefix}config.json"], out / "config.json")
    else:
        (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    if source.name.endswith(".safetensors"):
        shutil.copyfile(source, out / names[0])
    else:
        save_state(state, out / names[0])
    return told


def save_state(state: dict[str, Tensor], path: Path) -> None:
    """Writes weights as safetensors; weights that share memory are written each."""
    own = {name: weight.clone() for name, weight in state.items()}
    safetensors.torch.save_file(own, path, metadata={"format": "pt"})


def _copy(files: Mapping[str, Path], out: Path, name: str) -> None:
    if name in files:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(files[name], out / name)
