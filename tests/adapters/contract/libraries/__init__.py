"""The libraries that keep the contract."""

from contract.libraries.norse import Norse, NorseCells
from contract.libraries.sinabs import Sinabs, SinabsSqueeze
from contract.libraries.snntorch import SnnTorch, SnnTorchHidden
from contract.libraries.spikingjelly import SpikingJelly, SpikingJellySteps
from contract.libraries.stub import Stub

LIBRARIES = (
    SpikingJelly(),
    SpikingJellySteps(),
    SnnTorch(),
    SnnTorchHidden(),
    NorseCells(),
    Norse(),
    Sinabs(),
    SinabsSqueeze(),
    Stub(),
)
