"""Characters and tags of a whole folder in one file: JSON lines, CSV, Parquet, metadata.jsonl of `imagefolder`.

A record is a dictionary: "file", "characters", "tags", and what was asked for. Pictures that came later are added to
the file that is there; an interrupted run goes on from FILE.partial.
"""

import csv
import json
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ..training.files import claim, whole_file

FILES = {"jsonl": "tags.jsonl", "csv": "tags.csv", "parquet": "tags.parquet", "imagefolder": "metadata.jsonl"}
FORMULA = ("=", "+", "-", "@", "\t", "\r")
ROW_COLUMNS = ["file", "kind", "name", "score"]  # of --row_per_tag
KINDS = {"characters": "character", "series": "series", "tags": "tag"}


def read_records(path: Path, options) -> dict[str, Any]:
    """What a finished file says, by picture: a record, or the rows of a CSV as they stand there.

    Raises:
        ValueError: it is no such file, or one of other columns or rows than these options write.
    """
    found: dict[str, Any] = {}
    try:
        if options.format == "parquet":
            import pyarrow.parquet as pq

            found = {record["file"]: record for record in pq.read_table(path).to_pylist()}
        elif options.format == "csv":
            with path.open(encoding="utf-8", newline="") as file:
                for row in csv.DictReader(file):
                    name = row["file"]
                    was_marked = name[:1] == "'" and name[1:].startswith(FORMULA)  # by --spreadsheet
                    found.setdefault(name[1:] if was_marked else name, []).append(row)
        else:
            key = name_of_file(options)
            for line in filter(None, path.read_text(encoding="utf-8").split("\n")):
                record = json.loads(line)
                name = record.pop(key)
                found[name] = {"file": name} | record
    except (ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        raise ValueError(
            f"{path} is there and is no {options.format} of this command ({error!r}): name another --output."
        ) from error
    return found


def name_of_file(options) -> str:
    """The key of a picture's name."""
    return "file_name" if options.format == "imagefolder" else "file"


def check_columns(path: Path, there: dict[str, Any], record: dict, options) -> None:
    """Raises ValueError: the records that are there have other columns than the `record` that comes."""
    old, new = next(iter(there.values()), None), list(record)
    if old is None:
        return
    if options.format == "csv":
        old, new = old[0], ROW_COLUMNS if options.row_per_tag else new
    if set(old) != set(new):
        raise ValueError(
            f"{path} has the columns {', '.join(old)}; with these options it would be {', '.join(new)}. Run with the "
            "options of then, --overwrite, or name another --output."
        )


def csv_rows(record: dict, options) -> list[dict]:
    """The row of a picture, with ", " between tags; with --row_per_tag a row for each name."""
    if not options.row_per_tag:
        return [{k: ", ".join(map(str, v)) if isinstance(v, list) else v for k, v in record.items()}]
    rows = []
    for column, kind in KINDS.items():
        names = record.get(column, [])
        scores = record.get(f"{kind}_scores") or [None] * len(names)
        rows += [(kind, name, score) for name, score in zip(names, scores, strict=True)]
    if "rating" in record:
        rows.append(("rating", record["rating"], record.get("rating_score")))
    return [dict(zip(ROW_COLUMNS, (record["file"], *row), strict=True)) for row in rows]


def write_records(path: Path, records: list[Any], options) -> None:
    """The one file, moved into place when it is whole.

    Args:
        records: dictionaries, or rows of a CSV as `read_records` gives them.
    """
    with whole_file(path) as unfinished:
        if options.format == "csv":
            write_csv(unfinished, records, options)
        elif options.format == "parquet":
            import pyarrow as pa
            import pyarrow.parquet as pq

            columns = list(dict.fromkeys(name for record in records for name in record))
            columns = columns or ["file", "characters", "tags"]
            schema = pa.schema([(name, column_type(name, pa)) for name in columns])
            pq.write_table(pa.Table.from_pylist(records, schema), unfinished)
        else:
            key = name_of_file(options)
            lines = ({key: record["file"]} | {k: v for k, v in record.items() if k != "file"} for record in records)
            text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
            unfinished.write_text(text, encoding="utf-8")


def column_type(name: str, pa):
    """Of a record's column in Parquet."""
    if name in ("characters", "series", "tags"):
        return pa.list_(pa.string())
    if name in ("character_scores", "tag_scores"):
        return pa.list_(pa.float32())
    return pa.float32() if name in ("unknown", "rating_score") else pa.string()


def write_csv(path: Path, records: list[Any], options) -> None:
    """Cells that a spreadsheet would run as a formula, such as a file name `=cmd|...`, get a ' before with
    --spreadsheet."""
    by_picture = (found if isinstance(found, list) else csv_rows(found, options) for found in records)
    rows = [row for found in by_picture for row in found]
    default = ROW_COLUMNS if options.row_per_tag else ["file", "characters", "tags"]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else default)
        writer.writeheader()
        for cells in rows:
            if options.spreadsheet:
                cells = {k: f"'{v}" if str(v).startswith(FORMULA) else v for k, v in cells.items()}
            writer.writerow(cells)


def partial_of(output: Path) -> Path:
    """Where the records of an unfinished run stand."""
    return output.with_name(f"{output.name}.partial")


def open_progress(output: Path, made_by: str, overwrite: bool, stack: ExitStack):
    """Records that an interrupted run left beside `output`, by file name, and the file to go on writing them to.

    Raises:
        FileExistsError: another model or other options made them, or another run is making them.
    """
    progress = partial_of(output)
    if os.path.lexists(progress) and (progress.is_symlink() or not progress.is_file()):
        raise FileExistsError(f"{progress} is no file of this command: remove it, or name another --output.")
    descriptor = os.open(progress, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
    log = stack.enter_context(os.fdopen(descriptor, "r+", encoding="utf-8", newline="\n"))
    stack.enter_context(claim(progress, output))
    left = finished_records(progress.read_bytes(), made_by)
    if left is None and not overwrite:
        raise FileExistsError(
            f"{progress} was begun with another model, other options or another folder: remove it, pass --overwrite "
            "to begin anew, or name another --output."
        )
    done, size = left or ({}, 0)
    log.truncate(size)
    log.seek(0, os.SEEK_END)
    if not size:
        log.write(json.dumps({"made_by": made_by}) + "\n")
        log.flush()
    return done, log


def finished_records(content: bytes, made_by: str) -> tuple[dict[str, dict], int] | None:
    """Records that an interrupted run wrote.

    Args:
        content: lines of JSON; the first says what made the others.
        made_by: what would make them now.

    Returns:
        Records by file name, and the bytes that hold whole lines. None if something else made them.
    """
    if not content:
        return {}, 0
    content = content[: content.rfind(b"\n") + 1]  # a line that was cut, perhaps inside a character, is done again
    if not content:
        return None
    found, size = {}, 0
    for number, line in enumerate(content.splitlines(keepends=True)):
        try:
            entry = json.loads(line)
            if number == 0 and entry.get("made_by") != made_by:
                return None
            if number:
                found[entry["file"]] = entry
        except (ValueError, TypeError, KeyError, AttributeError):
            if number == 0:
                return None
            break  # the disk was full, or went away: what comes after is done again
        size += len(line)
    return found, size
