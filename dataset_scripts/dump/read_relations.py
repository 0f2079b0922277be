"""Reads the tag aliases and implications of a dump (Danbooru2021: tag_aliases*.json, tag_implications*.json)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import msgspec
from upath import UPath

from dataset_scripts.dump.open_files import DAMAGED
from dataset_scripts.dump.read_json import COMPRESSED_SUFFIXES, JSON_SUFFIXES, opened_files, records_of

ACTIVE = ("active", None)


class Relation(msgspec.Struct):
    """A line of either file."""

    antecedent_name: str
    consequent_name: str
    status: str | None = None


def read_relations(source: UPath, kind: str) -> list[tuple[str, str]]:
    """Active (antecedent, consequent) pairs of `source/metadata*/tag_KIND*` (or `source/tag_KIND*`), sorted.

    Raises FileNotFoundError without such a file, ValueError with file and line for a line that is no relation.
    """
    paths = [*source.glob(f"metadata*/tag_{kind}*"), *source.glob(f"tag_{kind}*")]
    paths = sorted((path for path in paths if path.name.endswith((*JSON_SUFFIXES, *COMPRESSED_SUFFIXES))), key=str)
    if not paths:
        raise FileNotFoundError(f"--{kind} expects tag_{kind}*.json in {source}/metadata*/, found none: leave it out.")
    pairs = set()
    for path in paths:
        try:
            for name, file in opened_files(str(path), path.name):
                if file is not None:
                    pairs.update(active_pairs(file, name))
        except DAMAGED as error:
            raise ValueError(f"{path.name} cannot be unpacked to its end ({error}): get it again.") from error
    return sorted(pairs)


def active_pairs(file: BinaryIO, name: str) -> Iterator[tuple[str, str]]:
    """The pairs of one file: lines, or an array. Raises ValueError with file and line for what is no relation."""
    decode = msgspec.json.Decoder(Relation).decode
    for number, record in enumerate(records_of(file, name), 1):
        if not record.strip():
            continue
        try:
            relation = decode(record)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{name}:{number}: expected a relation of two tags, {error}.") from error
        if relation.status in ACTIVE and relation.antecedent_name != relation.consequent_name:
            yield relation.antecedent_name, relation.consequent_name
