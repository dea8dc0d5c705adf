"""Networks of transformers model folders: the right kind, whole, opened offline one at a time.

For features of Frechet distances (`clip_dino`) and for a LoRA's likeness scores alike.
"""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError

from ddim_core.common.late import late
from ddim_core.networks.building import LOADING

if TYPE_CHECKING:
    import transformers
else:
    transformers = late("transformers")


def any_config_of(folder: Path, what: str) -> Any:
    """Reads a model folder's configuration; `what` is the network, for messages.

    Raises:
        ValueError: If it cannot be read.
    """
    try:
        return transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{folder.name} cannot be opened as {what}: {_first(error)}") from error


def config_of(folder: Path, what: str, *model_types: str) -> Any:
    """The same, of the kinds of network that are wanted.

    Raises:
        ValueError: If it cannot be read, or is of another kind of network.
    """
    config = any_config_of(folder, what)
    if config.model_type not in model_types:
        raise ValueError(
            f"{folder.name} is a {config.model_type!r}; {what} must be a {model_types[0]!r}"
        )
    return config


def network_of(kind: Any, config: Any, folder: Path, what: str, unused: str = "") -> Any:
    """Opens a model folder's weights as a class of transformers, for evaluation in float32.

    Args:
        kind: The class.
        config, folder, what: See `config_of`.
        unused: The part of the network, if any, whose weights may be missing.

    Raises:
        ValueError: If they cannot be read, or any are missing.
    """
    with LOADING:
        logging = transformers.utils.logging
        said = logging.get_verbosity()
        logging.set_verbosity_error()  # it lists CLIP's text weights, left out on purpose
        try:
            model, told = kind.from_pretrained(
                folder, config=config, weights_only=True, local_files_only=True,
                output_loading_info=True, dtype=torch.float32,
            )  # fmt: skip
        except (OSError, LookupError, RuntimeError, SafetensorError, UnpicklingError) as error:
            raise ValueError(
                f"{folder.name} cannot be opened as {what}: {_first(error)}"
            ) from error
        finally:
            logging.set_verbosity(said)
    missing = {key for key in told["missing_keys"] if not (unused and unused in key.split("."))}
    wrong = sorted(missing) + sorted(str(key) for key in told["mismatched_keys"])
    if wrong:
        raise ValueError(
            f"{folder.name} lacks {len(wrong)} weights of {what}, among them {wrong[0]}"
        )
    return model.eval().requires_grad_(False)


def _first(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
