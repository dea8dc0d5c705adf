"""Which layer of a base a LoRA file means by a name, in each trainer's spelling, and whether it
fits: by names and shapes alone, so that an hour is not drawn before a file is refused."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

from safetensors import SafetensorError

from ddim_core.common.plain_files import is_there, require_plain_tree
from ddim_core.safe_files.claims.tensor_headers import tensors_in
from ddim_core.safe_files.loras.kinds import PEFT_LEVEL
from ddim_core.safe_files.settings import read_settings
from ddim_core.safe_files.weight_names import TENSORS

INDEX = "model_index.json"
Shape = Sequence[int]
Layers = Mapping[str, Mapping[str, Shape]]
"""By a pipeline's part, of each of its layers the shape of its weight."""

DENOISERS, ENCODERS = ("unet", "transformer"), ("text_encoder", "text_encoder_2", "text_encoder_3")
# What stands before a layer's name, and the parts of a pipeline that it may be of.
PREFIXES = {
    "lora_unet_": DENOISERS, "lora_transformer_": DENOISERS, "lycoris_": (*DENOISERS, *ENCODERS),
    "lora_te_": ENCODERS[:1], "lora_te1_": ENCODERS[:1], "lora_te2_": ENCODERS[1:2],
    "lora_te3_": ENCODERS[2:], "diffusion_model.": DENOISERS,
    **{f"{part}.": (part,) for part in (*DENOISERS, *ENCODERS)},
    PEFT_LEVEL: (*DENOISERS, *ENCODERS), "": (*DENOISERS, *ENCODERS),
}  # fmt: skip
PART = re.compile(r"(?:_lora|\.lora(?:_linear_layer)?)?\.(lora_(?:A|B|down|up|mid)|down|up|alpha"
                  r"|dora_scale|hada_\w+|lokr_\w+|lora_magnitude_vector)(?:\.default)?(?:\.weight)?$"
                  )  # fmt: skip
# Names of the original U-Net, whose blocks are counted through, and of its layers.
BLOCKS = re.compile(r"(input|output)_blocks_(\d+)_(\d)_(\w+)|middle_block_(\d)_(\w+)")
BLOCKLESS = {
    "input_blocks_0_0": "conv_in", "out_2": "conv_out", "time_embed_0": "time_embedding_linear_1",
    "time_embed_2": "time_embedding_linear_2", "label_emb_0_0": "add_embedding_linear_1",
    "label_emb_0_2": "add_embedding_linear_2",
}  # fmt: skip
INNER = {"in_layers_2": "conv1", "out_layers_3": "conv2", "emb_layers_1": "time_emb_proj",
         "skip_connection": "conv_shortcut"}  # fmt: skip
RESNET = re.compile(r"down_blocks\.0\.resnets\.\d+\.conv1")
# What in a layer's name tells the class of the network that it is of.
KINDS = {
    "UNet2DConditionModel": re.compile(r"(?:down|up|input|output)_blocks_|mid(?:dle)?_block_"),
    "FluxTransformer2DModel": re.compile(r"(?:double|single)_blocks_|single_transformer_blocks_"),
    "SD3Transformer2DModel": re.compile(r"joint_blocks_"),
}
TRANSFORMERS = re.compile(r"transformer_blocks_")  # at the beginning: of any transformer
PICTURES_ALONE = ("UNet2DModel", "DiTTransformer2DModel")  # draw without prompts
UNEQUAL = ("x_embedder",)  # diffusers fills it up where a Flux has more channels


@dataclass(frozen=True)
class Place:
    """A layer of a base.

    Attributes:
        part: Of the pipeline.
        path: Of the layer within, with dots.
        shape: Of its weight.
    """

    part: str
    path: str
    shape: Shape


