"""LoRA files laid over a pipeline: by diffusers' own loader its layout, kohya's and others', and by
PEFT its own and LyCORIS'."""

from __future__ import annotations

import json
import re
import tempfile
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from logging import CRITICAL, WARNING, Handler
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
from torch import Tensor

from ddim_core.common.foreign import Content
from ddim_core.common.late import late
from ddim_core.networks.building import LOADING
from ddim_core.pipelines.opening import OpenedPipeline
from ddim_core.safe_files.loras.files import METADATA, PEFT, header_of
from ddim_core.safe_files.loras.kinds import PEFT_LEVEL, TEXT_LEVEL, lycoris_kind
from ddim_core.safe_files.loras.places import Directory, difference, tensors_by_layer
from ddim_core.safe_files.safe_load import first_line

if TYPE_CHECKING:
    import diffusers
    import peft
else:
    diffusers = late("diffusers")
    peft = late("peft")

WEIGHTS = "lora.safetensors"
LONGEST_REASON = 300  # characters
# Of what diffusers leaves out it only warns.
LEFT_OUT = re.compile(r"(?:un(?:expected|supported)|missing) keys", re.IGNORECASE)
# In the name of a layer's first tensor, in a file and in a network.
FIRST = re.compile(r"lora_A|lora_down|lora\.down|(?:hada_w1_a|lokr_w1|lokr_w1_a)(?:\.|$)")
INNER = ("hada_w1_b", "lokr_w1_b", "lokr_w2_b")  # whose rows are the rank
DORA = re.compile(r"dora_scale|magnitude_vector")


def lay_over(opened: OpenedPipeline, files: Sequence[bytes], scales: Sequence[float]) -> None:
    """Lays LoRAs over a pipeline, in place.

    Args:
        opened: The pipeline.
        files: Bytes of .safetensors files.
        scales: How much of each counts.

    Raises:
        ValueError: If the pipeline takes no LoRAs, or a file does not fit its networks.
    """
    pipeline, names = opened.pipeline, [f"lora_{i}" for i in range(len(files))]
    if not hasattr(pipeline, "load_lora_weights"):
        raise ValueError(f"{opened.name} takes no LoRAs")
    for i, (name, file) in enumerate(zip(names, files, strict=True)):
        with _refused(f"LoRA {i + 1} cannot be laid over the {opened.name}"), LOADING:
            asked = list(header_of(file)[0])
            if settings := header_of(file)[0].get("__metadata__", {}).get(PEFT):
                _lay_by_peft(pipeline, name, file, json.loads(settings))
            elif not _lay_lycoris(pipeline, name, file):
                asked = _lay_by_diffusers(pipeline, name, file)
        if name not in {n for part in pipeline.get_list_adapters().values() for n in part}:
            raise ValueError(f"LoRA {i + 1} holds nothing for the {opened.name}'s networks")
        _require_whole(opened, name, file, asked, i + 1)
    pipeline.set_adapters(names, list(scales))
    for part in pipeline.components.values():
        if hasattr(part, "requires_grad_"):
            part.eval().requires_grad_(False)


@contextmanager
def _refused(what: str) -> Iterator[None]:
    """Inside, whatever goes wrong is said in one sentence, and libraries are silent."""
    logging = diffusers.utils.logging
    before = logging.get_verbosity()
    logging.set_verbosity(CRITICAL)  # what matters is raised
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:  # other people's files can be wrong in every way
        said = [line.strip() for line in str(error).splitlines() if "mismatch" in line]
        reason = (said or [_in_words(error)])[0][:LONGEST_REASON]
        raise ValueError(f"{what}: {reason}") from error
    finally:
        logging.set_verbosity(before)


def _in_words(error: Exception) -> str:
    if isinstance(error, LookupError | AttributeError | TypeError | UnboundLocalError):
        return f"its layers are not those that are looked for ({type(error).__name__}: {error})"
    text = first_line(error)
    return " ".join(str(error).split()) if text.rstrip().endswith(":") else text


def _lay_by_diffusers(pipeline: Any, name: str, file: bytes) -> list[str]:
    """Returns the names that diffusers gave to the file's tensors, one fused layer as several."""
    names: list[str] = []
    convert = pipeline.lora_state_dict

    def noted(*args: Any, **kwargs: Any) -> Any:
        converted = convert(*args, **kwargs)
        names.extend(converted[0])
        return converted

    with tempfile.TemporaryDirectory() as folder, _heard() as said:
        Path(folder, WEIGHTS).write_bytes(file)
        pipeline.lora_state_dict = noted
        try:
            # A file and not its tensors: its metadata have alpha, and what else scales.
            pipeline.load_lora_weights(
                folder, weight_name=WEIGHTS, adapter_name=name, local_files_only=True,
                use_safetensors=True,
            )  # fmt: skip
        finally:
            del pipeline.lora_state_dict
    if wrong := [text for text in said if LEFT_OUT.search(text)]:
        raise ValueError(wrong[0])
    return names


