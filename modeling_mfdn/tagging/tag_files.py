"""How characters and tags are worded, and the captions of kohya and Hydrus that stand beside pictures."""

import codecs
import difflib
import os
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..training.files import whole_file
from .picture_folder import CAPTION_SUFFIXES

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


def without_spaces(name: str) -> str:
    """A tag without spaces and underscores: in whatever way they stand around a comma, it is the same."""
    return name.lower().replace("_", "").replace(" ", "")


def with_commas(names: Iterable[str], separator: str = ", ") -> dict[str, str]:
    """The names that hold what stands between two words of a caption, for `Caption.names`."""
    sign = separator.strip() or ","
    return {without_spaces(name): name for name in names if sign in name}


def as_hint(word: str, known: Collection[str] = ()) -> str:
    """A word of a caption as the model spells it: without escapes, namespace and score, unless `known` with them."""
    tag = normalized(word)
    if tag in known:
        return tag
    tag = tag.replace("\\(", "(").replace("\\)", ")").removeprefix("character:")
    name, _, number = tag.rpartition(":")
    return name if tag not in known and name and number.replace(".", "", 1).isdecimal() else tag


class Wording:
    """Which words are written, in which order, and how they are spelled: the options of `mfdn tag`.

    Args:
        options: of `mfdn tag`.
        known: tags and characters of the model.
        vocabulary: what the data set says of them, see `data.lists.read_vocabulary`.
    """

    def __init__(self, options, known: Collection[str], vocabulary: dict | None = None):
        self.options, self.known = options, known
        self.exclude = {as_hint(word, known) for word in [*options.exclude, *listed(options.undesired_tags)]}
        entries = [self.old_and_new(entry) for entry in options.replace]
        for entry in filter(None, options.tag_replacement.split(";")):  # kohya's: old,new;old,new
            old, comma, new = entry.partition(",")
            if not comma or not old.strip():
                raise ValueError(f"--tag_replacement expects OLD,NEW;OLD,NEW, got {entry!r}.")
            entries.append((old, new.strip()))
        self.replacements = {as_hint(old, known): new for old, new in entries}
        self.firsts = [self.spelled(tag) for tag in [*options.first, *listed(options.always_first_tags)]]
        self.lasts = [self.spelled(tag) for tag in options.last]
        self.separator = options.caption_separator
        vocabulary = vocabulary or {}
        self.series = {
            name: entry["series"] for name, entry in vocabulary.get("characters", {}).items() if entry.get("series")
        }
        self.implications = vocabulary.get("implications", {})
        self.character_tags = vocabulary.get("character_tags", {})

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

    def keys(self, words: Iterable[str]) -> set[str]:
        return {self.key(word) for word in words}

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

    def chosen(self, result: dict, is_unknown: bool = False, told: Collection[str] = ()) -> dict[str, list[tuple]]:
        """What is to be written of a picture, by kind: "character", "series", "tag" and "rating", each rows of (name,
        score, or None where there is none), renamed and filtered.

        Args:
            is_unknown: whether no character is to be named.
            told: tags that the model was given, and which are true as well.
        """
        options = self.options
        characters = [
            (entry["label"], entry["score"])
            for entry in result["characters"]
            if entry["score"] >= options.character_threshold and not options.no_characters and not is_unknown
        ]
        tags = [(tag, None) for tag in told] + [(entry["label"], entry["score"]) for entry in result["tags"]]
        left_out: set[str] = set()
        if options.no_implied:
            left_out.update(*(self.implications.get(tag, ()) for tag, _ in tags))
        if options.prune_character_tags is not None:
            for name, _ in characters:
                shares = self.character_tags.get(name, {})
                left_out.update(tag for tag, share in shares.items() if share >= options.prune_character_tags)
        found: dict[str, list[tuple]] = {
            "character": characters,
            "series": [(name, None) for name in self.series_of(name for name, _ in characters)],
            "tag": [row for row in tags if row[0] not in left_out],
            "rating": [(entry["label"], entry["score"]) for entry in result.get("ratings", ())[:1]],
        }
        return {
            kind: rows if kind == "rating" else [(new, score) for name, score in rows if (new := self.replaced(name))]
            for kind, rows in found.items()
        }

    def series_of(self, characters: Iterable[str]) -> list[str]:
        """The series of characters, each once, with --series."""
        known = (self.series.get(name) for name in characters) if self.options.series else ()
        return list(dict.fromkeys(filter(None, known)))

    def words(self, chosen: dict[str, list[tuple]]) -> list[str]:
        """What a caption says of a picture, without what --first and --last say."""
        options, is_hydrus = self.options, self.options.format == "hydrus"
        names = [(kind, self.spelled(name), score) for kind in ("character", "series") for name, score in chosen[kind]]
        tags = [("tag", self.spelled(name), score) for name, score in chosen["tag"]]
        rows = names + tags if options.character_tags_first else tags + names
        rating = [("rating", name, score) for name, score in chosen["rating"]]
        if options.use_rating_tags:
            rows = rating + rows
        elif options.rating:
            rows += rating
        if is_hydrus:
            return [name if kind == "tag" else f"{kind}:{name}" for kind, name, _ in rows]
        return [f"{name}:{score:.2f}" if options.scores and score is not None else name for _, name, score in rows]

    def record(self, name: str, chosen: dict[str, list[tuple]]) -> dict:
        """An object of jsonl, a row of csv or Parquet."""
        edges = self.keys([*self.firsts, *self.lasts])
        inner = [row for row in chosen["tag"] if self.key(row[0]) not in edges]
        tags = [*((tag, None) for tag in self.firsts), *inner, *((tag, None) for tag in self.lasts)]
        shown: dict = {"file": name}
        for kind, rows in (("characters", chosen["character"]), ("tags", tags)):
            shown[kind] = [self.spelled(tag) for tag, _ in rows]
            if self.options.scores:
                shown[f"{kind[:-1]}_scores"] = [None if value is None else round(value, 4) for _, value in rows]
        if self.options.series:
            shown["series"] = [self.spelled(name) for name, _ in chosen["series"]]
        for label, score in chosen["rating"]:
            shown["rating"] = label
            if self.options.scores:
                shown["rating_score"] = round(score, 4)
        return shown


