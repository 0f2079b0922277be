"""Images are checked without decoding, and go into the shards byte for byte."""

import hashlib
import io
import os

import numpy as np
import pyarrow.parquet as pq
import pytest
from dump_factory import image_path, picture
from PIL import Image

from dataset_scripts.dump.list_images import ImageFile
from dataset_scripts.folder.shards import ROWS_PER_GROUP, ShardTask, danmul_schema, write_shard


def duplicates_of(ids):
    """Columns of picture hash, group, and whether a train post is near."""
    hashes = np.stack([ids, ids * 0, ids * 0, ids * 0 + 255], axis=1).astype(np.uint64)
    return hashes, ids // 2, ids % 2 == 0


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
    return ShardTask(
        path, schema, ids, images, ids % 2, [None, "s"] * number, counts, codes, ["x", "帽子"], *duplicates_of(ids)
    )


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
        assert (row["picture_hash"], row["group"]) == (f"{post_id:016x}{255:048x}", post_id // 2)
        assert row["near_train"] == (post_id % 2 == 0)
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
    assert table.column_names == [
        "post_id",
        "image",
        "character",
        "tags",
        "rating",
        "picture_hash",
        "group",
        "near_train",
    ]