class Directory:
    """The layers of a base, to be found by the names that trainers give to them."""

    def __init__(self, layers: Layers) -> None:
        """Takes the shapes of the weights of all layers, by part and path."""
        self.layers = layers
        self._paths = {
            part: {_word(path).removeprefix("text_model_"): path for path in inside}
            for part, inside in layers.items()
        }
        resnets = (len([p for p in inside if RESNET.fullmatch(p)]) for inside in layers.values())
        self._each = max(resnets, default=0) or 2  # resnets of a block

    def places(self, layer: str) -> list[Place]:
        """Returns the layers that a name may mean, of which there are several only where it does
        not say its part; none if there is none, or it is spelt in another way."""
        word, parts = named(layer)
        spellings = [word.removeprefix("text_model_"), self._of_original(word)]
        return [
            Place(part, paths[spelling], self.layers[part][paths[spelling]])
            for part in parts
            if (paths := self._paths.get(part, {}))
            for spelling in spellings
            if spelling in paths
        ]

    def _of_original(self, word: str) -> str | None:
        """The name in diffusers' U-Net of a layer of the original one."""
        if word in BLOCKLESS:
            return BLOCKLESS[word]
        if not (told := BLOCKS.fullmatch(word)):
            return None
        side, number, kind, rest, middle, of_middle = told.groups()
        if middle is not None:
            of = "attentions" if middle == "1" else "resnets"
            return f"mid_block_{of}_{int(middle) // 2}_{INNER.get(of_middle, of_middle)}"
        count = int(number) - (side == "input")
        block, at = divmod(count, self._each + 1)
        name = "down" if side == "input" else "up"
        if rest in ("op", "conv"):
            return f"{name}_blocks_{block}_{name}samplers_0_conv"
        of = "attentions" if kind == "1" else "resnets"
        return f"{name}_blocks_{block}_{of}_{at}_{INNER.get(rest, rest)}"


def named(layer: str) -> tuple[str, tuple[str, ...]]:
    """Returns a layer's name within its network, with lines below for dots, and the parts of a
    pipeline that it may be of."""
    prefix = next(prefix for prefix in PREFIXES if layer.startswith(prefix))
    word = _word(layer.removeprefix(prefix)).replace("_processor_to_", "_to_")
    return (f"{word}_0" if word.endswith("_to_out") else word), PREFIXES[prefix]


def tensors_by_layer(shapes: Mapping[str, Shape]) -> dict[str, dict[str, str]]:
    """Returns the tensors' names by layer and part, such as `lora_down` or `hada_w1_a`; without
    what is none of these."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for name in shapes:
        if told := PART.search(name):
            found[name[: told.start()]][told[1]] = name
    return dict(found)


def base_layers(folder: Path) -> Layers:
    """Returns the layers of a pipeline's folder, read off the headers of its .safetensors files;
    of a part whose weights are in no such file, nothing.

    Raises:
        ValueError: If a file is damaged.
    """
    return {
        part: dict(_weights(folder / part))
        for part in (*DENOISERS, *ENCODERS)
        if (folder / part).is_dir()
    }


def require_base(folder: Path) -> None:
    """Makes sure that a folder is a pipeline that draws what a prompt says, by its index alone.

    Raises:
        ValueError: If it is not.
    """
    require_plain_tree(folder)
    if not is_there(folder / INDEX):
        raise ValueError(f"{str(folder)!r} has no {INDEX}; a base is a diffusers pipeline folder")
    index = read_settings(folder / INDEX)
    if _kind_in(index) in PICTURES_ALONE:
        raise ValueError(
            f"{folder.name} is a {index.get('_class_name')}, which takes no LoRAs; give a "
            "text-to-image base, such as Stable Diffusion 1.x, 2.x, XL or 3, or Flux"
        )


def require_fit(
    file: str, shapes: Mapping[str, Shape], folder: Path, directory: Directory, base: str
) -> None:
    """Makes sure, as far as names and shapes tell, that a LoRA belongs to a base.

    What is spelt in a way that diffusers alone understands is left to it.

    Args:
        file: The LoRA's name, for people.
        shapes: Of its tensors.
        folder: The base's.
        directory: Its layers.
        base: Its name, for people.

    Raises:
        ValueError: If it does not.
    """
    kind = _kind_in(read_settings(folder / INDEX))
    for layer, parts in tensors_by_layer(shapes).items():
        places = directory.places(layer)
        if not places:
            _require_same_kind(file, layer, kind, base)
            continue
        of_layer = {part: shapes[name] for part, name in parts.items()}
        wrong = [difference(of_layer, place.shape) for place in places]
        if all(wrong) and places[0].path not in UNEQUAL:
            side, told, there = wrong[0] or ("", 0, 0)
            raise ValueError(
                f"{file} does not fit {base}: its {layer[:120]} has {told} {side}, and there that "
                f"layer has {there}; it belongs to another base, which must be given"
            )


def difference(parts: Mapping[str, Shape], weight: Shape) -> tuple[str, int, int] | None:
    """Where the tensors of a LoRA's layer, by part, and a layer's weight differ, where both say so:
    the side, what the LoRA has there, and what the layer."""
    there = (weight[0], prod(weight[1:])) if len(weight) > 1 else (None, None)
    for sizes in _sizes(parts):
        for side, told, size in zip(("outputs", "inputs"), sizes, there, strict=True):
            if told is not None and size is not None and told != size:
                return side, told, size
    return None


def _require_same_kind(file: str, layer: str, kind: str, base: str) -> None:
    word, parts = named(layer)
    if kind not in KINDS or not set(parts) & set(DENOISERS):
        return
    of = next((name for name, mark in KINDS.items() if mark.match(word)), "")
    if not of and TRANSFORMERS.match(word) and "UNet" in kind:
        of = "transformer"
    if of and of != kind:
        raise ValueError(
            f"{file} does not fit {base}: its {layer[:120]} is a layer of a {of}, and {base} has a "
            f"{kind}; it belongs to another base, which must be given"
        )


def _kind_in(index: Mapping[str, object]) -> str:
    """The class of the network that draws, as a pipeline's index tells it."""
    told = next((index[part] for part in DENOISERS if part in index), None)
    return str(told[1]) if isinstance(told, list) and len(told) == 2 else ""


