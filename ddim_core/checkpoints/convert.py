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
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddim_core.checkpoints.checkpoint import RECORD_NAME, WEIGHTS_NAME, load_checkpoint
from ddim_core.checkpoints.decoder_files import (
    decoder_files,
    fold_decoder,
    required_decoder,
    required_latents,
)
from ddim_core.checkpoints.pipeline_files import (
    NETWORK_FILES,
    PARTS,
    RAW_FILES,
    TEXT_FILES,
    TEXT_WEIGHTS,
    TOKENIZER_FILES,
    present,
)
from ddim_core.checkpoints.single_file import (
    NO_SCHEDULE,
    adopt_file,
    name_scheduler,
    said_by_name,
    sound_step,
)
from ddim_core.checkpoints.state_names import split_networks, unwrapped
from ddim_core.checkpoints.weight_files import (
    flat_weights,
    save_settings,
    save_state,
    weights_in,
)
from ddim_core.common.digest import file_digest
from ddim_core.common.late import late
from ddim_core.common.plain_files import is_there
from ddim_core.diffusion.scheduler_config import require_undistilled, with_class
from ddim_core.diffusion.specs import Weights
from ddim_core.networks.checks import require_fit, require_sampled, require_sane, require_unshifted
from ddim_core.safe_files.safe_load import first_line, is_safetensors, read_weights, require_tensors
from ddim_core.safe_files.settings import read_settings
from ddim_core.safe_files.shards import is_index, read_shards
from ddim_core.safe_files.understood import keep_understood, understood_entries, understood_index
from ddim_core.safe_files.weight_names import DECODER_FOLDERS, WEIGHTS

if TYPE_CHECKING:
    import diffusers
else:
    diffusers = late("diffusers")

SETTINGS_SUFFIXES = (".json", ".yml", ".yaml")
INDEX, SCHEDULER = "model_index.json", "scheduler/scheduler_config.json"
NETWORK_CLASSES = ("UNet2DModel", "UNet2DConditionModel", "AutoencoderKL", "VQModel")
ROOT_PARTS = ("unet", "scheduler")
DEPTH = 3  # folders below an MLflow artefact in which a checkpoint is looked for


def source_files(path: Path, decoder: Path | None = None) -> dict[str, Path]:
    """Returns the files that make up a checkpoint, by their part in it.

    Args:
        path: A weights file, or a folder that is, or holds, exactly one checkpoint.
        decoder: Where the autoencoder of a file's latents lies, if not in `vae` beside it: a folder
            that has it as `vae`, or is it.

    Raises:
        ValueError: If there is nothing there, no checkpoint, or several; or no autoencoder where
            one is said to be.
    """
    if decoder is not None:
        beside = source_files(path).items()
        others = {name: file for name, file in beside if not name.startswith(DECODER_FOLDERS)}
        return others | required_decoder(decoder)
    if is_there(path):
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
        f"weights, nor one weights file ({', '.join(sorted(WEIGHTS))})"
    )


def source_digest(files: Mapping[str, Path]) -> str:
    """Returns a digest over a checkpoint's files, wherever they lie, and what their names say."""
    parts = [[part, file_digest(path)] for part, path in sorted(files.items())]
    said = said_by_name(files["weights"]) if "weights" in files else [_step_in_folder(files)]
    return hashlib.sha256(json.dumps([parts, *said]).encode()).hexdigest()


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
    try:
        if "weights" in files:
            network = adopt_file(files, out, weights)
            latents = required_latents(files, network)
            _adopt_decoder(files, out)
            if latents is not None:
                fold_decoder(latents, out / "vae")
        else:
            _adopt_pipeline(files, out, weights)
    except ValueError:
        raise
    except Exception as error:  # other people's files can be wrong in every way
        told = f"{type(error).__name__}: {first_line(error)}"
        raise ValueError(
            f"the checkpoint's weights or settings are damaged, or of another kind than their "
            f"names say ({told})"
        ) from error
    name_scheduler(out)
    keep_understood(out)
    load_checkpoint(out)


