"""What a LoRA file holds, by the names of its tensors: a kind that is loaded, or why it is not."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

PEFT_LEVEL, TEXT_LEVEL = "base_model.model.", "text_model."
# What diffusers reads of a LoRA, in each of its layouts; the names of tensors are run as patterns.
TENSOR_NAME = re.compile(r"[\w.-]+", re.ASCII)
PARTS = re.compile(r"(?:lora_(?:A|B|down|up|mid|magnitude_vector)(?:\.\w+)?"
                   r"|lora(?:_linear_layer)?\.(?:down|up))(?:\.(?:weight|bias))?$"
                   r"|\.(?:alpha|dora_scale|hada_(?:w[12]_[ab]|t[12])|lokr_[wt]\d(?:_[ab])?)$"
                   )  # fmt: skip
PAIRS = (("lora_A", "lora_B"), ("lora_down", "lora_up"), ("lora.down", "lora.up"),
         ("lora_linear_layer.down", "lora_linear_layer.up"))  # fmt: skip
WHOLE = {"diff": "a difference of whole weights", "diff_b": "a difference of a bias",
         "w_norm": "a norm's weights", "b_norm": "a norm's bias"}  # fmt: skip
FULL = r"diff(?:_b)?$"  # and not .diffusion_model of a whole checkpoint
# How a tensor's name begins after its layer, as a pattern, and what people call it.
FOREIGN = {
    "oft_": "an OFT or BOFT",
    "boft_": "a BOFT",
    "ia3_": "an (IA)^3",
    "on_input": "an (IA)^3",
    "glora": "a GLoRA",
    r"a1\.weight": "a GLoRA",
    "lora_mid": "a LoRA with Tucker's cores (lora_mid)",
    FULL: "full differences of weights (LyCORIS' full)",
}
# What tells LyCORIS' kinds by PEFT's names: LoHa, LoKr, and LoRA that is a DoRA.
LYCORIS = {"LOHA": ".hada_", "LOKR": ".lokr_", "LORA": ".dora_scale"}
OWN_PREFIX = "lycoris_"  # of its wrapper, which diffusers does not know
OF_HADA = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
OTHER_KINDS = "a LoRA, LoHa or LoKr would do"


def lycoris_kind(tensors: Collection[str]) -> str | None:
    """Returns PEFT's name of the kind of a file that LyCORIS wrote, which diffusers does not load:
    LOHA, LOKR, or LORA of a DoRA or in names of its own; None of other files."""
    marked = (k for k, mark in LYCORIS.items() if any(mark in name for name in tensors))
    own = "LORA" if any(name.startswith(OWN_PREFIX) for name in tensors) else None
    return next(marked, own)


def require_kind(name: str, tensors: Collection[str]) -> None:
    """Makes sure that tensors are those of a LoRA that is loaded, and of nothing else.

    Args:
        name: Of the file, for people.
        tensors: Their names.

    Raises:
        ValueError: If not; the kind is named with the nearest form that would do.
    """
    is_lora = any(".lora" in tensor or "_lora." in tensor for tensor in tensors)
    for word, kind in FOREIGN.items():
        beside = word == FULL and (is_lora or lycoris_kind(tensors))  # named below, by its tensor
        if not beside and any(re.search(rf"\.{word}", tensor) for tensor in tensors):
            raise ValueError(
                f"{name} holds {kind}, which neither diffusers nor PEFT loads here; {OTHER_KINDS}"
            )
    if not any("lora" in tensor.lower() for tensor in tensors) and not lycoris_kind(tensors):
        first = f", such as {min(tensors)[:80]}" if tensors else ""
        raise ValueError(
            f"{name} holds no LoRA: none of its {len(tensors)} tensors is named after one{first}"
        )
    if any(tensor.startswith(PEFT_LEVEL) for tensor in tensors):
        raise ValueError(
            f"{name} is a file of PEFT's without its adapter_config.json, which says how much of "
            "the LoRA counts; call it adapter_model.safetensors and put its adapter_config.json "
            "beside it"
        )
    if strange := sorted(tensor for tensor in tensors if not PARTS.search(tensor)):
        kind = WHOLE.get(strange[0].rpartition(".")[2], "no part of a LoRA")
        raise ValueError(
            f"{name} holds {len(strange)} tensors beside its LoRA that would be left out, the "
            f"first {strange[0][:120]} ({kind}); it must hold a LoRA alone"
        )
    _require_one_kind(name, tensors)
    _require_whole_layers(name, set(tensors))


def _require_one_kind(name: str, tensors: Iterable[str]) -> None:
    """LyCORIS can train layers of several kinds at once, and lengths with each of them."""
    marks = {"LoHa": ".hada_", "LoKr": ".lokr_", "LoRA": ".lora_"}
    found = [kind for kind, mark in marks.items() if any(mark in tensor for tensor in tensors)]
    if len(found) > 1:
        raise ValueError(f"{name} holds {' and '.join(found)} at once; it must hold one of them")
    if found and found != ["LoRA"] and any(".dora_scale" in tensor for tensor in tensors):
        raise ValueError(
            f"{name} holds a {found[0]} with lengths (dora_scale), which PEFT has for LoRA alone; "
            f"a {found[0]} without weight decomposition would do"
        )


def _require_whole_layers(name: str, have: set[str]) -> None:
    for one, other in (*PAIRS, *(pair[::-1] for pair in PAIRS)):
        for tensor in sorted(have):
            start, found, end = tensor.rpartition(one)
            if found and end.endswith("weight") and start + other + end not in have:
                raise ValueError(f"{name} has {tensor[:120]} without its {other}; it is not whole")
    for layer in sorted({t.partition(".hada_")[0] for t in have if ".hada_" in t}):
        _require_parts(name, layer, have, OF_HADA)
        if f"{layer}.hada_t1" in have or f"{layer}.hada_t2" in have:
            _require_parts(name, layer, have, ("hada_t1", "hada_t2"))
    for layer in sorted({t.partition(".lokr_")[0] for t in have if ".lokr_" in t}):
        for side in ("lokr_w1", "lokr_w2"):
            if f"{layer}.{side}" not in have:
                _require_parts(name, layer, have, (f"{side}_a", f"{side}_b"))


def _require_parts(name: str, layer: str, have: set[str], parts: Iterable[str]) -> None:
    for part in parts:
        if f"{layer}.{part}" not in have:
            raise ValueError(f"{name} has {layer[:120]} without its {part}; it is not whole")
