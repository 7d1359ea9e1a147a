"""Convolutions of volumes, and transposed ones."""

from architecture import EXAMPLES, STEPS, Architecture, T, reals, spikes
from spiking import TimeFirst, folded
from tape import Tape
from torch import Tensor, nn


class VolumeNetwork(nn.Module):
    """Modelled on spiking networks of gestures and tumours: frames are volumes [T, B, C, D, H, W]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv0, self.norm0, self.lif0 = nn.Conv3d(1, 3, 3, padding=1, bias=False), nn.BatchNorm3d(3), TimeFirst()
        self.conv1, self.norm1, self.lif1 = (
            nn.Conv3d(3, 4, (1, 3, 2), (1, 2, 1), bias=False),
            nn.BatchNorm3d(4),
            TimeFirst(),
        )
        self.pool, self.conv2, self.lif2 = nn.MaxPool3d((2, 1, 1)), nn.Conv3d(4, 4, 1, groups=2), TimeFirst()
        self.fc = nn.Linear(4, 3)

    def forward(self, volume: Tensor) -> Tensor:
        s = self.lif0(folded(self.norm0, folded(self.conv0, volume.expand(T, *volume.shape))))
        s = self.lif1(folded(self.norm1, folded(self.conv1, s)))
        return self.fc(self.lif2(folded(self.conv2, folded(self.pool, s))).mean((3, 4, 5)))

    def stepwise(self, tape: Tape, volume: Tensor) -> Tensor:
        x = volume.expand(T, *volume.shape)
        s = tape.neuron(self.lif0, folded(self.norm0, tape.synapse(self.conv0, x)))
        s = tape.neuron(self.lif1, folded(self.norm1, tape.synapse(self.conv1, s)), [self.conv1])
        s = tape.neuron(self.lif2, tape.synapse(self.conv2, folded(self.pool, s)), [self.conv2])
        return tape.synapse(self.fc, s.mean((3, 4, 5)))


class Autoencoder(nn.Module):
    """Modelled on spiking autoencoders: strided convolutions, then transposed ones; the last current is the picture."""

    def __init__(self) -> None:
        super().__init__()
        self.down0, self.norm0, self.lif0 = nn.Conv2d(2, 4, 3, 2, 1, bias=False), nn.BatchNorm2d(4), TimeFirst()
        self.down1, self.norm1, self.lif1 = nn.Conv2d(4, 6, 3, 2, 1, bias=False), nn.BatchNorm2d(6), TimeFirst()
        self.up0 = nn.ConvTranspose2d(6, 4, 3, 2, 1, output_padding=1, groups=2, bias=False)
        self.norm2, self.lif2 = nn.BatchNorm2d(4), TimeFirst()
        self.up1, self.norm3, self.lif3 = nn.ConvTranspose2d(4, 3, 2, 2, bias=False), nn.BatchNorm2d(3), TimeFirst()
        self.picture = nn.ConvTranspose2d(3, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        s = self.lif0(folded(self.norm0, folded(self.down0, x)))
        s = self.lif1(folded(self.norm1, folded(self.down1, s)))
        s = self.lif2(folded(self.norm2, folded(self.up0, s)))
        s = self.lif3(folded(self.norm3, folded(self.up1, s)))
        return folded(self.picture, s).mean(0).sigmoid()

    def stepwise(self, tape: Tape, x: Tensor) -> Tensor:
        s = tape.neuron(self.lif0, folded(self.norm0, tape.synapse(self.down0, x)), [self.down0])
        s = tape.neuron(self.lif1, folded(self.norm1, tape.synapse(self.down1, s)), [self.down1])
        s = tape.neuron(self.lif2, folded(self.norm2, tape.synapse(self.up0, s)), [self.up0])
        s = tape.neuron(self.lif3, folded(self.norm3, tape.synapse(self.up1, s)), [self.up1])
        return tape.synapse(self.picture, s).mean(0).sigmoid()


ARCHITECTURES = {
    "volumes": Architecture(
        VolumeNetwork,
        reals(EXAMPLES, 1, 4, 5, 4),
        (("conv1", "lif1"), ("conv2", "lif2")),
        {"conv0": "data", "fc": "reaches no"},
    ),
    "autoencoder": Architecture(
        Autoencoder,
        spikes(STEPS, EXAMPLES, 2, 8, 8),
        (("down0", "lif0"), ("down1", "lif1"), ("up0", "lif2"), ("up1", "lif3")),
        {"picture": "reaches no"},
        {"spiking_input": True},
    ),
}
