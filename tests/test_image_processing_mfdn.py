"""Pictures of strangers: whatever is whole is read with the right colours, whatever is not is a sentence, and nothing
of a megabyte takes a gigabyte."""

import base64
import io
import random
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from hostile_pictures import bombs, chunk, damaged_pictures, drawing, encoded, png, whole_pictures
from PIL import Image

from dataset_scripts.dump.pictures import upright_rgb
from dataset_scripts.folder.shards import train_ready
from modeling_mfdn import image_processing_mfdn, pictures_mfdn
from modeling_mfdn.data.images import decode_image
from modeling_mfdn.image_processing_mfdn import read_image
from modeling_mfdn.pictures_mfdn import MAX_SIDE, load_rgb, pad_to_square, to_rgb
from modeling_mfdn.publishing.handler import to_picture

SEED = 18
RED = (200, 40, 40)


@pytest.mark.filterwarnings("ignore")
def test_whole_pictures_are_read_from_bytes_files_and_streams(tmp_path):
    for name, content in whole_pictures(random.Random(SEED)):
        (tmp_path / "picture").write_bytes(content)
        image = read_image(content)
        assert image.mode == "RGB" and np.ptp(np.asarray(image)) < 256, name
        for other in (read_image(tmp_path / "picture"), decode_image(content)):
            assert np.array_equal(np.asarray(image), np.asarray(other)), name
        assert min(decode_image(content, 8).size) > 0, name


def test_text_of_any_amount_and_damaged_text_hide_no_pixels(tmp_path):
    """Generators of pictures write their whole workflow into PNGs."""
    plain = encoded(Image.new("RGB", (30, 20), RED), "PNG")
    many = b"".join(chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(900_000))) for _ in range(80))
    texts = {
        "one of 9 MB": chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(9_000_000))),
        "80 of 0.9 MB": many,
        "international": chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(bytes(9_000_000))),
        "damaged": chunk(b"zTXt", b"a\0\0 no zlib"),
        "a profile of 9 MB": chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(9_000_000))),
    }
    for name, text in texts.items():
        for content in (plain[:33] + text + plain[33:], plain[:-12] + text + plain[-12:]):
            (tmp_path / "a.png").write_bytes(content)
            for source in (content, tmp_path / "a.png", str(tmp_path / "a.png")):
                image = read_image(source)
                assert image.size == (30, 20) and image.getpixel((3, 3)) == RED, name
            assert decode_image(content, 10).getpixel((3, 3)) == RED


@pytest.mark.parametrize("dtype, mode", [("<u2", "I;16"), (">u2", "I;16B"), ("<i4", "I"), ("<f4", "F")])
def test_deep_greys_keep_their_value_at_every_door(dtype, mode):
    values = np.linspace(0, 65_535, 40 * 30).reshape(30, 40).astype(dtype)
    expected = np.round(values.astype(float) / 257)
    image = Image.frombytes(mode, (40, 30), values.tobytes()) if mode == "I;16B" else Image.fromarray(values)
    doors = [to_rgb(image), read_image(image), pad_to_square(image).crop((0, 5, 40, 35))]
    if mode != "F":
        tiff = io.BytesIO()
        image.save(tiff, "TIFF")
        doors += [read_image(tiff.getvalue()), decode_image(tiff.getvalue())]
    for found in doors:
        assert np.abs(np.asarray(found)[:, :, 1] - expected).max() <= 1


def test_large_pictures_come_scaled_down_and_whole():
    halves = Image.new("RGB", (5000, 5000), RED)
    halves.paste((20, 60, 220), (2500, 0, 5000, 5000))
    for kind, mode in (("JPEG", "RGB"), ("PNG", "RGB"), ("PNG", "P"), ("PNG", "RGBA"), ("WEBP", "RGB")):
        image = read_image(encoded(halves.convert(mode), kind, quality=90))
        assert max(image.size) <= MAX_SIDE and image.width == image.height >= MAX_SIDE // 2, (kind, mode)
        left, right = image.getpixel((100, 100)), image.getpixel((image.width - 100, 100))
        assert np.abs(np.subtract(left, RED)).max() < 20 and np.abs(np.subtract(right, (20, 60, 220))).max() < 20
    line = read_image(encoded(Image.new("L", (60_000, 2), 90), "PNG"))
    assert line.size == (MAX_SIDE, 1) and line.getpixel((9, 0)) == (90, 90, 90)


