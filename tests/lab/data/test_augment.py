import pytest
import torch
from scipy.stats import beta, kstest
from torchvision.transforms.v2 import CutMix

from tracegrad.lab.data.augment import crop_and_flip, cutmix, random_beta, random_box, random_crop_and_flip


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize(("height", "width", "padding"), [(6, 6, 2), (5, 9, 3), (4, 4, 0)])
def test_crop_and_flip_equal_a_loop_over_pixels(height, width, padding, dtype):
    images = torch.randint(1, 256, (12, 3, height, width), generator=generator()).to(dtype)
    top = torch.randint(2 * padding + 1, (12,), generator=generator(1))
    left = torch.randint(2 * padding + 1, (12,), generator=generator(2))
    flip = torch.arange(12) % 2 == 0
    expected = torch.zeros_like(images)
    for b in range(12):
        for y in range(height):
            for x in range(width):
                source_y = y + int(top[b]) - padding
                source_x = (width - 1 - x if flip[b] else x) + int(left[b]) - padding
                if 0 <= source_y < height and 0 <= source_x < width:
                    expected[b, :, y, x] = images[b, :, source_y, source_x]
    result = crop_and_flip(images, top, left, flip, padding)
    assert result.dtype == dtype
    assert torch.equal(result, expected)


def test_random_crops_reach_every_window_and_flip_half():
    image = torch.zeros(1, 1, 5, 5, dtype=torch.uint8)
    image[0, 0, 2, 1] = 1  # off the middle: its mirror image is told apart from a shift by the sum over many
    crops = random_crop_and_flip(image.expand(4000, -1, -1, -1), 1, flip=False, generator=generator())
    places = crops.flatten(1).float().argmax(1).bincount()
    assert (places > 0).sum() == 9
    assert places[places > 0].min() > 350  # 4000 / 9 = 444
    flips = random_crop_and_flip(image.expand(4000, -1, -1, -1), 0, flip=True, generator=generator())
    assert 1850 < int(flips[:, 0, 2, 3].sum()) < 2150
    assert int(flips[:, 0, 2, 1].sum()) == 4000 - int(flips[:, 0, 2, 3].sum())


@pytest.mark.parametrize("box", [(0, 3, 2, 7), (1, 1, 0, 4), (0, 6, 0, 8)])
def test_cutmix_targets_equal_the_shares_of_pixels(box):
    labels = torch.tensor([3, 0, 2, 2, 1])
    images = torch.arange(5).view(5, 1, 1, 1).expand(5, 2, 6, 8).to(torch.uint8)  # every pixel names its image
    mixed, targets = cutmix(images, labels, 4, box)
    shares = torch.stack([torch.stack([(mixed[b] == i).float().mean() for i in range(5)]) for b in range(5)])
    expected = torch.stack([shares[:, labels == k].sum(1) for k in range(4)], dim=1)
    torch.testing.assert_close(targets, expected)
    inside = ..., slice(box[0], box[1]), slice(box[2], box[3])
    assert torch.equal(mixed[inside], images.roll(1, 0)[inside])


def test_cutmix_equals_torchvisions_for_the_same_box():
    images, labels = torch.rand(6, 3, 16, 12, generator=generator()), torch.arange(6)
    transform = CutMix(num_classes=6)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        expected_images, expected_targets = transform(images, labels)
        torch.manual_seed(3)
        left, top, right, bottom = transform.make_params([images])["box"]
    mixed, targets = cutmix(images, labels, 6, (top, bottom, left, right))
    assert torch.equal(mixed, expected_images)
    torch.testing.assert_close(targets, expected_targets)


def test_boxes_stay_inside_and_their_centres_reach_every_pixel():
    draws = generator()
    covered = torch.zeros(7, 11)
    for _ in range(300):
        top, bottom, left, right = random_box(7, 11, 1.0, draws)
        assert 0 <= top <= bottom <= 7
        assert 0 <= left <= right <= 11
        covered[top:bottom, left:right] += 1
    assert covered.min() > 20


@pytest.mark.parametrize("alpha", [0.3, 1.0, 4.0])
def test_the_share_of_a_box_is_drawn_from_beta(alpha):
    draws = generator()
    sample = [random_beta(alpha, draws) for _ in range(2000)]
    assert kstest(sample, beta(alpha, alpha).cdf).pvalue > 0.01
