"""Models as NIR graphs."""

from __future__ import annotations

import io
from typing import Any

import nir
import numpy as np
from torch import Tensor, nn

from tracegrad.adapters.nir.fold import Array, Norm, folded
from tracegrad.adapters.nir.trace import Step, trace
from tracegrad.adapters.nir.units import DT, check_dt, node_of
from tracegrad.snn.neurons import IF, LIF
from tracegrad.snn.norms import TDBatchNorm2d

SYNAPSES = (nn.Conv1d, nn.Conv2d, nn.Linear)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, TDBatchNorm2d)
NEURONS = (LIF, IF)


def to_nir(model: nn.Module, example_input: Tensor, dt: float = DT) -> nir.NIRGraph:
    """Writes a model as a NIR graph of one time step; the model does not change.

    Convolutions, linear layers, batch norms, average pools, additions, and hard-reset LIF and IF neurons are written.
    Norms are folded into the weights before them with their running statistics, and averages that only synapses read
    into the weights after them (the node is then a sum, which every reader knows); both in float64, rounded to the
    weights' precision. Nodes have the names of modules. T is not part of NIR: the reader of the graph is given the
    image once per step. NIR's neurons fire above their threshold, ours at or above it.

    Args:
        model: any model; apart from calling its layers it may only add, reshape, and average over height and width.
        example_input: images [B, C, H, W], frames [T, B, C, H, W], vectors [T, B, N], or, where the first convolution
            is an `nn.Conv1d`, signals [B, C, L] or [T, B, C, L]; its values do not matter.
        dt: the Euler step in seconds with which the graph will be read: 1e-4 in snnTorch, an argument in Norse.

    Raises:
        ValueError: what NIR cannot express, by name: a soft reset, an initial membrane, spikes of another height than
            1, layers of other kinds; or dt not positive.
    """
    check_dt(dt)
    return _Writer(trace(model, example_input), dt).graph()


def to_bytes(graph: nir.NIRGraph) -> bytes:
    """The content of a graph's file, as `nir.write` writes it."""
    buffer = io.BytesIO()
    nir.write(buffer, graph)  # pyright: ignore[reportArgumentType] - h5py takes any file
    return buffer.getvalue()


