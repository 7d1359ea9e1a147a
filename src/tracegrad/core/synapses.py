"""Where a synapse computes its current, and how a gate takes that over.

A convolution or linear layer with PyTorch's own forward hands over its input, weight and bias at one seam, which
`torch.compile` can follow. In any other module that holds weights the functions are watched by which it multiplies its
input with them (`F.conv2d`, `F.linear`, `@`, ...): exact for whatever forward it has, and outside of compiled graphs.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from tracegrad.core.equations.functional import SynapseCall, read_call
from tracegrad.core.equations.geometry import Geometry, OneToOneGeometry
from tracegrad.core.equations.layers import geometry_of, is_synapse
from tracegrad.core.torch_internals import CONVOLUTION_SEAM, inputs_of
from tracegrad.core.unpicklable import Unpicklable, eager

Gate = Callable[[str, SynapseCall], Tensor]
"""(name of the synapse, one call of it) -> its current."""

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
    """A module's parameters without those of the modules in it, but with its lists and what its weights are made of."""
    yield from module.named_parameters(recurse=False)
    for name, part in module.named_children():
        if name == "parametrizations" or isinstance(part, nn.ParameterList | nn.ParameterDict):
            yield from ((f"{name}.{each}", parameter) for each, parameter in part.named_parameters())


def weight_names(model: nn.Module, module_name: str) -> dict[str, str]:
    """What the synapses in a module are called, by the names of its parameters.

    A synapse is called by its module if its weight is that module's `weight`, else by its parameter, in full.
    """
    full = {id(parameter): name for name, parameter in model.named_parameters()}
    module = model.get_submodule(module_name)
    names = {name: full[id(parameter)] for name, parameter in module.named_parameters(remove_duplicate=False)}
    of_module = ("weight", "parametrizations.weight.")
    return {name: module_name if module_name and name.startswith(of_module) else each for name, each in names.items()}


def install_gate(
    name: str, module: nn.Module, gate: Gate, names: dict[str, str] | None = None, watch: bool = False
) -> None:
    """Lets `gate` compute the currents of a module; parameters, names and class stay as they are.

    Args:
        name: of the module.
        module: a plain synapse or another one that holds weights.
        gate: computes the currents.
        names: of the synapses in a module that is no plain synapse, as `weight_names` has them.
        watch: watch the functions of a plain synapse, too: its forward may go round the seam.
    """
    if watch or not is_plain(module):
        module.__dict__["forward"] = _WatchedForward(module, gate, names or {})
    elif isinstance(module, nn.Linear):
        module.__dict__["forward"] = _LinearForward(name, module, gate)
    elif isinstance(module, _TRANSPOSED):
        module.__dict__["forward"] = _TransposedForward(name, module, gate)
    else:
        module.__dict__[CONVOLUTION_SEAM] = _ConvolutionSeam(name, module, gate)


def install_gates(
    model: nn.Module, owners: Iterable[str], watched: Collection[str], make_gate: Callable[[], Gate]
) -> list[nn.Module]:
    """Lets gates compute the currents of modules of a model, one gate for each; returns the modules.

    Args:
        model: that holds them.
        owners: their names; those that come again are taken once.
        watched: the names of plain synapses whose functions are watched, too.
        make_gate: makes the gate of a module.
    """
    modules: list[nn.Module] = []
    for owner in dict.fromkeys(owners):
        modules.append(model.get_submodule(owner))
        install_gate(owner, modules[-1], make_gate(), weight_names(model, owner), owner in watched)
    return modules


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
        return _compute(self.gate, self.name, SynapseCall(input, self.module.weight, self.module.bias, self.geometry))


class _ConvolutionSeam(_Seam):
    def __call__(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return _compute(self.gate, self.name, SynapseCall(input, weight, bias, self.geometry))


class _TransposedForward(_Seam):
    def __call__(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        module, geometry = self.module, self.geometry
        if output_size is not None:
            dimensions = len(module.kernel_size)
            sizes = (output_size, module.stride, module.padding, module.kernel_size, dimensions, module.dilation)
            geometry = replace(cast(Any, geometry), output_padding=tuple(module._output_padding(input, *sizes)))
        return _compute(self.gate, self.name, SynapseCall(input, module.weight, module.bias, geometry))


class _WatchedForward(Unpicklable):
    """A module's forward in which a gate computes what functions make of the module's weights."""

    def __init__(self, module: nn.Module, gate: Gate, names: dict[str, str]) -> None:
        self.module = module
        self.gate = gate
        self.names = names
        self.previous = module.__dict__.get("forward")

    @eager
    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        forward = self.previous or type(self.module).forward.__get__(self.module)
        with _WatchedFunctions(self.module, self.names, self.gate):
            return forward(*arguments, **keywords)


class _WatchedFunctions(TorchFunctionMode):
    """Sees every function of PyTorch's that is called, and which tensors are made of a module's parameters alone."""

    def __init__(self, module: nn.Module, names: dict[str, str], gate: Gate) -> None:
        super().__init__()
        self.gate = gate
        # By their ids; with the tensors, so that no other one gets these.
        self.weights: dict[int, tuple[Tensor, str]] = {
            id(parameter): (parameter, names.get(name, name))
            for name, parameter in module.named_parameters(remove_duplicate=False)
        }
        self.own = [self.weights[id(parameter)] for _, parameter in own_parameters(module)]

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        call = None if _computing else read_call(func, args, kwargs, lambda x: id(x) in self.weights)
        if call is not None:
            return _compute(self.gate, self.weights[id(call.weight)][1], call)
        result = func(*args, **kwargs)
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        if tensors and all(id(x) in self.weights for x in tensors):
            largest = self.weights[id(max(tensors, key=Tensor.numel))][1]
            for made in tree_leaves(result):
                if isinstance(made, Tensor) and id(made) not in self.weights:
                    own = (name for parameter, name in self.own if parameter.shape == made.shape)
                    self.weights[id(made)] = made, next(own, largest)
        return result


PARTS_OF_A_WEIGHT = 100
"""So many operations at most make a weight of parameters; an activation has more behind it."""


def parameters_behind(x: Tensor) -> list[Tensor]:
    """The parameters that a tensor is made of, if it is made of nothing else that has a gradient."""
    stack, seen, found = [x.grad_fn], {x.grad_fn}, list[Tensor]()
    while stack:
        node = stack.pop()
        if node is None or len(seen) > PARTS_OF_A_WEIGHT:
            return []
        before = [child for child, *_ in inputs_of(node)]
        leaf = getattr(node, "variable", None)
        if leaf is not None:
            found.append(leaf)
        elif not before or getattr(node, "kind", None):
            return []
        stack += [child for child in before if child not in seen]
        seen.update(before)
    return found


_computing: list[str] = []
"""The names of the synapses whose currents a gate is computing: what it calls for that is not watched."""


def _compute(gate: Gate, name: str, call: SynapseCall) -> Tensor:
    if torch.compiler.is_compiling():
        return gate(name, call)
    _computing.append(name)
    try:
        return gate(name, call)
    finally:
        _computing.pop()


def is_one_to_one(call: SynapseCall) -> bool:
    """Whether each weight leads from one neuron to one: such a product may as well be a gain, or a part of a norm."""
    return isinstance(call.geometry, OneToOneGeometry)


def _installed(module: nn.Module) -> Any:
    found = (module.__dict__.get(seam) for seam in ("forward", CONVOLUTION_SEAM))
    return next((each for each in found if isinstance(each, _Seam | _WatchedForward)), None)
