"""The data set card of a built folder: the YAML that `load_dataset` reads, then what one should know."""

from __future__ import annotations

import hashlib
from pathlib import Path

from jinja2 import Environment, PackageLoader

from dataset_scripts.folder.statistics import SPECIAL_TOKENS, table_1_markdown
from dataset_scripts.rules.split_posts import SPLITS

MAX_TEXT = 200  # characters of anything that is not ours
RATINGS = 20  # kinds that are shown: image boards have five


def size_category(num_posts: int) -> str:
    """The Hub's name for the size of a data set."""
    limits = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
    return next((name for limit, name in limits if num_posts < limit), "1M<n<10M")


def fingerprint(build: dict) -> str:
    """16 hexadecimal digits that differ between data sets.

    `datasets` 5.2 finds its cache of a local folder by the folder's name and its YAML alone. Without a difference in
    the YAML, `load_dataset("danmul")` after a rebuild, or in another folder, silently returns the old data set.
    """
    shards = build["shards"] + build.get("share", {}).get("shards", [])
    return hashlib.sha256("".join(shard["sha256"] for shard in shards).encode()).hexdigest()[:16]


def plain(text: str) -> str:
    """Untrusted text for Markdown: no line breaks, no markup, no HTML, and not endless."""
    return "".join(c for c in " ".join(str(text).split()) if c.isprintable() and c not in "`|<>[]{}*\\")[:MAX_TEXT]


def dataset_card(build: dict, statistics: dict, has_share: bool) -> str:
    """README.md: the YAML that `load_dataset` reads, then the numbers. No class names: see danmul_schema.

    Args: the contents of build.json and statistics.json; whether the folder holds share/ (Dan:share, Table III).
    """
    counts = build["counts"]
    ratings = [f"`{plain(rating)}` {number:,}" for rating, number in list(counts["ratings"].items())[:RATINGS]]
    environment = Environment(
        loader=PackageLoader("dataset_scripts", "folder"), trim_blocks=True, keep_trailing_newline=True
    )
    environment.filters |= {"plain": plain, "number": "{:,}".format}
    return environment.get_template("dataset_card.md").render(
        build,  # counts, options, metadata, rules
        drawn=build.get("drawn", False),
        has_share=has_share,
        source=Path(build["source"]).name,
        filled=[name for name in SPLITS if counts["splits"][name]],  # `load_dataset` builds no split without posts
        size_category=size_category(counts["posts"]),
        fingerprint=fingerprint(build),
        special_tokens=SPECIAL_TOKENS,
        table_1=table_1_markdown(statistics),
        broken=", ".join(f"{entry['count']:,} {reason}" for reason, entry in build["images"].items()) or "none",
        ratings=", ".join(ratings),
    )
