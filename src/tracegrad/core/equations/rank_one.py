"""The first part of a matrix's singular value decomposition, by power iteration."""

import torch
from torch import Tensor

MOST_ITERATIONS = 1000


def first_part(matrices: Tensor, start: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The best approximation of each matrix by a product out x in, and `in` as a unit vector.

    Args:
        matrices: [n, outputs, inputs].
        start: `in` of similar matrices, [n, inputs], from which few iterations suffice.

    Returns:
        [n, outputs, inputs], 0 for a matrix of zeros; and [n, inputs], to start from next time.
    """
    with torch.no_grad():
        into = _start(matrices.detach(), start)
        tolerance = 16 * torch.finfo(matrices.dtype).eps
        for _ in range(MOST_ITERATIONS):
            before, into = into, _unit(_left(_right(matrices.detach(), into), matrices.detach()), into)
            if float((into - before).abs().max()) <= tolerance:
                break
    return _right(matrices, into)[..., None] * into[:, None], into


def _start(matrices: Tensor, start: Tensor | None) -> Tensor:
    """All positive, as the first part of a relation of spikes is, and uneven: no first part is orthogonal to it."""
    size = matrices.shape[-1]
    uneven = torch.linspace(0.5, 1.5, size, dtype=matrices.dtype, device=matrices.device).expand(len(matrices), size)
    if start is None or start.shape != uneven.shape:
        return uneven / uneven.norm(dim=1, keepdim=True)
    # A little of it beside the last vector, of which these matrices may have no part at all.
    both = start.to(uneven) + 1e-3 * uneven / uneven.norm(dim=1, keepdim=True)
    return both / both.norm(dim=1, keepdim=True)


def _right(matrices: Tensor, into: Tensor) -> Tensor:
    return (matrices @ into[..., None])[..., 0]


def _left(out: Tensor, matrices: Tensor) -> Tensor:
    return (out[:, None] @ matrices)[:, 0]


def _unit(x: Tensor, otherwise: Tensor) -> Tensor:
    size = x.norm(dim=1, keepdim=True)
    return torch.where(size > 0, x / torch.where(size > 0, size, 1), otherwise)
