"""Where the outputs and the inputs of a synapse are in its weight."""

from dataclasses import dataclass

from torch import Size, Tensor


@dataclass(frozen=True)
class WeightLayout:
    """Of [outputs, inputs / groups, ...], or of [inputs, outputs / groups, ...].

    Attributes:
        groups: of outputs that see inputs of their own.
        inputs_first: whether dimension 0 holds inputs, as in transposed convolutions and `x @ W`.
    """

    groups: int = 1
    inputs_first: bool = False

    def outputs_first(self, x: Tensor) -> Tensor:
        """What is shaped like the weight, as [outputs, inputs / groups, ...]."""
        if not self.inputs_first:
            return x
        return x.unflatten(0, (self.groups, -1)).transpose(1, 2).flatten(0, 1)

    def as_weight(self, x: Tensor, shape: Size) -> Tensor:
        """The inverse of `outputs_first`, for a weight of this shape."""
        return self.outputs_first(x).reshape(shape)

    def matrices(self, x: Tensor) -> Tensor:
        """What is shaped like the weight, as [groups, outputs / groups, inputs / groups * kernel positions]."""
        return self.outputs_first(x).unflatten(0, (self.groups, -1)).flatten(2)

    def from_matrices(self, x: Tensor, shape: Size) -> Tensor:
        """The inverse of `matrices`, for a weight of this shape."""
        outputs = x.flatten(0, 1)
        first = (len(outputs), shape[0] // self.groups, *shape[2:]) if self.inputs_first else shape
        return self.as_weight(outputs.reshape(first), shape)


@dataclass(frozen=True)
class OneToOneLayout(WeightLayout):
    """Of a weight of any shape, in which each element leads to one output: a group by itself."""

    def outputs_first(self, x: Tensor) -> Tensor:
        """As [outputs, 1]."""
        return x.reshape(-1, 1)

    def as_weight(self, x: Tensor, shape: Size) -> Tensor:
        """The inverse of `outputs_first`."""
        return x.reshape(shape)

    def matrices(self, x: Tensor) -> Tensor:
        """As [outputs, 1, 1]."""
        return x.reshape(-1, 1, 1)

    def from_matrices(self, x: Tensor, shape: Size) -> Tensor:
        """The inverse of `matrices`."""
        return x.reshape(shape)


OUTPUTS_FIRST = WeightLayout()
