"""Synapses that are no modules: reads the functions by which a network multiplies its spikes with its weights."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tracegrad.core.equations.convolutions import ConvolutionGeometry, TransposedConvolutionGeometry
from tracegrad.core.equations.geometry import (
    EinsumGeometry,
    Geometry,
    LinearGeometry,
    MatmulGeometry,
    OneToOneGeometry,
)
from tracegrad.core.equations.layers import padding_sizes

Sizes = int | Sequence[int]


class SynapseCall(NamedTuple):
    """One call of a synapse: its input, what it multiplies the input by and adds to it, and how."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    geometry: Geometry


def read_call(
    function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], is_weight: Callable[[Tensor], bool]
) -> SynapseCall | None:
    """Reads a call of a PyTorch function, as a TorchFunctionMode sees it, as that of a synapse.

    Read are F.linear, F.conv1d to F.conv_transpose3d, `x @ W` with W a matrix (matmul, mm, addmm), einsums that are
    a fully connected layer, such as "...i,oi->...o", and products `w * x` in which `w` broadcasts to `x` and is the
    same for all examples.

    Args:
        function: what is called.
        args: its positional arguments.
        kwargs: its keyword arguments.
        is_weight: whether a tensor is a weight, or made of weights alone.

    Returns:
        None if the call is of another function, multiplies no input by a weight, has no dimension of examples, or
        writes its result elsewhere (`out=`).
    """
    read = _READERS.get(function)
    if read is None:
        return None
    try:
        arguments = inspect.signature(read).bind(*args, **kwargs)
    except TypeError:  # an `out=`, or a call that PyTorch refuses
        return None
    readings = read(*arguments.args, **arguments.kwargs)
    return next((call for call in readings if is_weight(call.weight) and not is_weight(call.x)), None)


def compute(call: SynapseCall) -> Tensor:
    """The current of a call: to the bit what the function that was read returns."""
    return call.geometry.current(call.x, call.weight, call.bias)


# The readers have the parameters that PyTorch gives its functions, and yield what a call may be to a synapse.


def _read_linear(input: Any, weight: Any, bias: Tensor | None = None) -> Iterator[SynapseCall]:
    if _dim(input) >= 2 and _dim(weight) == 2:
        yield SynapseCall(input, weight, bias, LinearGeometry())


def _read_convolution(
    dims: int,
    input: Any,
    weight: Any,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Sizes | str = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Iterator[SynapseCall]:
    if not _dim(input) == _dim(weight) == 2 + dims:
        return
    steps, reach = _per_dimension(stride, dims), _per_dimension(dilation, dims)
    if padding == "same" and any(step != 1 for step in steps):  # PyTorch refuses it
        return
    given = padding if isinstance(padding, str) else _per_dimension(padding, dims)
    sides, behind = padding_sizes(given, weight.shape[2:], reach)
    yield SynapseCall(input, weight, bias, ConvolutionGeometry(steps, sides, reach, groups, behind))


def _read_transposed_convolution(
    dims: int,
    input: Any,
    weight: Any,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
) -> Iterator[SynapseCall]:
    if not _dim(input) == _dim(weight) == 2 + dims:
        return
    steps, sides, reach, extra = (_per_dimension(sizes, dims) for sizes in (stride, padding, dilation, output_padding))
    yield SynapseCall(input, weight, bias, TransposedConvolutionGeometry(steps, sides, reach, groups, extra))


def _read_matmul(input: Any, other: Any) -> Iterator[SynapseCall]:
    if _dim(input) >= 2 and _dim(other) == 2:
        yield SynapseCall(input, other, None, MatmulGeometry())


def _read_reversed_matmul(input: Any, other: Any) -> Iterator[SynapseCall]:
    return _read_matmul(other, input)


def _read_mm(input: Any, mat2: Any) -> Iterator[SynapseCall]:
    return _read_matmul(input, mat2)


def _read_addmm(input: Any, mat1: Any, mat2: Any, *, beta: float = 1, alpha: float = 1) -> Iterator[SynapseCall]:
    if beta == alpha == 1 and _dim(mat1) == _dim(mat2) == 2:
        yield SynapseCall(mat1, mat2, input, MatmulGeometry())


def _read_einsum(equation: Any, *operands: Any) -> Iterator[SynapseCall]:
    if len(operands) == 1 and isinstance(operands[0], list | tuple):
        operands = tuple(operands[0])
    if not isinstance(equation, str) or len(operands) != 2:
        return
    subscripts, _, post = equation.replace(" ", "").partition("->")
    first, _, second = subscripts.partition(",")
    left, right = operands
    for x, weight, geometry in (
        (left, right, EinsumGeometry(first, second, post, weight_first=False)),
        (right, left, EinsumGeometry(second, first, post, weight_first=True)),
    ):
        if not (_is_fully_connected(geometry) and _dim(x) >= 2 and _dim(weight) == 2):
            continue
        # An einsum repeats a dimension of size 1 where the other operand's is larger; a layer does not.
        if x.shape[-1] == weight.shape[geometry.weight.index(geometry.pre[-1])]:
            yield SynapseCall(x, weight, None, geometry)


def _is_fully_connected(einsum: EinsumGeometry) -> bool:
    """Whether the weight replaces the last letter of the input by another, and all that precedes it stays."""
    leading, into, out = einsum.pre[:-1], einsum.pre[-1:], einsum.post[-1:]
    letters = leading.replace("...", "", 1) + into + out
    plain = letters.isalpha() and len(set(letters)) == len(letters)
    return plain and einsum.post == leading + out and einsum.weight in (into + out, out + into)


def _read_product(input: Any, other: Any) -> Iterator[SynapseCall]:
    for x, weight in ((input, other), (other, input)):
        if _dim(weight) >= 0 and _dim(x) >= 1 and _is_per_neuron(x.shape, weight.shape):
            yield SynapseCall(x, weight, None, OneToOneGeometry())


def _is_per_neuron(x: torch.Size, weight: torch.Size) -> bool:
    """Whether the weight broadcasts to `x` and is the same for all examples."""
    fits = all(size in (1, of_x) for size, of_x in zip(reversed(weight), reversed(x), strict=False))
    return fits and (len(weight) < len(x) or (len(weight) == len(x) and weight[0] == 1))


def _dim(argument: Any) -> int:
    """The number of dimensions; -1 if the argument is no tensor."""
    return argument.dim() if isinstance(argument, Tensor) else -1


def _per_dimension(sizes: Sizes, dims: int) -> tuple[int, ...]:
    sizes = tuple(sizes) if isinstance(sizes, Sequence) else (sizes,)
    return sizes * dims if len(sizes) == 1 else sizes


_READERS: dict[Callable[..., Any], Callable[..., Iterator[SynapseCall]]] = {
    F.linear: _read_linear,
    **{
        function: partial(_read_convolution, dims)
        for dims, function in enumerate((F.conv1d, F.conv2d, F.conv3d), start=1)
    },
    **{
        function: partial(_read_transposed_convolution, dims)
        for dims, function in enumerate((F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d), start=1)
    },
    **dict.fromkeys((torch.matmul, torch.linalg.matmul, Tensor.matmul, Tensor.__matmul__), _read_matmul),
    Tensor.__rmatmul__: _read_reversed_matmul,
    **dict.fromkeys((torch.mm, Tensor.mm), _read_mm),
    **dict.fromkeys((torch.addmm, Tensor.addmm), _read_addmm),
    torch.einsum: _read_einsum,
    **dict.fromkeys(
        (torch.mul, torch.multiply, Tensor.mul, Tensor.multiply, Tensor.__mul__, Tensor.__rmul__), _read_product
    ),
}
