"""Pictures of all modes have the right colours when they are made small, and none fills the memory."""

import io
import random
import subprocess
import sys

import numpy as np
import pytest
from dump_factory import Post, image_path, write_dump
from hostile_pictures import bombs, damaged_pictures, encoded, grey_16, whole_pictures
from PIL import Image, ImageCms, ImageFile, PngImagePlugin
from test_build_danmul import read_json

from dataset_scripts.build_danmul import main
from dataset_scripts.dump.check_images import MAX_SIDE, check_content
from dataset_scripts.dump.pictures import upright_rgb
from dataset_scripts.folder.shards import train_ready


def corners(content, short_side=None):
    """The colours left above and right below."""
    image = upright_rgb(content, short_side)
    assert image.mode == "RGB"
    return image.getpixel((0, 0)), image.getpixel((image.width - 1, image.height - 1))


def near(one, other, by=3):
    return all(abs(a - b) <= by for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("short_side", [None, 8])
def test_16_bits_are_scaled_and_not_cut(short_side):
    values = np.repeat(np.linspace(0, 65_535, 64).round()[None], 32, axis=0)
    grey = np.asarray(upright_rgb(grey_16(values), short_side))[..., 0].astype(int)
    assert grey[:, 0].max() < 16 and grey[:, -1].min() > 239 and 120 < grey.mean() < 135
    if short_side is None:
        assert (grey == (values / 257).round()).all()
    ready = np.asarray(Image.open(io.BytesIO(train_ready(grey_16(values), 8))))
    assert 120 < ready.mean() < 135


@pytest.mark.parametrize("short_side", [None, 4])
def test_every_mode_has_its_colors_and_white_below(short_side):
    red, clear = Image.new("RGBA", (32, 16), (255, 0, 0, 255)), (0, 0, 0, 0)
    red.paste(clear, (16, 0, 32, 16))
    grey = Image.new("LA", (32, 16), (90, 255))
    grey.paste((0, 0), (16, 0, 32, 16))
    palette = Image.new("P", (32, 16), 1)
    palette.putpalette([9, 9, 9, 200, 100, 50])
    palette.paste(0, (16, 0, 32, 16))
    bits = Image.new("1", (32, 16), 1)
    bits.paste(0, (0, 0, 16, 16))
    cyan = Image.new("CMYK", (32, 16), (255, 0, 0, 0))
    half = Image.new("RGBA", (32, 16), (255, 0, 0, 128))
    white, black = (255, 255, 255), (0, 0, 0)
    for content, first, last in (
        (encoded(red, "PNG"), (255, 0, 0), white),
        (encoded(red, "WEBP", lossless=True), (255, 0, 0), white),
        (encoded(grey, "PNG"), (90, 90, 90), white),
        (encoded(palette, "PNG"), (200, 100, 50), (9, 9, 9)),
        (encoded(palette, "PNG", transparency=0), (200, 100, 50), white),
        (encoded(bits, "PNG"), black, white),
        (encoded(cyan, "JPEG"), (0, 255, 255), (0, 255, 255)),
        (encoded(half, "PNG"), (255, 127, 127), (255, 127, 127)),
        (encoded(Image.new("L", (32, 16), 77), "PNG", transparency=77), white, white),
        (encoded(Image.new("RGB", (32, 16), (1, 2, 3)), "PNG", transparency=(1, 2, 3)), white, white),
    ):
        found = corners(content, short_side)
        assert near(found[0], first) and near(found[1], last), found


def test_colors_below_what_is_transparent_do_not_shine_through():
    image = Image.new("RGBA", (64, 64), (0, 255, 0, 0))  # invisible green around black
    image.paste((0, 0, 0, 255), (16, 16, 48, 48))
    pixels = np.asarray(upright_rgb(encoded(image, "PNG"), 16)).astype(int)
    assert np.abs(pixels[..., 1] - pixels[..., 0]).max() <= 2


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("short_side", [None, 6])
def test_turned_pictures_stand_upright(kind, short_side):
    image = Image.new("L", (64, 32), 0)
    image.paste(255, (0, 0, 64, 16))  # white above
    exif = Image.Exif()
    exif[0x112] = 6  # to be turned by 90 degrees: white right
    upright = upright_rgb(encoded(image.convert("RGB"), kind, exif=exif), short_side)
    assert upright.size == ((32, 64) if short_side is None else (6, 12))
    pixels = np.asarray(upright)[..., 0]
    assert pixels[:, :2].max() < 40 and pixels[:, -2:].min() > 215


def test_of_an_animation_the_first_frame_is_read():
    frames = [Image.new("RGB", (16, 16), color) for color in ("red", "blue")]
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True})):
        content = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert check_content(content, decode=True).problem == "" and corners(content, 8)[0] == (255, 0, 0)


