"""Unsupervised learning by spike-timing-dependent plasticity (Diehl & Cook 2015), in steps of 1 ms.

A layer of excitatory neurons receives Poisson spikes s_pre that encode the image. Each excitatory neuron drives one
inhibitory neuron, which inhibits all other excitatory neurons. With u = v - rest and z the current, which is 0 while a
neuron is refractory:

    u(t) = exp(-1 / tau) * u(t-1) + z(t)             a membrane that reaches its threshold fires and is reset
    z_e(t) = W s_pre(t) - 120 * (sum of s_i(t-1) over the inhibitory neurons of the others)
    z_i(t) = 22.5 * s_e(t)
    theta += 0.05 per spike, theta(t) = exp(-1 / 1e7) * theta(t-1)       added to the excitatory thresholds

The excitatory weights W are learnt. With x(t) = exp(-1 / 20) * x(t-1) + s(t) the traces of both ends,

    dW(t) = 1e-2 * x_pre(t) s_post(t) - 1e-4 * s_pre(t) x_post(t)

clipped to [0, 1]; before each presentation the weights of each neuron are scaled to a sum of 0.1 x inputs.

The neurons' constants are those of Diehl & Cook, and the traces follow their text (their code sets a trace to 1 at a
spike). Instead of their conductances, synapses inject currents, as in BindsNET's DiehlAndCook2015 (Hazan et al. 2018),
with its strengths: 22.5, and 120 as in its examples.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_RATE = 63.75
"""Spikes per second of an input of 1."""
LEARNING_RATE_PRE, LEARNING_RATE_POST = 1e-4, 1e-2
TRACE_DECAY = math.exp(-1 / 20)
MEAN_WEIGHT = 0.1
THETA_STEP, THETA_DECAY = 0.05, math.exp(-1 / 1e7)
EXCITATION, INHIBITION = 22.5, 120.0
TOGETHER = 100
"""Images that are shown at once while nothing is learnt."""


@dataclass(frozen=True)
class Population:
    """Constants of the neurons of one layer.

    Args:
        tau: time constant of the membrane, ms.
        rest: where the membrane decays to, mV.
        reset: the membrane after a spike, mV.
        threshold: mV.
        refractory: ms after a spike during which the current is 0.
    """

    tau: float
    rest: float
    reset: float
    threshold: float
    refractory: int


EXCITATORY = Population(tau=100, rest=-65, reset=-60, threshold=-52, refractory=5)
INHIBITORY = Population(tau=10, rest=-60, reset=-45, threshold=-40, refractory=2)


class _Neurons:
    """The membranes of one population while a batch of images is shown."""

    def __init__(self, population: Population, like: Tensor) -> None:
        self.constants = population
        self.decay = math.exp(-1 / population.tau)
        self.membrane = torch.full_like(like, population.rest)
        self.refractory = torch.zeros_like(like)

    def step(self, current: Tensor, theta: Tensor | float = 0.0) -> Tensor:
        """The spikes, 0 or 1, of one step."""
        constants = self.constants
        current = current.masked_fill(self.refractory > 0, 0)
        self.membrane.sub_(constants.rest).mul_(self.decay).add_(current + constants.rest)
        self.refractory.sub_(1)
        fired = self.membrane >= constants.threshold + theta
        self.membrane.masked_fill_(fired, constants.reset)
        self.refractory.masked_fill_(fired, constants.refractory)
        return fired.to(current.dtype)


class Plasticity:
    """Updates the weights of one synapse from the spikes at its two ends, step by step.

    The traces start at 0. The images of a batch are shown in parallel: their updates are summed at every step.

    Args:
        weight: W, [neurons, inputs]; updated in place and clipped to [0, 1].
        batch: the number of images.
    """

    def __init__(self, weight: Tensor, batch: int) -> None:
        self.weight = weight
        self.post_trace, self.pre_trace = (weight.new_zeros(batch, size) for size in weight.shape)

    def step(self, pre: Tensor, post: Tensor) -> None:
        """Takes one step.

        Args:
            pre: spikes of the inputs, 0 or 1, [B, inputs].
            post: spikes of the neurons, 0 or 1, [B, neurons].
        """
        self.pre_trace.mul_(TRACE_DECAY).add_(pre)
        self.post_trace.mul_(TRACE_DECAY).add_(post)
        self.weight.addmm_(post.T, self.pre_trace, alpha=LEARNING_RATE_POST)
        self.weight.addmm_(self.post_trace.T, pre, alpha=-LEARNING_RATE_PRE).clamp_(0, 1)


@dataclass(frozen=True)
class Response:
    """How often each neuron fired for each image.

    Attributes:
        excitatory: [B, neurons].
        inhibitory: [B, neurons].
    """

    excitatory: Tensor
    inhibitory: Tensor

    @property
    def spikes_per_image(self) -> float:
        """Spikes of all neurons and steps, averaged over the images."""
        return float((self.excitatory.sum() + self.inhibitory.sum()) / len(self.excitatory))


class DiehlCook:
    """The network of Diehl & Cook (2015); see the equations of `tracegrad.methods.stdp`.

    Its weights are learnt without labels and without gradients. Labels are used afterwards: each neuron is assigned to
    the class for which it fires most, and each image to the class whose neurons fire most for it.

    Two things differ from the original, for speed: training shows images in batches, whose updates of W and theta are
    summed at every step (as in BindsNET), and membranes are set to rest before every image instead of decaying in a
    pause. Images may be given in one call or in several, each a multiple of the batch size: the result is the same.

    Example:
        network = DiehlCook(784)
        network.train(images)
        network.assign(images, labels)
        accuracy = (network.predict(test_images) == test_labels).float().mean()

    Args:
        inputs: pixels of an image.
        neurons: excitatory neurons, and as many inhibitory ones; 100 to 400 in the paper.
        time_steps: steps of 1 ms for which an image is shown.
        batch_size: images per training step; 1 in the original.
        seed: of the initial weights and of all Poisson spikes. The same seed and calls give the same network.

    Attributes:
        weight: W, [neurons, inputs].
        theta: of each neuron, mV.
        assignments: the class of each neuron, -1 for neurons that never fired; None before `assign`.

    Raises:
        ValueError: a size below 1.
    """

    def __init__(
        self, inputs: int = 784, neurons: int = 100, time_steps: int = 350, batch_size: int = 16, seed: int = 0
    ) -> None:
        sizes = {"inputs": inputs, "neurons": neurons, "time_steps": time_steps, "batch_size": batch_size}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name} must be at least 1, not {size}")
        self.time_steps, self.batch_size = time_steps, batch_size
        self._generator = torch.Generator().manual_seed(seed)
        self.weight = torch.rand(neurons, inputs, generator=self._generator)
        self.theta = torch.zeros(neurons)
        self.assignments: Tensor | None = None
        self._scale_weights()

    def train(self, images: Tensor) -> Response:
        """Learns from images without their labels.

        Args:
            images: [B, ...] with `inputs` values in [0, 1] each, shown in this order.

        Returns:
            How the neurons fired during training.

        Raises:
            ValueError: images of another size, or values outside [0, 1].
        """
        return self._show(images, self.batch_size, self._learn)

    def respond(self, images: Tensor) -> Response:
        """How the neurons fire for images, without learning; arguments and errors as for `train`."""
        return self._show(images, TOGETHER, self.present)

    def assign(self, images: Tensor, labels: Tensor) -> Response:
        """Assigns each neuron to the class for whose images it fires most on average.

        Args:
            images: as for `train`.
            labels: [B], whole numbers from 0.

        Returns:
            How the neurons fired.

        Raises:
            ValueError: as for `train`, or another number of labels than of images.
        """
        if labels.shape != images.shape[:1]:
            raise ValueError(f"there must be one label for each of {len(images)} images, not {list(labels.shape)}")
        response = self.respond(images)
        members = F.one_hot(labels.long()).to(self.weight.dtype)
        rates = members.T @ response.excitatory / members.sum(0).clamp(min=1)[:, None]
        self.assignments = rates.argmax(0).masked_fill(rates.sum(0) == 0, -1)
        return response

    def predict(self, images: Tensor) -> Tensor:
        """The class of each image, [B]; arguments and errors as for `train` and `classify`."""
        return self.classify(self.respond(images))

    def classify(self, response: Response) -> Tensor:
        """The class whose neurons fired most on average, for each image of a response, [B].

        Raises:
            ValueError: no neuron has a class yet.
        """
        if self.assignments is None or not (self.assignments >= 0).any():
            raise ValueError("no neuron has a class yet: train the network, then assign its neurons")
        members = F.one_hot(self.assignments + 1)[:, 1:].to(self.weight.dtype)
        votes = response.excitatory @ members / members.sum(0).clamp(min=1)
        return votes.argmax(1)

    def encode(self, images: Tensor) -> Tensor:
        """Poisson spikes of images [B, ...]: 0 or 1, [T, B, inputs]; errors as for `train`."""
        pixels = images.flatten(1).to(self.weight)
        if pixels.shape[1] != self.weight.shape[1]:
            raise ValueError(f"images must have {self.weight.shape[1]} pixels, not {pixels.shape[1]}")
        if not ((pixels >= 0) & (pixels <= 1)).all():
            raise ValueError(f"pixels must be in [0, 1], not from {pixels.min():g} to {pixels.max():g}")
        chance = torch.rand(self.time_steps, *pixels.shape, generator=self._generator).to(pixels)
        return (chance < pixels * (MAX_RATE / 1000)).to(pixels.dtype)

    def present(self, spikes: Tensor, plasticity: Plasticity | None = None) -> Response:
        """Shows input spikes to the network, whose membranes start at rest.

        Args:
            spikes: 0 or 1, [T, B, inputs].
            plasticity: updates the weights; theta is then updated too. None changes nothing.
        """
        idle = self.weight.new_zeros(spikes.shape[1], len(self.weight))
        excitatory, inhibitory = _Neurons(EXCITATORY, idle), _Neurons(INHIBITORY, idle)
        fired, inhibiting, counts = idle, idle, (idle.clone(), idle.clone())
        # Weights that do not change allow one product for all steps.
        currents = spikes @ self.weight.T if plasticity is None else (step @ self.weight.T for step in spikes)
        for pre, current in zip(spikes, currents, strict=True):
            others = inhibiting.sum(1, keepdim=True) - inhibiting
            fired = excitatory.step(current - INHIBITION * others, self.theta)
            inhibiting = inhibitory.step(EXCITATION * fired)
            counts[0].add_(fired)
            counts[1].add_(inhibiting)
            if plasticity is not None:
                self.theta.mul_(THETA_DECAY).add_(fired.sum(0), alpha=THETA_STEP)
                plasticity.step(pre, fired)
        return Response(*counts)

    def _learn(self, spikes: Tensor) -> Response:
        response = self.present(spikes, Plasticity(self.weight, spikes.shape[1]))
        self._scale_weights()
        return response

    def _show(self, images: Tensor, together: int, present: Callable[[Tensor], Response]) -> Response:
        responses = [present(self.encode(batch)) for batch in images.split(together)]
        return Response(
            torch.cat([response.excitatory for response in responses]),
            torch.cat([response.inhibitory for response in responses]),
        )

    def _scale_weights(self) -> None:
        """Scales the weights of each neuron to a sum of 0.1 x inputs."""
        self.weight.copy_(F.normalize(self.weight, p=1, dim=1) * (MEAN_WEIGHT * self.weight.shape[1]))
