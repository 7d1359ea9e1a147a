"""Fashion-MNIST: 70,000 grey images of 28 x 28 pixels in ten classes, in IDX files."""

from pathlib import Path

from torchvision.datasets import FashionMNIST

from tracegrad.lab.data.dataset import Dataset, Split
from tracegrad.lab.data.idx import check_idx, read_idx
from tracegrad.lab.data.options import DataOptions
from tracegrad.lab.data.splits import first_images, stratified_pieces

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")  # where Debian's package dataset-fashion-mnist puts it
MEAN, STD = 0.2860 * 255, 0.3530 * 255  # of the 60,000 training images


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
    _check(folder, "t10k")  # after all training would be late
    training = _read(folder, "train")
    validation, train = stratified_pieces(training.labels, len(training) // 10)
    return Dataset(
        name=options.name,
        train=training.take(first_images(train, options.train_size, classes=10)),
        validation=training.take(validation),
        read_test=lambda: _read(folder, "t10k"),
        classes=tuple(source.classes),
        mean=(MEAN,),
        std=(STD,),
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


def _check(folder: Path, part: str) -> None:
    """Checks the files of a part, without keeping its images."""
    images = check_idx(folder, f"{part}-images-idx3-ubyte", dimensions=3)
    labels = check_idx(folder, f"{part}-labels-idx1-ubyte", dimensions=1)
    if images[0] != labels[0]:
        raise ValueError(f"{folder} has {images[0]} {part} images but {labels[0]} labels; replace the files")
    if images[1:] != [28, 28]:
        raise ValueError(f"{part} images in {folder} are {images[1]} x {images[2]}, not 28 x 28; replace the files")


def _read(folder: Path, part: str) -> Split:
    _check(folder, part)
    images = read_idx(folder, f"{part}-images-idx3-ubyte", dimensions=3)
    labels = read_idx(folder, f"{part}-labels-idx1-ubyte", dimensions=1)
    return Split(images[:, None], labels.long())
