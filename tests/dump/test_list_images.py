"""Where images lie: in buckets, in tars, beside their metadata."""

import io
import os
import tarfile

import numpy as np
import pytest
from dump_factory import picture
from upath import UPath

from dataset_scripts.dump.list_images import ImageFile, list_buckets, list_tars, open_image


def test_listing_takes_only_images_named_by_id_in_their_bucket(tmp_path):
    for name in ("0001/1.jpg", "0001/2001.png", "0001/2001.jpg", "0002/5002.webp"):
        path = tmp_path / "512px" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for name in ("0002/1.jpg", "0002/0002.jpg", "0002/x.jpg", "0002/2.txt", "0002/²2.jpg", "0002/-2.jpg"):
        (tmp_path / "512px" / name).touch()
    listing = list_buckets(tmp_path, tmp_path / "512px", ["512px"])
    assert listing.ids.tolist() == [1, 2001, 5002]
    assert listing.num_ignored == 6
    names = [os.path.relpath(file.path, tmp_path / "512px") for file in listing.files(np.array([5002, 2001]))]
    assert names == ["0002/5002.webp", "0001/2001.jpg"]


def test_dump_without_images_is_explained(tmp_path):
    (tmp_path / "metadata").mkdir()
    with pytest.raises(FileNotFoundError, match=r"512px/NNNN/ID.jpg .*\['metadata'\]"):
        list_buckets(tmp_path, None, ["512px"])
    (tmp_path / "512px" / "0000").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="found 0 other files"):
        list_buckets(tmp_path, tmp_path / "512px", ["512px"])


def write_tar(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def test_images_in_tars_are_places_in_them(tmp_path):
    one = write_tar(tmp_path / "original" / "data-0001.tar", {"1.jpg": picture(1), "x/2001.png": picture(2001, "PNG")})
    others = {"3.webp": b"3", "007.jpg": b"", "a.txt": b"", "1.jpg": b"2"}
    two = write_tar(tmp_path / "recent" / "data-1001.tar", others)
    listing = list_tars([UPath(one), UPath(two)])
    assert listing.ids.tolist() == [1, 3, 2001] and listing.num_ignored == 2
    files = listing.files(np.array([2001, 1]))
    assert [file.name for file in files] == ["2001.png", "1.jpg"]
    assert [open_image(file).read() for file in files] == [picture(2001, "PNG"), picture(1)]  # the first tar wins


def test_damaged_tar_is_named(tmp_path):
    path = write_tar(tmp_path / "a.tar", {"1.jpg": picture(1) * 100})
    path.write_bytes(path.read_bytes()[:700] + b"x" * 3000)
    with pytest.raises((ValueError, FileNotFoundError), match="a.tar"):
        list_tars([UPath(path)])


def test_image_on_another_file_system_is_read():
    path = UPath("memory://list_images/512px/0001/1.jpg")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"picture")
    listing = list_buckets(UPath("memory://list_images"), UPath("memory://list_images/512px"), ["512px"])
    (file,) = listing.files(np.array([1]))
    assert open_image(file).read() == b"picture"
    assert open_image(ImageFile(file.path, 2, 3)).read() == b"ctu"
