"""Each kind of synapse against loops over its connections, PyTorch's own autograd, and PyTorch's own functions."""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tracegrad.core import compiled as compilation
from tracegrad.core.equations.convolutions import ConvolutionGeometry, TransposedConvolutionGeometry
from tracegrad.core.equations.functional import SynapseCall, compute, read_call
from tracegrad.core.equations.geometry import (
    EinsumGeometry,
    Geometry,
    LinearGeometry,
    MatmulGeometry,
    OneToOneGeometry,
)
from tracegrad.core.equations.layers import geometry_of, has_equal_ends, is_synapse
from tracegrad.events import mixed_precision

Index = tuple[int, ...]
# One multiply-accumulate: where it reads its input, where its weight, and which current it adds to. Input or current
# is None where it lies outside.
Connection = tuple[Index | None, Index, Index | None]

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 0.5


def indices(shape: Index) -> Iterator[Index]:
    return itertools.product(*map(range, shape))


def fully_connected(x: Index, weight: Index, out_first: bool) -> Iterator[Connection]:
    inputs, outputs = (weight[1], weight[0]) if out_first else weight
    for lead, i, o in itertools.product(indices(x[:-1]), range(inputs), range(outputs)):
        yield (*lead, i), (o, i) if out_first else (i, o), (*lead, o)


def one_to_one(x: Index, weight: Index) -> Iterator[Connection]:
    aligned = (1,) * (len(x) - len(weight)) + weight
    for index in indices(x):
        shared = tuple(0 if size == 1 else at for at, size in zip(index, aligned, strict=True))
        yield index, shared[len(x) - len(weight) :], index


