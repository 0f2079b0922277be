"""The data set card of a built folder: the YAML that `load_dataset` reads, then what one should know."""

from __future__ import annotations

import hashlib
from pathlib import Path

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
    counts, options = build["counts"], build["options"]
    share = '\n- config_name: share\n  data_files:\n  - split: test\n    path: "share/test-*.parquet"'
    share = share if has_share else ""
    size = options.get("image_size")
    image = f"JPEG of quality 95, shorter side at most {size} pixels" if size else "the original file, bytes untouched"
    share_line = '\nshare = load_dataset("danmul", "share", split="test")  # Dan:share, Table III' if has_share else ""
    split = "Per character n\\*7//10 train, n//4 test, the rest validation, by a hash of the post id"
    if "like" in options:
        split = (
            f"Further posts of the characters of `{plain(options['like'])}`, none of that data set's own, to measure "
            "models trained there. Per character n\\*2//7 validation, the rest test, by a hash of the post id"
        )
    drawn = build.get("drawn", False)
    rights = (
        "The images were drawn by this project's program, `dataset_scripts.mini_booru`; Apache-2.0, as the program."
        if drawn
        else "The images belong to their artists; the licence of each is that of its source, and whoever publishes "
        "this folder has to make sure that she may."
    )
    filled = [name for name in SPLITS if counts["splits"][name]]  # `load_dataset` cannot build a split without posts
    data_files = "\n".join(f'  - split: {name}\n    path: "data/{name}-*.parquet"' for name in filled)
    rules = "\n".join(
        f"| {plain(rule['rule'])} | {rule['posts_dropped']:,} | {rule['posts_after']:,} "
        f"| {rule['characters_after']:,} | {rule['tags_dropped']:,} | {rule['tags_after']:,} |"
        for rule in build["rules"]
    )
    broken = ", ".join(f"{entry['count']:,} {reason}" for reason, entry in build["images"].items()) or "none"
    shown = list(counts["ratings"].items())[:RATINGS]
    ratings = ", ".join(f"`{plain(rating)}` {number:,}" for rating, number in shown)
    return f"""---
pretty_name: "Dan:mul"
license: {"apache-2.0" if drawn else "other"}
task_categories:
- image-classification
size_categories:
- {size_category(counts["posts"])}
tags:
- anime
- character-identification
- tag-prediction
- multimodal
configs:
- config_name: default
  description: "build {fingerprint(build)}"
  default: true
  data_files:
{data_files}{share}
---

# Dan:mul

{counts["posts"]:,} images of {counts["characters"]:,} characters with {counts["tags"]:,} general tags, built by the
rules of *Anime Character Identification and Tag Prediction by Multimodality Modeling: Dataset and Model* (§III) from
`{plain(Path(build["source"]).name)}` ({build["metadata"]["format"]} metadata).

```python
from datasets import load_dataset

danmul = load_dataset("danmul")  # in the folder that holds danmul/; streaming=True reads without a copy{share_line}
post = danmul["{filled[0]}"][0]
danmul["{filled[0]}"].features["character"].int2str(post["character"]), post["tags"], post["image"]

from datasets.distributed import split_dataset_by_node  # each of 8 processes streams its own shards

part = split_dataset_by_node(load_dataset("danmul", split="{filled[0]}", streaming=True), rank=0, world_size=8)
```

## Columns
`post_id` int64, the dump's id · `image` {image} · `character` ClassLabel, names in the
Parquet schema and `characters.json` · `tags` general tags, sorted by name, possibly none · `rating` of the dump.
`tags.json` is the tag vocabulary, most frequent first ({counts["tags"]:,} tags; with the {SPECIAL_TOKENS} special
tokens of a tokenizer {counts["tags_and_special_tokens"]:,}).

## Splits (Table I)
{table_1_markdown(statistics)}

![Images per character](figures/images_per_character.png)
![Tags per image](figures/tags_per_image.png)

{split} (seed {options["seed"]}).

## What the rules dropped
Characters and tags are counted on posts of exactly one character.

| rule | posts dropped | posts left | characters left | tags dropped | tags left |
|---|---|---|---|---|---|
{rules}

Images: {broken}. Malformed metadata lines skipped: {build["metadata"]["bad_lines"]:,}; records without id:
{build["metadata"]["without_id"]:,}. Every option, the thresholds of Eq. 1 and the ids of broken images are in
`build.json`.

## Ratings and licence
Ratings: {ratings}. Dumps from before 2022 rate `s` safe, later ones `g` general and `s` sensitive; nothing is filtered
by rating unless the options say so; look at `rating` before you show pictures to anyone. Many characters are minors or
drawn as such: pictures of rating `q` and `e` do not belong into a model or a demonstration. {rights}

## Known problems
- Tags and characters are written by volunteers: incomplete, sometimes wrong, and more complete for popular series.
- Classes are long-tailed: a mean over images says little about rare characters. Report the mean over characters too.
- Near-duplicates (variants, crops, reposts) and other pictures of the same artist may lie in different splits.
- An image with two characters of which one is not tagged counts as one of a single character.
- What is drawn often here is not what people are like: gender, skin colour, age and clothes follow the source's taste.
  The set is for naming fictional characters, not for judging photographs of people.

## Citation
Yi, Wu, Zhao, Zhou: *Anime Character Identification and Tag Prediction by Multimodality Modeling: Dataset and Model*.
"""
