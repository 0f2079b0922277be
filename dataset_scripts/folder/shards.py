"""Posts and their image files → Parquet shards that `load_dataset` reads, image bytes untouched."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from dataset_scripts.dump.list_images import ImageFile, ImageListing, open_image
from dataset_scripts.dump.pictures import upright_rgb
from dataset_scripts.folder.files import whole_file, write_whole
from dataset_scripts.rules.near_duplicates import Images
from dataset_scripts.rules.picture_hash import to_text
from dataset_scripts.rules.posts_table import PostsTable
from dataset_scripts.rules.split_posts import SPLITS, Divided, shuffled_order

JPEG_QUALITY = 95  # with 4:4:4: line art suffers more from halved colours than from one step of quality
BYTES_AT_160 = 20_000  # of such a picture, on average: what shards are planned with
ROWS_PER_GROUP = 100  # about 10 MB: one random row costs a reader that much, not a whole shard
# JPEG bytes do not compress, and their minima and maxima help nobody.
COMPRESSION = {
    "post_id": "zstd",
    "image.bytes": "none",
    "image.path": "zstd",
    "character": "zstd",
    "tags.list.element": "zstd",
    "rating": "zstd",
    "picture_hash": "none",
    "group": "zstd",
    "near_train": "zstd",
}
DICTIONARY_COLUMNS = ["character", "tags.list.element", "rating"]
STATISTICS_COLUMNS = ["post_id", "character", "rating", "group", "near_train"]


def train_ready(content: bytes, short_side: int, name: str = "picture") -> bytes:
    """The picture as JPEG (quality 95, 4:4:4), its shorter side at most `short_side` pixels.

    Raises ValueError, with `name`, when it cannot be decoded.
    """
    buffer = io.BytesIO()
    try:
        upright_rgb(content, short_side).save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    except Exception as error:  # PIL's parsers raise many types, and each means the same here
        raise ValueError(f"{name} cannot be decoded ({error}): --verify full drops such posts.") from error
    return buffer.getvalue()


def expected_bytes(short_side: int) -> int:
    """What such a picture has, about."""
    return max(1, BYTES_AT_160 * short_side**2 // 160**2)


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
    picture_hashes: np.ndarray  # uint64 [n, 4]
    groups: np.ndarray  # int64 [n]
    near_train: np.ndarray  # bool [n]
    short_side: int | None = None  # of train-ready pictures; None = the original bytes

    def plan(self) -> str:
        """A hash of all that the shard depends on: a finished shard of the same plan need not be written again."""
        digest = hashlib.sha256(self.schema.serialize())
        of_posts = (self.post_ids, self.characters, self.picture_hashes, self.groups, self.near_train)
        for column in (*of_posts, self.tag_counts, self.tag_codes):
            digest.update(np.ascontiguousarray(column).astype(np.int64))
        files = [(*image, *size_and_time(image)) for image in self.images]
        digest.update(repr((self.ratings, self.tag_names, files, self.short_side)).encode())
        return digest.hexdigest()


def size_and_time(image: ImageFile) -> tuple[int, int]:
    """Size and time of change of the file that holds an image; raises FileNotFoundError when it is gone."""
    status = UPath(image.path).stat() if "://" in image.path else os.stat(image.path)
    return status.st_size, getattr(status, "st_mtime_ns", 0)


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
            "picture_hash": Value("string"),
            "group": Value("int64"),
            "near_train": Value("bool"),
        }
    ).arrow_schema


def plan_shards(
    folder: UPath,
    posts: PostsTable,
    images: Images,
    divided: Divided,
    listing: ImageListing,
    shard_bytes: float,
    seed: int,
    short_side: int | None = None,
) -> Iterator[ShardTask]:
    """The shards of all splits, each of about `shard_bytes` of images, rows shuffled by hash within the split.

    A split without posts (possible only with a low --min_posts) has no shard: `load_dataset` refuses to build one
    without rows ("corresponds to no data"), so the card does not name it either.
    """
    schema, offsets = danmul_schema(posts.character_names), posts.offsets()
    image_bytes = np.minimum(images.num_bytes, expected_bytes(short_side)) if short_side else images.num_bytes
    tag_names = np.array(posts.tag_names, object)
    ratings = [name or None for name in posts.rating_names]
    for split, name in enumerate(SPLITS):
        rows = np.flatnonzero(divided.splits == split)
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
                picture_hashes=images.picture_hashes[part],
                groups=divided.near.groups[part],
                near_train=divided.near.near_train[part],
                short_side=short_side,
            )


def write_shard(task: ShardTask) -> dict:
    """Write one shard under a temporary name and move it into place. Returns its file, rows, bytes and sha256.

    A shard that an earlier run finished is kept if its plan and its bytes equal those noted in `plans/`, so a killed
    build resumes. The shard itself depends on neither time nor machine.

    Raises OSError when an image cannot be read any more or the disk is full, ValueError when a train-ready picture
    cannot be made; no shard is left then.
    """
    path, plan = UPath(task.path), task.plan()
    note = plan_path(path)
    if finished := finished_shard(path, note, plan):
        return finished
    with whole_file(path) as unfinished, unfinished.open("wb") as file:
        digested = DigestedFile(file)
        write_rows(task, digested)
    shard = {"file": path.name, "rows": len(task.post_ids)} | digested.size_and_digest()
    note.parent.mkdir(parents=True, exist_ok=True)
    write_whole(note, json.dumps({"plan": plan, **shard}))
    return shard


def plan_path(path: UPath) -> UPath:
    """Where the plan of the shard at `path` is noted."""
    return path.parent.parent / "plans" / f"{path.name}.json"


def finished_shard(path: UPath, note: UPath, plan: str) -> dict | None:
    """What `write_shard` returned for a shard that is there, whole and of this plan; else None."""
    try:
        noted = json.loads(note.read_text(encoding="utf-8"))
        if noted.pop("plan") == plan and size_and_digest(path).items() <= noted.items():
            return noted
    except (FileNotFoundError, ValueError, KeyError, AttributeError):
        pass
    return None


class DigestedFile:
    """A file to write from start to end, whose hash is known at the end without reading it again."""

    closed = False

    def __init__(self, file: BinaryIO):
        self.file, self.digest, self.num_bytes = file, hashlib.sha256(), 0

    def write(self, content: bytes) -> int:
        self.digest.update(content)
        self.num_bytes += len(content)
        return self.file.write(content)

    def tell(self) -> int:
        return self.num_bytes

    def flush(self) -> None:
        self.file.flush()

    def size_and_digest(self) -> dict:
        """{"bytes", "sha256"} of what was written."""
        return {"bytes": self.num_bytes, "sha256": self.digest.hexdigest()}


def size_and_digest(path: UPath) -> dict:
    """{"bytes", "sha256"} of a file."""
    num_bytes, digest = 0, hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(2**20):
            digest.update(part)
            num_bytes += len(part)
    return {"bytes": num_bytes, "sha256": digest.hexdigest()}


def parquet_writer(file, schema: pa.Schema) -> pq.ParquetWriter:
    """A writer with the settings of this data set.

    Not with Parquet's content-defined chunking: pictures are neither encoded nor compressed, so the Hub's own chunks
    find those that it has already, and the heads of further pages only break them (tests/benchmarks/bench_append.py:
    after 1 % of new posts twice the bytes are sent again).
    """
    return pq.ParquetWriter(
        file,
        schema,
        compression=COMPRESSION,
        use_dictionary=DICTIONARY_COLUMNS,
        write_statistics=STATISTICS_COLUMNS,
        write_page_index=True,
    )


def write_rows(task: ShardTask, file) -> None:
    """The Parquet file of a shard."""
    with parquet_writer(file, task.schema) as writer:
        ends = np.concatenate(([0], np.cumsum(task.tag_counts, dtype=np.int64)))
        for start in range(0, len(task.post_ids), ROWS_PER_GROUP):
            rows = slice(start, min(start + ROWS_PER_GROUP, len(task.post_ids)))
            writer.write_table(row_group(task, rows, ends), row_group_size=ROWS_PER_GROUP)


def row_group(task: ShardTask, rows: slice, ends: np.ndarray) -> pa.Table:
    """The Arrow table of some rows of a shard, with the bytes of their images as they are on disk."""
    images = task.images[rows]
    image_type = task.schema.field("image").type
    contents = [read_image(image) for image in images]
    names = [image.name for image in images]
    if task.short_side:
        contents = [train_ready(content, task.short_side, name) for content, name in zip(contents, names, strict=True)]
        names = [f"{os.path.splitext(name)[0]}.jpg" for name in names]
    contents, names = pa.array(contents, image_type.field("bytes").type), pa.array(names, pa.string())
    first, last = ends[rows.start], ends[rows.stop]
    codes = pa.array(task.tag_codes[first:last], pa.int64())
    tags = pa.array(task.tag_names, pa.string()).take(codes)
    columns = [
        pa.array(task.post_ids[rows], pa.int64()),
        pa.StructArray.from_arrays([contents, names], names=["bytes", "path"]),
        pa.array(task.characters[rows], pa.int64()),
        pa.ListArray.from_arrays(pa.array(ends[rows.start : rows.stop + 1] - first, pa.int32()), tags),
        pa.array(task.ratings[rows], pa.string()),
        pa.array(to_text(task.picture_hashes[rows]), pa.string()),
        pa.array(task.groups[rows], pa.int64()),
        pa.array(task.near_train[rows], pa.bool_()),
    ]
    return pa.table(columns, schema=task.schema)


def read_image(image: ImageFile) -> bytes:
    """The bytes of an image, untouched."""
    with open_image(image) as stream:
        return stream.read()
