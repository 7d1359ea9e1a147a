"""What the models share: their sizes, their input, and what a norm is told of a neuron."""

from torch import Tensor, nn


def check_sizes(**sizes: int) -> None:
    """Checks sizes by name.

    Raises:
        ValueError: one is below 1.
    """
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, not {size}")


def frames_of(images: Tensor, in_channels: int, time_steps: int) -> tuple[Tensor, int]:
    """Frames [T, B, C, H, W] as they are, or still images [B, C, H, W] as [1, B, C, H, W]; and T.

    The current of a still image is the same at every step, so that it is enough to compute it once.

    Raises:
        ValueError: another shape, or another number of channels.
    """
    if images.dim() not in (4, 5) or images.shape[-3] != in_channels:
        raise ValueError(
            f"the input must be images [B, {in_channels}, H, W] or frames [T, B, {in_channels}, H, W], "
            f"not of shape {list(images.shape)}"
        )
    return (images, len(images)) if images.dim() == 5 else (images[None], time_steps)


def threshold_of(neuron: nn.Module) -> float:
    """The threshold that a norm prepares currents for; 1 where a neuron has none of its own."""
    threshold = getattr(neuron, "threshold", 1.0)
    return float(threshold.mean() if isinstance(threshold, Tensor) else threshold)


def initialise(model: nn.Module) -> None:
    """Draws the weights of all convolutions, as He et al. (2015) do, by the number of outputs."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
