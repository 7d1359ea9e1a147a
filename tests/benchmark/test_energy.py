import pytest
from tracegrad_benchmark import energy
from tracegrad_benchmark.sections import measurable


@pytest.fixture
def counter(tmp_path, monkeypatch):
    """A package that has used 5 J, beside a domain that is no package and one that may not be read."""
    for name, domain in {"package-0": "intel-rapl:0", "core": "intel-rapl:0:0", "package-1": "intel-rapl:1"}.items():
        folder = tmp_path / domain
        folder.mkdir()
        (folder / "name").write_text(f"{name}\n")
        (folder / "max_energy_range_uj").write_text("10000000\n")
        if name != "package-1":
            (folder / "energy_uj").write_text("5000000\n")
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)
    return tmp_path / "intel-rapl:0" / "energy_uj"


def test_joules_of_a_call(counter):
    def work():
        counter.write_text(f"{int(counter.read_text()) + 2_000_000}\n")

    assert energy.joules(work, least_seconds=0) == pytest.approx(2)


def test_a_counter_that_begins_anew(counter):
    assert energy.joules(lambda: counter.write_text("1000000\n"), least_seconds=0) == pytest.approx(6)


def test_where_the_machine_does_not_tell_nothing_is_claimed(tmp_path, monkeypatch, counter):
    assert "energy" in measurable("cpu")
    monkeypatch.setattr(energy, "POWERCAP", tmp_path / "none")
    assert "energy" not in measurable("cpu")
    with pytest.raises(ValueError, match="no energy counter of a package can be read in .*none; leave 'energy' out"):
        energy.joules(lambda: None)
