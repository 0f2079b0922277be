"""The word at the end of `mfdn tag`: what was found, what is doubtful, what could not be done and why."""

import sys
from collections import Counter

from ..training.terminal import printable

SHOWN = 10
SURE = 0.5  # below it no answer, neither a character nor "unknown", is likelier than not


def how_sure(result: dict, has_statistics: bool) -> float:
    """Probability in [0, 1] of the likeliest answer to who is in a picture, "unknown" being one."""
    best = result["characters"][0]["score"] if result["characters"] else 0.0
    return max(result["unknown"], (1 - result["unknown"]) * best) if has_statistics else best


class Report:
    """What was found, by counts; what could not be done, by the names of the pictures; words of captions that stand
    nowhere any more; and pictures of characters that the model does not know."""

    def __init__(self, all_tags: bool = False):
        self.all_tags = all_tags
        self.num_tagged = 0
        self.characters: Counter[str] = Counter()
        self.tags: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()  # by the reason
        self.problems: dict[str, str] = {}
        self.lost: Counter[str] = Counter()
        self.unknown: set[str] = set()
        self.uncertain: set[str] = set()
        self.untagged: set[str] = set()
        self.unpruned: Counter[str] = Counter()  # characters of which nobody knows what is always true

    def count(self, name: str, chosen: dict[str, list[tuple]], sure: float) -> None:
        """A picture that was tagged."""
        self.num_tagged += 1
        self.characters.update(character for character, _ in chosen["character"])
        self.tags.update(tag for tag, _ in chosen["tag"])
        if sure < SURE:
            self.uncertain.add(name)
        if not chosen["character"] and not chosen["tag"]:
            self.untagged.add(name)

    def show(self) -> int:
        """Print the report. Returns the exit code: 1 if there were problems."""
        if self.num_tagged:
            print(f"{self.num_tagged:,} tagged")
            print(f"characters: {top(self.characters) or 'none'}")
            print(f"tags: {top(self.tags, len(self.tags) if self.all_tags else SHOWN) or 'none'}")
            doubtful = {
                "show a character that the model does not know, or none at all": self.unknown,
                "are uncertain: no answer is likelier than not": self.uncertain,
                "have neither a character nor a tag": self.untagged,
            }
            for title, names in doubtful.items():
                if names:
                    print(f"{len(names):,} pictures {title}.")
        if self.skipped:
            print(
                f"skipped: {', '.join(f'{number:,} {printable(why)}' for why, number in self.skipped.most_common())}"
            )
        if self.unpruned:
            print(f"nothing known of what is always true of, so nothing left out: {top(self.unpruned)}")
        for name, problem in self.problems.items():
            print(f"not done: {name!r}: {printable(' '.join(problem.split()))}", file=sys.stderr)
        if self.lost:
            words = ", ".join(f"{word!r} ({number:,})" for word, number in self.lost.most_common(SHOWN))
            more = f" and {len(self.lost) - SHOWN:,} more" if len(self.lost) > SHOWN else ""
            print(
                f"Words of captions that the model does not know are not written any more: {printable(words)}{more}. "
                "--append instead of --overwrite keeps them.",
                file=sys.stderr,
            )
        if self.problems:
            print(f"{len(self.problems):,} pictures could not be done; all others are.", file=sys.stderr)
        return int(bool(self.problems))


def top(counted: Counter[str], number: int = SHOWN) -> str:
    """The most frequent, with their counts, and how many others there are."""
    text = ", ".join(f"{name} {count:,}" for name, count in counted.most_common(number))
    return printable(text + (f" and {len(counted) - number:,} others" if len(counted) > number else ""))