def _checkpoint_in(folder: Path) -> dict[str, Path]:
    has_parts = is_there(folder / INDEX) or any(
        is_there(folder / part / "config.json") for part in ("unet", "unet_ema")
    )
    if has_parts:
        return _pipeline_files(folder)
    bare = present(folder, "unet")
    flat = {} if len(bare) > 1 else flat_weights(folder)
    config = bare.get("unet/config.json")
    if config and (len(bare) > 1 or (not flat and _is_diffusers(config))):
        own = {RECORD_NAME: folder / RECORD_NAME} if is_there(folder / RECORD_NAME) else {}
        return bare | own | _scheduler_near(folder, SCHEDULER)
    return _file_and_settings(flat["weights"]) | flat if flat else {}


def _is_diffusers(config: Path) -> bool:
    try:
        return "_class_name" in read_settings(config)
    except ValueError:
        return True  # damaged, which is told when it is read


def _pipeline_files(folder: Path) -> dict[str, Path]:
    names = (INDEX, RECORD_NAME)
    found = {name: folder / name for name in names if is_there(folder / name)}
    for part in PARTS:
        found |= present(folder / part, part)
    for part in ROOT_PARTS:  # some older repositories of the hub have these without a folder
        if INDEX in found and not (folder / part).is_dir():
            found |= present(folder, part)
    beside = folder.parent / SCHEDULER  # a training's folder, below the pipeline it ends with
    if INDEX not in found and SCHEDULER not in found and is_there(beside):
        found[SCHEDULER] = beside
    return found


def _scheduler_near(folder: Path, name: str) -> dict[str, Path]:
    """The schedule in a network's folder, below it, or beside it in its pipeline."""
    for place in (folder / "scheduler_config.json", folder / SCHEDULER, folder.parent / SCHEDULER):
        if is_there(place):
            return {name: place}
    return {}


def _step_in_folder(files: Mapping[str, Path]) -> int | None:
    """The step that diffusers' training scripts give to a folder: checkpoint-700/unet."""
    network = files.get("unet/config.json", files.get("unet_ema/config.json"))
    name = network.parent.parent.name if network else ""
    match = re.fullmatch(r"checkpoint-(\d{1,12})", name) if INDEX not in files else None
    return int(match[1]) if match else None


def _file_and_settings(path: Path) -> dict[str, Path]:
    folder = path.parent
    found = {"weights": path} | decoder_files(folder)
    names = [f"{stem}{suffix}" for stem in (path.stem, "config") for suffix in SETTINGS_SUFFIXES]
    yaml = [p for p in sorted(folder.iterdir()) if p.suffix in (".yml", ".yaml") and is_there(p)]
    candidates = [folder / name for name in names] + (yaml if len(yaml) == 1 else [])
    for candidate in candidates:
        if is_there(candidate) and candidate != path:
            found["settings"] = candidate
            break
    return found | _scheduler_near(folder, "scheduler")


def _adopt_pipeline(files: Mapping[str, Path], out: Path, weights: Weights) -> None:
    _require_parts(files)
    has_ema = "unet_ema/config.json" in files
    has_raw_file = any(f"unet/{name}" in files for name in RAW_FILES)
    use_ema = weights == "ema" or "unet/config.json" not in files
    prefix = "unet_ema/" if has_ema and use_ema else "unet/"
    names = NETWORK_FILES if use_ema else RAW_FILES + NETWORK_FILES
    step = _adopt_network(files, prefix, names, out / "unet")
    _adopt_decoder(files, out)
    if any(name.startswith("text_encoder/") for name in files):
        _adopt_network(files, "text_encoder/", TEXT_FILES, out / "text_encoder")
        for name in TOKENIZER_FILES:
            _copy(files, out, f"tokenizer/{name}")
    record = read_settings(files[RECORD_NAME]) if RECORD_NAME in files else {}
    if assumed := _write_pipeline_ends(files, out):
        record["assumed"] = assumed
    if has_ema or has_raw_file:
        record["weights"] = "ema" if use_ema else "raw"
    step = _step_in_folder(files) if step is None else step
    if step is not None:
        record.setdefault("training_step", step)
    if record and (has_ema or has_raw_file or RECORD_NAME not in files):
        save_settings(record, out / RECORD_NAME)
    else:
        _copy(files, out, RECORD_NAME)


def _adopt_decoder(files: Mapping[str, Path], out: Path) -> None:
    for part in DECODER_FOLDERS:
        if any(name.startswith(f"{part}/") for name in files):
            _adopt_network(files, f"{part}/", NETWORK_FILES, out / part)


