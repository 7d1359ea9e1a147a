"""What a recipe says about its data."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field

from tracegrad.lab.values import NotNegative, Section, options_of

Own = TypeVar("Own")
FETCHED = "set data.root to their folder (with data.download true they are fetched into it)"


@dataclass(frozen=True)
class DataOptions(Section):
    """The data set and how its training images are augmented.

    Args:
        name: the data set: digits, fashion-mnist, cifar10, cifar100, folder for images of one's own, moving,
            n-mnist, cifar10-dvs, dvs128-gesture or shd.
        root: the folder that holds the data set's files; digits need none.
        download: fetch the files into root if they are not there yet; they are checked by digest.
        train_size: train on a fixed subset of this many images that keeps the shares of the classes; all by default.
        crop_padding: pad each training image with this many black pixels on every side and crop it back at random.
        flip: mirror every second training image, on average, left to right.
        cutmix: alpha of CutMix's Beta(alpha, alpha) distribution; 0 turns CutMix off, 1 is the usual choice.
        cutmix_until: the epoch, counted from 0, from which CutMix stops; never by default.
        options: further options of the data set by name, such as frames of a recording.

    Raises:
        ValueError: a number is out of its range.
    """

    name: str = "digits"
    root: str | None = None
    download: bool = False
    train_size: int | None = None
    crop_padding: Annotated[int, Field(ge=0)] = 0
    flip: bool = False
    cutmix: NotNegative = 0.0
    cutmix_until: Annotated[int, Field(ge=0)] | None = None
    options: dict[str, Any] = field(default_factory=dict[str, Any], hash=False)


def root_of(options: DataOptions, right: str = FETCHED) -> Path:
    """The folder that holds a data set's files.

    Args:
        options: name it.
        right: what would be right where they do not.

    Raises:
        FileNotFoundError: they do not.
    """
    if options.root is None:
        raise FileNotFoundError(f"{options.name} needs its files: {right}")
    return Path(options.root).expanduser()


def own_options(kind: type[Own], options: DataOptions) -> Own:
    """The options of a data set itself.

    Args:
        kind: a dataclass of them, whose types and ranges pydantic checks.
        options: with these options by name.

    Raises:
        ValueError: an option that the data set does not have, or a value that does not fit.
    """
    return kind(**options_of(kind, options.options, f"data.options; {options.name}"))
