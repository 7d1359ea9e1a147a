"""CIFAR-10 and CIFAR-100: 60,000 coloured images of 32 x 32 pixels, in the published archives."""

from collections.abc import Callable, Sequence

import torch
from torchvision.datasets import CIFAR10, CIFAR100

from tracegrad.lab.data.archive import Archive
from tracegrad.lab.data.dataset import Dataset, Split, Statistics
from tracegrad.lab.data.options import DataOptions, root_of
from tracegrad.lab.data.splits import split_dataset

# Of the 50,000 training images.
STATISTICS: dict[int, Statistics] = {
    10: ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    100: ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}
CIFAR10_BINARY = Archive(
    url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    digest="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    folder="cifar-10-batches-bin",
    train={
        "data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
        "data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
        "data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
        "data_batch_4.bin": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
        "data_batch_5.bin": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    },
    test={"test_batch.bin": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b"},
)
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def load_cifar10(options: DataOptions, source: type[CIFAR10] = CIFAR10, binary: Archive = CIFAR10_BINARY) -> Dataset:
    """CIFAR-10 from the archive of the binary or the Python version in `options.root`, or from the folder unpacked.

    Both hold the same images in the same order. The binary version, `cifar-10-binary.tar.gz` or its folder
    `cifar-10-batches-bin`, is read where it is there, and downloaded where neither is. A tenth of the 50,000 training
    images is the validation part. The files of the Python version hold pickled arrays; each is unpickled only after its
    digest was found to be the published one.

    Args:
        options: the root is required.
        source: torchvision's class, which knows the names and digests of the Python version's files.
        binary: the same of the binary version.

    Raises:
        FileNotFoundError: the folder is not named, or neither files nor archive are in it.
        OSError: the download failed.
        ValueError: archive or files are truncated or bit-flipped, labels are out of range, `train_size` does not fit.

    Source: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
    """
    root, python = root_of(options), _python_version(source)
    if python.is_in(root) and not binary.is_in(root):
        return _load_python_version(options, source)
    binary.provide(root, options.download)
    training = _from_bytes(binary.read(root, binary.train))
    return _dataset(options, training, CLASSES, lambda: _from_bytes(binary.read(root, binary.test)))


def load_cifar100(options: DataOptions, source: type[CIFAR100] = CIFAR100) -> Dataset:
    """CIFAR-100, with its 100 fine labels, as `load_cifar10` loads CIFAR-10."""
    return _load_python_version(options, source)


def _dataset(options: DataOptions, training: Split, classes: Sequence[str], test: Callable[[], Split]) -> Dataset:
    mean, std = STATISTICS[len(classes)]
    scaled = tuple(255 * value for value in mean), tuple(255 * value for value in std)
    return split_dataset(options, training.labels, training.take, classes, test, statistics=scaled)


def _from_bytes(content: bytes) -> Split:
    """Images, each a byte for its label and then its planes of red, green and blue."""
    rows = torch.frombuffer(bytearray(content), dtype=torch.uint8).view(-1, 1 + 3 * 32 * 32)
    return Split(rows[:, 1:].reshape(-1, 3, 32, 32), rows[:, 0].long())


def _python_version(source: type[CIFAR10]) -> Archive:
    train = {**dict(source.train_list), source.meta["filename"]: source.meta["md5"]}
    return Archive(source.url, source.tgz_md5, source.base_folder, train, dict(source.test_list))


def _load_python_version(options: DataOptions, source: type[CIFAR10]) -> Dataset:
    root = root_of(options)
    _python_version(source).provide(root, options.download)

    def read(train: bool) -> tuple[Split, list[str]]:
        part = source(root, train=train)  # verifies the digests once more before it unpickles
        images = torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous()
        return Split(images, torch.tensor(part.targets)), part.classes

    training, classes = read(True)
    return _dataset(options, training, classes, lambda: read(False)[0])
