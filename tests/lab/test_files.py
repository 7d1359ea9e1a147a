import os
from pathlib import Path

import pytest

from tracegrad.lab.files import sweep, write


def test_writes_text_and_bytes_into_new_folders(tmp_path):
    write(tmp_path / "a" / "text", "ü")
    write(tmp_path / "a" / "bytes", b"\x00")
    assert (tmp_path / "a" / "text").read_text(encoding="utf-8") == "ü"
    assert (tmp_path / "a" / "bytes").read_bytes() == b"\x00"
    assert len(list((tmp_path / "a").iterdir())) == 2


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    write(tmp_path / "file", "old")
    with pytest.raises(UnicodeEncodeError):
        write(tmp_path / "file", "\udc80")
    assert (tmp_path / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_error_names_the_file(tmp_path):
    write(tmp_path / "file", "")
    with pytest.raises(OSError, match=r"^cannot write .*/file/below: (Not a directory|File exists)$"):
        write(tmp_path / "file" / "below", "")


def test_what_a_killed_write_left_is_swept_and_nothing_else(tmp_path):
    for name in (".last.ckpt.tracegrad-123", "a/.metrics.csv.tracegrad-45", ".mine", "file.7", ".env.1"):
        write(tmp_path / name, "")
    (tmp_path / ".link.tracegrad-1").symlink_to("file.7")
    (tmp_path / ".folder.tracegrad-2").mkdir()
    sweep(tmp_path)
    assert {path.name for path in tmp_path.rglob("*")} == {
        "a",
        ".mine",
        "file.7",
        ".env.1",
        ".link.tracegrad-1",
        ".folder.tracegrad-2",
    }


def test_what_is_no_regular_file_is_refused_and_links_are_followed(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(OSError, match=f"cannot write .*{name}: there is something that is no regular file"):
            write(tmp_path / name, "new")
    with pytest.raises(OSError, match="cannot write /dev/null: there is something that is no regular file"):
        write(Path("/dev/null"), "new")
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to("target")
    write(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "new"
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(OSError, match="cannot write .*circle"):
        write(tmp_path / "circle", "new")


def test_what_was_there_is_kept_where_asked(tmp_path):
    write(tmp_path / "file", "old", keep=tmp_path / "kept")
    assert not (tmp_path / "kept").exists()
    write(tmp_path / "file", "new", keep=tmp_path / "kept")
    assert ((tmp_path / "file").read_text(), (tmp_path / "kept").read_text()) == ("new", "old")