def convolution(x: Index, weight: Index, current: Index, layer: nn.Module) -> Iterator[Connection]:
    """post[b,o,p] meets pre[b,i, p*stride + k*dilation - padding]."""
    padding = layer.padding
    if isinstance(padding, str):
        totals = [reach * (size - 1) for reach, size in zip(layer.dilation, layer.kernel_size, strict=True)]
        padding = tuple(total // 2 if layer.padding == "same" else 0 for total in totals)
    outputs, inputs = weight[0] // layer.groups, weight[1]
    ranges = range(x[0]), range(layer.groups), range(outputs), range(inputs)
    for b, group, o, i in itertools.product(*ranges):
        for p, k in itertools.product(indices(current[2:]), indices(weight[2:])):
            axes = zip(p, layer.stride, k, layer.dilation, padding, strict=True)
            at = tuple(p * s + k * d - pad for p, s, k, d, pad in axes)
            inside = all(0 <= position < size for position, size in zip(at, x[2:], strict=True))
            o_all, i_all = group * outputs + o, group * inputs + i
            yield (b, i_all, *at) if inside else None, (o_all, i, *k), (b, o_all, *p)


def transposed_convolution(x: Index, weight: Index, current: Index, layer: nn.Module) -> Iterator[Connection]:
    """pre[b,i,p] meets post[b,o, p*stride + k*dilation - padding]."""
    inputs, outputs = weight[0] // layer.groups, weight[1]
    ranges = range(x[0]), range(layer.groups), range(outputs), range(inputs)
    for b, group, o, i in itertools.product(*ranges):
        for p, k in itertools.product(indices(x[2:]), indices(weight[2:])):
            axes = zip(p, layer.stride, k, layer.dilation, layer.padding, strict=True)
            at = tuple(p * s + k * d - pad for p, s, k, d, pad in axes)
            inside = all(0 <= position < size for position, size in zip(at, current[2:], strict=True))
            o_all, i_all = group * outputs + o, group * inputs + i
            yield (b, i_all, *p), (i_all, o, *k), (b, o_all, *at) if inside else None


class Loops:
    """Current, gradient of the input and relation, connection by connection."""

    def __init__(self, connections: Iterator[Connection]) -> None:
        every = list(connections)
        self.macs = len(every)
        self.inside = [each for each in every if None not in each]

    def current(self, pre: Tensor, weight: Tensor, shape: torch.Size) -> Tensor:
        x, w, z = Entries(pre), Entries(weight), Entries(torch.zeros(shape))
        for i, k, o in self.inside:
            z.add(o, w[k] * x[i])
        return z.tensor()

    def grad_input(self, gradient: Tensor, pre: Tensor, weight: Tensor) -> Tensor:
        d, w, x = Entries(gradient), Entries(weight), Entries(torch.zeros(pre.shape))
        for i, k, o in self.inside:
            x.add(i, w[k] * d[o])
        return x.tensor()

    def correlate(self, pre: Tensor, post: Tensor, weight: Tensor) -> Tensor:
        x, y, r = Entries(pre), Entries(post), Entries(torch.zeros(weight.shape))
        for i, k, o in self.inside:
            r.add(k, y[o] * x[i])
        return r.tensor()


class Entries:
    """A tensor's entries as Python's own (float64) numbers, which is much faster than a tensor of one entry."""

    def __init__(self, tensor: Tensor) -> None:
        self.shape = tensor.shape
        self.values = dict(zip(indices(tensor.shape), tensor.double().flatten().tolist(), strict=True))

    def __getitem__(self, index: Index) -> float:
        return self.values[index]

    def add(self, index: Index, value: float) -> None:
        self.values[index] += value

    def tensor(self) -> Tensor:
        return torch.tensor(list(self.values.values()), dtype=torch.float64).view(self.shape)


def close(actual: Tensor, expected: Tensor, what: str, tolerance: float = 1e-12) -> None:
    assert actual.shape == expected.shape, f"{what} has shape {list(actual.shape)}, not {list(expected.shape)}"
    error = (actual.double() - expected.double()).abs().max().item()
    bound = tolerance * max(1.0, expected.abs().max().item())
    assert error <= bound, f"{what} is off by {error:.1e}, more than {bound:.1e}"


def check(
    geometry: Geometry, original: Callable[..., Tensor], loops: Loops, x: Tensor, weight: Tensor, bias: Tensor | None
) -> None:
    """`original(x, weight, bias)` is PyTorch's own; `loops` its connections."""
    leaves = [leaf.detach().requires_grad_() for leaf in (x, weight, bias) if leaf is not None]
    z = original(*leaves, *([None] if bias is None else []))
    post = uniform(*z.shape, seed=9).to(x)
    current = geometry.current(x, weight, bias)
    with torch.no_grad():  # where gradients are asked for, PyTorch's own matmul may take another way
        own = original(x, weight, *([None] if bias is None else [bias]))
    assert torch.equal(current, own), f"the current differs from PyTorch's by {(current - own).abs().max():.1e}"
    if bias is None:
        close(current, loops.current(x, weight, z.shape), "the current")
    close(geometry.grad_input(post, x, weight), loops.grad_input(post, x, weight), "grad_input")
    relation = geometry.correlate(x, post, torch.full_like(weight, math.nan))  # only its shape may matter
    close(relation, loops.correlate(x, post, weight), "the relation")
    close(geometry.total(x, post, weight), relation.sum(), "the total")
    ones_pre, ones_post = torch.ones_like(x), torch.ones_like(post)
    of_pre, of_post = geometry.marginals(torch.stack([x, x.square(), ones_pre]), torch.stack([post, -post]), weight)
    expected = [loops.correlate(signal, ones_post, weight) for signal in (x, x.square(), ones_pre)]
    close(of_pre, torch.stack(expected), "the marginals of what comes in")
    expected = [loops.correlate(ones_pre, signal, weight) for signal in (post, -post)]
    close(of_post, torch.stack(expected), "the marginals of the current's end")
    assert geometry.macs(x, current, weight) == loops.macs
    by_autograd = torch.autograd.grad(z, leaves, post)
    close(geometry.grad_input(post, x, weight), by_autograd[0], "grad_input")
    close(relation, by_autograd[1], "the relation of dL/dz")
    if bias is not None:
        close(geometry.grad_bias(post, bias.shape), by_autograd[2], "grad_bias")


def laid_out(x: Tensor, layout: str) -> Tensor:
    """The same values in another order of memory."""
    if layout == "expanded":  # an image that is the same at every step
        return x[:1].expand(x.shape)
    if layout == "time second":
        return x.transpose(0, 1).contiguous().transpose(0, 1)
    if layout == "channels last":
        return x.movedim(1, -1).contiguous().movedim(-1, 1)
    return x


LAYOUTS = st.sampled_from(["contiguous", "expanded", "time second", "channels last"])
SMALL = st.integers(1, 3)


def per_dimension(draw: st.DrawFn, dims: int, low: int, high: int) -> Index:
    return tuple(draw(st.integers(low, high)) for _ in range(dims))


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[nn.Module, Tensor]:
    dims = draw(SMALL)
    kernel, dilation = per_dimension(draw, dims, 1, 3 if dims < 3 else 2), per_dimension(draw, dims, 1, 2)
    padding = draw(st.sampled_from(["same", "valid", "numbers"]))
    stride = (1,) * dims if padding == "same" else per_dimension(draw, dims, 1, 3)
    if padding == "numbers":
        padding = per_dimension(draw, dims, 0, 2)
    groups = draw(st.integers(1, 2))
    inputs, outputs = groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 2))
    layer = CONVOLUTIONS[dims](inputs, outputs, kernel, stride, padding, dilation, groups, draw(st.booleans()))
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    sides = padding if isinstance(padding, tuple) else (0,) * dims
    least = [1 if padding == "same" else max(1, r - 2 * pad) for r, pad in zip(reach, sides, strict=True)]
    sizes = [low + draw(st.integers(0, 2)) for low in least]
    return layer.double(), laid_out(uniform(2, inputs, *sizes), draw(LAYOUTS))


