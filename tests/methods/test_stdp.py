"""STDP against spike sequences worked out by hand, and the network of Diehl & Cook against loops over its neurons."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from tracegrad.lab.data import fashion_mnist
from tracegrad.methods.stdp import DiehlCook, Plasticity, Response


def decayed(steps: int) -> float:
    return math.exp(-steps / 20)


def test_the_weight_change_of_a_spike_sequence_worked_out_by_hand() -> None:
    # Two inputs and one neuron: input 0 fires at steps 0 and 5, input 1 at step 3, the neuron at steps 2 and 5.
    weight = torch.full((1, 2), 0.5, dtype=torch.float64)
    plasticity = Plasticity(weight, batch=1)
    pre = {0: [1.0, 0.0], 3: [0.0, 1.0], 5: [1.0, 0.0]}
    changes = {
        2: [1e-2 * decayed(2), 0.0],
        3: [0.0, -1e-4 * decayed(1)],
        5: [1e-2 * (decayed(5) + 1) - 1e-4 * (decayed(3) + 1), 1e-2 * decayed(2)],
    }
    for t in range(7):
        before = weight.clone()
        plasticity.step(
            torch.tensor([pre.get(t, [0.0, 0.0])]).double(), torch.full((1, 1), float(t in (2, 5))).double()
        )
        change = (weight - before)[0].tolist()
        assert change == pytest.approx(changes.get(t, [0.0, 0.0]), rel=1e-10, abs=1e-15), f"step {t}"


def test_weights_stay_between_0_and_1_and_a_batch_sums_its_changes() -> None:
    weight = torch.tensor([[0.999, 0.5, 0.00001]], dtype=torch.float64)
    plasticity = Plasticity(weight, batch=2)
    plasticity.step(torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0]]).double(), torch.ones(2, 1).double())
    assert weight[0].tolist() == pytest.approx([1.0, 0.5 + 2 * (1e-2 - 1e-4), 0.00001])
    plasticity.step(torch.tensor([[0.0, 0.0, 1.0]] * 2).double(), torch.zeros(2, 1).double())
    assert weight[0, 2].item() == 0


def reference(spikes: np.ndarray, weight: np.ndarray, theta: np.ndarray, learn: bool) -> tuple[np.ndarray, np.ndarray]:
    """One image, neuron by neuron: spikes of the excitatory and inhibitory neurons; weight and theta learn in place."""
    neurons, inputs = weight.shape
    v, idle = [[-65.0] * neurons, [-60.0] * neurons], [[0] * neurons, [0] * neurons]
    kinds = [(100, -65.0, -60.0, -52.0, 5), (10, -60.0, -45.0, -40.0, 2)]
    counts, inhibiting = np.zeros((2, neurons)), np.zeros(neurons)
    x_pre, x_post = np.zeros(inputs), np.zeros(neurons)

    def advance(kind: int, n: int, current: float, threshold: float) -> float:
        tau, rest, reset, _, refractory = kinds[kind]
        v[kind][n] = rest + (v[kind][n] - rest) * math.exp(-1 / tau) + (0 if idle[kind][n] else current)
        idle[kind][n] = max(0, idle[kind][n] - 1)
        if v[kind][n] < threshold:
            return 0.0
        v[kind][n], idle[kind][n] = reset, refractory
        return 1.0

    for pre in spikes:
        fired = np.zeros(neurons)
        for n in range(neurons):
            others = sum(inhibiting[m] for m in range(neurons) if m != n)
            fired[n] = advance(0, n, weight[n] @ pre - 120 * others, kinds[0][3] + theta[n])
        inhibiting = np.array([advance(1, n, 22.5 * fired[n], kinds[1][3]) for n in range(neurons)])
        counts += np.stack([fired, inhibiting])
        if learn:
            theta *= math.exp(-1e-7)
            theta += 0.05 * fired
            x_pre, x_post = x_pre * decayed(1) + pre, x_post * decayed(1) + fired
            for n in range(neurons):
                weight[n] += 1e-2 * x_pre * fired[n] - 1e-4 * x_post[n] * pre
            np.clip(weight, 0, 1, out=weight)
    return counts[0], counts[1]


def double(network: DiehlCook) -> DiehlCook:
    network.weight, network.theta = network.weight.double(), network.theta.double()
    return network


@pytest.mark.parametrize("learn", [False, True])
def test_the_network_is_its_equations_neuron_by_neuron(learn: bool) -> None:
    network = double(DiehlCook(60, 4, seed=3))
    spikes = (torch.rand(120, 1, 60, generator=torch.Generator().manual_seed(0)) < 0.2).double()
    weight, theta = network.weight.numpy().copy(), network.theta.numpy().copy()
    start = weight.copy()
    response = network.present(spikes, Plasticity(network.weight, 1) if learn else None)
    excitatory, inhibitory = reference(spikes[:, 0].numpy(), weight, theta, learn)
    assert excitatory.sum() > 10
    assert (excitatory > 0).sum() > 1, "one neuron alone fires: inhibition is not looked at"
    assert response.excitatory[0].tolist() == excitatory.tolist()
    assert response.inhibitory[0].tolist() == inhibitory.tolist()
    np.testing.assert_allclose(network.weight.numpy(), weight, rtol=1e-10)
    np.testing.assert_allclose(network.theta.numpy(), theta, rtol=1e-10)
    assert (np.abs(weight - start).max() > 0.01) == learn


def test_images_of_a_batch_do_not_disturb_each_other() -> None:
    network = double(DiehlCook(60, 4))
    spikes = (torch.rand(80, 3, 60, generator=torch.Generator().manual_seed(0)) < 0.2).double()
    together = network.present(spikes).excitatory
    alone = torch.cat([network.present(spikes[:, image : image + 1]).excitatory for image in range(3)])
    assert together.tolist() == alone.tolist()


def test_poisson_spikes_have_the_rate_of_their_pixel() -> None:
    network = DiehlCook(3, 1, time_steps=20000)
    spikes = network.encode(torch.tensor([[0.0, 0.5, 1.0]]))
    assert spikes.shape == (20000, 1, 3)
    assert set(spikes.unique().tolist()) == {0.0, 1.0}
    rates = spikes.mean((0, 1)) * 1000
    for rate, expected in zip(rates.tolist(), (0.0, 31.875, 63.75), strict=True):
        deviation = math.sqrt(max(expected, 0) / 20)  # of the mean of 20 s
        assert abs(rate - expected) <= 4 * deviation, f"{rate:g} Hz in the place of {expected:g} Hz"


def patterns(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noisy images of 8 x 8 pixels, class 2 bright on the left and class 0 on the right; there is no class 1."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 2, (count,), generator=generator) * 2
    images = torch.rand(count, 1, 8, 8, generator=generator) * 0.3
    images[labels == 2, :, :, :4] += 0.7
    images[labels == 0, :, :, 4:] += 0.7
    return images, labels


def test_it_learns_two_patterns_without_labels() -> None:
    network = DiehlCook(64, 6, batch_size=2)
    images, labels = patterns(20, seed=0)
    seen = network.train(images)
    assert seen.excitatory.shape == (20, 6)
    torch.testing.assert_close(network.weight.sum(1), torch.full((6,), 6.4), rtol=1e-5, atol=0)
    weight, theta = network.weight.clone(), network.theta.clone()
    network.assign(images, labels)
    assert set(network.assignments.tolist()) <= {-1, 0, 2}
    unseen, answers = patterns(30, seed=1)
    response = network.respond(unseen)
    assert (network.classify(response) == answers).float().mean() >= 0.9
    assert (network.predict(unseen) == answers).float().mean() >= 0.9
    assert torch.equal(network.weight, weight), "weights learnt where they must not"
    assert torch.equal(network.theta, theta), "theta learnt where it must not"
    spikes = response.excitatory.sum() + response.inhibitory.sum()
    assert response.spikes_per_image == pytest.approx(spikes.item() / 30)


def test_the_same_seed_gives_the_same_network() -> None:
    images, _ = patterns(8, seed=0)

    def trained(seed: int, pieces: int) -> Tensor:
        network = DiehlCook(64, 5, time_steps=60, batch_size=2, seed=seed)
        for piece in images.chunk(pieces):
            network.train(piece)
        return network.weight

    assert torch.equal(trained(0, 1), trained(0, 2))
    assert not torch.equal(trained(0, 1), trained(1, 1))


def test_a_neuron_belongs_to_the_class_for_which_it_fires_most_on_average() -> None:
    network = DiehlCook(4, 3)
    counts = torch.tensor([[2.0, 0.0, 0.0], [2.0, 0.0, 0.0], [2.0, 1.0, 0.0], [3.0, 3.0, 0.0]])
    network.respond = lambda images: Response(counts, counts)
    network.assign(torch.zeros(4, 4), torch.tensor([0, 0, 0, 1]))
    # Summed, the first neuron fired most for class 0; on average for class 1. The last one never fired.
    assert network.assignments.tolist() == [1, 1, -1]
    assert network.predict(torch.zeros(4, 4)).tolist() == [1, 1, 1, 1]


def test_wrong_use() -> None:
    network, images = DiehlCook(4, 3, time_steps=2), torch.zeros(2, 4)
    for name in ("inputs", "neurons", "time_steps", "batch_size"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1, not 0"):
            DiehlCook(**{name: 0})
    with pytest.raises(ValueError, match="images must have 4 pixels, not 5"):
        network.train(torch.zeros(2, 5))
    with pytest.raises(ValueError, match=r"pixels must be in \[0, 1\], not from 0 to 255"):
        network.respond(torch.tensor([[0.0, 0.0, 0.0, 255.0]]))
    with pytest.raises(ValueError, match=r"pixels must be in \[0, 1\], not from nan to nan"):
        network.respond(torch.full((1, 4), math.nan))
    with pytest.raises(ValueError, match=r"one label for each of 2 images, not \[3\]"):
        network.assign(images, torch.zeros(3))
    with pytest.raises(ValueError, match="no neuron has a class yet"):
        network.predict(images)
    network.assign(images, torch.zeros(2))  # dark images: nothing fires
    with pytest.raises(ValueError, match="no neuron has a class yet"):
        network.predict(images)


@pytest.mark.slow
@pytest.mark.skipif(not fashion_mnist.DEBIAN_FOLDER.is_dir(), reason="needs Debian's package dataset-fashion-mnist")
def test_fashion_mnist_is_recognised_in_four_of_ten_images_and_more() -> None:
    def read(part: str, count: int) -> tuple[Tensor, Tensor]:
        split = fashion_mnist._read(fashion_mnist.DEBIAN_FOLDER, part)
        return split.images[:count].float() / 255, split.labels[:count]

    network, (images, labels), (unseen, answers) = DiehlCook(), read("train", 2000), read("t10k", 2000)
    network.train(images)
    network.assign(images, labels)
    assert (network.predict(unseen) == answers).float().mean() > 0.4
