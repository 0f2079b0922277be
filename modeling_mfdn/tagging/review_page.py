"""review.html: the pictures of a folder and what a model says of them, most uncertain first; one file, from the disk.

It holds its data as lines of JSON, which the next run reads back: so it knows pictures that were tagged months apart.
"""

import json
import sys
from pathlib import Path

from ..training.files import whole_file

PAGE = "review.html"
PARTS = Path(__file__).parent / "review"
MARKER = '<meta name="generator" content="mfdn review">'
START, END = '<script type="application/json" id="pictures">[\n', "\n]</script>"
SPELLING = ("format", "spaces", "escape", "caption_separator")


class ReviewPage:
    """Collects what is said of pictures, and writes the page when the block ends, also by Ctrl-C.

    Args:
        folder: of the pictures, where the page stands.
        tagger: whose names the page suggests.
        options: of `mfdn tag`, for how words are spelled.
    """

    def __init__(self, folder: Path, tagger, options):
        self.path = folder / PAGE
        names = {"characters": tagger.character_names, "tags": tagger.tags}
        self.facts = {name: getattr(options, name) for name in SPELLING} | names
        self.lines: dict[str, str] = {}
        self.is_somebodys = False

    def __enter__(self) -> "ReviewPage":
        try:
            self.lines = read_page(self.path)
        except ValueError as error:
            print(f"{error} It is left alone, and no page is written.", file=sys.stderr)
            self.is_somebodys = True
        return self

    def add(self, name: str, result: dict, words: list[str], sure: float) -> None:
        """A picture that was tagged.

        Args:
            words: as they were written.
            sure: probability of the likeliest answer to who is there, in [0, 1].
        """
        entry = {
            "file": name,
            "sure": round(sure, 3),
            "unknown": round(result["unknown"], 3),
            "characters": [[row["label"], round(row["score"], 3)] for row in result["characters"][:5]],
            "tags": [[row["label"], round(row["score"], 2)] for row in result["tags"]],
            "words": words,
        }
        self.lines[name] = one_line(entry)

    def __exit__(self, *_) -> None:
        if self.is_somebodys or not self.lines:
            return
        there = {name: line for name, line in self.lines.items() if (self.path.parent / name).is_file()}
        with whole_file(self.path) as unfinished:
            unfinished.write_text(page_of(self.facts, list(there.values())), encoding="utf-8")


def one_line(entry) -> str:
    """JSON that may stand in a page: no name can end its script."""
    return json.dumps(entry, separators=(",", ":")).replace("<", "\\u003c")


def page_of(facts: dict, lines: list[str], token: str = "") -> str:
    """The page, with its data, its style and its script in it.

    Args:
        token: of the server that saves what is corrected; "" = none is there.
    """
    html, css, script = ((PARTS / f"review.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js"))
    data = f'<script type="application/json" id="facts">{one_line(facts)}</script>\n{START}' + ",\n".join(lines) + END
    parts = {"MARKER": MARKER, "CSS": css, "DATA": data, "SCRIPT": script, "TOKEN": token}
    before, *rest = html.split("{{ ")
    return before + "".join(parts[name] + text for name, _, text in (part.partition(" }}") for part in rest))


def read_page(path: Path) -> dict[str, str]:
    """The lines of a page by picture; none where no page is. Raises ValueError: it is somebody's own, or damaged."""
    if not path.exists():
        return {}
    try:
        text = path.read_text(encoding="utf-8")
        if MARKER not in text:
            raise ValueError
        lines = text[text.index(START) + len(START) :].partition(END)[0].split(",\n")
        return {json.loads(line)["file"]: line for line in filter(None, lines)}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no page of mfdn tag, or damaged.") from error


def read_facts(path: Path) -> dict:
    """What a page says of its spelling and names; {} where there is none."""
    if not path.exists():
        return {}
    try:
        text = path.read_text(encoding="utf-8")
        facts = json.loads(text.partition('id="facts">')[2].partition("</script>")[0])
    except ValueError as error:
        raise ValueError(f"{path} is no page of mfdn tag, or damaged: move it, and run mfdn tag again.") from error
    return facts
