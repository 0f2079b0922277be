"""The lists of a built folder, its record and its card: written, and read back."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import version

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from dataset_scripts.dump.find_dump import Dump, relative
from dataset_scripts.dump.list_images import ImageListing
from dataset_scripts.dump.parse import Parsed, write_rejects
from dataset_scripts.folder.card import dataset_card
from dataset_scripts.folder.statistics import SPECIAL_TOKENS, all_statistics
from dataset_scripts.rules.posts_table import PostsTable, count_posts_of_tags
from dataset_scripts.rules.selection import Selected
from dataset_scripts.rules.split_posts import SPLITS, Divided
from dataset_scripts.rules.tag_relations import follow

LEAST_SHARE = 0.1  # of the posts of a character that have a tag
LISTED_FILES = 100  # of metadata
LISTED_IDS = 1_000  # of missing or broken images, per reason
PACKAGES = ("datasets", "msgspec", "numpy", "pillow", "pyarrow")
# No byte of the data set depends on these.
NOT_RECORDED = ("output", "workers", "overwrite", "dry_run", "executor", "executor_address")


def record_build(
    options: dict, dump: Dump, parsed: Parsed, listing: ImageListing, selected: Selected, divided: Divided
) -> dict:
    """build.json: where the data set comes from and what every rule did. No time and no machine: a rerun is equal."""
    posts, splits = selected.posts, divided.splits
    ratings = {posts.rating_names[code]: int(number) for code, number in enumerate(np.bincount(posts.ratings))}
    return {
        "source": options["source"],
        "drawn": was_drawn(dump) and not options["images"],
        "metadata": {
            "format": dump.format,
            "files": len(dump.files),
            "first_files": [relative(path, dump.source) for path in dump.files[:LISTED_FILES]],
            "not_read": [relative(path, dump.source) for path in dump.not_read[:LISTED_FILES]],
            "lines": parsed.num_records,
            "bad_lines": parsed.num_bad,
            "without_id": parsed.num_without_id,
        },
        "options": options,
        "counts": {
            "posts": len(posts),
            "characters": len(posts.character_names),
            "tags": len(posts.tag_names),
            "tags_and_special_tokens": len(posts.tag_names) + SPECIAL_TOKENS,
            "posts_without_tags": int(np.count_nonzero(posts.tag_counts == 0)),
            "splits": {name: int(np.count_nonzero(splits == split)) for split, name in enumerate(SPLITS)},
            "characters_without_posts": {
                name: len(posts.character_names) - len(np.unique(posts.characters[splits == split]))
                for split, name in enumerate(SPLITS)
            },
            "ratings": dict(sorted((name, number) for name, number in ratings.items() if number)),
        },
        "duplicates": divided.near.statistics,
        "rules": [asdict(count) for count in selected.counts],
        "images": {
            reason: {"count": len(ids), "post_ids": ids[:LISTED_IDS].tolist()}
            for reason, ids in sorted(selected.problems.items())
            if len(ids)
        },
        "versions": {package: version(package) for package in PACKAGES},
        "duplicate_ids_that_differ": selected.num_conflicts,
        "tfidf_thresholds": selected.ladder,
        "image_files_ignored": listing.num_ignored,
    }


def was_drawn(dump: Dump) -> bool:
    """Whether all metadata were written by mini_booru, whose pictures are this project's: by their digests."""
    try:
        digests = json.loads((dump.source / "mini_booru.json").read_bytes())["metadata_sha256"]
        return all(
            hashlib.sha256(path.read_bytes()).hexdigest() == digests[relative(path, dump.source)]
            for path in dump.files
        )
    except (OSError, ValueError, LookupError, TypeError):
        return False


def recorded_options(options: dict) -> dict:
    """The options that the bytes of the data set depend on, sorted by name.

    Of the source and of `like` only the name of the folder: the folders of a machine are nobody's business.
    """
    recorded = {name: value for name, value in sorted(options.items()) if name not in NOT_RECORDED}
    recorded["source"] = UPath(options["source"]).absolute().name
    like = recorded.pop("like")
    return recorded | ({"like": UPath(like).absolute().name} if like else {})  # older folders know no --like


def write_lists(
    folder: UPath,
    selected: Selected,
    divided: Divided,
    parsed: Parsed,
    implications: list[tuple[str, str]],
    record: dict,
) -> None:
    """Write every file of the folder but the shards and the figures."""
    posts, splits = selected.posts, divided.splits
    for path in list(folder.iterdir()):  # of a killed run, maybe with other options
        if path.is_file() and path.name != ".lock":
            path.unlink()
    write_json(folder / "tags.json", tag_vocabulary(posts, selected.scores))
    write_json(folder / "characters.json", character_list(posts, splits, parsed.series))
    write_json(folder / "implications.json", implied_tags(implications, posts.tag_names))
    write_json(folder / "character_tags.json", character_tags(posts, splits))
    write_json(folder / "build.json", record)
    write_json(folder / "statistics.json", all_statistics(divided.statistics, record))
    if parsed.bad_lines:
        write_rejects(folder / "rejects.jsonl", parsed.bad_lines)
    card = dataset_card(record, divided.statistics, posts.character_names, has_share=(folder / "share").is_dir())
    (folder / "README.md").write_text(card, encoding="utf-8")


