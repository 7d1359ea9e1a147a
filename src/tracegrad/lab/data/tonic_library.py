"""The library tonic, imported where it is used: the extra `event-data`."""

from importlib import import_module
from pathlib import Path
from typing import Any


def tonic_module(name: str) -> Any:
    """The module `tonic.NAME`.

    Raises:
        ImportError: tonic is not installed.
    """
    try:
        return import_module(f"tonic.{name}")
    except ImportError as error:
        raise ImportError(f"data of event cameras need tonic ({error}): pip install 'tracegrad[event-data]'") from error


def provide(source: Any, part: str, root: Path, inside: str, download: bool) -> Path:
    """The folder of a data set's files: `root/NAME`, NAME being the class's, as tonic has it, or `root`.

    Args:
        source: tonic's class, which knows address and digest of the archive.
        part: "train_", "test_" or "", with which these names begin.
        root: `data.root`.
        inside: a file or folder that is there once the archive is unpacked.
        download: fetch the archive if it is not there yet, check its digest, and unpack it.

    Raises:
        FileNotFoundError: there is no such file or folder.
        OSError: the download failed, or its digest is wrong.
    """
    for folder in (root / source.__name__, root):
        if (folder / inside).exists():
            return folder
    if not download:
        raise FileNotFoundError(
            f"no {inside} in {root} or {root / source.__name__}: set data.root to its folder, or data.download to true"
        )
    folder, filename = root / source.__name__, getattr(source, f"{part}filename", None) or getattr(source, f"{part}zip")
    address = getattr(source, f"{part}url", None) or source.base_url + filename
    digest = getattr(source, f"{part}md5", None) or source.file_md5
    archives = tonic_module("download_utils")
    try:
        archives.download_and_extract_archive(address, folder, filename=filename, md5=digest)
        for inner in getattr(source, "data_filename", ()):  # archives in the archive
            archives.extract_archive(str(folder / inner))
    except (OSError, RuntimeError) as error:
        raise OSError(f"cannot get {filename} from {address} into {folder}: {error}") from error
    return folder
