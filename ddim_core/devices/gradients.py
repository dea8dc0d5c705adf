"""A loss and its gradients on a card, forward and backward played as one CUDA graph."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

WARM = 3  # calls before the capture, in which libraries choose kernels and take memory
MOST_GRAPHS = 8  # shapes of arguments that get one; the others run kernel by kernel

Loss: TypeAlias = Callable[..., Tensor]
WithGradients: TypeAlias = tuple[Tensor, Sequence[Tensor]]

logger = logging.getLogger(__name__)


class Gradients:
    """The gradients of parameters as a function of the tensors that a loss is taken of.

    A step of a training has thousands of kernels that take hardly longer than their launches: a
    graph for each shape saves these. Off CUDA, and where no graph can be made, the kernels run one
    by one, which gives the same.

    Args:
        loss: Maps tensors on the parameters' device to one number; depends on them and on the
            parameters alone, draws nothing at random, and does nothing that waits for the device.
        parameters: All of them take part in every loss.
        graphs: Whether graphs are made.
    """

    def __init__(self, loss: Loss, parameters: Sequence[Tensor], graphs: bool = True) -> None:
        self._loss, self._parameters = loss, list(parameters)
        self._graphs = graphs and self._parameters[0].is_cuda
        self._played: dict[tuple[torch.Size, ...], Callable[..., WithGradients]] = {}
        self._pool: Any = None  # memory that all graphs share, one at a time

    def __call__(self, *given: Tensor) -> WithGradients:
        """Returns the loss, and the gradient of each parameter: tensors that the next call may
        write over."""
        shapes = tuple(tensor.shape for tensor in given)
        if self._graphs and shapes not in self._played and len(self._played) < MOST_GRAPHS:
            self._try_to_capture(shapes, given)
        return self._played.get(shapes, self._one_by_one)(*given)

    def _one_by_one(self, *given: Tensor) -> WithGradients:
        loss = self._loss(*given)
        return loss.detach(), torch.autograd.grad(loss, self._parameters)

    def _try_to_capture(self, shapes: tuple[torch.Size, ...], given: Sequence[Tensor]) -> None:
        try:
            self._played[shapes] = self._captured(given)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            logger.warning("training goes on without CUDA graphs, slower: %s", error)
            self._graphs = False

    def _captured(self, given: Sequence[Tensor]) -> Callable[..., WithGradients]:
        with torch.cuda.device(given[0].device):
            mine = [tensor.clone() for tensor in given]
            here, aside = torch.cuda.current_stream(), torch.cuda.Stream()
            aside.wait_stream(here)
            with torch.cuda.stream(aside):
                for _ in range(WARM):
                    self._one_by_one(*mine)
            here.wait_stream(aside)
            graph = torch.cuda.CUDAGraph()
            # Other threads may go on asking for pinned memory while this one captures.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                loss, gradients = self._one_by_one(*mine)
            self._pool = graph.pool()

        def played(*new: Tensor) -> WithGradients:
            torch._foreach_copy_(mine, list(new))
            graph.replay()
            return loss.clone(), gradients

        return played