def _require_parts(files: Mapping[str, Path]) -> None:
    """Makes sure that every part that a pipeline's index names is there."""
    index = read_settings(files[INDEX]) if INDEX in files else {}
    there = {name.partition("/")[0].replace("unet_ema", "unet") for name in files}
    for part in PARTS:
        named = index.get(part)
        if isinstance(named, list) and named and named[0] and part not in there:
            raise ValueError(f"{INDEX} names the part {part!r}, which is not there")


def _write_pipeline_ends(files: Mapping[str, Path], out: Path) -> list[str]:
    """Copies index and scheduler, or makes those of a DDPM; returns what is assumed then."""
    is_assumed = SCHEDULER not in files and INDEX not in files
    if SCHEDULER in files:
        _write_scheduler(files, out)
    elif is_assumed:
        scheduler = {"_class_name": "DDPMScheduler", "num_train_timesteps": 1000}
        scheduler |= {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}
        save_settings(scheduler, out / SCHEDULER)
    index = {
        "_class_name": "DDPMPipeline", "scheduler": ["diffusers", "DDPMScheduler"],
        "unet": ["diffusers", "UNet2DModel"],
    }  # fmt: skip
    told = read_settings(files[INDEX]) if INDEX in files else index
    kept = {name: _without_unused(name, value) for name, value in understood_index(told).items()}
    if INDEX in files and kept == told:
        _copy(files, out, INDEX)
    else:
        save_settings(kept, out / INDEX)
    return [NO_SCHEDULE] if is_assumed else []


def _write_scheduler(files: Mapping[str, Path], out: Path) -> None:
    """Copies the scheduler; the class that diffusers would open it with is named where it tells."""
    told = read_settings(files[SCHEDULER])
    require_sampled(told)
    index = read_settings(files[INDEX]) if INDEX in files else {}
    network = next(files[n] for n in ("unet/config.json", "unet_ema/config.json") if n in files)
    require_undistilled(index, read_settings(network))
    opened = with_class(told, index)
    if "_class_name" not in told or opened == told:  # the index, which stays, says it too
        _copy(files, out, SCHEDULER)
    else:
        save_settings(opened, out / SCHEDULER)


def _without_unused(name: str, value: Any) -> Any:
    """An entry of an index; parts that play no role in sampling, such as a safety checker, stay
    behind."""
    if name == "requires_safety_checker":
        return False
    return [None, None] if isinstance(value, list) and name not in PARTS else value


def _adopt_network(
    files: Mapping[str, Path], prefix: str, names: tuple[str, ...], out: Path
) -> int | None:
    """Checks one network and writes it under its usual names; returns the step of an average."""
    where = prefix.rstrip("/")
    if f"{prefix}config.json" not in files:
        raise ValueError(f"{prefix}config.json is missing; a checkpoint must have it")
    told = read_settings(files[f"{prefix}config.json"])
    source = weights_in(files, prefix, names)
    if source is None:
        raise ValueError(f"{where} holds no weights; {names[1]} is missing")
    named = str(told.get("_class_name"))
    kind = getattr(diffusers, named) if named in NETWORK_CLASSES else None
    entries = understood_entries(kind)
    config = {name: value for name, value in told.items() if name in entries}
    size = config.get("sample_size")
    if isinstance(size, list) and len(size) == 2 and size[0] == size[1]:
        config["sample_size"] = size[0]
    is_sharded = is_index(source)
    held = read_shards(source) if is_sharded else read_weights(source)
    found = require_tensors(held, f"{where}/{source.name}")
    state = unwrapped(found)
    state = split_networks(state, where)[0] if where.startswith("unet") else state
    if kind is not None:
        require_fit(kind, config, state, where)
        require_unshifted(config, where)
    else:  # a text encoder; others are refused when they are opened
        require_sane(config, where)
    out.mkdir(parents=True, exist_ok=True)
    if config == told:
        shutil.copyfile(files[f"{prefix}config.json"], out / "config.json")
    else:
        save_settings(config, out / "config.json")
    name = TEXT_WEIGHTS if names is TEXT_FILES else WEIGHTS_NAME
    if not is_sharded and is_safetensors(source) and state.keys() == found.keys():
        shutil.copyfile(source, out / name)
    else:
        save_state(state, out / name)
    return sound_step(told.get("optimization_step"), f"optimization_step of {where}/config.json")


def _copy(files: Mapping[str, Path], out: Path, name: str) -> None:
    if name in files:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(files[name], out / name)
