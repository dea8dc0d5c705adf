"""Records what LyCORIS' own layers compute, as tests/golden/lycoris.npz.

    python tests/peers/record_lycoris.py PACKAGES

PACKAGES is a folder that `pip install --target PACKAGES --no-deps lycoris-lora toml einops` filled
(4.1.3 was recorded). Each layer's output is taken from its forward, as it was trained: in that
version `get_merged_weight` of LoHa and LoKr counts alpha / rank twice.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from tests.peers.lycoris_facts import CASES, SHAPES, drawn, given

GOLDEN = Path(__file__).parent.parent / "golden" / "lycoris.npz"


def original(layer: str) -> nn.Module:
    """The layer without any LoRA."""
    out, into, *kernel = SHAPES[layer]
    made = nn.Conv2d(into, out, kernel[0], padding=1) if kernel else nn.Linear(into, out)
    made.weight.data = torch.from_numpy(drawn(f"weight of {layer}", SHAPES[layer]))
    made.bias.data.zero_()
    return made


def main() -> None:
    sys.path.insert(0, sys.argv[1])
    from lycoris.modules.locon import LoConModule
    from lycoris.modules.loha import LohaModule
    from lycoris.modules.lokr import LokrModule

    modules = {"loha": LohaModule, "lokr": LokrModule, "lora": LoConModule, "dora": LoConModule}
    found = {}
    for case, (told, layers) in CASES.items():
        for layer in layers:
            of = original(layer)
            module = modules[case.split("_")[0]]("x", of, **told)
            for name, parameter in module.named_parameters():
                if "dora_scale" not in name:
                    parameter.data = torch.from_numpy(
                        drawn(f"{case} {layer} {name}", tuple(parameter.shape))
                    )
                else:
                    parameter.data *= 1.5
            module.org_forward = of.forward
            with torch.no_grad():
                module.eval()
                output = module(torch.from_numpy(given(layer)))
                for name, value in module.custom_state_dict().items():
                    found[f"{case}/{layer}/{name}"] = value.float().numpy()
            found[f"{case}/{layer}"] = output.numpy()
    np.savez_compressed(GOLDEN, **found)
    print(f"{GOLDEN}: {GOLDEN.stat().st_size} bytes")


if __name__ == "__main__":
    main()
