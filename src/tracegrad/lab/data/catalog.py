"""The data sets that a recipe can name."""

from collections.abc import Callable

from tracegrad.core.registry import Registry
from tracegrad.lab.data.cifar import load_cifar10, load_cifar100
from tracegrad.lab.data.dataset import Dataset
from tracegrad.lab.data.digits import load_digits
from tracegrad.lab.data.fashion_mnist import load_fashion_mnist
from tracegrad.lab.data.folder import load_folder
from tracegrad.lab.data.options import DataOptions

DATASETS: Registry[Callable[[DataOptions], Dataset]] = Registry("data set")
DATASETS.register("digits", load_digits)
DATASETS.register("fashion-mnist", load_fashion_mnist)
DATASETS.register("cifar10", load_cifar10)
DATASETS.register("cifar100", load_cifar100)
DATASETS.register("folder", load_folder)


def load(options: DataOptions) -> Dataset:
    """Loads the data set that `options` name.

    Raises:
        ValueError: no data set has that name, its files are damaged, or an option does not fit it.
        OSError: its files are missing or cannot be read.
    """
    return DATASETS[options.name](options)
