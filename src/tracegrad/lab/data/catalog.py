"""The data sets that a recipe can name."""

from collections.abc import Callable
from importlib import import_module

from tracegrad.core.registry import Registry
from tracegrad.lab.data.dataset import Dataset
from tracegrad.lab.data.options import DataOptions

Loader = Callable[[DataOptions], Dataset]


def _later(module: str, function: str, has_options: bool = False) -> Loader:
    """A loader whose module is imported when it is called: torchvision and scikit-learn take seconds to import."""

    def load(options: DataOptions) -> Dataset:
        if options.options and not has_options:
            raise ValueError(f"data.options must be empty for {options.name}, not {options.options}")
        return getattr(import_module(f"tracegrad.lab.data.{module}"), function)(options)

    return load


DATASETS: Registry[Loader] = Registry("data set")
DATASETS.register("digits", _later("digits", "load_digits"))
DATASETS.register("fashion-mnist", _later("fashion_mnist", "load_fashion_mnist"))
DATASETS.register("cifar10", _later("cifar", "load_cifar10"))
DATASETS.register("cifar100", _later("cifar", "load_cifar100"))
DATASETS.register("folder", _later("folder", "load_folder"))
DATASETS.register("moving", _later("moving", "load_moving", has_options=True))
DATASETS.register("n-mnist", _later("event_data", "load_n_mnist", has_options=True))
DATASETS.register("cifar10-dvs", _later("event_data", "load_cifar10_dvs", has_options=True))
DATASETS.register("dvs128-gesture", _later("event_data", "load_dvs128_gesture", has_options=True))
DATASETS.register("shd", _later("event_data", "load_shd", has_options=True))


def register_dataset(name: str) -> Callable[[Loader], Loader]:
    """Decorator that makes a data set available to recipes by name, `data.name`.

    The function takes the recipe's `DataOptions` and returns a `tracegrad.lab.data.Dataset`.

    Raises:
        ValueError: the name is taken.
    """
    return lambda loader: DATASETS.register(name, loader)


def load(options: DataOptions) -> Dataset:
    """Loads the data set that `options` name.

    Raises:
        ValueError: no data set has that name, its files are damaged, or an option does not fit it.
        OSError: its files are missing or cannot be read.
    """
    dataset = DATASETS[options.name](options)
    if not isinstance(dataset, Dataset):  # pyright: ignore[reportUnnecessaryIsInstance] - users are not always typed
        kind = type(dataset).__name__
        raise ValueError(f"{options.name} must return a tracegrad.lab.data.Dataset, not {kind}")  # noqa: TRY004
    return dataset
