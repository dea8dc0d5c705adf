"""Whole pipelines of diffusers as checkpoints: brought into the store, opened, described."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from functools import cache, lru_cache
from pathlib import Path

from ddim_core.common.digest import digest, file_digest
from ddim_core.common.plain_files import is_regular, is_there
from ddim_core.diffusion.specs import OnCard
from ddim_core.networks.building import LOADING
from ddim_core.pipelines.drawing import ready_for_card
from ddim_core.pipelines.fitting import sized
from ddim_core.pipelines.loras import lay_over
from ddim_core.pipelines.opening import OpenedPipeline, open_pipeline
from ddim_core.pipelines.parts import INDEX, PipelineParts, pipeline_parts, understood_index
from ddim_core.safe_files.settings import read_settings
from ddim_core.samplers.families import family_of
from tasks.checkpoints.memory import compiles
from tasks.storage import store
from tasks.storage.caching import cached_task
from tasks.storage.store import ArtifactRef

# Pipelines whose U-Net the project draws from by itself, if its schedule is one of betas.
OURS = (
    "DDPMPipeline", "DDIMPipeline", "PNDMPipeline", "LDMPipeline", "StableDiffusionPipeline",
)  # fmt: skip
Loras = tuple[tuple[str, float], ...]
# In memory at once: threads may draw with and without LoRAs, and how much counts is a state of the
# networks. A card holds one.
N_KEPT = 4
DATA = (".json", ".txt", ".model", ".safetensors")


def is_pipeline(folder: Path, there: bool = True) -> bool:
    """Tells whether a folder is a pipeline that is drawn by its own call alone: of another class
    than those that we draw from, without text encoders, or of a network that DDIM does not sample.

    Args:
        folder: It.
        there: Whether all of it is there; else its class alone tells.
    """
    if not is_there(folder / INDEX):
        return False
    index = read_settings(folder / INDEX)
    kind = index.get("_class_name")
    if kind not in OURS:
        return isinstance(kind, str) and kind.endswith("Pipeline")
    if kind != "StableDiffusionPipeline" or not there:
        return False
    config = folder / "scheduler" / "scheduler_config.json"
    network = folder / "unet" / "config.json"
    told = read_settings(config) if is_there(config) else {}
    named = index.get("scheduler")
    if isinstance(named, list) and len(named) == 2 and isinstance(named[1], str):
        told = {**told, "_class_name": named[1]}
    if not (folder / "text_encoder").is_dir():  # somebody encoded its prompts
        return True
    distilled = is_there(network) and read_settings(network).get("time_cond_proj_dim") is not None
    return distilled or family_of(told) != "vp"


def pipeline_digest(folder: Path) -> str:
    """Returns a digest over the files that make up a pipeline, wherever it lies.

    Raises:
        ValueError: If it is no pipeline that can be opened.
    """
    files = _files(pipeline_parts(folder))
    return digest([[name, file_digest(path)] for name, path in files.items()])


@cached_task
def store_pipeline(source: str, location: str) -> ArtifactRef:
    """Brings a pipeline's folder into the store: what is understood of it, nothing else.

    Cached on the digest of its files, wherever they lie.
    """
    folder = Path(location)
    with tempfile.TemporaryDirectory() as place:
        out = Path(place, folder.name or "pipeline")
        written_pipeline(folder, out)
        if pipeline_digest(folder) != source:
            raise ValueError(f"the files of {location!r} changed while they were read; try again")
        return store.put_folder(out)


def written_pipeline(folder: Path, out: Path) -> None:
    """Copies what is understood of a pipeline's folder, and opens the copy.

    Raises:
        ValueError: If it is no pipeline that can be opened.
    """
    parts = pipeline_parts(folder)
    for name, path in _files(parts).items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, out / name)
    index = understood_index(parts)
    (out / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")
    open_pipeline(out)


def _files(parts: PipelineParts) -> dict[str, Path]:
    """The files of the parts that are opened, by their place in the folder."""
    found = {INDEX: parts.folder / INDEX}
    for part in parts.opened:
        inside = sorted((parts.folder / part).rglob("*"))
        found |= {
            path.relative_to(parts.folder).as_posix(): path
            for path in inside
            if is_regular(path) and path.suffix in DATA
        }
    return found


def pipeline_in_memory(
    ref: ArtifactRef,
    device: str = "cpu",
    dtype: str = "float32",
    loras: Loras = (),
    card: OnCard | None = None,
    resolution: int | None = None,
) -> OpenedPipeline:
    """Returns a stored pipeline, ready to draw from; read once per process.

    Args:
        ref: The pipeline.
        device, dtype: Of its networks.
        loras: LoRA files over it: the digest of each, and how much of it counts.
        card: How a card runs them; None as a CPU does.
        resolution: Height and width in pixels; None for its own.

    Raises:
        ValueError: If it draws no such size.
    """
    with LOADING:
        known = _memory_of(device, 1 if card else N_KEPT)
        opened = known(ref.artifact, device, dtype, loras, card is not None, compiles(card))
        return _sized(opened, resolution) if resolution else opened


def _opened(
    artifact: str, device: str, dtype: str, loras: Loras, on_card: bool, by_compiler: bool
) -> OpenedPipeline:
    folder = store.get_folder(ArtifactRef(artifact=artifact, kind="folder"))
    opened = open_pipeline(folder, "float32" if dtype == "tf32" else dtype, device)
    if loras:
        files = [store.get(ArtifactRef(digest, "lora")) for digest, _ in loras]
        lay_over(opened, files, [scale for _, scale in loras])
    return ready_for_card(opened, by_compiler) if on_card else opened


_sized = lru_cache(maxsize=1)(sized)  # it keeps the pipeline in memory


@cache
def _memory_of(device: str, n_kept: int) -> Callable[..., OpenedPipeline]:
    return lru_cache(maxsize=n_kept)(_opened)


def forget() -> None:
    """Lets go of all pipelines in memory."""
    _memory_of.cache_clear()
    _sized.cache_clear()
