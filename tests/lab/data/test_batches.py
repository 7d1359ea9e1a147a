import time

import pytest
import torch

from tracegrad.lab.data import Batches, DataOptions, Dataset, Split

EVERYTHING = DataOptions(crop_padding=2, flip=True, cutmix=1.0)


def numbered(count=50, channels=3, size=8):
    """Images with random pixels, but for the first, which is the image's number."""
    images = torch.randint(256, (count, channels, size, size), dtype=torch.uint8)
    images[:, :, 0, 0] = torch.arange(count, dtype=torch.uint8)[:, None]
    return Split(images, torch.arange(count) % 5)


def batches(split, batch_size=8, seed=3, channels=3, **settings):
    dataset = Dataset("x", split, split, lambda: split, tuple("abcde"), (10.0,) * channels, (4.0,) * channels)
    return Batches(split, batch_size, dataset=dataset, seed=seed, **settings)


def equal(one, other):
    return len(one) == len(other) and all(
        torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(one, other, strict=True)
    )


def test_without_options_a_batch_is_the_normalised_images_in_order():
    split = numbered()
    seen = list(batches(split))
    assert [len(images) for images, _ in seen] == [8] * 6 + [2]
    images, labels = (torch.cat(parts) for parts in zip(*seen, strict=True))
    torch.testing.assert_close(images, (split.images.float() - 10) / 4)
    assert images.dtype == torch.float32
    assert torch.equal(labels, split.labels)


def test_floating_point_images_are_normalised_and_left_unchanged():
    pixels = torch.rand(10, 1, 4, 4, dtype=torch.float32)
    split = Split(pixels.clone(), torch.arange(10) % 5)
    (images, _), *_ = batches(split, 10, channels=1)
    torch.testing.assert_close(images, (pixels - 10) / 4)
    assert torch.equal(split.images, pixels)


def test_every_epoch_shuffles_anew_and_holds_every_image_once():
    shuffled = batches(numbered(), shuffle=True)
    orders = []
    for epoch in (0, 1):
        shuffled.set_epoch(epoch)
        numbers = torch.cat([images[:, 0, 0, 0] for images, _ in shuffled]) * 4 + 10
        orders.append(numbers.tolist())
        assert sorted(orders[-1]) == list(range(50))
    assert orders[0] != orders[1]


def test_any_epoch_is_replayed_alone_to_the_bit():
    split = numbered()
    run = batches(split, options=EVERYTHING, shuffle=True)
    epochs = []
    for epoch in range(4):
        run.set_epoch(epoch)
        epochs.append(list(run))
    torch.manual_seed(99)
    state = torch.get_rng_state()
    alone = batches(split, options=EVERYTHING, shuffle=True)
    alone.set_epoch(2)
    assert equal(list(alone), epochs[2])
    assert torch.equal(state, torch.get_rng_state())
    assert not equal(epochs[1], epochs[2])
    assert not equal(list(batches(split, seed=4, options=EVERYTHING, shuffle=True)), epochs[0])


def test_a_batch_does_not_depend_on_how_many_were_taken_before_it():
    split = numbered()
    run = batches(split, options=EVERYTHING, shuffle=True)
    next(iter(run))
    assert equal(list(run), list(batches(split, options=EVERYTHING, shuffle=True)))


def test_augmentation_varies_with_position():
    split = Split(torch.randint(256, (1, 3, 8, 8), dtype=torch.uint8).expand(64, -1, -1, -1), torch.arange(64) % 5)
    first, *others = (images for images, _ in batches(split, options=DataOptions(crop_padding=2, flip=True)))
    assert not any(torch.equal(first, other) for other in others)


def test_cutmix_yields_probabilities_and_stops_at_its_epoch():
    run = batches(numbered(), options=DataOptions(cutmix=1.0, cutmix_until=2), shuffle=True)
    for epoch, probabilities in ((0, True), (1, True), (2, False), (3, False)):
        run.set_epoch(epoch)
        for images, targets in run:
            assert targets.shape == ((len(images), 5) if probabilities else (len(images),))
            assert targets.dtype == (torch.float32 if probabilities else torch.int64)
            if probabilities:
                torch.testing.assert_close(targets.sum(1), torch.ones(len(images)))


def test_cutmix_without_an_end_never_stops():
    run = batches(numbered(), options=DataOptions(cutmix=0.5), shuffle=True)
    run.set_epoch(10_000)
    assert next(iter(run))[1].shape == (8, 5)


def test_crop_pads_with_black_before_normalisation():
    split = Split(torch.full((40, 3, 8, 8), 200, dtype=torch.uint8), torch.arange(40) % 5)
    values = torch.cat([images for images, _ in batches(split, options=DataOptions(crop_padding=3))]).unique()
    assert values.tolist() == [(0 - 10) / 4, (200 - 10) / 4]


@pytest.mark.parametrize(
    ("count", "shuffle", "sizes"),
    [
        (17, True, [8, 8]),
        (17, False, [8, 8, 1]),
        (18, True, [8, 8, 2]),
        (16, True, [8, 8]),
        (7, True, [7]),
    ],
)
def test_only_a_last_training_batch_of_one_image_is_left_out(count, shuffle, sizes):
    run = batches(numbered(count), shuffle=shuffle)
    assert len(run) == len(sizes)
    assert [len(images) for images, _ in run] == sizes


def test_augmented_batches_of_cifars_size_are_never_the_bottleneck():
    run = batches(numbered(100, size=32), 100, options=DataOptions(crop_padding=4, flip=True, cutmix=1.0), shuffle=True)
    start = time.process_time()
    for epoch in range(20):
        run.set_epoch(epoch)
        list(run)
    assert 100 * 20 / (time.process_time() - start) > 5000  # images per second; over 100,000 when nothing else runs


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "^batch_size is 0; it must be 1 or more$"),
        ({"seed": -1}, "^seed is -1; it must be 0 or more$"),
        ({"options": DataOptions(crop_padding=8)}, "^crop_padding is 8; it must be under the image's 8 pixels$"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        batches(numbered(), **settings)
