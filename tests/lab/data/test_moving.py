import moving_checks
import pytest
import torch

from tracegrad.lab.data import Batches, DataOptions, load
from tracegrad.lab.data.moving import Moving, moved, twins


def moving(train_size=20, **options):
    return load(DataOptions("moving", train_size=train_size, options={"repeats": 1, **options}))


@pytest.fixture(scope="module")
def small():
    return moving(counts=True, repeats=2)


def test_what_it_is(small):
    assert small.train.images.shape == (80, 16, 2, 16, 16)
    assert (small.channels, small.image_size, small.time_steps) == (2, (16, 16), 16)
    assert small.classes == ("A-B-C", "C-B-A")
    assert small.train.labels.bincount().tolist() == [40, 40]
    assert small.validation.images.shape[0] == 4 * 180
    per_recording = small.train.images.float().sum((1, 2, 3, 4))
    assert per_recording.min() > 300
    assert per_recording.max() < 6000


def test_the_same_from_the_same_seeds(small):
    again, others = moving(counts=True, repeats=2), moving(counts=True)
    assert again.train.digest() == small.train.digest()
    assert again.validation.digest() == small.validation.digest()
    assert others.train.digest() != small.train.digest()


def test_twins_differ_in_the_order_of_visits_alone(small):
    forth, back = small.train.images.unflatten(1, (4, 4)).unflatten(0, (-1, 2)).unbind(1)
    assert torch.equal(forth, back.flip(1))
    assert not torch.equal(forth, back)


def test_the_first_and_the_last_visit_are_of_one_point_and_the_others_of_the_other_two():
    images = torch.zeros(60, 8, 8)
    images[:, 3:5, 3:5] = 1
    generator = torch.Generator().manual_seed(3)
    forth, _ = twins(images, Moving(), generator)
    angles = []
    for visit in range(4):
        during = (forth.t >= visit * 40_000 + 10_000) & (forth.t < visit * 40_000 + 30_000)
        x, y = ((where.double() - 7.5) * during for where in (forth.x, forth.y))
        mean_x, mean_y = (torch.zeros(60).double().index_add(0, forth.sample, where) for where in (x, y))
        angles.append((torch.atan2(mean_x, -mean_y) / (torch.pi * 2 / 3)).round().long() % 3)  # 0 is up: A
    first, second, third, last = angles
    agree = ((second - first) % 3 == 1) & ((third - first) % 3 == 2) & (last == first)
    assert agree.double().mean() > 0.9  # noise may turn one
    assert first.bincount(minlength=3).min() > 5


def test_shot_noise_adds_as_many_events_as_it_says():
    nothing_moves = torch.zeros(20, 8, 8)
    few, many = (
        len(next(twins(nothing_moves, Moving(shot_noise=rate), torch.Generator().manual_seed(0))).t)
        for rate in (0.0, 50.0)
    )
    seconds, pixels = 0.16, 16 * 16
    assert (many - few) / (20 * pixels * seconds) == pytest.approx(50, rel=0.1)


def test_times_are_in_order_and_within_the_recording():
    for events in twins(torch.rand(5, 8, 8), Moving(), torch.Generator().manual_seed(0)):
        assert 0 <= events.t.min() <= events.t.max() < 160_000
        assert (events.t.diff()[events.sample.diff() == 0] >= 0).all()
        assert len(set(events.t.tolist())) > 1000  # microseconds, not steps


def test_dark_on_bright_is_as_frequent_as_bright_on_dark():
    images = torch.zeros(200, 8, 8)
    images[:, 3:5, 3:5] = 1  # as it leaves the centre, that becomes darker, or brighter
    events, _ = twins(images, Moving(), torch.Generator().manual_seed(0))
    leaving = (events.t < 20_000) & ((events.x - 7.5).abs() < 1) & ((events.y - 7.5).abs() < 1)
    sign = torch.zeros(200).index_add(0, events.sample[leaving], 2.0 * events.p[leaving] - 1)
    assert sign.abs().min() > 5
    assert 70 < int((sign > 0).sum()) < 130


def test_the_image_may_be_in_the_class():
    data = moving(image_class=True)
    assert data.classes[:3] == ("0 A-B-C", "0 C-B-A", "1 A-B-C")
    assert len(data.classes) == 20
    pairs = data.train.labels.view(-1, 2)
    assert torch.equal(pairs[:, 1], pairs[:, 0] + 1)


def test_a_moved_image_by_hand():
    image = torch.tensor([[1.0, 2.0], [3.0, 4.0]])[None]
    seen = moved(image, torch.tensor([[1.0, 0.0]]), size=4, zoom=1)
    assert torch.allclose(seen, torch.tensor([[0, 0, 0, 0], [0, 0, 1, 2], [0, 0, 3, 4], [0, 0, 0, 0.0]])[None])
    half = moved(image, torch.tensor([[0.0, 0.5]]), size=4, zoom=1)
    assert torch.allclose(half[0, :, 1], torch.tensor([0, 0.5, 2, 1.5]))


def test_mirror_images_are_of_the_other_class(small):
    with pytest.raises(ValueError, match="flip makes another class of what moving shows; leave it false"):
        Batches(small.train, 5, dataset=small, seed=0, options=DataOptions("moving", flip=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frames": 15}, "data.options.frames must be a multiple of 4, not 15"),
        ({"frames": "many"}, "data.options.frames must be a valid integer, not 'many'"),
        ({"images": "cats"}, "images must be 'digits' or 'fashion-mnist', not 'cats'"),
        ({"repeats": 0}, "repeats must be greater than 0, not 0"),
        ({"reach": 8}, "reach must be under half the size, 8, not .*8"),
        ({"shot_noise": -1}, "shot_noise must be greater than or equal to 0, not -1"),
        ({"speed": 2}, "unknown field data.options.speed; moving has counts, frames, "),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        moving(**options)


def test_data_without_options_refuse_them():
    with pytest.raises(ValueError, match="data.options must be empty for digits"):
        load(DataOptions("digits", options={"frames": 3}))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("check", moving_checks.CHECKS, ids=lambda check: "-".join(moving_checks.name_of(check)))
def test_only_the_order_of_frames_tells_the_direction(check):
    data = load(DataOptions("moving", train_size=moving_checks.IMAGES))
    measured = moving_checks.measure(check, data.train, data.test, seed=0)
    if check.near_chance is None:
        assert measured.test >= moving_checks.LEAST
        assert measured.reversed >= moving_checks.LEAST
    else:
        assert abs(measured.test - 50) <= check.near_chance