class _Writer:
    def __init__(self, steps: list[Step], dt: float) -> None:
        self.steps = steps
        self.dt = dt
        self.readers: dict[Step, list[Step]] = {step: [] for step in steps}
        for step in steps:
            for before in step.inputs:
                self.readers[before].append(step)
        self.nodes: dict[str, nir.NIRNode] = {}
        self.edges: list[tuple[str, str]] = []
        self.sources: dict[Step, tuple[str, ...]] = {}  # the nodes whose sum is the step's result
        self.factors: dict[Step, float] = {}  # what that sum still has to be multiplied with

    def graph(self) -> nir.NIRGraph:
        for step in self.steps:
            try:
                self._write(step)
            except ValueError as error:
                kind = f" ({type(step.layer).__name__})" if step.layer else ""
                raise ValueError(f"{step.name!r}{kind} {error}") from None
        last = self.steps[-1]
        self._add(Step("output", None, (last,), last.shape), nir.Output({"output": np.array(last.shape)}))
        return nir.NIRGraph(self.nodes, self.edges)

    def _write(self, step: Step) -> None:
        layer: Any = step.layer
        if layer is None and not step.inputs:
            self._add(step, nir.Input({"input": np.array(step.shape)}))
        elif layer is None:
            self._sum(step)
        elif type(layer) in SYNAPSES:
            if not (readers := self.readers[step]) or any(type(each.layer) not in NORMS for each in readers):
                self._synapse(step, step)
        elif type(layer) in NORMS:
            if type(step.inputs[0].layer) not in SYNAPSES:
                raise ValueError("does not follow a convolution or a linear layer that it could be folded into")
            self._synapse(step.inputs[0], step, layer)
        elif type(layer) in NEURONS:
            self._add(step, node_of(layer, step.shape, self.dt))
        elif isinstance(layer, nn.Flatten):
            self._add(
                step,
                nir.Flatten({"input": np.array(step.inputs[0].shape)}, layer.start_dim, -1),
                self.factors.get(step.inputs[0], 1),
            )
        elif isinstance(layer, nn.AvgPool2d | nn.AdaptiveAvgPool2d):
            self._pool(step, layer)
        else:
            raise ValueError("has no node in NIR")

    def _add(self, step: Step, node: nir.NIRNode, factor: float = 1.0) -> None:
        """Adds a node, with edges from what it reads."""
        name, number = step.name, 1
        while name in self.nodes:
            name, number = f"{step.name}_{number}", number + 1
        self.nodes[name] = node
        for before in step.inputs:
            self.edges += [(source, name) for source in self.sources[before]]
        self.sources[step] = (name,)
        self.factors[step] = factor

    def _sum(self, step: Step) -> None:
        """A layer that reads a sum gets an edge from each term."""
        sources = tuple(source for before in step.inputs for source in self.sources[before])
        if len(set(sources)) < len(sources):
            raise ValueError(f"adds the output of {sources[0]!r} to itself; an edge of NIR carries it once")
        self.sources[step] = sources

    def _synapse(self, synapse: Step, step: Step, norm: Norm | None = None) -> None:
        """Writes the node of a synapse; with a norm folded into it, its result is that of the norm's step."""
        layer: Any = synapse.layer
        weight, bias = folded(layer, norm, self.factors.get(synapse.inputs[0], 1.0))
        dims = {nn.Conv1d: 2, nn.Conv2d: 3}.get(type(layer), 1)
        if len(synapse.inputs[0].shape) != dims:
            raise ValueError(f"reads samples of shape {list(synapse.inputs[0].shape)}, and its node {dims} dimensions")
        if isinstance(layer, nn.Linear):
            node = nir.Linear(weight) if bias is None else nir.Affine(weight, bias)
        else:
            node = _convolution(layer, weight, np.zeros(len(weight), weight.dtype) if bias is None else bias)
        result = Step(synapse.name, layer, synapse.inputs, step.shape)
        self._add(result, node)
        self.sources[step] = self.sources[result]

    def _pool(self, step: Step, pool: nn.AvgPool2d | nn.AdaptiveAvgPool2d) -> None:
        before, after = step.inputs[0].shape, step.shape
        if isinstance(pool, nn.AdaptiveAvgPool2d):
            if any(size % parts for size, parts in zip(before[1:], after[1:], strict=True)):
                raise ValueError(f"averages over windows of several sizes, from {list(before)} to {list(after)}")
            kernel = (before[1] // after[1], before[2] // after[2])
            pool = nn.AvgPool2d(kernel)
        kernel, stride, padding = (_pair(each) for each in (pool.kernel_size, pool.stride, pool.padding))
        if pool.ceil_mode or (any(padding) and not pool.count_include_pad):
            raise ValueError("leaves windows at the border incomplete, which NIR's do not")
        divisor = pool.divisor_override or kernel[0] * kernel[1]
        sizes = [np.array(each) for each in (kernel, stride, padding)]
        if divisor == 1 or (self._only_synapses_read(step) and not any(padding)):
            self._add(step, nir.SumPool2d(*sizes), 1 / divisor)
        elif divisor == kernel[0] * kernel[1]:
            self._add(step, nir.AvgPool2d(*sizes))
        else:
            raise ValueError(f"divides by {divisor}, neither by 1 nor by the size of its window")

    def _only_synapses_read(self, step: Step) -> bool:
        readers = self.readers[step]
        return bool(readers) and all(
            type(each.layer) in SYNAPSES or (isinstance(each.layer, nn.Flatten) and self._only_synapses_read(each))
            for each in readers
        )


def _convolution(layer: nn.Conv1d | nn.Conv2d, weight: Array, bias: Array) -> nir.Conv1d | nir.Conv2d:
    if layer.padding_mode != "zeros":
        raise ValueError(f"has padding_mode {layer.padding_mode!r}, and NIR pads with zeros")
    if layer.groups != 1 or len(set(layer.kernel_size)) > 1:
        raise ValueError(
            f"has groups={layer.groups} and kernel_size={layer.kernel_size}; the package nir computes wrong shapes for "
            "more than one group and for kernels that are not square"
        )
    if isinstance(layer, nn.Conv1d):
        padding = layer.padding if isinstance(layer.padding, str) else layer.padding[0]
        return nir.Conv1d(None, weight, layer.stride[0], padding, layer.dilation[0], layer.groups, bias)
    padding = layer.padding if isinstance(layer.padding, str) else _pair(layer.padding)
    return nir.Conv2d(None, weight, _pair(layer.stride), padding, _pair(layer.dilation), layer.groups, bias)


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    first, second = (value, value) if isinstance(value, int) else value
    return first, second