def test_a_small_decode_of_a_large_jpeg_looks_like_the_whole():
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (12, 9, 3), dtype=np.uint8)).resize((901, 1203), Image.BICUBIC)
    content = encoded(image, "JPEG", quality=95)
    whole = image.resize((60, 80), Image.LANCZOS)
    ready = upright_rgb(content, 60)
    assert ready.size == whole.size
    assert np.abs(np.asarray(ready, int) - np.asarray(whole, int)).mean() < 2


def test_text_of_any_length_beside_the_pixels_and_no_global_is_changed():
    limits = (PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY, Image.MAX_IMAGE_PIXELS)
    text = PngImagePlugin.PngInfo()
    text.add_text("prompt", "x" * 3_000_000, zip=True)
    exif = Image.Exif()
    exif[0x112] = 3
    image = Image.new("RGB", (16, 16), "red")
    image.paste((0, 0, 255), (0, 8, 16, 16))
    content = encoded(image, "PNG", pnginfo=text, exif=exif)
    with pytest.raises(ValueError):
        Image.open(io.BytesIO(content))
    assert check_content(content).problem == check_content(content, decode=True).problem == ""
    assert corners(content) == ((0, 0, 255), (255, 0, 0))
    profile = encoded(image, "PNG", icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    assert corners(profile) == ((255, 0, 0), (0, 0, 255))
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    assert limits == (PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY, Image.MAX_IMAGE_PIXELS)


def test_a_line_that_no_jpeg_holds_is_dropped_and_named(tmp_path, capsys):
    dump = write_dump(tmp_path / "dump", [Post(i, ["a"], ["x", "y"]) for i in range(1, 21)])
    for post_id, size in ((3, (1, 100_000)), (4, (MAX_SIDE, 1))):
        Image.new("RGB", size).save(image_path(dump, post_id, ".png"))
        image_path(dump, post_id).unlink()
    options = ["--source", str(dump), "--output", str(tmp_path / "out"), "--workers", "1", "--image_size", "48"]
    assert main(options) == 0
    assert read_json(tmp_path / "out", "build")["images"] == {"oversized": {"count": 1, "post_ids": [3]}}
    assert "images oversized: 1" in capsys.readouterr().out


@pytest.mark.parametrize("seed", range(2))
def test_whole_pictures_pass_and_are_made_small(seed):
    for name, content in whole_pictures(random.Random(seed)):
        assert (check_content(content).problem, check_content(content, decode=True).problem) == ("", ""), name
        with Image.open(io.BytesIO(train_ready(content, 24))) as ready:
            ready.load()
            assert min(ready.size) <= 24, name


def judge_damaged(rng, number):
    """Of damaged pictures: what a reader dies of, and of that what the check finds by parts."""
    deadly = found = 0
    for name, content in damaged_pictures(rng, number):
        problem, strict = check_content(content).problem, check_content(content, decode=True).problem
        assert not problem or strict, name  # whoever looks closer finds as much
        try:
            train_ready(content, 24)
        except ValueError:  # and nothing else
            assert strict, name
            deadly, found = deadly + 1, found + bool(problem)
    return deadly, found


def test_most_of_what_a_reader_dies_of_is_found_without_decoding():
    deadly, found = judge_damaged(random.Random(7), 150)
    assert deadly > 60 and found > 0.85 * deadly


@pytest.mark.long
def test_thousands_of_damaged_pictures():
    deadly, found = judge_damaged(random.Random(8), 3_000)
    assert found > 0.85 * deadly


MEASURE = """
import resource, sys
from dataset_scripts.dump.check_images import check_image
from dataset_scripts.dump.list_images import ImageFile
from dataset_scripts.folder.shards import train_ready
for path in sys.argv[1:]:
    problem = check_image(ImageFile(path), True).problem
    if not problem:
        train_ready(open(path, "rb").read(), 160)
    print(problem or "good")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def measured(tmp_path, pictures):
    """What the check says of files, and the memory in MB of the process that checked them and made them small.

    That process starts from a small one: a child's memory counts from its parent's.
    """
    paths = []
    for number, content in enumerate(pictures):
        paths.append(tmp_path / f"{number:03d}")
        paths[-1].write_bytes(content)
    program = "import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', *sys.argv[1:]]).returncode)"
    done = subprocess.run([sys.executable, "-S", "-c", program, MEASURE, *paths], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *problems, memory = done.stdout.split("\n")[:-1]
    return problems, int(memory)


def test_bombs_of_text_and_claims_fill_no_memory(tmp_path):
    skipped = ("50 million", "2,000 frames")
    chosen = [(name, content) for name, content in bombs(random.Random(0), skipped)]
    problems, memory = measured(tmp_path, [content for _, content in chosen])
    expected = ["oversized"] * 3 + ["good"] * 2 + ["oversized"] * 2 + ["not an image"]
    assert problems == expected, list(zip(chosen, problems, strict=True))
    assert memory < 150


@pytest.mark.long
def test_no_file_of_one_megabyte_fills_a_gigabyte(tmp_path):
    for name, content in bombs(random.Random(0)):
        problems, memory = measured(tmp_path, [content])
        assert memory < 1000, (name, problems, memory)
