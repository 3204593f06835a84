"""CapturedRetrieve: a memory's answers to queries of one shape as a CUDA graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from aesg.exceptions import AESGMemoryError, AESGNavigationError
from aesg.graph.device_learning import Seen
from aesg.memory.calls import Call
from aesg.memory.context import RetrievedContext

if TYPE_CHECKING:
    from aesg.memory.asking import AskMethods


class CapturedRetrieve:
    """`memory.retrieve(query, learn=learn)` for queries like the one given, launched as one CUDA graph.

    Each call answers from the graph as it is then: what changed is brought to the device first, and where the
    device's buffers have moved or grown, or the mode is another, the graph is captured anew. Streams prime
    each other as ever. learn=False: on the host these calls are neither counted nor known to the streams.
    learn=True, in a mode that learns: births, streams and what is noted of use are part of the graph, and the
    host hears of every call as ever; the first is an ordinary one.

    Raises AESGMemoryError for a memory that is not asked on a CUDA device. Has never run on a GPU.
    """

    @torch.inference_mode(False)  # what is kept is used outside of it as well
    def __init__(self, memory: AskMethods, like: Tensor, batch_idx: int = 0, learn: bool = False) -> None:
        device = memory.asked_on
        if device.type != "cuda":
            raise AESGMemoryError(
                f"capture: expected a memory that is asked on a CUDA device, got one asked on {device}"
            )
        self._memory = memory
        self._batch_idx = batch_idx
        self._learn = learn
        self._warm = False  # it learnt once outside of a graph
        self._taught: tuple[Call, Seen] | None = None
        self._query = like.detach().to(device, torch.float32, copy=True)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._context: RetrievedContext | None = None
        self._layout: tuple[object, ...] = ()
        self.captures = 0  # how often it was captured

    @torch.inference_mode(False)
    @torch.no_grad()
    def __call__(self, query: Tensor) -> RetrievedContext:
        """The answer. Its tensors are those of the last call, written over.

        Raises AESGNavigationError for a query of another shape, and AESGMemoryError where the memory was
        moved, or has packs, meanwhile, and where it should learn and cannot do that on its device.
        """
        if query.shape != self._query.shape:
            raise AESGNavigationError(
                f"Query: expected shape {list(self._query.shape)} as captured, got {list(query.shape)}"
            )
        learn = self._learn and self._memory.learns
        layout = self._memory.made_ready(self._query, self._batch_idx, learn)
        if self._memory.asked_on != self._query.device:
            raise AESGMemoryError(
                f"capture: expected a memory on {self._query.device}, got one that was moved to "
                f"{self._memory.asked_on}: capture it anew"
            )
        self._query.copy_(query, non_blocking=True)  # now behind the last replay, on whatever stream that was
        if learn and not self._warm:  # modules load
            self._warm = True
            return self._memory.retrieve(self._query.clone(), self._batch_idx)
        if self._graph is None or layout != self._layout:
            self._capture(layout, learn)
        assert self._graph is not None and self._context is not None
        if self._taught is None:
            self._graph.replay()
        else:
            self._memory.replay(self._graph.replay, *self._taught)
        return self._context.renewed()

    def _capture(self, layout: tuple[object, ...], learn: bool) -> None:
        memory, device = self._memory, self._query.device
        self._graph = self._context = self._taught = None  # gives its memory back first
        with torch.cuda.device(device):
            side = torch.cuda.Stream(device)
            side.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(side), memory.rehearsing():  # modules load, the allocator gets memory
                memory.retrieve(self._query, self._batch_idx, learn=False)
            torch.cuda.current_stream(device).wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with memory.capturing() as last, torch.cuda.graph(graph):
                context = memory.retrieve(self._query, self._batch_idx, learn=learn)
            if learn:
                self._taught = last()
        self._graph, self._context, self._layout = graph, context, layout
        self.captures += 1
