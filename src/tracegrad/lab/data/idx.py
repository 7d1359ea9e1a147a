"""Reader of the IDX format, in which MNIST and its successors are published."""

import gzip
import math
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import torch
from torch import Tensor

UNSIGNED_BYTE = 0x08
LARGEST = 2**31  # bytes: more than any data set in this format
CHUNK = 2**20


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
    content = bytearray()
    shape = _read(folder, name, dimensions, content)
    return torch.frombuffer(content, dtype=torch.uint8).view(shape)


def check_idx(folder: Path, name: str, dimensions: int) -> list[int]:
    """The shape that `read_idx` would give, after all of its checks; keeps nothing of the values."""
    return _read(folder, name, dimensions, None)


def _read(folder: Path, name: str, dimensions: int, content: bytearray | None) -> list[int]:
    path = next((path for path in (folder / f"{name}.gz", folder / name) if path.is_file()), None)
    if path is None:
        raise FileNotFoundError(f"no {name}.gz and no {name} in {folder}")
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return _parse(cast(BinaryIO, file), path, dimensions, content)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is truncated or bit-flipped ({error}); replace it by a good copy") from error


def _parse(file: BinaryIO, path: Path, dimensions: int, content: bytearray | None) -> list[int]:
    magic = bytes([0, 0, UNSIGNED_BYTE, dimensions])
    found = file.read(4)
    if found != magic:
        expected = f"IDX data of bytes in {dimensions} dimensions start with {magic.hex()}"
        raise ValueError(f"{path} starts with {found.hex() or 'nothing'}, but {expected}; replace it by a good copy")
    shape = [int.from_bytes(file.read(4), "big") for _ in range(dimensions)]
    size, there = math.prod(shape), 0
    while there <= size <= LARGEST and (chunk := file.read(CHUNK)):
        there += len(chunk)
        if content is not None:
            content += chunk
    if there != size or not size:
        said = " x ".join(map(str, shape))
        more = "more" if there > size else f"{there}"
        raise ValueError(f"{path} is truncated or bit-flipped: {more} values, but its header says {said}")
    return shape