@st.composite
def transposed_convolutions(draw: st.DrawFn) -> tuple[nn.Module, Tensor]:
    dims = draw(SMALL)
    kernel, dilation = per_dimension(draw, dims, 1, 3 if dims < 3 else 2), per_dimension(draw, dims, 1, 2)
    stride, padding = per_dimension(draw, dims, 1, 3), per_dimension(draw, dims, 0, 1)
    larger = [max(s, d) for s, d in zip(stride, dilation, strict=True)]
    output_padding = tuple(draw(st.integers(0, size - 1)) for size in larger)
    sizes = per_dimension(draw, dims, 1, 3 if dims < 3 else 2)
    axes = zip(sizes, stride, padding, dilation, kernel, output_padding, strict=True)
    assume(all((size - 1) * s - 2 * pad + d * (k - 1) + more + 1 > 0 for size, s, pad, d, k, more in axes))
    groups = draw(st.integers(1, 2))
    inputs, outputs = groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 2))
    options = stride, padding, output_padding, groups, draw(st.booleans()), dilation
    layer = TRANSPOSED[dims](inputs, outputs, kernel, *options)
    return layer.double(), laid_out(uniform(2, inputs, *sizes), draw(LAYOUTS))


def call_layer(layer: nn.Module) -> Callable[..., Tensor]:
    """The layer itself as a function of its input, weight and bias."""

    def call(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        parameters = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
        return torch.func.functional_call(layer, parameters, (x,))

    return call


def check_layer(layer: nn.Module, loops: Loops, x: Tensor) -> None:
    bias = None if layer.bias is None else layer.bias.detach()
    check(geometry_of(layer), call_layer(layer), loops, x, layer.weight.detach(), bias)


@settings(max_examples=150)
@given(convolutions())
def test_convolutions(drawn: tuple[nn.Module, Tensor]) -> None:
    layer, x = drawn
    check_layer(layer, Loops(convolution(x.shape, layer.weight.shape, layer(x).shape, layer)), x)


@settings(max_examples=150)
@given(transposed_convolutions())
def test_transposed_convolutions(drawn: tuple[nn.Module, Tensor]) -> None:
    layer, x = drawn
    check_layer(layer, Loops(transposed_convolution(x.shape, layer.weight.shape, layer(x).shape, layer)), x)


def test_transposed_convolution_with_output_size() -> None:
    layer = nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1).double()
    x, weight = uniform(2, 2, 3, 4), layer.weight.detach()
    z = layer(x, output_size=[6, 7])
    geometry = replace(geometry_of(layer), output_padding=(1, 0))
    loops = Loops(transposed_convolution(x.shape, weight.shape, z.shape, layer))
    close(geometry.current(x, weight, layer.bias), z, "the current")
    close(geometry.correlate(x, z, weight), loops.correlate(x, z, weight), "the relation")


@settings(max_examples=40)
@given(st.lists(SMALL, min_size=2, max_size=4), SMALL, LAYOUTS, st.booleans())
def test_linear(shape: list[int], outputs: int, layout: str, has_bias: bool) -> None:
    layer = nn.Linear(shape[-1], outputs, has_bias).double()
    check_layer(
        layer,
        Loops(fully_connected(tuple(shape), layer.weight.shape, out_first=True)),
        laid_out(uniform(*shape), layout),
    )


@settings(max_examples=40)
@given(st.lists(SMALL, min_size=2, max_size=4), SMALL, LAYOUTS)
def test_matmul(shape: list[int], outputs: int, layout: str) -> None:
    weight = uniform(shape[-1], outputs, seed=1)
    loops = Loops(fully_connected(tuple(shape), weight.shape, out_first=False))
    x = laid_out(uniform(*shape), layout)
    check(MatmulGeometry(), lambda x, w, _: x @ w, loops, x, weight, None)


@pytest.mark.parametrize("shape", [(3,), (1, 3), (2, 1), (2, 3), (1,), ()])
def test_matmul_with_a_bias_of_any_shape(shape: Index) -> None:
    x, weight, bias = uniform(2, 4), uniform(4, 3, seed=1), uniform(*shape, seed=2)
    loops = Loops(fully_connected(x.shape, weight.shape, out_first=False))
    check(MatmulGeometry(), lambda x, w, b: torch.addmm(b, x, w), loops, x, weight, bias)


@settings(max_examples=40)
@given(st.lists(SMALL, min_size=2, max_size=4), SMALL, LAYOUTS, st.booleans(), st.booleans(), st.booleans())
def test_einsum(
    shape: list[int], outputs: int, layout: str, out_first: bool, weight_first: bool, ellipsis: bool
) -> None:
    lead = "..." if ellipsis else "abc"[: len(shape) - 1]
    weight = uniform(*((outputs, shape[-1]) if out_first else (shape[-1], outputs)), seed=1)
    geometry = EinsumGeometry(f"{lead}i", "oi" if out_first else "io", f"{lead}o", weight_first)

    def original(x: Tensor, w: Tensor, _: None) -> Tensor:
        if weight_first:
            return torch.einsum(f"{geometry.weight},{geometry.pre}->{geometry.post}", w, x)
        return torch.einsum(f"{geometry.pre},{geometry.weight}->{geometry.post}", x, w)

    loops = Loops(fully_connected(tuple(shape), weight.shape, out_first))
    check(geometry, original, loops, laid_out(uniform(*shape), layout), weight, None)


