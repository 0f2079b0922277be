"""Characters and tags as people's tools want them in files: captions, Hydrus lists, JSON lines, CSV."""

import argparse
import csv
import json
from pathlib import Path

from ..training.saving import write_whole

FORMULA = ("=", "+", "-", "@", "\t", "\r")


def sidecar(path: Path, format: str) -> Path:
    """Where the tags of a picture stand."""
    return path.with_suffix(".txt") if format == "txt" else path.with_name(f"{path.name}.txt")


def sidecar_tags(path: Path) -> list[str]:
    """Tags of a sidecar, between commas or lines, as they stand there; none without a sidecar."""
    if not path.exists():
        return []
    parts = path.read_text(encoding="utf-8-sig", errors="replace").replace("\n", ",").split(",")
    return [tag.strip() for tag in parts if tag.strip()]


def as_hint(tag: str) -> str:
    """A tag of a sidecar as the model knows it: no escapes, no namespace, no score."""
    tag = tag.replace("\\(", "(").replace("\\)", ")").removeprefix("character:")
    name, _, number = tag.rpartition(":")
    return name if name and number.replace(".", "", 1).isdigit() else tag


def chosen(result: dict, options: argparse.Namespace) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
    """(name, score) of the characters and of the tags that are to be written, renamed and filtered."""
    replace = dict(entry.split("=", 1) for entry in options.replace)
    exclude = {plain(tag) for tag in options.exclude}
    found = []
    for kind in ("characters", "tags"):
        rows = [(replace.get(entry["label"], entry["label"]), entry["score"]) for entry in result[kind]]
        found.append([(name, value) for name, value in rows if name and plain(name) not in exclude])
    characters = [row for row in found[0] if row[1] >= options.character_threshold and not options.no_characters]
    return characters, found[1]


def plain(tag: str) -> str:
    """`Long hair` and `long_hair` are one tag."""
    return "_".join(tag.lower().replace("_", " ").split())


def spelled(tag: str, options: argparse.Namespace) -> str:
    """A tag as it is written: --spaces (but not in `>_<`) and --escape."""
    if options.spaces and len(tag) > 3:
        tag = tag.replace("_", " ")
    return tag.replace("(", "\\(").replace(")", "\\)") if options.escape else tag


def write_sidecar(path: Path, characters: list, tags: list, options: argparse.Namespace) -> None:
    """The text beside a picture, whole or not at all; with --append what stood there comes first."""
    prefix = "character:" if options.format == "hydrus" else ""
    rows = [(spelled(tag, options), None) for tag in options.first]
    rows += [(prefix + spelled(name, options), value) for name, value in characters]
    rows += [(spelled(name, options), value) for name, value in tags]
    words = sidecar_tags(path) if options.append else []
    known = {plain(as_hint(word)) for word in words}
    for name, value in rows:
        if plain(as_hint(name)) not in known:
            known.add(plain(as_hint(name)))
            words.append(f"{name}:{value:.2f}" if options.scores and value is not None else name)
    separator = "\n" if options.format == "hydrus" else ", "
    write_whole(path, separator.join(words) + "\n")


def record(name: str, characters: list, tags: list, options: argparse.Namespace) -> dict:
    """A line of jsonl or a row of csv."""
    tags = [(tag, None) for tag in options.first] + tags
    shown = {"file": name}
    for kind, rows in (("characters", characters), ("tags", tags)):
        shown[kind] = [spelled(tag, options) for tag, _ in rows]
        if options.scores:
            shown[f"{kind[:-1]}_scores"] = [None if value is None else round(value, 4) for _, value in rows]
    return shown


def finished_records(path: Path) -> dict[str, dict]:
    """The records of an interrupted run by file name; a line that was cut off does not count."""
    found = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
                found[entry["file"]] = entry
            except (ValueError, TypeError, KeyError):
                continue
    return found


def write_csv(path: Path, records: list[dict], spreadsheet: bool = False) -> None:
    """One row a picture; lists become text with spaces between tags, which hold none, or ", " with --spaces.

    Args:
        spreadsheet: cells that a spreadsheet would run as a formula, such as a file name `=cmd|...`, get a ' before.
    """
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(records[0]) if records else ["file", "characters", "tags"])
        writer.writeheader()
        for entry in records:
            cells = {k: ", ".join(map(str, v)) if isinstance(v, list) else v for k, v in entry.items()}
            if spreadsheet:
                cells = {k: f"'{v}" if str(v).startswith(FORMULA) else v for k, v in cells.items()}
            writer.writerow(cells)