def test_orientation_is_obeyed_and_broken_exif_ignored():
    picture = Image.new("RGB", (40, 20), RED)
    exif = Image.Exif()
    exif[0x112] = 6
    assert read_image(encoded(picture, "JPEG", exif=exif)).size == (20, 40)
    for noise in (b"Exif\0\0", b"Exif\0\0MM\0*" + b"\xff" * 90, b"Exif\0\0" + random.Random(SEED).randbytes(300)):
        for kind in ("JPEG", "PNG", "WEBP"):
            assert read_image(encoded(picture, kind, exif=noise)).size == (40, 20)


@pytest.mark.filterwarnings("ignore")
def test_what_is_damaged_is_read_or_refused_in_a_sentence():
    refused = 0
    for name, content in damaged_pictures(random.Random(SEED), 300):
        for read in (read_image, decode_image, lambda content: decode_image(content, 8)):
            try:
                assert read(content).mode == "RGB", name
            except ValueError as error:
                refused += 1
                assert str(error), name
            except (OSError, SyntaxError):  # what the training leaves out
                assert read is not read_image, name
    assert refused > 50


def test_a_picture_too_large_is_refused_before_it_is_decoded(monkeypatch):
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    content = png(20_000, 20_000, 8, 2, zlib.compress(bytes(20)))
    with pytest.raises(ValueError, match="DecompressionBombError|20000 x 20000 pixels, which takes"):
        read_image(content)
    content = png(9_000, 9_000, 8, 2, zlib.compress(bytes(20)))
    with pytest.raises(ValueError, match="9000 x 9000 pixels, which takes 927 MB to decode.*at most 800 MB"):
        read_image(content)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="0 x|UnidentifiedImageError|cannot identify|pixel or more"):
        read_image(png(0, 9, 8, 2, zlib.compress(bytes(20))))


def test_the_process_keeps_its_own_warnings_and_limits():
    before = (Image.MAX_IMAGE_PIXELS, list(warnings.filters))
    read_image(encoded(Image.new("RGB", (9, 9)), "PNG"))
    assert (Image.MAX_IMAGE_PIXELS, list(warnings.filters)) == before
    assert pictures_mfdn.FORMATS[:3] == ("JPEG", "PNG", "WEBP")


PEAK = """
import resource, sys, time
from modeling_mfdn.image_processing_mfdn import read_image
from modeling_mfdn.pictures_mfdn import pad_to_square
from modeling_mfdn.data.images import decode_image
from PIL import Image
Image.init()
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
read_image(sys.argv[1])  # what every reading needs
idle = peak()
for path in sys.argv[2:]:
    begin, outcome = time.perf_counter(), "read"
    try:
        {door}
    except (ValueError, OSError, SyntaxError, Image.DecompressionBombError):
        outcome = "refused"
    print(outcome, round(peak() - idle), round(time.perf_counter() - begin, 1), flush=True)
"""
DOORS = {
    "read_image": "pad_to_square(read_image(path))",
    "training": 'decode_image(open(path, "rb").read(), 256)',
}


def further_bombs():
    """Of the formats that the data set does not hold: (name, file)."""
    side = 7000
    yield "TIFF, deflated", encoded(Image.new("RGB", (side, side)), "TIFF", compression="tiff_deflate")
    yield "TIFF, 16 bits", encoded(Image.fromarray(np.zeros((side, side), np.uint16)), "TIFF", compression="tiff_lzw")
    yield "GIF", encoded(Image.new("P", (side, side)), "GIF")
    head = struct.pack("<IIIIiiHHIIiiII", 99, 0, 54, 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0)
    yield "BMP that claims more", b"BM" + head
    yield "JPEG of 90 million pixels", encoded(Image.new("RGB", (9500, 9500)), "JPEG", quality=5)
    yield "grey PNG of 89 million pixels", encoded(Image.new("L", (9430, 9430)), "PNG")
    frames = [Image.new("P", (side, side), color) for color in (1, 2)]
    yield "animated GIF", encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    if "AVIF" in Image.SAVE:
        yield "AVIF", encoded(Image.new("RGB", (side, side)), "AVIF", speed=10)


