import os
import subprocess

import numpy as np
import pytest
import torch
from PIL import Image

from lab.data.archives import flip_bit, truncate
from tracegrad.lab.data import DataOptions, load


def write_images(root, classes=("cat", "dog"), count=15, mode="RGB", size=(10, 8), suffix=".png"):
    rng = np.random.default_rng(0)
    for name in classes:
        (root / name).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).convert(mode).save(root / name / f"{i:03}{suffix}")
    return root


def read(root, **settings):
    return load(DataOptions(name="folder", root=str(root), **settings))


def test_a_folder_per_class_is_split_80_10_10(tmp_path):
    pets = read(write_images(tmp_path, count=50))
    assert pets.classes == ("cat", "dog")
    assert (pets.channels, pets.image_size) == (3, (8, 10))
    parts = [pets.train, pets.validation, pets.test]
    assert [part.labels.bincount().tolist() for part in parts] == [[40, 40], [5, 5], [5, 5]]
    found = {
        image.numpy().tobytes(): label
        for part in parts
        for image, label in zip(part.images, part.labels.tolist(), strict=True)
    }
    for label, name in enumerate(pets.classes):
        for path in (tmp_path / name).iterdir():
            with Image.open(path) as image:
                assert found.pop(np.array(image).transpose(2, 0, 1).tobytes()) == label
    assert not found


def test_the_split_is_the_same_every_time(tmp_path):
    write_images(tmp_path)
    torch.manual_seed(5)
    first = read(tmp_path)
    torch.manual_seed(6)
    assert torch.equal(first.train.images, read(tmp_path).train.images)
    assert torch.equal(first.train.images[:9], read(tmp_path, train_size=9).train.images)


def test_train_and_test_folders_are_kept_apart(tmp_path):
    write_images(tmp_path / "train", count=20)
    write_images(tmp_path / "test", count=3)
    pets = read(tmp_path)
    assert [len(part) for part in (pets.train, pets.validation, pets.test)] == [36, 4, 6]


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("1", 1), ("LA", 1), ("P", 3), ("RGBA", 3)])
def test_modes_are_converted_to_grey_or_colour(tmp_path, mode, channels):
    assert read(write_images(tmp_path, mode=mode)).channels == channels


def test_one_coloured_image_makes_all_coloured(tmp_path):
    write_images(tmp_path, ("cat",), mode="L")
    write_images(tmp_path, ("dog",), count=1, mode="RGB", suffix=".JPG")
    write_images(tmp_path, ("owl",), mode="L", suffix=".jpeg")
    pets = read(tmp_path)
    assert pets.channels == pets.validation.images.shape[1] == pets.test.images.shape[1] == 3


def test_other_files_and_hidden_folders_are_left_alone(tmp_path):
    write_images(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "cat" / "Thumbs.db").write_text("x")
    (tmp_path / ".cache").mkdir()
    assert read(tmp_path).classes == ("cat", "dog")


def test_the_test_images_are_decoded_only_when_asked_for(tmp_path):
    write_images(tmp_path / "train")
    write_images(tmp_path / "test")
    truncate(tmp_path / "test" / "dog" / "004.png", 0.7)
    pets = read(tmp_path)
    with pytest.raises(ValueError, match=r"test/dog/004.png is no readable PNG or JPEG \([^\n]*$"):
        _ = pets.test


@pytest.mark.parametrize("damage", [lambda path: truncate(path, 0.7), flip_bit])
def test_a_damaged_image_is_refused(tmp_path, damage):
    damage(write_images(tmp_path / "train") / "cat" / "003.png")
    write_images(tmp_path / "test")
    with pytest.raises(ValueError, match=r"cat/003.png is no readable PNG or JPEG \([^\n]*; replace or remove it$"):
        read(tmp_path)


def test_a_file_that_is_no_image_is_refused(tmp_path):
    (write_images(tmp_path) / "cat" / "003.png").write_text("not an image")
    with pytest.raises(ValueError, match=r"cat/003.png is no readable PNG or JPEG \(.*\); replace or remove it$"):
        read(tmp_path)


