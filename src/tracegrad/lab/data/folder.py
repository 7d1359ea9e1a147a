"""Images of one's own, one folder per class."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tracegrad.lab.data.dataset import Dataset, Split, pixel_statistics
from tracegrad.lab.data.options import DataOptions
from tracegrad.lab.data.splits import first_images, stratified_pieces

SUFFIXES = {".png", ".jpg", ".jpeg"}
FORMATS = ("PNG", "JPEG")  # Pillow would start foreign programs for others, whatever a file is called
MOST_PIXELS = 2**24  # of an image
GREY_MODES = {"1", "L", "LA"}
COLOUR_MODES = {"P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"}


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
        raise FileNotFoundError(
            "the data set 'folder' needs data.root: the folder that holds one folder of images per class"
        )
    root = Path(options.root).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(
            f"no folder {root}: set data.root to the folder that holds one folder of images per class"
        )
    separate = (root / "train").is_dir() or (root / "test").is_dir()
    files = _Files.scan(root / "train" if separate else root)
    tenth = len(files.paths) // 10
    if separate:
        test_files = _Files.scan(root / "test")
        if test_files.classes != files.classes:
            odd = sorted(set(test_files.classes) ^ set(files.classes))[0]
            raise ValueError(
                f"class {odd!r} is not in both {root / 'train'} and {root / 'test'}; both need every class"
            )
        validation, train = stratified_pieces(files.labels, tenth)
    else:
        test, validation, train = stratified_pieces(files.labels, tenth, tenth)
        test_files = files.take(test)
    mode = _common_mode([*files.paths, *test_files.paths])
    training = files.take(first_images(train, options.train_size, len(files.classes))).read(mode)
    mean, std = pixel_statistics(training)
    return Dataset(
        name=options.name,
        train=training,
        validation=files.take(validation).read(mode),
        read_test=lambda: test_files.read(mode),
        classes=files.classes,
        mean=mean,
        std=std,
    )


@dataclass(frozen=True, eq=False)
class _Files:
    """Paths of images and their labels."""

    paths: list[Path]
    labels: torch.Tensor
    classes: tuple[str, ...]

    @classmethod
    def scan(cls, folder: Path) -> "_Files":
        if not folder.is_dir():
            raise FileNotFoundError(f"no folder {folder}: a data set with train or test needs both")
        class_folders = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        if not class_folders:
            raise FileNotFoundError(f"no folders in {folder}: it must hold one folder of images per class")
        paths: list[Path] = []
        labels: list[int] = []
        for label, class_folder in enumerate(class_folders):
            images = sorted(path for path in class_folder.iterdir() if path.suffix.lower() in SUFFIXES)
            odd = next((path for path in images if not path.is_file()), None)
            if odd:
                raise ValueError(f"{odd} is no regular file; replace or remove it")
            if not images:
                raise ValueError(f"class {class_folder.name!r} is empty: no .png or .jpg images in {class_folder}")
            paths += images
            labels += [label] * len(images)
        return cls(paths, torch.tensor(labels), tuple(path.name for path in class_folders))

    def take(self, indices: torch.Tensor) -> "_Files":
        return _Files([self.paths[index] for index in indices.tolist()], self.labels[indices], self.classes)

    def read(self, mode: str) -> Split:
        return Split(torch.stack([_read_image(path, mode) for path in self.paths]), self.labels)


def _common_mode(paths: list[Path]) -> str:
    """Reads the files' headers only: "L" if every image is grey, else "RGB"."""
    sizes: dict[Path, tuple[int, int]] = {}
    grey = True
    for path in paths:
        try:
            with Image.open(path, formats=FORMATS) as image:
                sizes[path], image_mode = image.size, image.mode
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise ValueError(f"{path} is no readable PNG or JPEG ({error}); replace or remove it") from error
        if not 1 < min(sizes[path]) <= sizes[path][0] * sizes[path][1] <= MOST_PIXELS:
            size = "{} x {}".format(*sizes[path])
            raise ValueError(f"{path} is {size} pixels; images have 2 x 2 to {MOST_PIXELS:,} of them")
        if image_mode not in GREY_MODES | COLOUR_MODES:
            raise ValueError(f"{path} has pixels of mode {image_mode!r}; convert it to 8 bits, grey or RGB")
        if sizes[path] != sizes[paths[0]]:
            one, other = ("{} x {}".format(*sizes[p]) for p in (path, paths[0]))
            raise ValueError(f"{path} is {one} pixels, but {paths[0]} is {other}; all images must have one size")
        grey = grey and image_mode in GREY_MODES
    return "L" if grey else "RGB"


def _read_image(path: Path, mode: str) -> torch.Tensor:
    try:
        with Image.open(path, formats=FORMATS) as image:
            pixels = np.array(image.convert(mode))
    except (OSError, SyntaxError) as error:  # Pillow raises SyntaxError for a broken PNG
        raise ValueError(f"{path} is truncated or bit-flipped ({error}); replace or remove it") from error
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1)
