import pytest
import torch

from tracegrad.lab.data import Dataset, Split
from tracegrad.lab.data.dataset import pixel_statistics


def split(labels=(0, 1, 0, 1), channels=1, size=4):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (len(labels), channels, size, size), dtype=torch.uint8, generator=generator)
    return Split(images, torch.tensor(labels))


def dataset(train=None, validation=None, test=None, classes=("cat", "dog"), mean=(1.0,), std=(2.0,)):
    part = split()
    return Dataset("pets", train or part, validation or part, lambda: test or part, classes, mean, std)


def test_the_test_part_is_read_once_and_only_when_asked_for():
    reads = []

    def read():
        reads.append("test")
        return split()

    pets = Dataset("pets", split(), split(), read, ("cat", "dog"), (1.0,), (2.0,))
    assert (pets.channels, pets.image_size) == (1, (4, 4))
    assert reads == []
    assert pets.test is pets.test
    assert reads == ["test"]


@pytest.mark.parametrize("label", [2, -1])
@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_labels_out_of_range_are_refused(part, label):
    message = rf"^label {label} in the \w+ part of 'pets' is out of range; labels are 0 to 1$"
    with pytest.raises(ValueError, match=message):
        _ = dataset(**{part: split((0, 1, label))}).test


def test_images_of_another_shape_are_refused():
    with pytest.raises(
        ValueError, match=r"validation part of 'pets' are \[1, 5, 5\]; the training part has \[1, 4, 4\]"
    ):
        dataset(validation=split(size=5))


def test_a_class_without_training_images_is_refused():
    with pytest.raises(ValueError, match=r"^class 'dog' has no training image in 'pets'"):
        dataset(train=split((0, 0)))


def test_normalisation_of_another_number_of_channels_is_refused():
    with pytest.raises(ValueError, match=r"one value per channel, 1"):
        dataset(mean=(1.0, 2.0, 3.0))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_pixels_are_refused(value):
    images = torch.zeros(5, 1, 2, 2)
    images[3, 0, 1, 1] = value
    with pytest.raises(ValueError, match=r"^1 images hold NaN or infinite pixels, image 3 is the first$"):
        Split(images, torch.zeros(5, dtype=torch.int64))


@pytest.mark.parametrize(
    ("images", "labels", "error", "message"),
    [
        (
            torch.zeros(2, 1, 4, 4, dtype=torch.int32),
            torch.zeros(2, dtype=torch.int64),
            TypeError,
            "images are torch.int32",
        ),
        (torch.zeros(2, 1, 4, 4), torch.zeros(2), TypeError, "labels are torch.float32"),
        (torch.zeros(2, 4), torch.zeros(2, dtype=torch.int64), ValueError, r"must be \[N, C, H, W\], .*, and \[N\]"),
        (torch.zeros(2, 1, 4, 4), torch.zeros(3, dtype=torch.int64), ValueError, r"labels \[3\] do not fit"),
        (torch.zeros(0, 1, 4, 4), torch.zeros(0, dtype=torch.int64), ValueError, "none of them 0"),
    ],
)
def test_a_split_of_other_types_or_shapes_is_refused(images, labels, error, message):
    with pytest.raises(error, match=message):
        Split(images, labels)


def test_pixel_statistics_are_those_of_each_channel():
    images = split(labels=(0,) * 20, channels=3).images
    mean, std = pixel_statistics(Split(images, torch.zeros(20, dtype=torch.int64)))
    for channel in range(3):
        pixels = images[:, channel].double()
        assert mean[channel] == pytest.approx(float(pixels.mean()))
        assert std[channel] == pytest.approx(float(((pixels - pixels.mean()) ** 2).mean().sqrt()))


def test_a_constant_channel_is_refused():
    with pytest.raises(ValueError, match=r"^channel 0 is 7 in every training image"):
        pixel_statistics(Split(torch.full((3, 1, 2, 2), 7, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64)))
