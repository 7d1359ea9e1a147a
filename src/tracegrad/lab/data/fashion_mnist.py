"""Fashion-MNIST: 70,000 grey images of 28 x 28 pixels in ten classes, in IDX files."""

import gzip
import math
import zlib
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor
from torchvision.datasets import FashionMNIST

from tracegrad.lab.data.dataset import Dataset, Split
from tracegrad.lab.data.options import FETCHED, DataOptions, root_of
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
    if options.root is None and DEBIAN_FOLDER.is_dir():
        return DEBIAN_FOLDER
    root = root_of(options, f"install Debian's package dataset-fashion-mnist, or {FETCHED}")
    if any(root.glob("train-images-idx3-ubyte*")):
        return root
    if options.download:
        try:
            source(root, download=True)  # verifies each file's digest; fetches nothing that is there already
        except (OSError, RuntimeError) as error:
            raise OSError(f"cannot download fashion-mnist into {root}: {' '.join(str(error).split())}") from error
    folder = root / source.__name__ / "raw"
    if not folder.is_dir():
        raise FileNotFoundError(f"no Fashion-MNIST in {root}: {FETCHED}")
    return folder


def _read(folder: Path, part: str) -> Split:
    images = read_idx(folder, f"{part}-images-idx3-ubyte", dimensions=3)
    labels = read_idx(folder, f"{part}-labels-idx1-ubyte", dimensions=1)
    if images.shape != (len(labels), 28, 28):
        right = f"{len(labels)} x 28 x 28, as there are {len(labels)} labels"
        raise ValueError(f"{part} images in {folder} are {_sizes(images.shape)}, not {right}; replace the files")
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
    right = bytes([0, 0, 8, dimensions])
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            magic = file.read(4)
            shape = [int.from_bytes(file.read(4), "big") for _ in range(dimensions)]
            size = math.prod(shape)
            values = file.read(size + 1 if size <= LARGEST else 0)
        if magic != right or len(values) != size or not size:
            found = "more" if len(values) > size else len(values)
            raise ValueError(  # noqa: TRY301
                f"it starts with {magic.hex() or 'nothing'}, where {right.hex()} is right, and has {found} values, "
                f"where its header says {_sizes(shape)}"
            )
    except (ValueError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is truncated or bit-flipped ({error}); replace it by a good copy") from error
    return torch.frombuffer(bytearray(values), dtype=torch.uint8).view(shape)


def _sizes(shape: Iterable[int]) -> str:
    return " x ".join(map(str, shape))
