"""Writes characters and tags in the formats of other tools: captions, Hydrus lists, JSON lines, CSV."""

import codecs
import csv
import difflib
import json
import os
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from ..training.files import whole_file

FORMULA = ("=", "+", "-", "@", "\t", "\r")
CAPTION_SUFFIXES = (".txt", ".caption")
MAX_CAPTION_BYTES = 2**20
# The one of UTF-32 begins with the one of UTF-16.
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}


def normalized(tag: str) -> str:
    """The tag in lower case with underscores: `Long hair` is `long_hair`."""
    return "_".join(tag.lower().replace("_", " ").split())


def as_hint(word: str, known: Collection[str] = ()) -> str:
    """A word of a caption as the model spells it: without escapes, namespace and score, unless `known` with them."""
    tag = normalized(word)
    if tag in known:
        return tag
    tag = tag.replace("\\(", "(").replace("\\)", ")").removeprefix("character:")
    name, _, number = tag.rpartition(":")
    return name if tag not in known and name and number.replace(".", "", 1).isdecimal() else tag


class Wording:
    """How words are written: --exclude, --replace, --first, --spaces, --escape and --scores.

    Args:
        options: of `mfdn-tag`.
        known: tags and characters of the model.
    """

    def __init__(self, options, known: Collection[str]):
        self.options, self.known = options, known
        self.exclude = {as_hint(word, known) for word in options.exclude}
        entries = [self.old_and_new(entry) for entry in options.replace]
        self.replacements = {as_hint(old, known): new for old, new in entries}

    def old_and_new(self, entry: str) -> tuple[str, str]:
        """Both sides of OLD=NEW. A tag may hold a "=" itself (=_=): then OLD is what the model knows."""
        sides = [(entry[:i], entry[i + 1 :].strip()) for i, sign in enumerate(entry) if sign == "=" and i]
        if not sides:
            raise ValueError(f"--replace expects OLD=NEW, got {entry!r}.")
        return next((side for side in sides if normalized(side[0]) in self.known), sides[0])

    def check(self) -> None:
        """Raises ValueError: --exclude or --replace names what the model does not know, but nearly."""
        spelled = {normalized(name): name for name in self.known}
        for flag, words in (("exclude", self.exclude), ("replace", self.replacements)):
            for word in words:
                if word not in spelled and (near := difflib.get_close_matches(word, spelled, 3, cutoff=0.8)):
                    raise ValueError(
                        f"--{flag} {word}: the model knows no such tag or character; near are "
                        f"{', '.join(spelled[name] for name in near)}."
                    )

    def key(self, word: str) -> str:
        """The form that two spellings of one word share."""
        return as_hint(word, self.known)

    def replaced(self, word: str) -> str | None:
        """The replacement of a word; None for one that is never written."""
        key = self.key(word)
        if key in self.exclude:
            return None
        new = self.replacements.get(key, word)
        return new if new and self.key(new) not in self.exclude else None

    def spelled(self, tag: str) -> str:
        """A tag as it is written: --spaces (but not in `>_<`) and --escape."""
        if self.options.spaces and len(tag) > 3:
            tag = tag.replace("_", " ")
        return tag.replace("(", "\\(").replace(")", "\\)") if self.options.escape else tag

    def chosen(self, result: dict) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
        """(name, score) of the characters and of the tags that are to be written, renamed and filtered."""
        characters, tags = (
            [(name, entry["score"]) for entry in result[kind] if (name := self.replaced(entry["label"]))]
            for kind in ("characters", "tags")
        )
        threshold = self.options.character_threshold
        return [row for row in characters if row[1] >= threshold and not self.options.no_characters], tags

    def words(self, characters: list, tags: list, rating: dict | None = None) -> list[str]:
        """What a caption says of a picture, without what --first says."""
        is_hydrus = self.options.format == "hydrus"
        rows = [("character:" * is_hydrus + self.spelled(name), value) for name, value in characters]
        rows += [(self.spelled(name), value) for name, value in tags]
        if rating:
            rows.append(("rating:" * is_hydrus + rating["label"], rating["score"]))
        return [f"{name}:{value:.2f}" if self.options.scores and value is not None else name for name, value in rows]

    def record(self, name: str, characters: list, tags: list, rating: dict | None = None) -> dict:
        """A line of jsonl or a row of csv; with the likeliest rating of models that name them."""
        firsts = {self.key(tag) for tag in self.options.first}
        tags = [(tag, None) for tag in self.options.first] + [row for row in tags if self.key(row[0]) not in firsts]
        shown = {"file": name}
        for kind, rows in (("characters", characters), ("tags", tags)):
            shown[kind] = [self.spelled(tag) for tag, _ in rows]
            if self.options.scores:
                shown[f"{kind[:-1]}_scores"] = [None if value is None else round(value, 4) for _, value in rows]
        if rating:
            shown["rating"] = rating["label"]
            if self.options.scores:
                shown["rating_score"] = round(rating["score"], 4)
        return shown


