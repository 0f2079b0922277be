"""Find the metadata files of a dump, tell their generation by looking inside, and cut them into byte ranges."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import msgspec

from dataset_scripts.posts import GENERATIONS, ParseTask

RANGE_BYTES = 64 * 2**20


@dataclass
class Metadata:
    """The metadata files of a dump, all of one generation."""

    generation: str
    files: list[Path]
    not_read: list[Path]  # posts in the other generation: the same posts a second time

    def describe(self, source: Path) -> str:
        """One line: generation, files, and what the dump holds besides."""
        years = {"nested": "tags lists, as in Danbooru2017-2020", "flat": "tag_string_*, as in Danbooru2021"}
        line = f"metadata: {self.generation} ({years[self.generation]}), {names(self.files, source)}"
        if self.not_read:
            line += f"; not read, because they describe the same posts: {names(self.not_read, source)}"
        return line


def find_metadata(source: Path, generation: str = "auto") -> Metadata:
    """Find the post files in `source/metadata*/` and their generation ("auto" prefers flat).

    Raises FileNotFoundError when there is no such folder or file, ValueError when a file is neither generation.
    """
    if not source.is_dir():
        raise FileNotFoundError(f"--source expects the folder of a dump, but {source} is not a folder.")
    folders = sorted(folder for folder in source.glob("metadata*") if folder.is_dir())
    if not folders:
        found = sorted(path.name for path in source.iterdir())[:10]
        raise FileNotFoundError(
            f"Expected a folder {source}/metadata with JSON lines, found {found}: give the top folder of the dump."
        )
    files = sorted(path for folder in folders for path in folder.iterdir() if path.suffix in (".json", ".jsonl"))
    by_generation: dict[str, list[Path]] = {name: [] for name in GENERATIONS}
    for path in files:
        found = detect_generation(path)
        if found:
            by_generation[found].append(path)
    if generation == "auto":
        generation = "flat" if by_generation["flat"] else "nested"
    if not by_generation[generation]:
        sizes = ", ".join(f"{path.relative_to(source)} ({path.stat().st_size} bytes)" for path in files[:10])
        others = {name: len(paths) for name, paths in by_generation.items()}
        raise FileNotFoundError(
            f"Expected files of {generation} posts (.json or .jsonl, one post a line) in {source}/metadata*, found "
            f"{sizes or 'no .json or .jsonl file'}, of which posts: {others}; check the download or --metadata."
        )
    not_read = [path for name, paths in by_generation.items() if name != generation for path in paths]
    return Metadata(generation, by_generation[generation], not_read)


def detect_generation(path: Path, max_lines: int = 1000) -> str | None:
    """"nested", "flat", or None for a file without posts (tags*.json, artists*.json, an empty file).

    Raises ValueError when none of the first `max_lines` lines is JSON.
    """
    first_error = is_json = None
    with path.open("rb") as file:
        for number, line in enumerate(islice(file, max_lines), 1):
            if not (line := line.removeprefix(b"\xef\xbb\xbf").strip()):
                continue
            try:
                record = msgspec.json.decode(line)
            except (ValueError, RecursionError) as error:
                first_error = first_error or f"{path}:{number}: {error}"
                continue
            is_json = True
            if isinstance(record, dict) and isinstance(record.get("tags"), list):
                return "nested"
            if isinstance(record, dict) and any(key.startswith("tag_string") for key in record):
                return "flat"
    if first_error and not is_json:
        raise ValueError(f"Expected JSON lines (one post a line), found {first_error}: repair or remove that file.")
    return None


def split_into_ranges(metadata: Metadata, source: Path, range_bytes: int = RANGE_BYTES) -> list[ParseTask]:
    """Byte ranges rather than files, because twelve files do not balance over sixteen cores."""
    return [
        ParseTask(str(path), str(path.relative_to(source)), metadata.generation, start, start + range_bytes)
        for path in metadata.files
        for start in range(0, max(path.stat().st_size, 1), range_bytes)
    ]


def names(files: list[Path], source: Path) -> str:
    """The first file as the user knows it, and how many there are."""
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    return f"{files[0].relative_to(source)}{more}"
