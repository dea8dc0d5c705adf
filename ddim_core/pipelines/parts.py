"""What a pipeline's folder is made of: known classes, plain files, weights that justify them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddim_core.common.foreign import Config
from ddim_core.common.late import late
from ddim_core.common.plain_files import is_there, require_plain_tree
from ddim_core.networks.checks import require_justified, require_sane
from ddim_core.pipelines.takes import require_images
from ddim_core.safe_files.settings import read_settings
from ddim_core.safe_files.shards import shards_in
from ddim_core.safe_files.tokenizer_files import require_harmless_tokenizer

if TYPE_CHECKING:
    import diffusers
    import transformers
else:
    diffusers = late("diffusers")
    transformers = late("transformers")

INDEX = "model_index.json"
TEXT_PARTS = ("text_encoder", "tokenizer", "image_encoder", "feature_extractor", "processor")
# What plays no part in how an image is drawn: judges that paint pictures black, and what reads
# pictures that nobody gives.
LEFT_OUT = ("safety_checker", "feature_extractor", "image_encoder", "watermarker")
WEIGHTS = ("diffusion_pytorch_model", "model")
PICKLES = (".bin", ".pt", ".pth", ".ckpt")


@dataclass(frozen=True)
class PipelineParts:
    """A pipeline's folder, looked through.

    Attributes:
        folder: Where it lies.
        kind: The pipeline's class in diffusers.
        opened: The names of the parts that lie there and are opened.
        absent: Parts that the class names and that are not there: text encoders, or left out.
        scheduler: The scheduler's configuration as it lies there, with its `_class_name`.
        variant: The variant that the weights are of (`fp16`); None is none.
        left_out: What is left out on purpose, by name.
    """

    folder: Path
    kind: Any
    opened: tuple[str, ...]
    absent: tuple[str, ...]
    scheduler: Mapping[str, Any]
    variant: str | None
    left_out: tuple[str, ...]


def pipeline_parts(folder: Path) -> PipelineParts:
    """Looks through a pipeline's folder before a library opens it.

    Raises:
        ValueError: If it is no pipeline of diffusers that makes images from noise alone, a part is
            missing or of a class that is not of diffusers or transformers, weights are pickles, or
            a file in it is absurd.
    """
    parts = described_parts(folder)
    for name in parts.opened:
        _require_weights(folder / name, name, part_class(folder, name))
    return parts


def described_parts(folder: Path) -> PipelineParts:
    """Looks through what a pipeline's folder says, whether or not the weights lie there too.

    Raises:
        ValueError: As `pipeline_parts`, but for the weights.
    """
    if not folder.is_dir() or not is_there(folder / INDEX):
        raise ValueError(f"{folder} is no diffusers pipeline; it must be a folder with {INDEX}")
    require_plain_tree(folder)
    index = read_settings(folder / INDEX)
    kind = pipeline_class(index.get("_class_name"))
    require_images(kind)
    parts = _parts_of(kind)
    named = {n: v for n, v in index.items() if isinstance(v, list) and (n in parts or _names(v))}
    expected = [name for name in inspect.signature(kind.__init__).parameters if name in named]
    left_out = tuple(name for name in expected if _is_left_out(kind, name, named[name]))
    opened = tuple(n for n in expected if n not in left_out and named[n] != [None, None])
    for name in opened:
        _require_part(folder, name, named[name])
    _require_whole(kind, opened)
    if "scheduler" not in opened:
        raise ValueError(f"a {kind.__name__} has no scheduler of that name, so none is put there")
    return PipelineParts(
        folder,
        kind,
        opened,
        tuple(name for name in _parts_of(kind) if name not in opened),
        own_scheduler(folder, named["scheduler"][1]),
        _variant(folder, opened),
        tuple(name for name in left_out if named[name] != [None, None]),
    )


def understood_index(parts: PipelineParts) -> Config:
    """Returns the model_index.json of a pipeline, with what is understood of it and nothing else:
    its class, the parts that are opened, and the settings that its class takes."""
    told = read_settings(parts.folder / INDEX)
    known = inspect.signature(parts.kind.__init__).parameters
    kept: Config = {"_class_name": parts.kind.__name__}
    kept |= {name: [None, None] for name in parts.absent if name in known}
    kept |= {name: told[name] for name in parts.opened}
    settings = {n: v for n, v in told.items() if n in known and n not in kept and _is_setting(v)}
    return (
        kept | settings | ({"requires_safety_checker": False} if "safety_checker" in known else {})
    )


def pipeline_class(name: Any) -> Any:
    """Returns the pipeline's class of this name in diffusers.

    Raises:
        ValueError: If diffusers has none, or it needs a library that is not there.
    """
    kind = getattr(diffusers, name, None) if isinstance(name, str) else None
    if not (inspect.isclass(kind) and str(name).endswith("Pipeline")):
        shown = str(name)[:80]
        raise ValueError(
            f"{INDEX} is of a {shown!r}; it must be a pipeline that diffusers "
            f"{diffusers.__version__} has, such as StableDiffusionPipeline or FluxPipeline (code "
            "that lies in a folder is never run)"
        )
    if not issubclass(kind, diffusers.DiffusionPipeline):
        missing = [part for part in getattr(kind, "_backends", ()) if find_spec(part) is None]
        raise ValueError(
            f"{name} needs {' and '.join(missing) or 'a library'}, which is not installed here; "
            "install it first"
        )
    return kind


def own_scheduler(folder: Path, named: str) -> Config:
    """Returns the configuration of the scheduler that lies in a pipeline, with the class that the
    pipeline opens it with."""
    path = folder / "scheduler" / "scheduler_config.json"
    if not is_there(path):
        raise ValueError(f"scheduler/scheduler_config.json is missing in {folder.name}")
    told = read_settings(path)
    require_sane(told, "scheduler_config.json")
    return {**told, "_class_name": named}


def _names(value: list[Any]) -> bool:
    """Whether an entry names a part, [library, class]; other lists are settings."""
    return len(value) == 2 and all(part is None or isinstance(part, str) for part in value)


def _is_setting(value: Any) -> bool:
    plain = (bool, int, float, str)
    return isinstance(value, plain) or (
        isinstance(value, list) and all(isinstance(part, plain) for part in value)
    )


def _is_left_out(kind: Any, name: str, value: list[Any]) -> bool:
    return name in LEFT_OUT and (name in kind._optional_components or value == [None, None])


def _parts_of(kind: Any) -> list[str]:
    """The parts that a class is made of, without its settings."""
    parameters = inspect.signature(kind.__init__).parameters
    return [
        name
        for name, parameter in parameters.items()
        if name != "self"
        and (parameter.default is inspect.Parameter.empty or name in kind._optional_components)
    ]


def _require_whole(kind: Any, opened: tuple[str, ...]) -> None:
    optional = {*kind._optional_components, *LEFT_OUT}
    for name in _parts_of(kind):
        is_text = name.startswith(TEXT_PARTS)
        if name not in opened and name not in optional and not is_text:
            raise ValueError(
                f"the folder of a {kind.__name__} lacks its {name}; it must have one, as {INDEX} "
                "says"
            )


def _require_part(folder: Path, name: str, value: list[Any]) -> None:
    library, kind_name = value if len(value) == 2 else (None, None)
    kind = _known_class(library, kind_name)
    if kind is None and library == "diffusers" and _is_guider(kind_name):
        raise ValueError(
            f"{INDEX} names {kind_name} as its {name}, which is neither a network nor a scheduler; "
            "pipelines with such a part are not sampled"
        )
    if kind is None:
        raise ValueError(
            f"{INDEX} names {str(value)[:80]} as its {name}; it must be a class of diffusers or "
            "transformers, and code that lies in a folder is never run"
        )
    path = folder / name
    if not path.is_dir():
        raise ValueError(f"{folder.name} lacks its {name}; {INDEX} names a {kind_name}")
    if _is_network(kind):
        if not is_there(path / "config.json"):
            raise ValueError(f"{name}/config.json is missing in {folder.name}")
        require_sane(read_settings(path / "config.json"), name)
    elif not issubclass(kind, diffusers.SchedulerMixin):
        require_harmless_tokenizer(path)


def _require_weights(path: Path, name: str, kind: Any) -> None:
    if _is_network(kind):
        _require_safetensors(path, name)
        try:
            require_justified(kind, path, name)
        except ValueError as error:
            if read_settings(path / "config.json").get("sample_size", 0) is None:
                raise ValueError(
                    f"sample_size is null in {name}/config.json; it must be a whole number"
                ) from error
            raise


def _is_network(kind: Any) -> bool:
    return issubclass(kind, (diffusers.ModelMixin, transformers.PreTrainedModel))


def part_class(folder: Path, name: str) -> Any:
    """Returns the class of a part of a folder that was looked through."""
    return _known_class(*read_settings(folder / INDEX)[name])


def _known_class(library: Any, name: Any) -> Any:
    """A class of diffusers or transformers that parts of pipelines are of; None if it is none."""
    home = {"diffusers": diffusers, "transformers": transformers}.get(str(library))
    kind = getattr(home, name, None) if home and isinstance(name, str) else None
    known = (
        diffusers.ModelMixin,
        diffusers.SchedulerMixin,
        transformers.PreTrainedModel,
        transformers.PreTrainedTokenizerBase,
        transformers.ProcessorMixin,
        transformers.BaseImageProcessor,
        transformers.FeatureExtractionMixin,
    )
    return kind if inspect.isclass(kind) and issubclass(kind, known) else None


def _is_guider(name: Any) -> bool:
    """Whether it is one of diffusers' guiders, which keep a state from step to step."""
    return isinstance(name, str) and name.endswith("Guidance") and hasattr(diffusers.guiders, name)


def _require_safetensors(folder: Path, name: str) -> None:
    files = sorted(folder.iterdir())
    if any(path.suffix == ".safetensors" for path in files):
        for path in files:
            if path.name.endswith(".safetensors.index.json"):
                shards_in(path)
        return
    pickles = [path.name for path in files if path.suffix in PICKLES]
    if pickles:
        raise ValueError(
            f"{name} holds its weights as a pickle, {pickles[0]}, which can run code when it is "
            "read; give safetensors"
        )
    raise ValueError(f"{name} holds no weights; it must have safetensors")


def _variant(folder: Path, opened: tuple[str, ...]) -> str | None:
    """The one variant of the weights where no part has weights without one."""
    found: set[str] = set()
    for name in opened:
        for path in (folder / name).glob("*.safetensors"):
            stem, _, variant = path.name.removesuffix(".safetensors").partition(".")
            if stem.split("-0")[0] in WEIGHTS and not variant:
                return None
            found.add(variant.split("-0")[0])
    return min(found, default=None)