def _weights(folder: Path) -> Iterator[tuple[str, Shape]]:
    for path in sorted(folder.glob(f"*{TENSORS}")):
        try:
            with tensors_in(path, "np") as content:
                for name in content.keys():  # noqa: SIM118
                    if name.endswith(".weight"):
                        yield name.removesuffix(".weight"), content.get_slice(name).get_shape()
        except (SafetensorError, OSError) as error:
            where = f"{folder.name}/{path.name}"
            raise ValueError(f"{where} is no whole safetensors file: {error}") from error


def _sizes(parts: Mapping[str, Shape]) -> Iterator[tuple[int | None, int | None]]:
    """How many values a layer gives and takes, of a kernel all, as the tensors of a LoRA say, each
    factor of a LoHa, or those of a LoKr together; None where they do not."""

    def size(*names: str, side: int) -> int | None:
        """Of the first of these tensors that is there, the rows, or all beside them."""
        shape = next((parts[name] for name in names if name in parts), None)
        if shape is None or len(shape) < 2:
            return None
        return prod(shape[1:]) if side else shape[0]

    def core(name: str) -> int:
        return prod(parts[name][2:]) if name in parts else 1  # the kernel of a Tucker's core

    if any(name.startswith("hada_") for name in parts):
        for i in (1, 2):
            turned = f"hada_t{i}" in parts  # then the first factor is [rank, outputs]
            into = size(f"hada_w{i}_b", side=1)
            yield (
                size(f"hada_w{i}_a", side=int(turned)),
                None if into is None else into * core(f"hada_t{i}"),
            )
    elif any(name.startswith("lokr_") for name in parts):
        turned = "lokr_w2" not in parts and "lokr_t2" in parts
        first, second = size("lokr_w1", "lokr_w1_a", side=0), size("lokr_w2", side=0)
        second = second or size("lokr_w2_a", side=int(turned))
        one, other = (size(f"lokr_w{i}", f"lokr_w{i}_b", side=1) for i in (1, 2))
        other = other and other * (core("lokr_t2") if turned else 1)
        yield first and second and first * second, one and other and one * other
    else:
        yield (size("lora_B", "lora_up", "up", side=0), size("lora_A", "lora_down", "down", side=1))


def _word(path: str) -> str:
    return path.replace(".", "_")