@st.composite
def one_weight_per_neuron(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    shape = draw(st.lists(SMALL, min_size=2, max_size=4))
    trailing = shape[draw(st.integers(1, len(shape))) :]
    weight = [draw(st.sampled_from([1, size])) for size in trailing]
    return laid_out(uniform(*shape), draw(LAYOUTS)), uniform(*weight, seed=1)


@settings(max_examples=60)
@given(one_weight_per_neuron())
def test_one_to_one(drawn: tuple[Tensor, Tensor]) -> None:
    x, weight = drawn
    check(OneToOneGeometry(), lambda x, w, _: w * x, Loops(one_to_one(x.shape, weight.shape)), x, weight, None)


# One of each kind, large enough for PyTorch's own fast kernels: what is called, and with which shapes.
EXAMPLES: dict[str, tuple[Geometry, Index, Index]] = {
    "linear": (LinearGeometry(), (16, 5, 32), (24, 32)),
    "matmul": (MatmulGeometry(), (16, 5, 32), (32, 24)),
    "einsum": (EinsumGeometry("tbi", "oi", "tbo", False), (16, 5, 32), (24, 32)),
    "one to one": (OneToOneGeometry(), (64, 8, 4, 4), (8, 1, 1)),
    "conv1d": (geometry_of(nn.Conv1d(8, 16, 3, 2, 1, groups=2)), (16, 8, 20), (16, 4, 3)),
    "conv2d": (geometry_of(nn.Conv2d(8, 16, 3, 2, 1)), (16, 8, 9, 9), (16, 8, 3, 3)),
    "conv3d": (geometry_of(nn.Conv3d(8, 8, 3, padding=1)), (4, 8, 5, 5, 5), (8, 8, 3, 3, 3)),
    "same": (geometry_of(nn.Conv2d(8, 16, 4, padding="same")), (16, 8, 9, 9), (16, 8, 4, 4)),
    "transposed 1d": (geometry_of(nn.ConvTranspose1d(8, 16, 3, 2, 1, 1)), (16, 8, 20), (8, 16, 3)),
    "transposed 2d": (geometry_of(nn.ConvTranspose2d(8, 16, 3, 2, 1, 1, groups=2)), (16, 8, 9, 9), (8, 8, 3, 3)),
    "transposed 3d": (geometry_of(nn.ConvTranspose3d(8, 8, 3, 2, 1, 1)), (4, 8, 3, 3, 3), (8, 8, 3, 3, 3)),
}


@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 8e-3)])
@pytest.mark.parametrize("kind", EXAMPLES)
def test_precisions(kind: str, dtype: torch.dtype, tolerance: float, layout: str) -> None:
    """Random spikes and traces; the numbers themselves are exact in `dtype`, so the error is the computation's."""
    geometry, of_x, of_weight = EXAMPLES[kind]
    x = laid_out((uniform(*of_x) > 0).to(dtype), layout)
    weight = uniform(*of_weight, seed=1).to(dtype)
    gradient = laid_out(uniform(*geometry.current(x, weight, None).shape, seed=2).to(dtype), layout)
    exact = x.double(), weight.double(), gradient.double()
    is_convolution = isinstance(geometry, ConvolutionGeometry | TransposedConvolutionGeometry)
    bias = gradient.shape[1:2] if is_convolution else gradient.shape[-1:]
    found = {
        "the current": (geometry.current(x, weight, None), geometry.current(*exact[:2], None)),
        "grad_input": (geometry.grad_input(gradient, x, weight), geometry.grad_input(exact[2], *exact[:2])),
        "grad_bias": (geometry.grad_bias(gradient, bias), geometry.grad_bias(exact[2], bias)),
        "the relation": (geometry.correlate(x, gradient, weight), geometry.correlate(exact[0], exact[2], exact[1])),
    }
    for what, (actual, expected) in found.items():
        assert actual.dtype == dtype, f"{what} is {actual.dtype}"
        close(actual, expected, what, tolerance)


def enlarged(shape: Index) -> Index:
    """Positions enough that no stride or kernel is without effect."""
    return *shape[:2], *(size + 6 for size in shape[2:])


def has_slices_of_its_own(geometry: Geometry, dim: int, x: Tensor, weight: Tensor) -> bool:
    """Whether the current of `x` is that of its slices along `dim`, one by one, and as many of them: as time needs."""
    whole = geometry.current(x, weight, None)
    if whole.shape[dim] != x.shape[dim]:
        return False
    try:
        slices = torch.cat([geometry.current(part, weight, None) for part in x.split(1, dim)], dim)
    except RuntimeError:
        return False
    return slices.shape == whole.shape and torch.allclose(slices, whole, atol=1e-12)


