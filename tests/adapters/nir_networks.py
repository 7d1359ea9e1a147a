"""Networks that NIR can say, trained on the digits."""

import tempfile
from functools import cache, partial
from pathlib import Path

import nir
import torch
from sklearn.datasets import load_digits
from torch import nn

import tracegrad as tg

T = 4
FRAMES = torch.zeros(T, 1, 1, 8, 8)
hard = partial(tg.LIF, reset="hard")


class OverTime(nn.Module):
    """A layer of images, time folded into the batch."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class Residual(nn.Module):
    """neuron(norm(conv(x)) + x)."""

    def __init__(self, channels):
        super().__init__()
        self.conv = OverTime(nn.Conv2d(channels, channels, 3, padding=1, bias=False))
        self.norm = tg.TDBatchNorm2d(channels)
        self.neuron = hard()

    def forward(self, x):
        return self.neuron(self.norm(self.conv(x)) + x)


def convolutional():
    """Convolutions, a norm and a pool."""
    return nn.Sequential(
        OverTime(nn.Conv2d(1, 8, 3, padding=1)),
        hard(),
        OverTime(nn.AvgPool2d(2)),
        OverTime(nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False)),
        tg.TDBatchNorm2d(16),
        hard(),
        nn.Flatten(2),
        nn.Linear(64, 10),
    )


def plain(neuron=hard):
    """Nothing that is folded into weights."""
    return nn.Sequential(
        OverTime(nn.Conv2d(1, 4, 3, padding=1)),
        neuron(),
        OverTime(nn.Conv2d(4, 8, 3, stride=2, padding=1, bias=False)),
        neuron(),
        nn.Flatten(2),
        nn.Linear(128, 10),
    )


def identity_shortcuts():
    """Residual blocks whose shortcuts are the spikes themselves."""
    return nn.Sequential(
        OverTime(nn.Conv2d(1, 8, 3, padding=1)),
        hard(),
        Residual(8),
        Residual(8),
        OverTime(nn.AdaptiveAvgPool2d(2)),
        nn.Flatten(2),
        nn.Linear(32, 10),
    )


def resnet():
    """tracegrad's own, with convolutions on its shortcuts."""
    return tg.models.resnet(10, 1, [1, 1], 8, time_steps=T, neuron=hard)


NETWORKS = {"convolutional": convolutional, "identity shortcuts": identity_shortcuts, "resnet": resnet}


def digits():
    """Images of the digits with their labels, the last 250 to test on."""
    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.float32).reshape(-1, 1, 8, 8) / 8 - 0.5
    labels = torch.tensor(labels)
    return (images[:-250], labels[:-250]), (images[-250:], labels[-250:])


def over_time(images):
    """Still images as frames [T, B, C, H, W]."""
    return images.expand(T, *images.shape)


def train(network, epochs=3):
    """Trains a network on the digits with gradient scaling attached."""
    (images, labels), _ = digits()
    attachment = tg.attach(network, over_time(images[:1]))
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).split(32):
            optimizer.zero_grad()
            tg.objectives.mean_cross_entropy(network(over_time(images[batch])), labels[batch]).backward()
            optimizer.step()
    attachment.detach()
    return network.eval()


@cache
def trained_networks():
    """By name: a network trained on the digits, and the graph that comes back from its file."""
    torch.manual_seed(0)
    networks = {}
    for name, build in NETWORKS.items():
        network = train(build())
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "network.nir"
            nir.write(path, tg.adapters.nir.to_nir(network, FRAMES))
            networks[name] = network, nir.read(path)
    return networks


def watch(network, frames):
    """Outputs, spikes of each layer of neurons, and how near each image brings a membrane to its threshold, [B]."""
    fired, margins = {}, []

    def keep(name):
        def hook(neuron, arguments, spikes):
            fired[name.replace(".", "_")] = spikes
            membrane = torch.zeros_like(arguments[0][0])
            for current, spike in zip(arguments[0], spikes, strict=True):
                before = neuron.leak * membrane + current
                margins.append((before - neuron.threshold).abs().flatten(1).amin(1))
                membrane = (1 - spike) * before

        return hook

    handles = [
        module.register_forward_hook(keep(name))
        for name, module in network.named_modules()
        if isinstance(module, tg.LIF)
    ]
    with torch.no_grad():
        outputs = network(frames)
    for handle in handles:
        handle.remove()
    return outputs, fired, torch.stack(margins).amin(0)
