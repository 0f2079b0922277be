"""Images are checked without decoding, and go into the shards byte for byte."""

import hashlib
import io
import os
import struct
import zlib

import numpy as np
import pyarrow.parquet as pq
import pytest
from dump_factory import image_path, picture
from PIL import Image

from dataset_scripts import check_images as checks
from dataset_scripts.check_images import check_images, image_problem
from dataset_scripts.list_images import ImageFile, list_images
from dataset_scripts.write_parquet import ROWS_PER_GROUP, ShardTask, danmul_schema, write_shard


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
    assert image_problem(ImageFile(str(path))) == (path.stat().st_size, "")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("cut", [1, 20])
def test_every_cut_is_found(tmp_path, kind, cut):
    path = tmp_path / "1.jpg"
    path.write_bytes(picture(1, kind)[:-cut])
    assert image_problem(ImageFile(str(path)))[1] == "truncated"


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
    assert image_problem(ImageFile(str(path)))[1] == problem


def test_missing_unreadable_and_large_files(tmp_path, monkeypatch):
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "large.jpg").write_bytes(picture(1))
    monkeypatch.setattr(checks, "MAX_IMAGE_BYTES", 100)
    paths = [str(tmp_path / name) for name in ("absent.jpg", "folder.jpg", "large.jpg")]
    sizes, problems = check_images([ImageFile(path) for path in paths])
    assert problems == ["missing", "unreadable", "oversized"]
    assert sizes[2] == os.path.getsize(paths[2])


def test_listing_takes_only_images_named_by_id_in_their_bucket(tmp_path):
    for name in ("0001/1.jpg", "0001/2001.png", "0001/2001.jpg", "0002/5002.webp"):
        path = tmp_path / "512px" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for name in ("0002/1.jpg", "0002/0002.jpg", "0002/x.jpg", "0002/2.txt", "0002/²2.jpg", "0002/-2.jpg"):
        (tmp_path / "512px" / name).touch()
    listing = list_images(tmp_path)
    assert listing.ids.tolist() == [1, 2001, 5002]
    assert listing.num_ignored == 6
    names = [os.path.relpath(file.path, tmp_path / "512px") for file in listing.files(np.array([5002, 2001]))]
    assert names == ["0002/5002.webp", "0001/2001.jpg"]


def test_dump_without_images_is_explained(tmp_path):
    (tmp_path / "metadata").mkdir()
    with pytest.raises(FileNotFoundError, match=r"512px/NNNN/ID.jpg .*\['metadata'\]"):
        list_images(tmp_path)
    (tmp_path / "512px" / "0000").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="found 0 other files"):
        list_images(tmp_path)


def shard_of(tmp_path, number):
    ids = np.arange(1, number + 1)
    paths = []
    for post_id in ids.tolist():
        path = image_path(tmp_path, post_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(post_id))
        paths.append(str(path))
    counts = (ids % 3).astype(np.int32)
    codes = np.concatenate([np.arange(count) for count in counts] or [np.array([], int)])
    schema = danmul_schema(["alice", "bob"])
    path = str(tmp_path / "train-00000-of-00001.parquet")
    images = [ImageFile(image) for image in paths]
    return ShardTask(path, schema, ids, images, ids % 2, [None, "s"] * number, counts, codes, ["x", "帽子"])


def test_shard_holds_the_original_bytes_and_the_class_names(tmp_path):
    task = shard_of(tmp_path, 250)
    task.ratings = task.ratings[:250]
    shard = write_shard(task)
    assert (shard["file"], shard["rows"]) == ("train-00000-of-00001.parquet", 250)
    assert shard["bytes"] == os.path.getsize(task.path)
    with open(task.path, "rb") as file:
        assert shard["sha256"] == hashlib.file_digest(file, "sha256").hexdigest()
    file = pq.ParquetFile(task.path)
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [ROWS_PER_GROUP] * 2 + [50]
    columns = {}
    for i in range(file.metadata.num_columns):
        column = file.metadata.row_group(0).column(i)
        columns[column.path_in_schema] = (column.compression, column.statistics is not None)
    assert columns["image.bytes"] == ("UNCOMPRESSED", False)
    assert columns["tags.list.element"][0] == "ZSTD"
    assert b'"alice"' in file.schema_arrow.metadata[b"huggingface"]
    rows = file.read().to_pylist()
    for row in rows:
        post_id = row["post_id"]
        assert row["image"] == {"bytes": picture(post_id), "path": f"{post_id}.jpg"}
        assert (row["character"], row["tags"]) == (post_id % 2, ["x", "帽子"][: post_id % 3])
    assert [row["rating"] for row in rows[:2]] == [None, "s"]
    assert Image.open(io.BytesIO(rows[0]["image"]["bytes"])).size == (8, 8)


def test_no_shard_is_left_when_an_image_vanishes(tmp_path):
    task = shard_of(tmp_path, 3)
    task.ratings = task.ratings[:3]
    os.unlink(task.images[1].path)
    with pytest.raises(FileNotFoundError):
        write_shard(task)
    assert not list(tmp_path.glob("*.parquet*"))


def test_empty_shard_has_the_columns(tmp_path):
    write_shard(shard_of(tmp_path, 0))
    table = pq.read_table(tmp_path / "train-00000-of-00001.parquet")
    assert table.num_rows == 0
    assert table.column_names == ["post_id", "image", "character", "tags", "rating"]
