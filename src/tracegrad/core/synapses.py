"""Where a synapse computes its current, and how a gate takes that over.

A convolution or linear layer with PyTorch's own forward hands over its input, weight and bias at one seam, which
`torch.compile` can follow. In any other module that holds weights the functions are watched by which it multiplies its
input with them (`F.conv2d`, `F.linear`, `@`, ...): exact for whatever forward it has, and outside of compiled graphs.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, cast

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from tracegrad.core.equations.functional import SynapseCall, read_call
from tracegrad.core.equations.geometry import Geometry, OneToOneGeometry, geometry_of, is_synapse
from tracegrad.core.torch_internals import CONVOLUTION_SEAM
from tracegrad.core.unpicklable import Unpicklable, eager

Gate = Callable[[str, SynapseCall], Tensor]
"""(name of the synapse, one call of it) -> its current."""

_Weights = dict[int, tuple[Tensor, str]]
"""By the id of a tensor that is made of weights alone: the tensor, so that no other gets its id, and its name."""

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def is_plain(module: nn.Module) -> bool:
    """Whether `module` is a convolution or linear layer with PyTorch's own way to compute its current."""
    if not is_synapse(module) or (_installed(module) is None and "forward" in module.__dict__):
        return False
    base = next(each for each in type(module).__mro__ if each.__module__.startswith("torch.nn.modules"))
    seam = "forward" if isinstance(module, (nn.Linear, *_TRANSPOSED)) else CONVOLUTION_SEAM
    if getattr(type(module), seam) is not getattr(base, seam):
        return False
    try:
        geometry_of(module)
    except ValueError:
        return False
    return True


def holds_weights(module: nn.Module) -> bool:
    """Whether functions in a module's forward may multiply by weights that are its own."""
    ours = type(module).__module__.startswith("torch.nn.") and not is_synapse(module)
    return not is_plain(module) and not ours and any(True for _ in own_parameters(module))


def own_parameters(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """A module's parameters, without those of the modules in it, but with those that its weights are made of."""
    yield from module.named_parameters(recurse=False)
    made_of = getattr(module, "parametrizations", None)
    if isinstance(made_of, nn.Module):
        yield from ((f"parametrizations.{name}", parameter) for name, parameter in made_of.named_parameters())


def synapse_name(module_name: str, parameter: str) -> str:
    """What a synapse is called: its module if its weight is that module's `weight`, else the parameter, in full."""
    if parameter == "weight" or parameter.startswith("parametrizations.weight."):
        return module_name or "weight"
    return f"{module_name}.{parameter}" if module_name else parameter


def install_gate(name: str, module: nn.Module, gate: Gate, watch: bool = False) -> None:
    """Lets `gate` compute the currents of a module; parameters, names and class stay as they are.

    Args:
        name: of the module.
        module: a plain synapse or another one that holds weights.
        gate: computes the currents.
        watch: watch the functions of a plain synapse, too: its forward may go round the seam.
    """
    if watch or not is_plain(module):
        module.__dict__["forward"] = _WatchedForward(name, module, gate)
    elif isinstance(module, nn.Linear):
        module.__dict__["forward"] = _LinearForward(name, module, gate)
    elif isinstance(module, _TRANSPOSED):
        module.__dict__["forward"] = _TransposedForward(name, module, gate)
    else:
        module.__dict__[CONVOLUTION_SEAM] = _ConvolutionSeam(name, module, gate)


def remove_gate(module: nn.Module) -> None:
    """Undoes `install_gate`."""
    installed = _installed(module)
    if isinstance(installed, _ConvolutionSeam):
        del module.__dict__[CONVOLUTION_SEAM]
    elif isinstance(installed, _WatchedForward) and installed.previous is not None:
        module.__dict__["forward"] = installed.previous
    elif installed is not None:
        del module.__dict__["forward"]


def has_gate(module: nn.Module) -> bool:
    """Whether a gate computes this module's currents."""
    return _installed(module) is not None


class _Seam(Unpicklable):
    """Hands the calls of a plain synapse to a gate."""

    def __init__(self, name: str, module: nn.Module, gate: Gate) -> None:
        self.name = name
        self.module: Any = module
        self.gate = gate
        self.geometry: Geometry = geometry_of(module)


class _LinearForward(_Seam):
    def __call__(self, input: Tensor) -> Tensor:
        return self.gate(self.name, SynapseCall(input, self.module.weight, self.module.bias, self.geometry))


class _ConvolutionSeam(_Seam):
    def __call__(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return self.gate(self.name, SynapseCall(input, weight, bias, self.geometry))


class _TransposedForward(_Seam):
    def __call__(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        module, geometry = self.module, self.geometry
        if output_size is not None:
            dimensions = len(module.kernel_size)
            sizes = (output_size, module.stride, module.padding, module.kernel_size, dimensions, module.dilation)
            geometry = replace(cast(Any, geometry), output_padding=tuple(module._output_padding(input, *sizes)))
        return self.gate(self.name, SynapseCall(input, module.weight, module.bias, geometry))


class _WatchedForward(Unpicklable):
    """A module's forward in which a gate computes what functions make of the module's own weights."""

    def __init__(self, name: str, module: nn.Module, gate: Gate) -> None:
        self.name = name
        self.module = module
        self.gate = gate
        self.previous = module.__dict__.get("forward")

    @eager
    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        forward = self.previous or type(self.module).forward.__get__(self.module)
        weights: _Weights = {id(parameter): (parameter, name) for name, parameter in own_parameters(self.module)}
        with _WatchedFunctions(self.name, weights, self.gate):
            return forward(*arguments, **keywords)


class _WatchedFunctions(TorchFunctionMode):
    """Sees every function of PyTorch's that is called, and which tensors are made of weights alone."""

    def __init__(self, name: str, weights: _Weights, gate: Gate) -> None:
        super().__init__()
        self.name = name
        self.weights = weights
        self.gate = gate

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        call = read_call(func, args, kwargs, lambda x: id(x) in self.weights)
        if call is not None:
            return self.gate(synapse_name(self.name, self.weights[id(call.weight)][1]), call)
        result = func(*args, **kwargs)
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        if tensors and all(id(x) in self.weights for x in tensors):
            largest = max(tensors, key=Tensor.numel)
            for made in tree_leaves(result):
                if isinstance(made, Tensor) and id(made) not in self.weights:
                    self.weights[id(made)] = made, self.weights[id(largest)][1]
        return result


def is_one_to_one(call: SynapseCall) -> bool:
    """Whether each weight leads from one neuron to one: such a product may as well be a gain, or a part of a norm."""
    return isinstance(call.geometry, OneToOneGeometry)


def _installed(module: nn.Module) -> Any:
    found = (module.__dict__.get(seam) for seam in ("forward", CONVOLUTION_SEAM))
    return next((each for each in found if isinstance(each, _Seam | _WatchedForward)), None)