def tag_vocabulary(posts: PostsTable, scores: dict[str, float]) -> list[dict]:
    """Tags with posts and Eq. 1, most frequent first, ties by name. The order is that of the tag ids to come."""
    counts = count_posts_of_tags(posts).tolist()
    rows = sorted(zip(posts.tag_names, counts, strict=True), key=lambda row: (-row[1], row[0]))
    # Six places: the logarithm may differ in the last bit from one processor to the next.
    return [{"tag": tag, "posts": number, "score": round(scores[tag], 6)} for tag, number in rows]


def character_list(posts: PostsTable, splits: np.ndarray, series: Counter[tuple[str, str]]) -> list[dict]:
    """Characters with their posts in all and per split, in the order of the ClassLabel (by name), and the series that
    most posts of the dump with this character alone are tagged with, with the share of these posts; none: null.

    Args: `series` counts posts by character and series, and all posts of a character under the series "".
    """
    most: dict[str, tuple[int, str]] = {}
    for (character, name), number in sorted(series.items()):
        if name and number > most.get(character, (0, ""))[0]:
            most[character] = number, name
    num_characters = len(posts.character_names)
    columns = {"posts": np.bincount(posts.characters, minlength=num_characters)}
    for split, name in enumerate(SPLITS):
        columns[name] = np.bincount(posts.characters[splits == split], minlength=num_characters)
    return [
        {"character": name}
        | {column: int(counts[code]) for column, counts in columns.items()}
        | {"series": most[name][1] if name in most else None}
        | ({"series_share": round(most[name][0] / series[name, ""], 3)} if name in most else {})
        for code, name in enumerate(posts.character_names)
    ]


def implied_tags(pairs: list[tuple[str, str]], tag_names: list[str]) -> list[dict]:
    """For each tag of the vocabulary those that it implies, over any number of steps, as far as they are in it."""
    known = set(tag_names)
    implied = {tag: sorted(known.intersection(found)) for tag, found in sorted(follow(pairs).items()) if tag in known}
    return [{"tag": tag, "implies": found} for tag, found in implied.items() if found]


def character_tags(posts: PostsTable, splits: np.ndarray) -> list[dict]:
    """P(tag | character) on the train posts, from LEAST_SHARE, the likeliest first: what is always true of a character
    ranks first. Nothing where nothing is trained on."""
    in_train = splits == 0
    characters = np.repeat(posts.characters, posts.tag_counts).astype(np.int64)
    pairs = (characters * len(posts.tag_names) + posts.tag_codes)[np.repeat(in_train, posts.tag_counts)]
    pairs, counts = np.unique(pairs, return_counts=True)
    of_character = np.bincount(posts.characters[in_train], minlength=len(posts.character_names))
    codes, tags = pairs // max(1, len(posts.tag_names)), pairs % max(1, len(posts.tag_names))
    shares = counts / of_character[codes]
    found: dict[str, dict[str, float]] = {}
    for row in np.lexsort((tags, -counts, codes)).tolist():
        if shares[row] >= LEAST_SHARE:
            name = posts.character_names[codes[row]]
            found.setdefault(name, {})[posts.tag_names[tags[row]]] = round(float(shares[row]), 3)
    return [{"character": name, "tags": shares} for name, shares in found.items()]


def write_json(path: UPath, content: dict | list) -> None:
    path.write_text(json_text(content), encoding="utf-8")


def json_text(content: dict | list) -> str:
    """Indented; one record a line for lists, which are long."""
    if isinstance(content, list):
        return "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in content) + "\n]\n"
    return json.dumps(content, ensure_ascii=False, indent=2) + "\n"


def read_record(folder: UPath) -> dict:
    """build.json of a built folder. Raises FileNotFoundError, or ValueError for one that is damaged."""
    if not (folder / "build.json").is_file():
        raise FileNotFoundError(f"Expected a folder that build_danmul wrote, but {folder} has no build.json.")
    try:
        record = json.loads((folder / "build.json").read_text(encoding="utf-8"))
        record["counts"]["splits"], record["shards"]  # what everybody asks for  # noqa: B018
        return record
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{folder}/build.json is cut or damaged ({error!r}): build the data set again.") from error


def shard_batches(folder: UPath, split: str, columns: list[str] | None = None, rows: int = 10_000) -> Iterator:
    """The rows of a split of a built folder, as record batches with their schema.

    Raises ValueError, with the name of the shard, for what is none.
    """
    for path in sorted((folder / "data").glob(f"{split}-*.parquet")):
        try:
            with path.open("rb") as file:
                yield from pq.ParquetFile(file).iter_batches(batch_size=rows, columns=columns)
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{path} is no shard of a built data set ({error}): build it again.") from error


def split_column(folder: UPath, split: str, column: str) -> np.ndarray:
    """One column of a split of a built folder; empty where an older build has none of this name.

    Raises ValueError, FileNotFoundError where there are no shards.
    """
    if not any((folder / "data").glob("*.parquet")):
        raise FileNotFoundError(f"Expected a built folder with data/*.parquet, {folder} has none.")
    batches = [batch for batch in shard_batches(folder, split, [column]) if column in batch.schema.names]
    empty = np.array([], object if column == "picture_hash" else np.int64)
    return np.concatenate([empty, *(batch[column].to_numpy(zero_copy_only=False) for batch in batches)])


def read_class_names(folder: UPath) -> list[str]:
    """The characters of a built folder in the order of their labels."""
    return [row["character"] for row in json.loads((folder / "characters.json").read_text(encoding="utf-8"))]
