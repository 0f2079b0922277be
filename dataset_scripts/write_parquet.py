"""Posts and their image files → Parquet shards that `load_dataset` reads, image bytes untouched."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dataset_scripts.list_images import ImageFile, ImageListing, open_image
from dataset_scripts.posts import PostsTable
from dataset_scripts.split_posts import SPLITS, shuffled_order

ROWS_PER_GROUP = 100  # about 10 MB: one random row costs a reader that much, not a whole shard
# JPEG bytes do not compress, and their minima and maxima help nobody.
COMPRESSION = {
    "post_id": "zstd", "image.bytes": "none", "image.path": "zstd", "character": "zstd",
    "tags.list.element": "zstd", "rating": "zstd",
}  # fmt: skip
DICTIONARY_COLUMNS = ["character", "tags.list.element", "rating"]
STATISTICS_COLUMNS = ["post_id", "character", "rating"]


@dataclass
class ShardTask:
    """One shard of n posts: everything `write_shard` needs, picklable."""

    path: str
    schema: pa.Schema
    post_ids: np.ndarray  # int64 [n]
    images: list[ImageFile]
    characters: np.ndarray  # int [n]
    ratings: list[str | None]
    tag_counts: np.ndarray  # int32 [n]
    tag_codes: np.ndarray  # int, the posts' tags one after another, sorted within a post
    tag_names: list[str]  # of this shard only


def danmul_schema(character_names: list[str]) -> pa.Schema:
    """The columns of the data set. The class names live in the schema metadata, which `datasets` reads back.

    Not in the README: 14,413 names make it too large for the Hub (huggingface/datasets#7392).
    """
    from datasets import ClassLabel, Features, Image, List, Value  # 1.5 s, which worker processes need not pay

    return Features(
        {
            "post_id": Value("int64"),
            "image": Image(),
            "character": ClassLabel(names=character_names),
            "tags": List(Value("string")),
            "rating": Value("string"),
        }
    ).arrow_schema


def plan_shards(
    folder: Path, posts: PostsTable, splits: np.ndarray, image_bytes: np.ndarray, listing: ImageListing,
    shard_bytes: int, seed: int,
) -> Iterator[ShardTask]:
    """The shards of all splits, each of about `shard_bytes` of images, rows shuffled by hash within the split.

    A split without posts (possible only with a low --min_posts) has no shard: `load_dataset` refuses to build one
    without rows ("corresponds to no data"), so the card does not name it either.
    """  # fmt: skip
    schema, offsets = danmul_schema(posts.character_names), posts.offsets()
    tag_names = np.array(posts.tag_names, object)
    ratings = [name or None for name in posts.rating_names]
    for split, name in enumerate(SPLITS):
        rows = np.flatnonzero(splits == split)
        rows = rows[shuffled_order(posts.post_ids[rows], seed)]
        num_shards = min(len(rows), max(1, math.ceil(image_bytes[rows].sum() / shard_bytes)))
        for shard in range(num_shards):
            part = rows[len(rows) * shard // num_shards : len(rows) * (shard + 1) // num_shards]
            codes = np.concatenate([posts.tag_codes[offsets[row] : offsets[row + 1]] for row in part])
            used, codes = np.unique(codes, return_inverse=True)
            yield ShardTask(
                path=str(folder / f"{name}-{shard:05d}-of-{num_shards:05d}.parquet"),
                schema=schema,
                post_ids=posts.post_ids[part],
                images=listing.files(posts.post_ids[part]),
                characters=posts.characters[part],
                ratings=[ratings[code] for code in posts.ratings[part]],
                tag_counts=posts.tag_counts[part],
                tag_codes=codes,
                tag_names=tag_names[used].tolist(),
            )


def write_shard(task: ShardTask) -> dict:
    """Write one shard under a temporary name and move it into place. Returns its file, rows, bytes and sha256.

    Raises OSError when an image cannot be read any more or the disk is full; no shard is left then.
    """
    temporary = f"{task.path}.tmp"
    try:
        with pq.ParquetWriter(
            temporary, task.schema, compression=COMPRESSION,
            use_dictionary=DICTIONARY_COLUMNS, write_statistics=STATISTICS_COLUMNS,
        ) as writer:  # fmt: skip
            ends = np.concatenate(([0], np.cumsum(task.tag_counts, dtype=np.int64)))
            for start in range(0, len(task.post_ids), ROWS_PER_GROUP):
                rows = slice(start, min(start + ROWS_PER_GROUP, len(task.post_ids)))
                writer.write_table(row_group(task, rows, ends), row_group_size=ROWS_PER_GROUP)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        num_bytes = os.path.getsize(temporary)
        os.replace(temporary, task.path)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return {"file": os.path.basename(task.path), "rows": len(task.post_ids), "bytes": num_bytes, "sha256": digest}


def row_group(task: ShardTask, rows: slice, ends: np.ndarray) -> pa.Table:
    """The Arrow table of some rows of a shard, with the bytes of their images as they are on disk."""
    images = task.images[rows]
    image_type = task.schema.field("image").type
    contents = pa.array([read_image(image) for image in images], image_type.field("bytes").type)
    names = pa.array([image.name for image in images], pa.string())
    first, last = ends[rows.start], ends[rows.stop]
    codes = pa.array(task.tag_codes[first:last], pa.int64())
    tags = pa.array(task.tag_names, pa.string()).take(codes)
    columns = [
        pa.array(task.post_ids[rows], pa.int64()),
        pa.StructArray.from_arrays([contents, names], names=["bytes", "path"]),
        pa.array(task.characters[rows], pa.int64()),
        pa.ListArray.from_arrays(pa.array(ends[rows.start : rows.stop + 1] - first, pa.int32()), tags),
        pa.array(task.ratings[rows], pa.string()),
    ]
    return pa.table(columns, schema=task.schema)


def read_image(image: ImageFile) -> bytes:
    """The bytes of an image, untouched."""
    with open_image(image) as stream:
        return stream.read()