@contextmanager
def _heard() -> Iterator[list[str]]:
    """What diffusers warns of inside."""
    said: list[str] = []
    handler = Handler(WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging = diffusers.utils.logging
    logging.disable_default_handler()
    logging.add_handler(handler)
    logging.set_verbosity(WARNING)
    try:
        yield said
    finally:
        logging.set_verbosity(CRITICAL)
        logging.remove_handler(handler)
        logging.enable_default_handler()


def _lay_by_peft(pipeline: Any, name: str, file: bytes, settings: Content) -> None:
    """Lays a file of PEFT's (LoRA, DoRA, LoHa, LoKr) over the network whose layers it names."""
    level, network = _network_of(pipeline, settings["target_modules"])
    kind = peft.PEFT_TYPE_TO_CONFIG_MAPPING[settings["peft_type"]]
    layers = exactly(layer.removeprefix(level) for layer in settings["target_modules"])
    config = kind(**settings | {"target_modules": layers, "peft_type": None})
    tensors = {
        key.removeprefix(PEFT_LEVEL).removeprefix(level): value
        for key, value in safetensors.torch.load(file).items()
    }
    _inject(network, name, config, tensors)


def exactly(layers: Iterable[str]) -> str:
    """One pattern of whole names: PEFT takes a list's for endings of others' too."""
    return "|".join(re.escape(layer) for layer in layers)


def _inject(network: Any, name: str, config: Any, tensors: Mapping[str, Tensor]) -> None:
    peft.inject_adapter_in_model(config, network, adapter_name=name)
    told: Any = peft.set_peft_model_state_dict(network, tensors, adapter_name=name)
    missing = [key for key in told.missing_keys if f".{name}" in key or key.endswith(name)]
    if missing or told.unexpected_keys:
        wrong = [*missing, *told.unexpected_keys]
        raise ValueError(f"{len(wrong)} of its tensors do not fit, the first {wrong[0]}")
    network._hf_peft_config_loaded = True  # as diffusers and transformers note it


def _lay_lycoris(pipeline: Any, name: str, file: bytes) -> bool:
    """Lays a LoHa, LoKr, DoRA or LoRA in LyCORIS' names over the layers that it means, by those of
    PEFT's that compute the same; False if it is none, or names layers as diffusers alone knows
    them."""
    header = header_of(file)[0]
    kind = lycoris_kind(header)
    if kind is None or METADATA in header.pop("__metadata__", {}):
        return False
    networks = {k: v for k, v in pipeline.components.items() if isinstance(v, torch.nn.Module)}
    directory = Directory({part: _weights(network) for part, network in networks.items()})
    by_layer = tensors_by_layer(header)
    places = {layer: directory.places(layer) for layer in by_layer}
    missing = [layer for layer, found in places.items() if not found]
    if missing and (kind == "LOHA" or len(missing) < len(places)):
        raise ValueError(
            f"{len(missing)} of its {len(places)} layers have no place, the first {missing[0]}"
        )
    if missing:
        return False
    tensors = safetensors.torch.load(file)
    of_part: dict[str, dict[str, dict[str, Tensor]]] = defaultdict(dict)
    for layer, parts in by_layer.items():
        inside = {part: tensors[key] for part, key in parts.items()}
        place = places[layer][0]
        if wrong := difference({part: x.shape for part, x in inside.items()}, place.shape):
            raise ValueError(f"size mismatch: {layer} has {wrong[1]} {wrong[0]}, not {wrong[2]}")
        if place.path in of_part[place.part]:
            raise ValueError(f"{layer} is there a second time, in another spelling")
        of_part[place.part][place.path] = inside
    for part, layers in of_part.items():
        if kind == "LORA":
            _lay_lora(networks[part], name, layers)
        else:
            _lay_products(networks[part], name, kind, layers)
    return True


def _weights(network: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    kinds = torch.nn.Linear | torch.nn.Conv1d | torch.nn.Conv2d
    found = ((path, getattr(layer, "base_layer", layer)) for path, layer in network.named_modules())
    return {path: tuple(x.weight.shape) for path, x in found if isinstance(x, kinds)}


def _lay_products(
    network: Any, name: str, kind: str, layers: Mapping[str, dict[str, Tensor]]
) -> None:
    """LoHa and LoKr, whose layers PEFT multiplies whatever the shapes of their factors."""
    kinds: Any = peft.PEFT_TYPE_TO_CONFIG_MAPPING
    config = kinds[kind](r=1, target_modules=exactly(layers))
    peft.inject_adapter_in_model(config, network, adapter_name=name)
    for path, tensors in layers.items():
        layer = network.get_submodule(path)
        weight = layer.get_base_layer().weight
        for factors in (getattr(layer, part) for part in layer.adapter_layer_names):
            if name in factors:
                del factors[name]
        # Of whole factors there is none, and their alpha says nothing.
        rank = next((len(tensors[part]) for part in INNER if part in tensors), None)
        alpha = tensors.pop("alpha", None)
        for part, value in tensors.items():
            getattr(layer, part)[name] = torch.nn.Parameter(value.to(weight))
        layer.r[name] = rank or 1
        layer.alpha[name] = float(alpha) if rank and alpha is not None else layer.r[name]
        layer.set_scale(name, 1.0)
        layer.get_delta_weight(name)  # raises where factors do not make up the layer
    network._hf_peft_config_loaded = True


def _lay_lora(network: Any, name: str, layers: Mapping[str, dict[str, Tensor]]) -> None:
    """LoRA, and DoRA of outputs' lengths. LyCORIS scales what a DoRA changes, PEFT the LoRA below
    it: at scale 1 they are the same."""
    ranks = {path: len(tensors["lora_down"]) for path, tensors in layers.items()}
    (usual, _), *_ = Counter(ranks.values()).most_common()
    others = {f"^{re.escape(path)}": rank for path, rank in ranks.items() if rank != usual}
    with_lengths = any("dora_scale" in tensors for tensors in layers.values())
    config = peft.LoraConfig(
        r=usual, lora_alpha=usual, rank_pattern=others, use_dora=with_lengths,
        target_modules=exactly(layers),
    )  # fmt: skip
    state = {}
    for path, tensors in layers.items():
        alpha, up = float(tensors.get("alpha", ranks[path])), tensors["lora_up"]
        state[f"{path}.lora_A.weight"] = tensors["lora_down"]
        state[f"{path}.lora_B.weight"] = up * (alpha / usual)  # PEFT has usual / rank of it
        if with_lengths:
            state[f"{path}.lora_magnitude_vector"] = _lengths(path, tensors)
    _inject(network, name, config, state)


def _lengths(path: str, tensors: Mapping[str, Tensor]) -> Tensor:
    lengths = tensors.get("dora_scale")
    if lengths is None:
        raise ValueError(f"{path} has no dora_scale, which other layers have")
    if lengths.numel() != len(lengths):
        raise ValueError(
            f"the lengths of {path} are of its inputs, {list(lengths.shape)}; PEFT's are of "
            "outputs, as LyCORIS writes with wd_on_out"
        )
    of_kernel = tensors["lora_up"].ndim - 2
    return lengths.reshape(1, -1, *[1] * of_kernel) if of_kernel else lengths.flatten()


def _network_of(pipeline: Any, layers: Sequence[str]) -> tuple[str, Any]:
    """The network that has layers of these names, and the level of the names that it has not."""
    networks = [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]
    for level in ("", TEXT_LEVEL):  # which text encoders had before transformers 5
        for network in networks:
            there = {key for key, _ in network.named_modules()}
            if all(layer.removeprefix(level) in there for layer in layers):
                return level, network
    raise ValueError(
        f"none of its networks has all of the LoRA's {len(layers)} layers, the first {layers[0]}"
    )


def _require_whole(
    opened: OpenedPipeline, name: str, file: bytes, asked: Sequence[str], number: int
) -> None:
    """Makes sure that every layer of a LoRA found its place: diffusers leaves out what does not
    fit, and a LoRA for another base would be scored as if it were whole. (One layer of a file may
    become several in a network, never fewer: `asked` has what it became.)"""
    told = list(safetensors.torch.load(file))
    laid = [
        key
        for part in opened.pipeline.components.values()
        if isinstance(part, torch.nn.Module)
        for key, _ in part.named_parameters()
        if f".{name}" in key
    ]
    held, found = (sum(bool(FIRST.search(key)) for key in keys) for keys in (told, laid))
    held = max(held, sum(bool(FIRST.search(key)) for key in asked))
    if found < held:
        raise ValueError(
            f"LoRA {number} has {held} layers, and only {found} of them have a place in the "
            f"{opened.name}; it belongs to another base"
        )
    lengths, kept = (sum(bool(DORA.search(key)) for key in keys) for keys in (told, laid))
    if kept < lengths:
        raise ValueError(
            f"LoRA {number} is a DoRA, and the installed diffusers drops {lengths - kept} of its "
            f"{lengths} lengths in this layout; diffusers' or PEFT's own layout of it would do"
        )