@pytest.mark.long
def test_no_picture_of_a_megabyte_takes_a_gigabyte(tmp_path):
    """One process a door reads them all: its memory only grows, to the largest of them."""
    Image.init()
    drawing(random.Random(SEED), 90, 60).save(tmp_path / "warm_up.jpg")
    files, names = [], []
    for name, content in [*bombs(random.Random(SEED), skipped=("noise",)), *further_bombs()]:
        assert len(content) < 2.5e6, name
        files.append(tmp_path / f"{len(files)}")
        files[-1].write_bytes(content)
        names.append(name)
    # From a small process: a child's memory counts from its parent's.
    small = "import subprocess, sys; sys.exit(subprocess.run([sys.executable, *sys.argv[1:]]).returncode)"
    for door, reading in DOORS.items():
        command = [sys.executable, "-S", "-c", small, "-W", "ignore", "-c", PEAK.format(door=reading)]
        command += [tmp_path / "warm_up.jpg", *files]
        done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
        lines = done.stdout.splitlines()
        for name, line in zip(names, lines, strict=False):
            print(f"{door}: {line} s, {name}")
        assert done.returncode == 0 and len(lines) == len(files), done.stderr[-500:]
        assert max(int(line.split()[1]) for line in lines) < 1000


# Every kind of picture


def color(image):
    return to_rgb(image).getpixel((0, 0))


def test_transparent_pixels_become_white():
    for mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        assert color(Image.new(mode, (3, 2))) == (255, 255, 255), mode
    half = Image.new("RGBA", (3, 2), (255, 0, 0, 128))
    assert color(half) == (255, 127, 127)


def test_a_transparent_palette_entry_becomes_white():
    image = Image.new("P", (3, 2), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    assert color(image) == (10, 20, 30)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", transparency=1)
    assert color(Image.open(buffer)) == (255, 255, 255)


def test_a_transparent_color_of_an_rgb_png_becomes_white():
    buffer = io.BytesIO()
    Image.new("RGB", (3, 2), (1, 2, 3)).save(buffer, "PNG", transparency=(1, 2, 3))
    assert color(Image.open(buffer)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["1", "L", "CMYK", "YCbCr", "HSV", "LAB", "I", "F", "I;16", "I;16B"])
def test_every_other_mode_becomes_rgb(mode):
    assert to_rgb(Image.new(mode, (3, 2))).mode == "RGB"
    assert pad_to_square(Image.new(mode, (3, 2))).size == (3, 3)


def test_16_bit_and_float_pictures_are_scaled_not_cut():
    grey16 = Image.fromarray(np.full((2, 3), 0x8080, dtype=np.uint16))
    assert color(grey16) == (128, 128, 128)
    assert color(Image.fromarray(np.full((2, 3), 0x8080, dtype=np.int32))) == (128, 128, 128)
    assert color(Image.fromarray(np.full((2, 3), 7, dtype=np.int32))) == (7, 7, 7)
    assert color(Image.fromarray(np.full((2, 3), 0.5, dtype=np.float32))) == (128, 128, 128)
    assert color(Image.fromarray(np.full((2, 3), 200.0, dtype=np.float32))) == (200, 200, 200)
    with pytest.raises(ValueError, match="-4 to -4"):
        to_rgb(Image.fromarray(np.full((2, 3), -4, dtype=np.int32)))


def test_cmyk_colors_survive():
    assert color(Image.new("CMYK", (3, 2), (0, 255, 255, 0))) == (255, 0, 0)


def test_exif_rotation_is_applied(tmp_path):
    image = Image.new("RGB", (40, 20), "white")
    image.paste((0, 0, 0), (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees, clockwise
    image.save(tmp_path / "turned.jpg", exif=exif)
    upright = read_image(tmp_path / "turned.jpg")
    assert upright.size == (20, 40)
    assert max(upright.getpixel((10, 5))) < 20 and min(upright.getpixel((10, 35))) > 235


def test_padding_is_white_and_centred():
    square = np.asarray(pad_to_square(Image.new("RGB", (2, 6), "black")))
    assert square.shape == (6, 6, 3)
    assert (square[:, 2:4] == 0).all() and (square[:, :2] == 255).all() and (square[:, 4:] == 255).all()


def test_a_long_strip_does_not_fill_the_memory_with_white():
    assert pad_to_square(Image.new("RGB", (1, 60_000))).size == (4096, 4096)


def test_arrays_tensors_and_paths_give_the_picture_they_hold(picture, tmp_path):
    pixels = np.asarray(picture)
    picture.save(tmp_path / "picture.png")
    sources = [
        pixels,
        pixels.transpose(2, 0, 1),
        torch.from_numpy(pixels.copy()),
        torch.from_numpy(pixels.copy()).permute(2, 0, 1),
        pixels / 255.0,
        torch.from_numpy(pixels / 255).permute(2, 0, 1).float(),
        np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)]),
        tmp_path / "picture.png",
        str(tmp_path / "picture.png"),
    ]
    for source in sources:
        np.testing.assert_array_equal(np.asarray(read_image(source)), pixels)
    grey = pixels[:, :, 0]
    for source in (grey, grey[:, :, None], torch.from_numpy(grey.copy())[None]):
        np.testing.assert_array_equal(np.asarray(read_image(source)), np.dstack([grey] * 3))
    ambiguous = torch.zeros(3, 5, 3)
    ambiguous[0] = 1
    assert read_image(ambiguous).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize(
    "array, message",
    [
        (np.zeros((5, 4, 3), np.uint16), r"dtype uint16 and shape \[5, 4, 3\]"),
        (np.zeros((5, 4, 3), bool), "dtype bool"),
        (np.full((5, 4, 3), 17.5), "from 17.5 to 17.5"),
        (np.full((5, 4, 3), np.nan), "nan"),
        (np.zeros((2, 5, 4, 3), np.uint8), r"\[2, 5, 4, 3\]. Pass several pictures as a list"),
        (np.zeros((5, 4, 2), np.uint8), r"\[5, 4, 2\]"),
        (np.zeros((0, 4, 3), np.uint8), "at least one pixel"),
    ],
)
def test_arrays_that_are_no_pictures_are_refused(array, message):
    with pytest.raises(ValueError, match=message):
        read_image(array)


