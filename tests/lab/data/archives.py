"""Small data sets in the real ones' formats, for tests."""

import gzip
import hashlib
import pickle
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from torchvision.datasets import CIFAR10, CIFAR100

from tracegrad.lab.data.archive import Archive
from tracegrad.lab.data.cifar import CIFAR10_BINARY


def write_idx(path: Path, values: np.ndarray) -> None:
    """Writes bytes in the IDX format, compressed if the name ends in .gz."""
    header = bytes([0, 0, 8, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
    content = header + values.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def write_fashion_mnist(folder: Path, train: int = 200, test: int = 50, suffix: str = ".gz") -> Path:
    """Writes the four files of Fashion-MNIST with random pixels; the labels go round the ten classes."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for part, count in (("train", train), ("t10k", test)):
        write_idx(folder / f"{part}-images-idx3-ubyte{suffix}", rng.integers(0, 256, (count, 28, 28)))
        write_idx(folder / f"{part}-labels-idx1-ubyte{suffix}", np.arange(count) % 10)
    return folder


def write_cifar(
    root: Path, base: type[CIFAR10] = CIFAR10, train: int = 200, test: int = 50, labels: np.ndarray | None = None
) -> type[CIFAR10]:
    """Writes an archive in CIFAR's own format, protocol and module names of Python 2 included.

    Returns:
        A class like `base` that knows the digests of this archive.
    """
    folder = root / "packing" / base.base_folder
    folder.mkdir(parents=True)
    coarse = issubclass(base, CIFAR100)
    classes = 100 if coarse else 10
    rng = np.random.default_rng(0)

    def write(name: str, content: dict[str, object]) -> list[str]:
        pickled = pickle.dumps(content, protocol=2).replace(b"cnumpy._core.", b"cnumpy.core.")
        (folder / name).write_bytes(pickled)
        return [name, hashlib.md5(pickled).hexdigest()]

    def write_images(names: list[str], count: int) -> list[list[str]]:
        fine = np.arange(count) % classes if labels is None else labels
        pixels = rng.integers(0, 256, (count, 3072), dtype=np.uint8)
        key = "fine_labels" if coarse else "labels"
        pieces = zip(names, np.array_split(pixels, len(names)), np.array_split(fine, len(names)), strict=True)
        return [write(name, {"data": images, key: targets.tolist()}) for name, images, targets in pieces]

    train_list = write_images([name for name, _ in base.train_list], train)
    test_list = write_images([name for name, _ in base.test_list], test)
    names = [f"class {label}" for label in range(classes)]
    meta_name, meta_digest = write(base.meta["filename"], {base.meta["key"]: names})
    archive = root / base.filename
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, base.base_folder)
    return type(
        base.__name__,
        (base,),
        {
            "tgz_md5": hashlib.md5(archive.read_bytes()).hexdigest(),
            "train_list": train_list,
            "test_list": test_list,
            "meta": {**base.meta, "filename": meta_name, "md5": meta_digest},
        },
    )


def write_binary_cifar(root: Path, train: int = 200, test: int = 50, labels: np.ndarray | None = None) -> Archive:
    """Writes an archive in the format of CIFAR-10's binary version, with the images of `write_cifar`.

    Returns:
        What is known of this archive.
    """
    folder = root / "packing" / CIFAR10_BINARY.folder
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    digests: dict[str, dict[str, str]] = {}
    for part, names, count in (("train", CIFAR10_BINARY.train, train), ("test", CIFAR10_BINARY.test, test)):
        targets = np.arange(count) % 10 if labels is None else labels
        rows = np.hstack([targets[:, None].astype(np.uint8), rng.integers(0, 256, (count, 3072), dtype=np.uint8)])
        for name, piece in zip(names, np.array_split(rows, len(names)), strict=True):
            (folder / name).write_bytes(piece.tobytes())
            digests.setdefault(part, {})[name] = hashlib.sha256(piece.tobytes()).hexdigest()
    with tarfile.open(root / CIFAR10_BINARY.filename, "w:gz") as tar:
        tar.add(folder, CIFAR10_BINARY.folder)
        tar.add(__file__, "../elsewhere")
    shutil.rmtree(root / "packing")
    sha256 = hashlib.sha256((root / CIFAR10_BINARY.filename).read_bytes()).hexdigest()
    return replace(CIFAR10_BINARY, digest=sha256, **digests)


def flip_bit(path: Path, at: float = 0.5) -> None:
    """Flips one bit of a file, at this share of its length."""
    content = bytearray(path.read_bytes())
    content[int(at * len(content))] ^= 1
    path.write_bytes(content)


def truncate(path: Path, share: float = 0.5) -> None:
    """Keeps this share of a file's bytes."""
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
