"""Images of one's own, one folder per class."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from tracegrad.lab.data.dataset import Dataset, Split
from tracegrad.lab.data.options import DataOptions, root_of
from tracegrad.lab.data.splits import split_dataset

SUFFIXES = {".png", ".jpg", ".jpeg"}
FORMATS = ("PNG", "JPEG")  # Pillow would start foreign programs for others, whatever a file is called
MOST_PIXELS = 2**24  # of an image
GREY_MODES = {"1", "L", "LA"}
COLOUR_MODES = {"P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"}
RIGHT = "set data.root to the folder that holds one folder of images per class"


def load_folder(options: DataOptions) -> Dataset:
    """Reads `root/CLASS/*.png|jpg`, or `root/train/CLASS/...` and `root/test/CLASS/...`.

    Without folders `train` and `test`, a tenth of the images is the test part and a tenth the validation part; with
    them, a tenth of `train` is the validation part. Images are grey if every file is, else all are converted to
    RGB; transparency is dropped. Classes are numbered in the order of their names. Pixels are normalised by the
    statistics of the training part.

    Raises:
        FileNotFoundError: no root, no such folder, no classes in it, or only one of `train` and `test`.
        ValueError: a class without images, images of different sizes, a broken image, more than 8 bits per channel.
    """
    root = root_of(options, RIGHT)
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {root}: {RIGHT}")
    separate = (root / "train").is_dir() or (root / "test").is_dir()
    parts = [_scan(root / name) for name in ("train", "test")] if separate else [_scan(root)]
    mode = _common_mode([path for part in parts for path in part.paths])
    images, *tests = (replace(part, mode=mode) for part in parts)
    for test in tests:
        if odd := sorted({*images.classes} ^ {*test.classes}):
            both = f"{root / 'train'} and {root / 'test'}"
            raise ValueError(f"class {odd[0]!r} is not in both {both}; both need every class")
    read_test = (lambda: tests[0].take(torch.arange(len(tests[0].paths)))) if tests else len(images.paths) // 10
    return split_dataset(options, images.labels, images.take, images.classes, read_test)


@dataclass(frozen=True, eq=False)
class _Images:
    """Images that are read when they are taken, in Pillow's mode "L" or "RGB"."""

    classes: list[str]
    paths: list[Path]
    labels: Tensor
    mode: str = "RGB"

    def take(self, indices: Tensor) -> Split:
        return Split(torch.stack([self._read(self.paths[index]) for index in indices.tolist()]), self.labels[indices])

    def _read(self, path: Path) -> Tensor:
        with _opened(path) as image:
            return pil_to_tensor(image.convert(self.mode))


def _scan(folder: Path) -> _Images:
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}: a data set with train or test needs both")
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not classes:
        raise FileNotFoundError(f"no folders in {folder}: it must hold one folder of images per class")
    found = [sorted(path for path in (folder / name).iterdir() if path.suffix.lower() in SUFFIXES) for name in classes]
    for name, paths in zip(classes, found, strict=True):
        if not paths:
            raise ValueError(f"class {name!r} is empty: no .png or .jpg images in {folder / name}")
    labels = [label for label, paths in enumerate(found) for _ in paths]
    return _Images(classes, list(chain(*found)), torch.tensor(labels))


def _common_mode(paths: list[Path]) -> str:
    """Reads the files' headers only: "L" if every image is grey, else "RGB"."""
    modes: set[str] = set()
    sizes: dict[str, Path] = {}
    for path in paths:
        with _opened(path) as image:
            (width, height), mode = image.size, image.mode
        size = f"{width} x {height}"
        if not 1 < min(width, height) <= width * height <= MOST_PIXELS:
            raise ValueError(f"{path} is {size} pixels; images have 2 x 2 to {MOST_PIXELS:,} of them")
        if mode not in GREY_MODES | COLOUR_MODES:
            raise ValueError(f"{path} has pixels of mode {mode!r}; convert it to 8 bits, grey or RGB")
        sizes.setdefault(size, path)
        if len(sizes) > 1:
            other, first = next(iter(sizes.items()))
            raise ValueError(f"{path} is {size} pixels, but {first} is {other}; all images must have one size")
        modes.add(mode)
    return "L" if modes <= GREY_MODES else "RGB"


@contextmanager
def _opened(path: Path) -> Generator[Image.Image]:
    """An image, of which no more than the header has been read; says which one cannot be."""
    try:
        if not path.is_file():
            raise ValueError("it is no regular file")  # noqa: TRY301
        with Image.open(path, formats=FORMATS) as image:
            yield image
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is no readable PNG or JPEG ({error}); replace or remove it") from error
