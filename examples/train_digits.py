"""Trains a spiking network on scikit-learn's digits, with and without gradient scaling: PyTorch and tracegrad alone.

python examples/train_digits.py [EPOCHS]
"""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn

import tracegrad as tg

EPOCHS, BATCH, SEEDS = 10, 64, 3


def load() -> tuple[torch.Tensor, ...]:
    """Images [N, 1, 8, 8] and labels to train on, and those to test on."""
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    labels = torch.tensor(digits.target)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    train, test = order[360:], order[:360]
    return images[train], labels[train], images[test], labels[test]


def accuracy(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """The share of images whose class is right."""
    model.eval()
    with torch.no_grad():
        return (model(images).mean(0).argmax(-1) == labels).float().mean().item()


def train(alpha: float, seed: int, epochs: int) -> float:
    """The test accuracy of one training; both methods of a seed share initial weights and the order of images."""
    images, labels, *test = load()
    torch.manual_seed(seed)
    model = tg.models.resnet(blocks=(1, 1), width=8, in_channels=1)
    if alpha:
        tg.attach(model, images[:1], alpha=alpha)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    shuffle = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        model.train()
        for batch in torch.randperm(len(labels), generator=shuffle).split(BATCH):
            loss = tg.objectives.mean_cross_entropy(model(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return accuracy(model, *test)


if __name__ == "__main__":
    epochs = int(sys.argv[1]) if len(sys.argv) > 1 else EPOCHS
    torch.set_num_threads(1)
    for seed in range(SEEDS):
        plain, scaled = (train(alpha, seed, epochs) for alpha in (0.0, 0.1))
        print(
            f"seed {seed}: baseline {plain:.2%}, scaled {scaled:.2%}, difference {100 * (scaled - plain):+.2f} points"
        )
