"""The fields of a node: numbers of the right kind, or an error that names the field and says what would be right."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[Any]


def numbers(value: Any, field: str) -> Array:
    """A field as an array of finite real numbers, in its own precision; tensors are read too.

    Args:
        value: of the field.
        field: its name.

    Raises:
        ValueError: the value is empty, no numbers, or not finite.
    """
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        value = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    try:
        values = np.asarray(value)
    except ValueError:  # rows of several lengths
        values = np.asarray(None)
    if values.dtype.kind not in "biuf" or not values.size:
        raise ValueError(f"has {field} {short(value)}; it must be an array of numbers")
    if not np.isfinite(values).all():
        raise ValueError(f"has {field} with NaN or infinite values; all must be finite")
    return values


def weights(value: Any, field: str, shape: tuple[int | None, ...]) -> Tensor:
    """A field as a tensor of floating-point numbers.

    Args:
        value: of the field.
        field: its name.
        shape: that it must have; None for any size.

    Raises:
        ValueError: as for `numbers`, or another shape.
    """
    values = numbers(value, field)
    if len(values.shape) != len(shape) or any(b not in (None, a) for a, b in zip(values.shape, shape, strict=True)):
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(f"has {field} of shape {list(values.shape)}; it must be [{wanted}]")
    if values.dtype.kind != "f":
        values = values.astype(np.result_type(values.dtype, np.float32))  # as many digits as the whole numbers need
    if values.dtype.itemsize > 8:
        values = values.astype(np.float64)
    return torch.tensor(values.astype(values.dtype.newbyteorder("=")))


def integers(value: Any, field: str, count: int | None = None, least: int | None = None) -> tuple[int, ...]:
    """A field as whole numbers.

    Args:
        value: of the field.
        field: its name.
        count: how many there must be, one standing for all; None for any number of them.
        least: the least value allowed.

    Raises:
        ValueError: as for `numbers`, or other numbers.
    """
    values = numbers(value, field).ravel()
    whole = values.dtype.kind in "iu" or (values.dtype.kind == "f" and bool((values == values.round()).all()))
    fits = count is None or len(values) in (1, count)
    if not (whole and fits and (least is None or values.min() >= least)):
        number = {None: "whole numbers", 1: "a whole number"}.get(count, f"one or {count} whole numbers")
        bound = "" if least is None else f" of at least {least}"
        raise ValueError(f"has {field} {short(values.tolist())}; it must be {number}{bound}")
    return tuple(map(int, values.tolist())) * (count if count is not None and len(values) == 1 else 1)


def short(value: Any) -> str:
    """What a value looks like, in at most 60 characters: files hold values of any size."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
