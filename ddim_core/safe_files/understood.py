"""What is written of other people's settings: what was understood, never what was found.

A model_index.json may name any class of any library, and a config.json any entry; libraries import
and fetch what some of them say. So only known parts with known classes, and the entries that a
class takes, go into a converted folder.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddim_core.common.foreign import Config
from ddim_core.common.late import late
from ddim_core.common.plain_files import is_there
from ddim_core.safe_files.settings import read_settings
from ddim_core.schedulers.registry import OURS, scheduler_class

if TYPE_CHECKING:
    import diffusers
else:
    diffusers = late("diffusers")

UNETS = ("UNet2DModel", "UNet2DConditionModel")
TEXT_MODELS = ("CLIPTextModel", "CLIPTextModelWithProjection")
TOKENIZERS = ("CLIPTokenizer", "CLIPTokenizerFast")
Classes = Mapping[str, tuple[str, tuple[str, ...]]]  # by a part's name: its library, its classes
PART_CLASSES: Classes = {
    "unet": ("diffusers", UNETS), "vae": ("diffusers", ("AutoencoderKL",)),
    "vqvae": ("diffusers", ("VQModel",)), "text_encoder": ("transformers", TEXT_MODELS),
    "text_encoder_2": ("transformers", TEXT_MODELS), "tokenizer": ("transformers", TOKENIZERS),
    "tokenizer_2": ("transformers", TOKENIZERS),
}  # fmt: skip
# Parts that play no role in sampling stay behind; these may be named, and are written as none.
LIBRARIES = frozenset({"diffusers", "transformers", "stable_diffusion", "latent_diffusion"})
ABOUT = frozenset({"_class_name", "_diffusers_version", "_name_or_path"})
FLAGS = frozenset({"requires_safety_checker", "force_zeros_for_empty_prompt", "add_watermarker"})
TEXT_ENTRIES = frozenset(
    {"_name_or_path", "architectures", "model_type", "torch_dtype", "dtype", "dropout",
     "transformers_version", "use_attention_mask", "vocab_size", "hidden_size", "hidden_act",
     "intermediate_size", "projection_dim", "num_hidden_layers", "num_attention_heads",
     "max_position_embeddings", "layer_norm_eps", "attention_dropout", "initializer_range",
     "initializer_factor", "pad_token_id", "bos_token_id", "eos_token_id"}
)  # fmt: skip
RECORD_NAME = "ddim_flows.json"
RECORD_ENTRIES = frozenset({"training_step", "null_label", "weights", "assumed"})
LONGEST_TEXT = 500  # characters of an entry that only people read


def understood_index(told: Mapping[str, Any], also: Classes | None = None) -> Config:
    """Returns the entries of a model_index.json that are known.

    Args:
        told: What stands there.
        also: Classes of parts that a pipeline has in place of those of `PART_CLASSES`.

    Raises:
        ValueError: If a part is of a class that is not known, with what would be right.
    """
    classes = {**PART_CLASSES, **(also or {})}
    known = ((name, _understood(name, value, classes)) for name, value in told.items())
    return {name: value for name, value in known if value is not None}


def _understood(name: str, value: Any, classes: Classes) -> Any:
    """An entry of an index; None where it is not known."""
    if name == "_class_name":
        return _pipeline(value)
    if isinstance(value, list) and name.isidentifier() and not name.startswith("_"):
        return _part(name, value, classes)
    return value if _is_remark(name, value) else None


def _is_remark(name: str, value: Any) -> bool:
    if name in FLAGS:
        return isinstance(value, bool)
    return name in ABOUT and isinstance(value, str) and len(value) <= LONGEST_TEXT


def _pipeline(name: Any) -> str:
    kind = getattr(diffusers, name, None) if isinstance(name, str) else None
    if not (inspect.isclass(kind) and name.endswith("Pipeline")):
        raise ValueError(
            f"model_index.json is of a {str(name)[:80]!r}; it must be a pipeline of diffusers"
        )
    return str(name)


def _part(name: str, value: list[Any], classes: Classes) -> list[Any]:
    if value == [None, None]:
        return value
    library, kind = value if len(value) == 2 else (None, None)
    if name == "scheduler":
        known = library == "diffusers" and is_scheduler(kind)
        wanted = "a scheduler of diffusers"
    elif name in classes:
        wanted = " or ".join(classes[name][1])
        known = library == classes[name][0] and kind in classes[name][1]
    else:
        known = library in LIBRARIES and isinstance(kind, str) and kind.isidentifier()
        wanted = "a class of diffusers or transformers"
    if not known:
        raise ValueError(
            f"model_index.json names {str(value)[:80]} as its {name}; it must be {wanted}"
        )
    return value


def is_scheduler(name: Any) -> bool:
    """Tells the name of a scheduler's class."""
    if not (isinstance(name, str) and name.endswith("Scheduler") and name.isidentifier()):
        return False
    return name in OURS or inspect.isclass(getattr(diffusers, name, None))


def understood_entries(kind: Any) -> frozenset[str]:
    """Returns the names of what a class takes of a config.json, or a text encoder
    (where the class is None), and of what it says of itself."""
    return ABOUT.union(inspect.signature(kind.__init__).parameters) if kind else TEXT_ENTRIES


def keep_understood(folder: Path) -> None:
    """Leaves in a converted folder's scheduler and record only what is known; a file in which
    nothing else stands keeps its bytes."""
    scheduler, record = folder / "scheduler" / "scheduler_config.json", folder / RECORD_NAME
    if is_there(scheduler):
        name = read_settings(scheduler).get("_class_name", "DDIMScheduler")
        if not is_scheduler(name):
            raise ValueError(
                f"scheduler_config.json is of a {str(name)[:80]!r}; it must be of a scheduler of "
                "diffusers"
            )
        kind = scheduler_class(name) if name in OURS else getattr(diffusers, name)
        _keep(scheduler, understood_entries(kind))
    if is_there(record):
        _keep(record, RECORD_ENTRIES)


def _keep(path: Path, entries: frozenset[str]) -> None:
    told = read_settings(path)
    kept = {name: value for name, value in told.items() if name in entries}
    if kept != told:
        path.write_text(json.dumps(kept, indent=2) + "\n")