def check_acts_along(geometry: Geometry, x: Tensor, weight: Tensor) -> None:
    for dim in (dim for dim, size in enumerate(x.shape) if size > 1):
        acts = not has_slices_of_its_own(geometry, dim, x, weight)
        for name in (dim, dim - x.dim()):
            assert geometry.acts_along(name, x, weight) == acts, f"along dimension {name} of {list(x.shape)}"


@settings(max_examples=150)
@given(st.one_of(convolutions(), transposed_convolutions()))
def test_along_which_dimensions_convolutions_act(drawn: tuple[nn.Module, Tensor]) -> None:
    layer, x = drawn
    check_acts_along(geometry_of(layer), uniform(*enlarged(x.shape)), layer.weight.detach())


@settings(max_examples=60)
@given(one_weight_per_neuron())
def test_along_which_dimensions_single_weights_act(drawn: tuple[Tensor, Tensor]) -> None:
    check_acts_along(OneToOneGeometry(), *drawn)


@pytest.mark.parametrize("kind", EXAMPLES)
def test_along_which_dimensions_each_kind_acts(kind: str) -> None:
    geometry, of_x, of_weight = EXAMPLES[kind]
    check_acts_along(geometry, uniform(*of_x), uniform(*of_weight, seed=1))


@pytest.mark.parametrize("kernel", [1, 3])
def test_a_convolution_over_space_alone_leaves_time_to_its_own_dimension(kernel: int) -> None:
    layer = nn.Conv3d(2, 2, (kernel, 3, 3), padding=(kernel // 2, 1, 1))
    x = torch.zeros(2, 2, 5, 4, 4)
    assert geometry_of(layer).acts_along(2, x, layer.weight) == (kernel == 3)


def test_geometries_can_be_compared_and_hashed() -> None:
    layers = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(4, 4, 5, padding=(1, 1)), nn.Conv2d(2, 3, 3, padding=2)
    assert len({geometry_of(layer) for layer in layers}) == 2


@settings(max_examples=100)
@given(st.one_of(convolutions(), transposed_convolutions()), st.booleans())
def test_equal_ends(drawn: tuple[nn.Module, Tensor], square: bool) -> None:
    layer, x = drawn
    if square:
        assume(layer.in_channels == layer.out_channels)
    x = torch.zeros(enlarged(x.shape)).double()
    assert has_equal_ends(layer) == (layer(x).shape == x.shape)


def test_equal_ends_of_other_layers() -> None:
    assert has_equal_ends(nn.Linear(3, 3))
    assert not has_equal_ends(nn.Linear(3, 4))
    assert not has_equal_ends(nn.BatchNorm2d(3))
    layer = nn.ConvTranspose1d(3, 3, kernel_size=2, padding=2, output_padding=1, dilation=3)
    assert layer(torch.zeros(2, 3, 8)).shape == (2, 3, 8)
    assert has_equal_ends(layer)


def test_which_layers_are_synapses() -> None:
    for layer in (nn.Linear, *CONVOLUTIONS.values(), *TRANSPOSED.values()):
        assert is_synapse(layer(1, 1, 1)), layer
    for other in (nn.BatchNorm2d(3), nn.Bilinear(2, 2, 2), nn.Sequential(nn.Linear(2, 2))):
        assert not is_synapse(other)
        with pytest.raises(TypeError, match=f"nn.ConvTranspose1d to 3d, not {type(other).__name__}"):
            geometry_of(other)


def test_other_paddings_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="padding_mode='circular' is not supported; use padding_mode='zeros'"):
        geometry_of(nn.Conv1d(2, 2, 3, padding=1, padding_mode="circular"))


class Reading(TorchFunctionMode):
    """Reads every call of a PyTorch function, and keeps what was read beside what the function itself returned."""

    def __init__(self, is_weight: Callable[[Tensor], bool]) -> None:
        super().__init__()
        self.is_weight = is_weight
        self.calls: list[tuple[SynapseCall, Tensor]] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        call = read_call(func, args, kwargs or {}, self.is_weight)
        result = func(*args, **(kwargs or {}))
        if call is not None:
            self.calls.append((call, result))
        return result


class Replacing(TorchFunctionMode):
    """Computes what is read by its geometry."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        call = read_call(func, args, kwargs or {}, lambda tensor: any(tensor is weight for weight in WEIGHTS))
        return func(*args, **(kwargs or {})) if call is None else compute(call)


def read(run: Callable[[], object], weights: list[Tensor]) -> list[tuple[SynapseCall, Tensor]]:
    reading = Reading(lambda tensor: any(tensor is weight for weight in weights))
    with reading:
        run()
    return reading.calls


b, w_t, w, s, one = torch.randn(5), torch.randn(4, 5), torch.randn(5, 4), torch.randn(4), torch.randn(())
x2, x3, h = torch.randn(3, 4), torch.randn(3, 2, 4), torch.randn(3, 5)
c1, c2, c3 = (torch.randn(2, 4, *[6] * dims) for dims in (1, 2, 3))
k1, k2, k3 = (torch.randn(4, 4, *[3] * dims) for dims in (1, 2, 3))
square = torch.randn(4, 4)
WEIGHTS = [w, w_t, s, one, square, k1, k2, k3]
DENSE, MATMUL, SINGLE = LinearGeometry, MatmulGeometry, OneToOneGeometry
CONV, CONV_T = ConvolutionGeometry, TransposedConvolutionGeometry

# How a network may write it: the geometry that is read, and (input, weight, bias).
SPELLINGS = {
    "F.linear": (lambda: F.linear(x3, w, b), DENSE, (x3, w, b)),
    "F.linear, keywords": (lambda: F.linear(input=x3, weight=w, bias=b), DENSE, (x3, w, b)),
    "F.linear, no bias": (lambda: F.linear(x2, w), DENSE, (x2, w, None)),
    "x @ W": (lambda: x3 @ w_t, MATMUL, (x3, w_t, None)),
    "W.__rmatmul__(x)": (lambda: w_t.__rmatmul__(x2), MATMUL, (x2, w_t, None)),
    "x.__matmul__(W)": (lambda: x2.__matmul__(w_t), MATMUL, (x2, w_t, None)),
    "x.matmul(W)": (lambda: x3.matmul(w_t), MATMUL, (x3, w_t, None)),
    "torch.matmul": (lambda: torch.matmul(x3, other=w_t), MATMUL, (x3, w_t, None)),
    "torch.linalg.matmul": (lambda: torch.linalg.matmul(x2, w_t), MATMUL, (x2, w_t, None)),
    "torch.mm": (lambda: torch.mm(x2, mat2=w_t), MATMUL, (x2, w_t, None)),
    "x.mm(W)": (lambda: x2.mm(w_t), MATMUL, (x2, w_t, None)),
    "torch.addmm": (lambda: torch.addmm(b, x2, w_t), MATMUL, (x2, w_t, b)),
    "torch.addmm, ones": (lambda: torch.addmm(b, x2, w_t, beta=1, alpha=1.0), MATMUL, (x2, w_t, b)),
    "current.addmm": (lambda: h.addmm(x2, w_t), MATMUL, (x2, w_t, h)),
    "einsum, matmul": (lambda: torch.einsum("abc,cd->abd", x3, w_t), EinsumGeometry, (x3, w_t, None)),
    "einsum, linear": (lambda: torch.einsum("...i,oi->...o", x3, w), EinsumGeometry, (x3, w, None)),
    "einsum, spaces": (lambda: torch.einsum(" b i, i j -> b j ", x2, w_t), EinsumGeometry, (x2, w_t, None)),
    "einsum, a list": (lambda: torch.einsum("bi,ij->bj", [x2, w_t]), EinsumGeometry, (x2, w_t, None)),
    "einsum, sublists": (lambda: torch.einsum(x2, [0, 1], w, [2, 1], [0, 2]), EinsumGeometry, (x2, w, None)),
    "einsum, W first": (lambda: torch.einsum("oi,b...i->b...o", w, x3), EinsumGeometry, (x3, w, None)),
    "w * x": (lambda: s * x3, SINGLE, (x3, s, None)),
    "x * w": (lambda: x3 * s, SINGLE, (x3, s, None)),
    "x * w, one for all": (lambda: x3 * one, SINGLE, (x3, one, None)),
    "x.__mul__(w)": (lambda: x3.__mul__(s), SINGLE, (x3, s, None)),
    "x.__rmul__(w)": (lambda: x3.__rmul__(s), SINGLE, (x3, s, None)),
    "x.mul(w)": (lambda: x3.mul(s), SINGLE, (x3, s, None)),
    "torch.mul": (lambda: torch.mul(s, other=x3), SINGLE, (x3, s, None)),
    "torch.multiply": (lambda: torch.multiply(x3, s), SINGLE, (x3, s, None)),
    "x.multiply(w)": (lambda: x3.multiply(s), SINGLE, (x3, s, None)),
    "F.conv1d": (lambda: F.conv1d(c1, k1, s, 2, 1), CONV, (c1, k1, s)),
    "F.conv1d, lists of one": (lambda: F.conv1d(c1, k1, s, [2], [1]), CONV, (c1, k1, s)),
    "F.conv2d": (lambda: F.conv2d(c2, k2, stride=(2, 1), dilation=2), CONV, (c2, k2, None)),
    "F.conv2d, a list of one": (lambda: F.conv2d(c2, k2, None, [2]), CONV, (c2, k2, None)),
    "F.conv2d, groups": (lambda: F.conv2d(c2, k2[:, :1], s, 1, 1, 1, 4), CONV, None),
    "F.conv2d, same": (lambda: F.conv2d(c2, k2, s, padding="same"), CONV, (c2, k2, s)),
    "F.conv2d, same, even": (lambda: F.conv2d(c2, k2[..., :2], s, padding="same"), CONV, None),
    "F.conv2d, valid": (lambda: F.conv2d(input=c2, weight=k2, padding="valid"), CONV, (c2, k2, None)),
    "torch.conv3d": (lambda: torch.conv3d(c3, k3, s, padding=(1, 0, 1)), CONV, (c3, k3, s)),
    "F.conv_transpose1d": (lambda: F.conv_transpose1d(c1, k1, s, 2, 1, 1), CONV_T, (c1, k1, s)),
    "F.conv_transpose2d": (lambda: F.conv_transpose2d(c2, k2, s, 3, 1, (1, 2), 1, 2), CONV_T, (c2, k2, s)),
    "F.conv_transpose3d": (lambda: F.conv_transpose3d(c3, k3, dilation=2), CONV_T, (c3, k3, None)),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_each_spelling_is_read(spelling: str) -> None:
    run, kind, arguments = SPELLINGS[spelling]
    weights = WEIGHTS
    if arguments is None:  # the weight in use is made inside the call: a slice of the kernel
        reading = Reading(lambda tensor: tensor.shape[0] == 4 and tensor is not c2)
        with reading:
            run()
        calls = reading.calls
    else:
        calls = read(run, weights)
    assert len(calls) == 1, f"{spelling} was read {len(calls)} times"
    call, result = calls[0]
    assert isinstance(call.geometry, kind)
    if arguments is not None:
        assert all(found is given for found, given in zip(call[:3], arguments, strict=True))
    assert torch.equal(compute(call), result), f"off by {(compute(call) - result).abs().max():.1e}"


class Layers(nn.Module):
    """Every module that is a synapse, in one forward."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(CONVOLUTIONS[d](4, 4, 3, 2, 1, bias=d != 2) for d in (1, 2, 3))
        self.transposed = nn.ModuleList(TRANSPOSED[d](4, 4, 3, 2, 1) for d in (1, 2, 3))
        self.linear = nn.Linear(4, 4)

    def forward(self, xs: list[Tensor]) -> list[Tensor]:
        layers = zip(xs, self.convolutions, self.transposed, strict=True)
        return [self.linear(xs[0].mT), *(out(into(x), output_size=x.shape) for x, into, out in layers)]


def test_modules_are_read_through_their_functions() -> None:
    model = Layers()
    parameters = list(model.parameters())
    calls = read(lambda: model([c1, c2, c3]), parameters)
    assert [id(call.weight) for call, _ in calls] == [
        id(weight)
        for weight in (
            model.linear.weight,
            *(layer.weight for pair in zip(model.convolutions, model.transposed, strict=True) for layer in pair),
        )
    ]
    for call, result in calls:
        assert torch.equal(compute(call), result)
    for (call, _), layer in zip(calls[1::2], model.convolutions, strict=True):
        assert call.geometry == geometry_of(layer)


def test_a_weight_made_from_a_parameter_counts_where_the_caller_says_so() -> None:
    made: list[Tensor] = []

    def run() -> None:
        made.append(w.t() * 2)
        x2 @ made[0]

    assert [call.weight is made[0] for call, _ in read(run, made)] == [True]
    assert read(run, [w]) == []


# What is no call of a synapse, or none that can be read.
NOT_READ = {
    "W @ x": lambda: w @ x2.t(),
    "W.matmul(x)": lambda: w.matmul(x3.mT),
    "x @ x": lambda: x2 @ x2.t(),
    "W @ W": lambda: w @ w_t,
    "F.linear of weights": lambda: F.linear(w, w),
    "a vector as weight": lambda: x2 @ s,
    "one example's features": lambda: F.linear(x2[0], w),
    "batched": lambda: torch.bmm(x3, torch.randn(3, 4, 5)),
    "torch.addmm, alpha": lambda: torch.addmm(b, x2, w_t, alpha=2),
    "torch.addmm, beta": lambda: torch.addmm(b, x2, w_t, beta=0),
    "out": lambda: torch.mm(x2, w_t, out=torch.empty(3, 5)),
    "2 * x": lambda: 2 * x3,
    "w * 2": lambda: s * 2,
    "w * w": lambda: s * one,
    "x * x": lambda: x3 * x3,
    "in place": lambda: x3.clone().mul_(s),
    "the weight is the larger": lambda: x2[:, :1] * s,
    "w * (one number)": lambda: one * torch.ones(()),
    "one example's convolution": lambda: F.conv2d(c2[0], k2),
    "one example's transposed convolution": lambda: F.conv_transpose1d(c1[0], k1),
    "a relu": lambda: torch.relu(x2),
    "einsum, output implied": lambda: torch.einsum("bi,ij", x2, w_t),
    "einsum, one operand": lambda: torch.einsum("bi->b", x2),
    "einsum, three operands": lambda: torch.einsum("bi,ij,bj->b", x2, w_t, h),
    "einsum, a diagonal": lambda: torch.einsum("bi,ii->bi", x2, square),
    "einsum, examples last": lambda: torch.einsum("ib,io->ob", x2.t(), w_t),
    "einsum, permuted": lambda: torch.einsum("abi,io->bao", x3, w_t),
    "einsum, a sum over examples": lambda: torch.einsum("bi,io->o", x2, w_t),
    "einsum, no examples": lambda: torch.einsum("i,io->o", x2[0], w_t),
    "einsum, an ellipsis of nothing": lambda: torch.einsum("...i,io->...o", x2[0], w_t),
    "einsum, per neuron": lambda: torch.einsum("bi,i->bi", x2, s),
    "einsum, a repeated input": lambda: torch.einsum("bi,io->bo", x2[:, :1], w_t),
}


@pytest.mark.parametrize("what", NOT_READ)
def test_what_is_no_synapse_is_not_read(what: str) -> None:
    assert read(NOT_READ[what], WEIGHTS) == []


def test_one_number_for_each_example_is_no_weight_of_a_neuron() -> None:
    per_example = torch.randn(3, 1)
    assert read(lambda: x2 * per_example, [per_example]) == []
    per_step = torch.randn(1, 4)  # the same for all examples
    assert len(read(lambda: x2 * per_step, [per_step])) == 1


@pytest.mark.parametrize(
    ("run", "error"),
    [
        (lambda: F.linear(x2), TypeError),
        (lambda: x2.matmul(3), TypeError),
        (lambda: F.linear(x2, w_t), RuntimeError),
        (lambda: F.conv2d(c2, k2, stride=2, padding="same"), RuntimeError),
        (lambda: F.conv1d(c2, k2), RuntimeError),
        (lambda: F.conv2d(c2, k2, stride="2"), TypeError),
        (lambda: torch.einsum("bi,io->bo", x2, w), RuntimeError),
        (lambda: x2 * torch.randn(5), RuntimeError),
    ],
)
def test_a_wrong_call_gets_the_error_of_pytorch(run: Callable[[], Tensor], error: type[Exception]) -> None:
    with pytest.raises(error) as plain:
        run()
    with pytest.raises(error) as replaced, Replacing():
        run()
    assert str(plain.value) == str(replaced.value)


DTYPES = st.sampled_from([torch.float32, torch.float64, torch.bfloat16])


@settings(max_examples=200)
@given(st.lists(st.integers(1, 40), min_size=2, max_size=3), st.integers(1, 40), DTYPES, LAYOUTS)
@example([17, 23, 33], 1, torch.float64, "time second")  # here the order of an einsum's operands shows
def test_currents_are_equal_to_the_bit(shape: list[int], outputs: int, dtype: torch.dtype, layout: str) -> None:
    """Matmul, linear and einsum round differently; each must keep its own rounding."""
    with pytest.MonkeyPatch.context() as patch:  # else sums of bfloat16 are rounded as floats, once
        patch.setattr(mixed_precision, "CPU_HAS_BFLOAT16", True)
        _check_currents(shape, outputs, dtype, layout)


def _check_currents(shape: list[int], outputs: int, dtype: torch.dtype, layout: str) -> None:
    x = laid_out(uniform(*shape), layout).to(dtype)
    into_out = uniform(shape[-1], outputs, seed=1).to(dtype).requires_grad_()
    out_into = uniform(outputs, shape[-1], seed=2).to(dtype).requires_grad_()
    lead = "ab"[: len(shape) - 1]

    def run() -> None:
        F.linear(x, out_into)
        F.linear(x, out_into, uniform(outputs).to(dtype))
        x @ into_out
        torch.einsum(f"{lead}i,oi->{lead}o", x, out_into)
        torch.einsum(f"io,{lead}i->{lead}o", into_out, x)
        if x.dim() == 2:
            torch.addmm(uniform(outputs).to(dtype), x, into_out)

    calls = read(run, [into_out, out_into])
    assert len(calls) == 7 - x.dim() + 1
    for call, result in calls:
        assert torch.equal(compute(call), result), f"{call.geometry} is off"


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("layout", ["channels last", "contiguous"])
@pytest.mark.parametrize("channels", [32, 24])  # whole blocks of sixteen in a group, and not
def test_the_total_of_large_layers(monkeypatch, channels, layout, groups):
    """Whose channels are summed in a compiled pass."""
    monkeypatch.setattr(compilation, "WORTH_COMPILING", 1)
    synapse = nn.Conv2d(channels, 2 * channels, 3, padding=1, stride=2, groups=groups)
    geometry, weight = geometry_of(synapse), synapse.weight.detach().double()
    x = laid_out(uniform(3, channels, 6, 5), layout)
    post = laid_out(uniform(3, 2 * channels, 3, 3, seed=1), layout)
    expected = geometry.correlate(x, post, weight).sum()
    with torch.no_grad():
        close(geometry.total(x, post, weight), expected, "the total")
        half = geometry.total(x.bfloat16(), post.bfloat16(), weight)
    assert half.dtype == torch.float32, "half precision adds nothing up"
    rounded = geometry.correlate(x.bfloat16().double(), post.bfloat16().double(), weight).sum()
    close(half, rounded, "the total of bfloat16", 1e-4)
