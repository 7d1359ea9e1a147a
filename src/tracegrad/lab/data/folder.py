"""Images of one's own, one folder per class."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tracegrad.lab.data.dataset import Dataset, Split
from tracegrad.lab.data.options import DataOptions
from tracegrad.lab.data.splits import split_dataset

SUFFIXES = {".png", ".jpg", ".jpeg"}
FORMATS = ("PNG", "JPEG")  # Pillow would start foreign programs for others, whatever a file is called
MOST_PIXELS = 2**24  # of an image
GREY_MODES = {"1", "L", "LA"}
COLOUR_MODES = {"P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"}
WHAT = "the folder that holds one folder of images per class"


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
    if options.root is None:
        raise FileNotFoundError(f"the data set 'folder' needs data.root: {WHAT}")
    root = Path(options.root).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {root}: set data.root to {WHAT}")
    separate = (root / "train").is_dir() or (root / "test").is_dir()
    parts = [_scan(root / name) for name in ("train", "test")] if separate else [_scan(root)]
    mode = _common_mode([path for part in parts for path in part.paths])
    images, *tests = (replace(part, mode=mode) for part in parts)
    if not tests:
        return split_dataset(options, images.labels, images.take, images.classes, test=len(images.paths) // 10)
    test = tests[0]
    if odd := sorted({*images.classes} ^ {*test.classes}):
        raise ValueError(f"class {odd[0]!r} is not in both {root / 'train'} and {root / 'test'}; both need every class")
    return split_dataset(
        options, images.labels, images.take, images.classes, lambda: test.take(torch.arange(len(test.paths)))
    )


@dataclass(frozen=True, eq=False)
class _Images:
    """Images that are read when they are taken, in Pillow's mode "L" or "RGB"."""

    classes: tuple[str, ...]
    paths: list[Path]
    labels: Tensor
    mode: str = "RGB"

    def take(self, indices: Tensor) -> Split:
        read = [_read(self.paths[index], self.mode) for index in indices.tolist()]
        return Split(torch.stack(read), self.labels[indices])


def _scan(folder: Path) -> _Images:
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}: a data set with train or test needs both")
    classes = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not classes:
        raise FileNotFoundError(f"no folders in {folder}: it must hold one folder of images per class")
    paths: list[Path] = []
    labels: list[int] = []
    for label, each in enumerate(classes):
        images = sorted(path for path in each.iterdir() if path.suffix.lower() in SUFFIXES)
        if odd := next((path for path in images if not path.is_file()), None):
            raise ValueError(f"{odd} is no regular file; replace or remove it")
        if not images:
            raise ValueError(f"class {each.name!r} is empty: no .png or .jpg images in {each}")
        paths += images
        labels += [label] * len(images)
    return _Images(tuple(each.name for each in classes), paths, torch.tensor(labels))


def _common_mode(paths: list[Path]) -> str:
    """Reads the files' headers only: "L" if every image is grey, else "RGB"."""
    modes: set[str] = set()
    first: tuple[Path, str] | None = None
    for path in paths:
        try:
            with Image.open(path, formats=FORMATS) as image:
                (width, height), mode = image.size, image.mode
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise ValueError(f"{path} is no readable PNG or JPEG ({error}); replace or remove it") from error
        size = f"{width} x {height}"
        if not 1 < min(width, height) <= width * height <= MOST_PIXELS:
            raise ValueError(f"{path} is {size} pixels; images have 2 x 2 to {MOST_PIXELS:,} of them")
        if mode not in GREY_MODES | COLOUR_MODES:
            raise ValueError(f"{path} has pixels of mode {mode!r}; convert it to 8 bits, grey or RGB")
        first = first or (path, size)
        if size != first[1]:
            raise ValueError(f"{path} is {size} pixels, but {first[0]} is {first[1]}; all images must have one size")
        modes.add(mode)
    return "L" if modes <= GREY_MODES else "RGB"


def _read(path: Path, mode: str) -> Tensor:
    try:
        with Image.open(path, formats=FORMATS) as image:
            pixels = np.array(image.convert(mode))
    except (OSError, SyntaxError) as error:  # Pillow raises SyntaxError for a broken PNG
        raise ValueError(f"{path} is truncated or bit-flipped ({error}); replace or remove it") from error
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1)
