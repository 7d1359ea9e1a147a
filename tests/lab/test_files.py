import pytest

from tracegrad.lab.files import write


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
