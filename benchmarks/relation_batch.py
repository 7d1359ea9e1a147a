"""How far `relation_batch` moves the relation and the gradient: run it with `python benchmarks/relation_batch.py`.

A spiking ResNet is trained for two epochs on the digits; then, for several fractions, the normalised relations and the
weight gradients of batches of 64 are compared with those of the whole batch.
"""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

import tracegrad as tg

FRACTIONS = (0.5, 0.25, 0.125)
BATCH = 64


def gradients(model: nn.Module, images: Tensor, labels: Tensor, fraction: float) -> tuple[dict[str, Tensor], Tensor]:
    """The normalised relations, and the gradients of the scaled weights."""
    attachment = tg.attach(model, images[:1], record=True, relation_batch=fraction)
    model.zero_grad()
    F.cross_entropy(model(images).mean(0), labels).backward()
    attachment.detach()
    weights = [model.get_submodule(name).weight.grad.flatten() for name, _ in attachment.pairs]
    return dict(attachment.relations), torch.cat(weights).clone()


def main() -> None:
    """Prints a table."""
    torch.manual_seed(0)
    data = load_digits()
    images, labels = torch.tensor(data.images).float()[:, None] / 8 - 1, torch.tensor(data.target)
    model = tg.models.resnet(in_channels=1, blocks=(1, 1), width=16)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(2):
        for batch in torch.randperm(len(images)).split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(model(images[batch]).mean(0), labels[batch]).backward()
            optimizer.step()
    print("| fraction | examples | mean error of R_hat | largest | relative error of the gradient |")
    print("|---|---|---|---|---|")
    for fraction in FRACTIONS:
        errors, relative = [], []
        for batch in torch.randperm(len(images)).split(BATCH)[:8]:
            exact, exact_gradient = gradients(model, images[batch], labels[batch], 1.0)
            estimate, gradient = gradients(model, images[batch], labels[batch], fraction)
            errors.append(torch.cat([(estimate[name] - exact[name]).abs().flatten() for name in exact]))
            relative.append((gradient - exact_gradient).norm() / exact_gradient.norm())
        error = torch.cat(errors)
        print(
            f"| {fraction} | {int(fraction * BATCH)} of {BATCH} | {error.mean():.3f} | {error.max():.2f} "
            f"| {torch.stack(relative).mean():.4f} |"
        )


if __name__ == "__main__":
    main()
