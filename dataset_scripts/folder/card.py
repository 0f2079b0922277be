"""The data set card of a built folder: the YAML that `load_dataset` reads, then what one should know."""

from __future__ import annotations

import hashlib
from pathlib import Path

from jinja2 import Environment, PackageLoader

from dataset_scripts.folder.shards import danmul_schema
from dataset_scripts.folder.statistics import SPECIAL_TOKENS, table_1_markdown
from dataset_scripts.rules.split_posts import SPLITS

MAX_TEXT = 200  # characters of anything that is not ours
MAX_NAMES = 200  # of characters in the YAML
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


def dataset_info(build: dict, character_names: list[str]) -> str:
    """YAML of what `load_dataset_builder(...).info` knows before anything is downloaded: rows and bytes of each split,
    and the features, unless there are more than MAX_NAMES characters: all their names stand in the files anyway, and
    the Hub takes no card that is too large (huggingface/datasets#7392)."""
    from datasets import DatasetInfo, Features, SplitDict, SplitInfo  # 1.5 s
    from datasets.info import DatasetInfosDict
    from huggingface_hub import DatasetCardData

    features = None
    if len(character_names) <= MAX_NAMES:
        features = Features.from_arrow_schema(danmul_schema(character_names))
    infos = {}
    for config, shards in (("default", build["shards"]), ("share", build.get("share", {}).get("shards", []))):
        splits = {}
        for name in SPLITS:
            parts = [shard for shard in shards if shard["file"].startswith(f"{name}-")]
            if parts:
                num_bytes, num_examples = (sum(part[key] for part in parts) for key in ("bytes", "rows"))
                splits[name] = SplitInfo(name, num_bytes=num_bytes, num_examples=num_examples)
        if splits:
            size = sum(split.num_bytes for split in splits.values())
            infos[config] = DatasetInfo(
                features=features, splits=SplitDict(splits), download_size=size, dataset_size=size
            )
    data = DatasetCardData()
    DatasetInfosDict(infos).to_dataset_card_data(data)
    return data.to_yaml()


def dataset_card(build: dict, statistics: dict, character_names: list[str], has_share: bool) -> str:
    """README.md: the YAML that `load_dataset` reads, then the numbers.

    Args: the contents of build.json and statistics.json; the characters in the order of their labels; whether the
    folder holds share/ (Dan:share, Table III).
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
        dataset_info=dataset_info(build, character_names),
    )
