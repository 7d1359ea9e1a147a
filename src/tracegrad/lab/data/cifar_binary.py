"""The official binary version of CIFAR-10: plain bytes, so that nothing is ever unpickled."""

import hashlib
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torchvision.datasets.utils import download_url

from tracegrad.lab.data.dataset import Split
from tracegrad.lab.files import write

PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class BinaryCifar:
    """A published archive, and what is in it: files of images, each a byte for the label, then its planes.

    Args:
        url: of the archive.
        sha256: of the archive.
        folder: of the files in it.
        train: names of the files with training images, in their order, and the SHA-256 of each.
        test: likewise.
        classes: by label.
    """

    url: str
    sha256: str
    folder: str
    train: Mapping[str, str]
    test: Mapping[str, str]
    classes: tuple[str, ...]

    @property
    def filename(self) -> str:
        """Of the archive."""
        return self.url.rpartition("/")[2]

    def is_in(self, root: Path) -> bool:
        """Whether the archive or its folder is there."""
        return (root / self.filename).is_file() or (root / self.folder).is_dir()

    def provide(self, root: Path, download: bool) -> None:
        """Sees to it that every file is there with its digest: unpacks the archive, or downloads it when asked.

        Raises:
            FileNotFoundError: a file is missing, and there is no archive.
            OSError: the download failed.
            ValueError: archive or file is truncated or bit-flipped.
        """
        if all(_digest(path) == digest for path, digest in self._files(root)):
            return
        archive = root / self.filename
        if download and _digest(archive) != self.sha256:
            try:
                download_url(self.url, root, self.filename)
            except (OSError, RuntimeError) as error:
                reason = " ".join(str(error).split())
                raise OSError(f"cannot get {self.filename} from {self.url} into {root}: {reason}") from error
        if archive.is_file():
            self._unpack(archive, root)
        for path, digest in self._files(root):
            if not path.is_file():
                advice = f"put {self.filename} there, or set data.download to true"
                raise FileNotFoundError(f"no {path.relative_to(root)} in {root}: {advice}")
            if _digest(path) != digest:
                raise ValueError(f"{path} {_BAD}; unpack it again")

    def read(self, root: Path, train: bool) -> Split:
        """Images and labels of a part, in the order of the Python version.

        Raises:
            ValueError: a file is not what `provide` found.
        """
        parts: list[Tensor] = []
        for name, digest in (self.train if train else self.test).items():
            content = (root / self.folder / name).read_bytes()
            if hashlib.sha256(content).hexdigest() != digest:
                raise ValueError(f"{root / self.folder / name} {_BAD}; unpack it again")
            parts.append(torch.frombuffer(bytearray(content), dtype=torch.uint8).view(-1, 1 + PIXELS))
        images = torch.cat(parts)
        return Split(images[:, 1:].reshape(-1, 3, 32, 32), images[:, 0].long())

    def _files(self, root: Path) -> list[tuple[Path, str]]:
        return [(root / self.folder / name, digest) for name, digest in (*self.train.items(), *self.test.items())]

    def _unpack(self, archive: Path, root: Path) -> None:
        """Takes the files out of the archive that are known by name, and nothing else."""
        if _digest(archive) != self.sha256:
            raise ValueError(f"{archive} {_BAD}; fetch it again")
        with tarfile.open(archive) as files:
            for path, _ in self._files(root):
                member = files.extractfile(f"{self.folder}/{path.name}")
                assert member  # noqa: S101 - its digest is the published one
                write(path, member.read())


_BAD = "is truncated or bit-flipped: its digest is not the published one"


def _digest(path: Path) -> str | None:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


CIFAR10_BINARY = BinaryCifar(
    url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    folder="cifar-10-batches-bin",
    train={
        "data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
        "data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
        "data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
        "data_batch_4.bin": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
        "data_batch_5.bin": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    },
    test={"test_batch.bin": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b"},
    classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
)