@dataclass
class Caption:
    """The text beside a picture.

    Attributes:
        path: where it stands, or will.
        lines: as they stand there; none where it is not there yet.
        one_a_line: whether each line is one word, as for Hydrus; else words stand between commas.
        mark: byte order mark, `encoding` as it says, `newline` as the text has them.
    """

    path: Path
    lines: list[str]
    one_a_line: bool
    mark: bytes = b""
    encoding: str = "utf-8"
    newline: str = "\n"

    def words_of(self, line: str) -> list[str]:
        parts = [line] if self.one_a_line else line.split(",")
        return [part.strip() for part in parts if part.strip()]

    def words(self) -> list[str]:
        return [word for line in self.lines for word in self.words_of(line)]

    def write(self, lines: list[str]) -> None:
        """Replace the text: whole or not at all, with its marks as they were."""
        with whole_file(self.path) as unfinished:
            text = self.newline.join(lines) + self.newline
            unfinished.write_bytes(self.mark + text.encode(self.encoding))

    def replace(self, words: list[str], wording: Wording) -> None:
        """--first and `words`, nothing else."""
        words = without_doubles([*map(wording.spelled, wording.options.first), *words], wording)
        self.write(words if self.one_a_line else [", ".join(words)])

    def add(self, words: list[str], wording: Wording) -> None:
        """What stands here stays as it is written, but for --exclude and --replace; new are --first at the beginning
        and `words` at the end of the first line, or, where each line is a word, of the text."""
        first = [wording.spelled(tag) for tag in wording.options.first]
        if [*map(wording.key, self.words()[: len(first)])] == [*map(wording.key, first)]:
            first = []  # they are, from an earlier time
        firsts = {wording.key(tag) for tag in first}
        kept = []
        for line in self.lines:
            before = self.words_of(line)
            after = [word for old in before if (word := wording.replaced(old)) and wording.key(word) not in firsts]
            if after == before:
                kept.append(line.rstrip())  # byte for byte, with its own commas
            elif after or not before:
                kept.append(", ".join(after))
        there = firsts | {wording.key(word) for line in kept for word in self.words_of(line)}
        new = without_doubles(words, wording, there)
        if self.one_a_line:
            lines = [*first, *kept, *new]
        else:
            main = kept[0].strip(", ") if kept else ""
            lines = [", ".join([*first, *([main] if main else []), *new]) if first or new else (kept or [""])[0]]
            lines += kept[1:]
        if lines != self.lines or not self.path.exists():
            self.write(lines)


def without_doubles(words: Iterable[str], wording: Wording, there: Collection[str] = ()) -> list[str]:
    """Words in their order, each once, without those whose keys are `there`."""
    found = {}
    for word in words:
        if (key := wording.key(word)) not in there:
            found.setdefault(key, word)
    return list(found.values())