def test_images_of_different_sizes_are_refused(tmp_path):
    write_images(tmp_path)
    Image.new("RGB", (12, 8)).save(tmp_path / "dog" / "007.png")
    message = r"/dog/007.png is 12 x 8 pixels, but .*/cat/000.png is 10 x 8; all images must have one size$"
    with pytest.raises(ValueError, match=message):
        read(tmp_path)


def test_sixteen_bit_images_are_refused(tmp_path):
    write_images(tmp_path)
    Image.fromarray(np.zeros((8, 10), dtype=np.uint16)).save(tmp_path / "dog" / "007.png")
    with pytest.raises(ValueError, match=r"dog/007.png has pixels of mode 'I;16'; convert it to 8 bits"):
        read(tmp_path)


def test_an_empty_class_is_refused(tmp_path):
    (write_images(tmp_path) / "eel").mkdir()
    with pytest.raises(ValueError, match=r"^class 'eel' is empty: no .png or .jpg images in "):
        read(tmp_path)


def test_a_class_of_only_one_part_is_refused(tmp_path):
    write_images(tmp_path / "train")
    write_images(tmp_path / "test", ("cat", "dog", "eel"))
    with pytest.raises(ValueError, match=r"^class 'eel' is not in both "):
        read(tmp_path)


def test_missing_folders_say_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^folder needs its files: set data.root"):
        load(DataOptions(name="folder"))
    with pytest.raises(FileNotFoundError, match=r"^no folder .*/nowhere: set data.root to the folder"):
        read(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"^no folders in .*: it must hold one folder of images per class$"):
        read(tmp_path)
    write_images(tmp_path / "train")
    with pytest.raises(FileNotFoundError, match=r"^no folder .*/test: a data set with train or test needs both$"):
        read(tmp_path)


def test_too_few_images_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"^4 images are too few"):
        read(write_images(tmp_path, count=2))


def test_a_subset_larger_than_the_training_part_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"^train_size is 25; it must be from 2 .* to 24 "):
        read(write_images(tmp_path), train_size=25)


@pytest.mark.parametrize("suffix", ["GIF", "BMP", "TIFF", "PPM", "WEBP", "ICO"])
def test_other_formats_named_png_are_refused(suffix, tmp_path):
    folder = write_images(tmp_path)
    Image.new("RGB", (16, 16)).save(folder / "cat" / "odd", format=suffix)
    (folder / "cat" / "odd").rename(folder / "cat" / "003.png")
    with pytest.raises(ValueError, match=r"cat/003.png is no readable PNG or JPEG"):
        load(DataOptions(name="folder", root=str(folder)))


def test_an_image_starts_no_foreign_program(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(subprocess, "Popen", lambda *arguments, **_: started.append(arguments))
    folder = write_images(tmp_path)
    page = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"
    (folder / "cat" / "003.png").write_bytes(page)
    with pytest.raises(ValueError, match=r"cat/003.png is no readable PNG or JPEG"):
        load(DataOptions(name="folder", root=str(folder)))
    assert started == []


def test_a_pipe_or_an_image_of_impossible_size_is_refused_at_once(tmp_path):
    folder = write_images(tmp_path)
    (folder / "cat" / "003.png").unlink()
    os.mkfifo(folder / "cat" / "003.png")
    with pytest.raises(ValueError, match=r"cat/003.png is no readable PNG or JPEG .it is no regular file"):
        load(DataOptions(name="folder", root=str(folder)))
    (folder / "cat" / "003.png").unlink()
    for size, message in (((1, 1), "1 x 1 pixels"), ((5000, 5000), "5000 x 5000 pixels")):
        Image.new("1", size).save(folder / "cat" / "003.png")
        with pytest.raises(ValueError, match=f"cat/003.png is {message}; images have 2 x 2 to 16,777,216 of them"):
            load(DataOptions(name="folder", root=str(folder)))
