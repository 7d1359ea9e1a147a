import pytest

from tracegrad.cli import main
from tracegrad.lab.data import DATASETS, DataOptions, load


def test_the_known_data_sets():
    assert list(DATASETS) == [
        "cifar10",
        "cifar10-dvs",
        "cifar100",
        "digits",
        "dvs128-gesture",
        "fashion-mnist",
        "folder",
        "moving",
        "n-mnist",
        "shd",
    ]


def test_an_unknown_data_set_lists_the_known_ones():
    with pytest.raises(
        ValueError,
        match=r"^unknown data set 'cifar'; the known ones are 'cifar10', 'cifar10-dvs', 'cifar100', 'digits'",
    ):
        load(DataOptions(name="cifar"))


def test_the_command_line_explains_every_option(capsys):
    assert main(["train", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "fixed subset of this many images" in text
    assert "the epoch, counted from 0, from which CutMix stops" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop_padding": -1}, "^data.crop_padding must be .* 0, not -1$"),
        ({"cutmix": -0.5}, "^data.cutmix must be .* 0, not -0.5$"),
        ({"cutmix": float("nan")}, "^data.cutmix must be a finite number, not nan$"),
        ({"cutmix_until": -3}, "^data.cutmix_until must be .* 0, not -3$"),
    ],
)
def test_numbers_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DataOptions(**options)
