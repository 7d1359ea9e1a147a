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
    for name in (".last.ckpt.123", "a/.metrics.csv.45", ".mine", "file.7"):
        write(tmp_path / name, "")
    sweep(tmp_path)
    assert {path.name for path in tmp_path.rglob("*")} == {"a", ".mine", "file.7"}
