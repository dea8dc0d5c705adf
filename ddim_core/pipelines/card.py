"""A pipeline as a card runs it best."""

from __future__ import annotations

from dataclasses import replace

import torch

from ddim_core.devices.placing import compiled, laid_out
from ddim_core.pipelines.opening import OpenedPipeline
from ddim_core.pipelines.takes import networks_of


def ready_for_card(opened: OpenedPipeline, by_compiler: bool) -> OpenedPipeline:
    """Lays a pipeline's networks out channels last, and has those that draw compiled if asked for;
    its images then stay on the card until they are bytes."""
    for part in opened.pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            laid_out(part)
    if by_compiler:
        for name in networks_of(opened.pipeline):
            network = getattr(opened.pipeline, name)
            network.forward = compiled(network.forward)
    return replace(opened, on_card=True)
