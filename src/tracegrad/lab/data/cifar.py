"""CIFAR-10 and CIFAR-100: 60,000 coloured images of 32 x 32 pixels, in the archives that torchvision downloads."""

from collections.abc import Callable
from pathlib import Path

import torch
from torchvision.datasets import CIFAR10, CIFAR100
from torchvision.datasets.utils import check_integrity, download_and_extract_archive

from tracegrad.lab.data.cifar_binary import CIFAR10_BINARY, BinaryCifar
from tracegrad.lab.data.dataset import Dataset, Split
from tracegrad.lab.data.options import DataOptions
from tracegrad.lab.data.splits import first_images, stratified_pieces

# Mean and standard deviation of the 50,000 training images, per channel.
STATISTICS = {
    CIFAR10: ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    CIFAR100: ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}


def load_cifar10(
    options: DataOptions, source: type[CIFAR10] = CIFAR10, binary: BinaryCifar = CIFAR10_BINARY
) -> Dataset:
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
    root = _root(options, binary.filename)
    in_python = (root / source.filename).is_file() or (root / source.base_folder).is_dir()
    if binary.is_in(root) or not in_python:
        binary.provide(root, options.download)
        return _dataset(options, lambda train: binary.read(root, train), binary.classes, *STATISTICS[CIFAR10])
    return _load_python(options, root, source, *STATISTICS[CIFAR10])


def load_cifar100(options: DataOptions, source: type[CIFAR100] = CIFAR100) -> Dataset:
    """CIFAR-100, with its 100 fine labels, as `load_cifar10` loads CIFAR-10."""
    return _load_python(options, _root(options, source.filename), source, *STATISTICS[CIFAR100])


def _root(options: DataOptions, filename: str) -> Path:
    if options.root is None:
        raise FileNotFoundError(
            f"{options.name} needs its files: set data.root to the folder of {filename}"
            " (with data.download true it is fetched into it)"
        )
    return Path(options.root).expanduser()


def _load_python(
    options: DataOptions, root: Path, source: type[CIFAR10], mean: tuple[float, ...], std: tuple[float, ...]
) -> Dataset:
    _provide_files(root, source, options.download)
    training, classes = _read(root, source, train=True)
    return _dataset(options, lambda train: training if train else _read(root, source, train)[0], classes, mean, std)


def _dataset(
    options: DataOptions,
    read: Callable[[bool], Split],
    classes: tuple[str, ...],
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> Dataset:
    """The data set of a function that reads the training part, or else the test part."""
    training = read(True)
    validation, train = stratified_pieces(training.labels, len(training) // 10)
    return Dataset(
        name=options.name,
        train=training.take(first_images(train, options.train_size, len(classes))),
        validation=training.take(validation),
        read_test=lambda: read(False),
        classes=classes,
        mean=tuple(255 * value for value in mean),
        std=tuple(255 * value for value in std),
    )


def _provide_files(root: Path, source: type[CIFAR10], download: bool) -> None:
    """Sees to it that every file is there with its digest: unpacks the archive, or downloads it when asked."""
    if _first_bad_file(root, source) is None:
        return
    archive = root / source.filename
    if download or check_integrity(archive, source.tgz_md5):  # with a good archive there, nothing is downloaded
        try:
            download_and_extract_archive(source.url, root, filename=source.filename, md5=source.tgz_md5)
        except (OSError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise OSError(f"cannot get {source.filename} from {source.url} into {root}: {reason}") from error
    elif archive.is_file():
        raise ValueError(f"{archive} is truncated or bit-flipped: its digest is not the published one; fetch it again")
    bad = _first_bad_file(root, source)
    if bad is None:
        return
    if bad.exists():
        raise ValueError(f"{bad} is truncated or bit-flipped: its digest is not the published one; unpack it again")
    raise FileNotFoundError(
        f"no {bad.relative_to(root)} in {root}: put {source.filename} there, or set data.download to true"
    )


def _first_bad_file(root: Path, source: type[CIFAR10]) -> Path | None:
    folder = root / source.base_folder
    files = [*source.train_list, *source.test_list, (source.meta["filename"], source.meta["md5"])]
    return next((folder / name for name, digest in files if not check_integrity(folder / name, digest)), None)


def _read(root: Path, source: type[CIFAR10], train: bool) -> tuple[Split, tuple[str, ...]]:
    part = source(root, train=train)  # verifies the digests once more before it unpickles
    images = torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous()
    return Split(images, torch.tensor(part.targets)), tuple(part.classes)
