"""Reader of the IDX format, in which MNIST and its successors are published."""

import gzip
import math
import zlib
from pathlib import Path

import torch
from torch import Tensor

UNSIGNED_BYTE = 0x08


def read_idx(folder: Path, name: str, dimensions: int) -> Tensor:
    """Reads `folder/name.gz`, whose checksum is verified, or else `folder/name`.

    The format: two zero bytes, the type (8: unsigned byte), the number of dimensions, each dimension as a big-endian
    32-bit integer, the values.

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
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is truncated or bit-flipped ({error}); replace it by a good copy") from error
    return _parse(content, path, dimensions)


def _parse(content: bytes, path: Path, dimensions: int) -> Tensor:
    magic = bytes([0, 0, UNSIGNED_BYTE, dimensions])
    if content[:4] != magic:
        expected = f"IDX data of bytes in {dimensions} dimensions start with {magic.hex()}"
        raise ValueError(
            f"{path} starts with {content[:4].hex() or 'nothing'}, but {expected}; replace it by a good copy"
        )
    start = 4 + 4 * dimensions
    shape = [int.from_bytes(content[at : at + 4], "big") for at in range(4, start, 4)]
    values = content[start:]
    if len(values) != math.prod(shape) or not values:
        size = " x ".join(map(str, shape))
        raise ValueError(f"{path} is truncated or bit-flipped: {len(values)} values, but its header says {size}")
    return torch.frombuffer(bytearray(values), dtype=torch.uint8).view(shape)
