"""Broken image files are found without decoding, and named by what is wrong."""

import os
import struct
import zlib

import pytest
from dump_factory import picture

from dataset_scripts.dump import check_images as checks
from dataset_scripts.dump.check_images import check_image, check_images
from dataset_scripts.dump.list_images import ImageFile


def png_that_claims(width, height):
    """A valid PNG header of any size over one row of pixels."""
    data = bytearray(picture(1, "PNG"))
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    return bytes(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_good_images_of_three_types_pass(tmp_path, kind):
    path = tmp_path / "1.jpg"  # judged by its bytes, not by its name
    path.write_bytes(picture(1, kind))
    assert check_image(ImageFile(str(path)))[:2] == (path.stat().st_size, "")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("cut", [1, 20])
def test_every_cut_is_found(tmp_path, kind, cut):
    path = tmp_path / "1.jpg"
    path.write_bytes(picture(1, kind)[:-cut])
    assert check_image(ImageFile(str(path))).problem == "truncated"


@pytest.mark.parametrize(
    "content, problem",
    [
        (b"", "empty"),
        (b"<html>not found</html>", "not an image"),
        (b"GIF89a" + b"\0" * 50, "not an image"),
        (b"\xff\xd8\xff\xd9", "not an image"),
        (picture(1) + b"\0" * 10_000, ""),  # padded by a mirror
        (picture(1)[:-30] + b"\0" * 30, "truncated"),
        (b"\xff\xd8\xff" + b"\0" * 10_000, "truncated"),
        (png_that_claims(7_500, 7_500), "oversized"),
        (png_that_claims(60_000, 60_000), "oversized"),
    ],
)
def test_problems_have_names(tmp_path, content, problem):
    path = tmp_path / "1.jpg"
    path.write_bytes(content)
    assert check_image(ImageFile(str(path))).problem == problem


def test_missing_unreadable_and_large_files(tmp_path, monkeypatch):
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "large.jpg").write_bytes(picture(1))
    monkeypatch.setattr(checks, "MAX_IMAGE_BYTES", 100)
    paths = [str(tmp_path / name) for name in ("absent.jpg", "folder.jpg", "large.jpg")]
    checked = check_images([ImageFile(path) for path in paths])
    assert [image.problem for image in checked] == ["missing", "unreadable", "oversized"]
    assert checked[2].num_bytes == os.path.getsize(paths[2])
