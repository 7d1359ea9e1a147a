"""Fashion-MNIST: 70,000 grey images of 28 x 28 pixels in ten classes, in IDX files."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.datasets import FashionMNIST

from tracegrad.lab.data.dataset import Dataset, Split
from tracegrad.lab.data.options import DataOptions
from tracegrad.lab.data.splits import split_dataset

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")  # where Debian's package dataset-fashion-mnist puts it
MEAN, STD = 0.2860 * 255, 0.3530 * 255  # of the 60,000 training images
LARGEST = 2**28  # bytes of a file; the training images have 47 million


def load_fashion_mnist(options: DataOptions, source: type[FashionMNIST] = FashionMNIST) -> Dataset:
    """Fashion-MNIST from four IDX files, plain or `.gz`, in `options.root` or where torchvision downloads them.

    A tenth of the 60,000 training images is the validation part.

    Args:
        options: without a root, the folder of Debian's package dataset-fashion-mnist is read.
        source: torchvision's class, which knows the addresses and digests of a download.

    Raises:
        FileNotFoundError: the folder or a file in it is missing.
        OSError: the download failed.
        ValueError: a file is truncated or bit-flipped, labels are out of range, `train_size` does not fit.

    Source: H. Xiao, K. Rasul and R. Vollgraf, arXiv:1708.07747.
    """
    folder = _find(options, source)
    training, test = _read(folder, "train"), _read(folder, "t10k")  # its damage would be noticed late after training
    return split_dataset(
        options, training.labels, training.take, source.classes, lambda: test, statistics=((MEAN,), (STD,))
    )


def _find(options: DataOptions, source: type[FashionMNIST]) -> Path:
    if options.root is None:
        if DEBIAN_FOLDER.is_dir():
            return DEBIAN_FOLDER
        raise FileNotFoundError(
            "fashion-mnist needs its files: install Debian's package dataset-fashion-mnist,"
            " or set data.root to their folder (with data.download true they are fetched into it)"
        )
    root = Path(options.root).expanduser()
    if any(root.glob("train-images-idx3-ubyte*")):
        return root
    if options.download:
        try:
            source(root, download=True)  # verifies each file's digest; fetches nothing that is there already
        except (OSError, RuntimeError) as error:
            raise OSError(f"cannot download fashion-mnist into {root}: {' '.join(str(error).split())}") from error
    folder = root / source.__name__ / "raw"
    if not folder.is_dir():
        raise FileNotFoundError(
            f"no Fashion-MNIST in {root}: set data.root to the folder of its IDX files, or data.download to true"
        )
    return folder


def _read(folder: Path, part: str) -> Split:
    images = read_idx(folder, f"{part}-images-idx3-ubyte", dimensions=3)
    labels = read_idx(folder, f"{part}-labels-idx1-ubyte", dimensions=1)
    if len(images) != len(labels):
        raise ValueError(f"{folder} has {len(images)} {part} images but {len(labels)} labels; replace the files")
    if images.shape[1:] != (28, 28):
        height, width = images.shape[1:]
        raise ValueError(f"{part} images in {folder} are {height} x {width}, not 28 x 28; replace the files")
    return Split(images[:, None], labels.long())


def read_idx(folder: Path, name: str, dimensions: int) -> Tensor:
    """Reads `folder/name.gz`, whose checksum is verified, or else `folder/name`.

    The format: two zero bytes, the type (8: unsigned byte), the number of dimensions, each dimension as a big-endian
    32-bit integer, the values. No more memory is taken than the header declares.

    Returns:
        A uint8 tensor with that many dimensions.

    Raises:
        FileNotFoundError: neither file is there.
        ValueError: the file is truncated or bit-flipped, or holds something else.
    """
    path = next((path for path in (folder / f"{name}.gz", folder / name) if path.is_file()), None)
    if path is None:
        raise FileNotFoundError(f"no {name}.gz and no {name} in {folder}")
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            magic = file.read(4)
            shape = [int.from_bytes(file.read(4), "big") for _ in range(dimensions)]
            size = math.prod(shape)
            values = file.read(size + 1 if size <= LARGEST else 0)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is truncated or bit-flipped ({error}); replace it by a good copy") from error
    right = bytes([0, 0, 8, dimensions])
    if magic != right:
        expected = f"IDX data of bytes in {dimensions} dimensions start with {right.hex()}"
        raise ValueError(f"{path} starts with {magic.hex() or 'nothing'}, but {expected}; replace it by a good copy")
    if len(values) != size or not size:
        found = "more" if len(values) > size else len(values)
        said = " x ".join(map(str, shape))
        raise ValueError(f"{path} is truncated or bit-flipped: {found} values, but its header says {said}")
    return torch.from_numpy(np.frombuffer(values, np.uint8).reshape(shape).copy())