def listed(text: str) -> list[str]:
    """The words between the commas of an option of kohya's."""
    return [word.strip() for word in text.split(",") if word.strip()]


@dataclass
class Caption:
    """The text beside a picture.

    Attributes:
        path: where it stands, or will.
        lines: as they stand there; none where it is not there yet.
        one_a_line: whether each line is one word, as for Hydrus; else words stand between commas.
        mark: byte order mark, `encoding` as it says, `newline` as the text has them.
        separator: what stands between two words.
        names: tags that hold a comma themselves (hello,_good-bye), by `without_spaces`.
    """

    path: Path
    lines: list[str]
    one_a_line: bool
    mark: bytes = b""
    encoding: str = "utf-8"
    newline: str = "\n"
    separator: str = ", "
    names: dict[str, str] = field(default_factory=dict)

    def words_of(self, line: str) -> list[str]:
        sign = self.separator.strip() or ","
        parts = [part.strip() for part in ([line] if self.one_a_line else line.split(sign)) if part.strip()]
        found: list[str] = []
        while parts:
            length = next((n for n in (3, 2) if without_spaces(sign.join(parts[:n])) in self.names), 1)
            whole = self.names.get(without_spaces(sign.join(parts[:length])), "")
            is_spaced = not any("_" in part for part in parts[:length])
            found.append(parts[0] if length == 1 else whole.replace("_", " ") if is_spaced else whole)
            parts = parts[length:]
        return found

    def words(self) -> list[str]:
        return [word for line in self.lines for word in self.words_of(line)]

    def write(self, lines: list[str]) -> None:
        """Replace the text: whole or not at all, with its marks as they were."""
        with whole_file(self.path) as unfinished:
            text = self.newline.join(lines) + self.newline
            unfinished.write_bytes(self.mark + text.encode(self.encoding))

    def edit(self, words: list[str]) -> None:
        """Make its words those given. In a text of several lines each stays where it stands; new ones are put at the
        beginning or the end of the first line."""
        if self.one_a_line or len(self.lines) < 2:
            return self.write(words if self.one_a_line else [self.separator.join(words)])
        there = self.words()
        kept = [[word for word in self.words_of(line) if word in words] for line in self.lines]
        lines = [
            line.rstrip() if found == self.words_of(line) else self.separator.join(found)
            for line, found in zip(self.lines, kept, strict=True)
        ]
        new = [word for word in words if word not in there]
        first = next((i for i, word in enumerate(words) if word in there), 0)
        before, after = (
            [word for word in words[:first] if word in new],
            [word for word in words[first:] if word in new],
        )
        main = lines[0].strip(", ")
        self.write([self.separator.join([*before, *([main] if main else []), *after]), *lines[1:]])

    def replace(self, words: list[str], wording: Wording) -> None:
        """--first, `words` and --last, nothing else."""
        lasts = wording.keys(wording.lasts) - wording.keys(wording.firsts)
        inner = [word for word in [*wording.firsts, *words] if wording.key(word) not in lasts]
        words = without_doubles([*inner, *wording.lasts], wording)
        self.write(words if self.one_a_line else [wording.separator.join(words)])

    def add(self, words: list[str], wording: Wording) -> None:
        """What stands here stays as it is written, but for --exclude and --replace; new are --first at the beginning,
        and `words` and --last at the end of the first line, or, where each line is a word, of the text."""
        first, last = wording.firsts, wording.lasts
        if [*map(wording.key, self.words()[: len(first)])] == [*map(wording.key, first)]:
            first = []  # they are, from an earlier time
        edges = wording.keys([*first, *last])
        kept = []
        for line in self.lines:
            before = self.words_of(line)
            after = [word for old in before if (word := wording.replaced(old)) and wording.key(word) not in edges]
            if after == before:
                kept.append(line.rstrip())  # byte for byte, with its own commas
            elif after or not before:
                kept.append(self.separator.join(after))
        there = edges | {wording.key(word) for line in kept for word in self.words_of(line)}
        new = without_doubles(words, wording, there)
        if self.one_a_line:
            lines = [*first, *kept, *new, *last]
        else:
            main = kept[0].strip(", ") if kept else ""
            parts = [*first, *([main] if main else []), *new, *last]
            lines = [self.separator.join(parts) if first or new or last else (kept or [""])[0]]
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
    case, else `a.txt`; for Hydrus and with --full_names `a.png.txt` alone. --caption_extension takes the place of both
    endings.

    Args:
        beside: names of the files in each folder that end like a caption.
    """
    suffixes = (options.caption_extension,) if options.caption_extension else CAPTION_SUFFIXES
    spelled = {folder: {name.lower(): name for name in sorted(names)} for folder, names in beside.items()}
    paths = []
    for picture in pictures:
        names = [f"{picture.name}{suffixes[0]}"]
        if options.format != "hydrus" and not options.full_names:
            names = [f"{name}{suffix}" for suffix in suffixes for name in (picture.stem, picture.name)]
        exact, there = beside.get(picture.parent, ()), spelled.get(picture.parent, {})
        found = [name for name in names if name in exact] + [there[n.lower()] for n in names if n.lower() in there]
        paths.append(picture.with_name(found[0] if found else names[0]))
    return paths


def read_caption(path: Path, one_a_line: bool = False, separator: str = ", ") -> Caption:
    """The caption at a path; without lines where nothing is there.

    Raises:
        ValueError: it is no file, no text, or longer than any caption. It is left alone then: text in an encoding
            that is guessed wrongly would be lost when it is written again.
        OSError: it cannot be read.
    """
    if not os.path.lexists(path):
        return Caption(path, [], one_a_line, separator=separator)
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
    one_a_line = one_a_line or (len(lines) > 1 and not any((separator.strip() or ",") in line for line in lines))
    return Caption(path, lines, one_a_line, mark, encoding, newline, separator)


def has_caption(path: Path) -> bool:
    """Whether something stands there; spaces and line breaks alone are nothing. Raises as `check_caption`."""
    check_caption(path)
    return path.exists() and bool(path.read_bytes().strip(b" \t\r\n\0\xef\xbb\xbf\xff\xfe"))


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
