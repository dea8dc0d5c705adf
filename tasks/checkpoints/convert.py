"""Somebody's checkpoint files in, a checkpoint of the one layout in the store out; of a single file
of Stable Diffusion a whole pipeline."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from ddim_core.checkpoints.convert import adopt, source_digest, source_files
from ddim_core.checkpoints.posthoc_ema import Average, kept_in, reconstruct
from ddim_core.common.digest import digest, file_digest
from ddim_core.common.plain_files import is_regular
from ddim_core.diffusion.specs import Weights
from ddim_core.networks.building import LOADING
from ddim_core.pipelines.opening import open_pipeline
from ddim_core.pipelines.parts import INDEX, described_parts
from ddim_core.pipelines.single_file import holds_average, write_average
from tasks.checkpoints.addresses import Averaged
from tasks.checkpoints.pipelines import DATA, is_pipeline, written_pipeline
from tasks.storage import store
from tasks.storage.caching import cached_task
from tasks.storage.store import ArtifactRef

CONVERTED: dict[tuple[str, Weights], ArtifactRef] = {}  # in this process


@dataclass(frozen=True)
class SingleFile:
    """A file, and the folder that belongs to it: of a single file of Stable Diffusion the one whose
    configurations describe it, of one network that of its autoencoder."""

    file: str
    configuration: str


@cached_task
def convert_checkpoint(source: str, weights: Weights, location: str | SingleFile) -> ArtifactRef:
    """Brings a checkpoint into the diffusers layout; returns a reference to its folder.

    Cached on the digest of the source's files, wherever they lie.
    """
    return converted(source, weights, location)


def converted(source: str, weights: Weights, location: str | SingleFile) -> ArtifactRef:
    """The same as a plain function, once in this process: what a command looks at before a flow
    runs is there when the flow asks for it.

    Args:
        source: The digest of the source's files.
        weights: `ema` or `raw`.
        location: Where they lie.

    Raises:
        ValueError: As `adopt`; or if the files change meanwhile.
    """
    known = CONVERTED.get((source, weights))
    if known is None or not store.intact(known):
        known = CONVERTED[source, weights] = _converted(source, weights, location)
    return known


def _converted(source: str, weights: Weights, location: str | SingleFile) -> ArtifactRef:
    place = location.file if isinstance(location, SingleFile) else location
    files = files_of(location)
    with tempfile.TemporaryDirectory() as folder, LOADING:
        out = Path(folder, Path(place).name or "checkpoint")  # messages name it
        out.mkdir()
        adopt(files, out, weights)
        if source_digest(files) != source:
            raise ValueError(f"the files of {place!r} changed while they were read; try again")
        return store.put_folder(out)


@dataclass(frozen=True)
class Reconstructed:
    """An average of another width of a run, and the autoencoder of its latents; "" for `vae` beside
    the snapshots, if they need one."""

    of: Averaged
    configuration: str = ""

    def kept(self) -> dict[Path, Average]:
        """The snapshots that it is made of, in order."""
        return kept_in(Path(self.of.folder), self.of.kimg)

    def files(self) -> dict[Path, dict[str, Path]]:
        """The files of each."""
        decoder = Path(self.configuration) if self.configuration else None
        return {path: source_files(path, decoder) for path in self.kept()}


def reconstruction_digest(location: Reconstructed) -> str:
    """Returns a digest over the snapshots that an average is made of, wherever they lie."""
    parts = [[vars(a), source_digest(f)] for a, f in zip(
        location.kept().values(), location.files().values(), strict=True
    )]  # fmt: skip
    return digest([location.of.std, parts])


@cached_task
def reconstruct_average(source: str, location: Reconstructed) -> ArtifactRef:
    """Brings an average that a run did not keep into the store; see `posthoc_ema`.

    Cached on `reconstruction_digest`, wherever the files lie.
    """
    with tempfile.TemporaryDirectory() as folder, LOADING:
        out = Path(folder, "average")
        out.mkdir()
        reconstruct(location.kept(), location.files(), location.of.std, out)
        if reconstruction_digest(location) != source:
            raise ValueError(
                f"the snapshots in {location.of.folder!r} changed while they were read"
            )
        return store.put_folder(out)


def files_of(location: str | SingleFile) -> dict[str, Path]:
    """Returns the files of a checkpoint, as `source_files`."""
    if isinstance(location, SingleFile):
        return source_files(Path(location.file), Path(location.configuration))
    return source_files(Path(location))


def single_file_digest(single: SingleFile) -> str:
    """Returns a digest over a single file and all settings that are read beside it.

    Raises:
        ValueError: If the folder describes no pipeline.
    """
    folder = Path(single.configuration)
    parts = described_parts(folder)
    inside = [path for part in parts.opened for path in sorted((folder / part).rglob("*"))]
    settings = [path for path in inside if path.suffix in DATA and path.suffix != ".safetensors"]
    read = [folder / INDEX, *filter(is_regular, settings)]
    told = [[path.relative_to(folder).as_posix(), file_digest(path)] for path in read]
    return digest([file_digest(Path(single.file)), told])


@cached_task
def unpack_single_file(source: str, weights: Weights, location: SingleFile) -> ArtifactRef:
    """Brings a single file into the store as the folder of the pipeline that it is of; with the
    moving average of its U-Net (`model_ema.`) where that is asked for and there.

    Cached on `single_file_digest`, wherever the files lie.
    """
    file, configuration = Path(location.file), Path(location.configuration)
    with tempfile.TemporaryDirectory() as place, LOADING:
        whole, out = Path(place, file.stem), Path(place, "out", file.stem)
        taken = file
        if weights == "ema" and holds_average(file):
            taken = Path(place, "average", file.name)  # messages name it
            taken.parent.mkdir()
            write_average(file, taken)
        open_pipeline(taken, configuration=configuration).pipeline.save_pretrained(whole)
        if single_file_digest(location) != source:
            raise ValueError(f"{file.name} or its configuration changed while it was read")
        out.mkdir(parents=True)
        if is_pipeline(whole):
            written_pipeline(whole, out)
        else:
            adopt(source_files(whole), out, weights)
        return store.put_folder(out)