def caption_paths(pictures: list[Path], beside: dict[Path, set[str]], options) -> list[Path]:
    """Where the caption of each picture stands, or will.

    For kohya and its kin: the first that is there of `a.txt`, `a.png.txt`, `a.caption` and `a.png.caption`, in any
    case, else `a.txt`; for Hydrus and with --full_names `a.png.txt` alone.

    Args:
        beside: names of the files in each folder that end like a caption.
    """
    spelled = {folder: {name.lower(): name for name in sorted(names)} for folder, names in beside.items()}
    paths = []
    for picture in pictures:
        names = [f"{picture.name}.txt"]
        if options.format != "hydrus" and not options.full_names:
            names = [f"{name}{suffix}" for suffix in CAPTION_SUFFIXES for name in (picture.stem, picture.name)]
        exact, there = beside.get(picture.parent, ()), spelled.get(picture.parent, {})
        found = [name for name in names if name in exact] + [there[n.lower()] for n in names if n.lower() in there]
        paths.append(picture.with_name(found[0] if found else names[0]))
    return paths


def read_caption(path: Path, one_a_line: bool = False) -> Caption:
    """The caption at a path; without lines where nothing is there.

    Raises:
        ValueError: it is no file, no text, or longer than any caption. It is left alone then: text in an encoding
            that is guessed wrongly would be lost when it is written again.
        OSError: it cannot be read.
    """
    if not os.path.lexists(path):
        return Caption(path, [], one_a_line)
    check_caption(path)
    content = path.read_bytes()
    mark = next((mark for mark in BYTE_ORDER_MARKS if content.startswith(mark)), b"")
    encoding = BYTE_ORDER_MARKS.get(mark, "utf-8")
    try:
        text = content[len(mark) :].decode(encoding)
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:  # also UTF-16 without a mark
        raise ValueError(f"{path.name} is neither UTF-8 nor begins with a byte order mark: save it as UTF-8")
    newline = "\r\n" if "\r\n" in text else "\n"
    lines = text.replace("\r\n", "\n").rstrip("\n").split("\n") if text.strip() else []
    one_a_line = one_a_line or (len(lines) > 1 and not any("," in line for line in lines))
    return Caption(path, lines, one_a_line, mark, encoding, newline)


def check_caption(path: Path) -> None:
    """Raises ValueError for what stands where a caption belongs and is none: a folder, a pipe, a huge file."""
    if os.path.lexists(path):
        if not path.is_file():
            raise ValueError(f"{path.name} stands where its caption belongs, and is no file")
        if path.stat().st_size > MAX_CAPTION_BYTES:
            raise ValueError(f"{path.name} has more than {MAX_CAPTION_BYTES:,} bytes: no caption has")


def lost_words(caption: Caption, written: Iterable[str], wording: Wording) -> Counter[str]:
    """Words of a caption that was replaced which stand nowhere any more, though nobody said to leave them out."""
    keys = {wording.key(word) for word in written}
    left = {word: wording.replaced(word) for word in caption.words()}
    return Counter(word for word, new in left.items() if new and wording.key(new) not in keys)


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


def write_csv(path: Path, records: list[dict], spreadsheet: bool = False) -> None:
    """One row a picture; lists become text with ", " between tags.

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


def write_names(path: Path, chosen: Collection[str], names: Iterable[str], overwrite: bool) -> None:
    """A file with names of pictures, a line each: the `chosen`, and those that stand there already, as an interrupted
    run left them, unless `overwrite`.

    Args:
        names: of all pictures, in the order of the file; a line that is none of them goes.
    """
    there = os.fsdecode(path.read_bytes()).split("\n") if path.is_file() and not overwrite else ()
    listed = {*chosen, *there}
    with whole_file(path) as unfinished:
        unfinished.write_bytes(os.fsencode("".join(f"{name}\n" for name in names if name in listed)))
    print(f"Their names: {path}")
