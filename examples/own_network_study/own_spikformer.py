"""SpikingJelly's Spikformer as the network of a recipe: small, and as its paper has it for CIFAR-10."""

from spikingjelly.activation_based import functional, neuron, surrogate
from spikingjelly.activation_based.model import spikformer as spikformers
from torch import Tensor, nn


class Network(nn.Module):
    """Images [B, C, H, W] -> outputs [T, B, classes]; every batch starts at rest."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """The outputs at each step."""
        functional.reset_net(self.network)
        return self.network(images)


def spikformer(num_classes: int, in_channels: int, time_steps: int, image_size: int, width: int = 16) -> nn.Module:
    """The network for images of this size; the recipe names this function."""
    return Network(
        spikformers.Spikformer(
            T=time_steps,
            in_channels=in_channels,
            img_size_h=image_size,
            img_size_w=image_size,
            patch_size=4,
            num_classes=num_classes,
            embed_dims=width,
            num_heads=2,
            depths=1,
            spiking_neuron=neuron.LIFNode,
            surrogate_function=surrogate.ATan(),
            v_threshold=0.5,
            detach_reset=True,
        )
    )


def spikformer_cifar10(num_classes: int, time_steps: int) -> nn.Module:
    """Spikformer-4-384 with the paper's neurons; cifar10.yaml names this function."""
    return Network(spikformers.spikformer_cifar10(T=time_steps, num_classes=num_classes))