def test_files_that_are_no_pictures_are_refused_by_name(picture, tmp_path):
    with pytest.raises(FileNotFoundError, match="absent.png"):
        read_image(tmp_path / "absent.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ValueError, match="text.png cannot be read as a picture"):
        read_image(tmp_path / "text.png")
    for suffix in ("png", "jpg"):
        path = tmp_path / f"cut.{suffix}"
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(path)
        path.write_bytes(path.read_bytes()[:2000])
        with pytest.raises(ValueError, match=f"cut.{suffix} cannot be read.*truncated"):
            read_image(path)
    with pytest.raises(ValueError, match="0 x 5 pixels"):
        read_image(Image.new("RGB", (0, 5)))
    with pytest.raises(TypeError, match="got int"):
        read_image(7)


def test_a_decompression_bomb_is_refused_from_its_header(tmp_path, monkeypatch):
    Image.new("1", (30_000, 30_000)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(ValueError, match="bomb.png cannot be read.*900000000 pixels"):
        read_image(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # Pillow's own limit taken away
    with pytest.raises(ValueError, match="30000 x 30000 pixels, which takes 10,300 MB"):
        read_image(tmp_path / "bomb.png")


def test_of_an_animation_the_first_frame_is_read_and_said(tmp_path):
    frames = [Image.new("RGB", (4, 4), name) for name in ("red", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    with pytest.warns(UserWarning, match="several frames"):
        assert read_image(tmp_path / "moving.gif").getpixel((0, 0)) == (255, 0, 0)


def test_addresses_are_fetched_with_a_limit_and_read_like_files(monkeypatch, tmp_path):
    Image.new("RGBA", (3, 2), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/clear.png"
    try:
        assert read_image(address).getpixel((0, 0)) == (255, 255, 255), "transparency lies on white"
        monkeypatch.setattr(image_processing_mfdn, "MAX_BYTES", 20)
        with pytest.raises(ValueError, match="more than 20 bytes"):
            read_image(address)
    finally:
        server.shutdown()


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.mark.parametrize("door", ["read_image", "bytes", "decode_image", "train_ready", "endpoint"])
def test_postscript_never_reaches_ghostscript(tmp_path, monkeypatch, door):
    def run(*_):
        raise AssertionError("Ghostscript was started")

    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", run)
    path = tmp_path / "picture.jpg"
    path.write_bytes(EPS)
    doors = {
        "read_image": lambda: read_image(path),
        "bytes": lambda: read_image(EPS),
        "decode_image": lambda: decode_image(EPS),
        "train_ready": lambda: train_ready(EPS, 8),
        "endpoint": lambda: read_image(to_picture(base64.b64encode(EPS).decode())),
    }
    with pytest.raises((ValueError, OSError), match="cannot"):
        doors[door]()


def test_the_builder_decodes_to_the_same_pixels():
    """Two decoders, since neither package imports the other: what one lets in, the other reads alike."""
    compared = 0
    for name, content in whole_pictures(random.Random(0)):
        try:
            theirs = upright_rgb(content)
        except Exception:  # of a format that the builder does not take
            continue
        ours = load_rgb(content)
        if max(theirs.size) <= MAX_SIDE:
            assert ours.size == theirs.size, name
            assert np.abs(np.asarray(ours).astype(int) - np.asarray(theirs).astype(int)).max() <= 1, name
            compared += 1
    assert compared > 40
