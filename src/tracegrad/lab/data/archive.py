"""Published archives of data: found or downloaded, checked by digest, unpacked."""

import hashlib
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torchvision.datasets.utils import download_url

from tracegrad.lab.files import write

BAD = "is truncated or bit-flipped: its digest is not the published one"


@dataclass(frozen=True)
class Archive:
    """An archive, and what is in it; digests are SHA-256 or MD5, whichever was published.

    Args:
        url: of the archive.
        digest: of the archive.
        folder: of the files in it.
        train: names of the files of the training part, in their order, and the digest of each.
        test: likewise.
    """

    url: str
    digest: str
    folder: str
    train: Mapping[str, str]
    test: Mapping[str, str]

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
        files, archive = {**self.train, **self.test}, root / self.filename
        if not all(_is_whole(root / self.folder / name, digest) for name, digest in files.items()):
            if download and not _is_whole(archive, self.digest):
                try:
                    download_url(self.url, root, self.filename)
                except (OSError, RuntimeError) as error:
                    reason = " ".join(str(error).split())
                    raise OSError(f"cannot get {self.filename} from {self.url} into {root}: {reason}") from error
            if archive.is_file():
                self._unpack(archive, files)
            self._check(root, files)

    def read(self, root: Path, names: Iterable[str]) -> bytes:
        """The content of some of the files, one after the other.

        Raises:
            FileNotFoundError: a file is missing.
            ValueError: a file is truncated or bit-flipped.
        """
        known = {**self.train, **self.test}
        self._check(root, {name: known[name] for name in names})
        return b"".join((root / self.folder / name).read_bytes() for name in names)

    def _check(self, root: Path, files: Mapping[str, str]) -> None:
        for name, digest in files.items():
            path = root / self.folder / name
            if not path.is_file():
                advice = f"put {self.filename} there, or set data.download to true"
                raise FileNotFoundError(f"no {self.folder}/{name} in {root}: {advice}")
            if not _is_whole(path, digest):
                raise ValueError(f"{path} {BAD}; unpack it again")

    def _unpack(self, archive: Path, names: Iterable[str]) -> None:
        """Takes the files out of the archive that are known by name, and nothing else."""
        if not _is_whole(archive, self.digest):
            raise ValueError(f"{archive} {BAD}; fetch it again")
        with tarfile.open(archive) as content:
            for name in names:
                member = content.extractfile(f"{self.folder}/{name}")
                assert member  # noqa: S101 - its digest is the published one
                write(archive.parent / self.folder / name, member.read())


def _is_whole(path: Path, digest: str) -> bool:
    """Whether a file is there with the published digest, a SHA-256 or an MD5."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256" if len(digest) == 64 else "md5").hexdigest() == digest
