"""The rules of the data set as anyone would write them first: a plain loop over json.loads. Slow, and the measure."""

import collections
import json
import math
import re

import numpy as np

from dataset_scripts.rules.select_posts import EMOTICON_PATTERN
from dataset_scripts.rules.split_posts import hash_ids


def reference(lines, image_ids, threshold, min_posts=10):
    """(id, character, tags, rating, split) of every post of the data set, sorted; `lines`: one JSON post each."""
    records = {}
    for line in lines:
        try:
            post = json.loads(line)
        except ValueError:
            continue
        if "id" not in post or int(post["id"]) not in image_ids:
            continue
        if "tags" in post:
            characters = {tag["name"] for tag in post["tags"] if tag["category"] == "4"}
            general = {tag["name"] for tag in post["tags"] if tag["category"] == "0"}
        else:
            characters = set(post.get("tag_string_character", "").split())
            general = set(post.get("tag_string_general", "").split())
        if len(characters) != 1:
            continue
        record = (-len(general), sorted(general), characters.pop(), post["rating"], post["is_deleted"])
        post_id = int(post["id"])
        records[post_id] = min(record, records.get(post_id, record))
    per_character = collections.Counter(record[2] for record in records.values())
    records = {i: r for i, r in records.items() if per_character[r[2]] >= min_posts}
    tags = {i: [t for t in r[1] if not re.fullmatch(EMOTICON_PATTERN, t)] for i, r in records.items()}
    counts = collections.Counter(t for names in tags.values() for t in names)
    tags = {i: [t for t in names if counts[t] > 1] for i, names in tags.items()}
    sums = collections.defaultdict(float)
    for names in tags.values():
        for tag in names:
            sums[tag] += 1 / len(names)
    kept = {t for t, total in sums.items() if total * math.log(len(records) / counts[t]) >= threshold}
    rows, of_character = [], collections.defaultdict(list)
    hashes = dict(zip(records, hash_ids(np.array(list(records)), 0).tolist(), strict=True))
    for i, record in records.items():
        of_character[record[2]].append(i)
    for character, ids in of_character.items():
        ids.sort(key=lambda i: (hashes[i], i))
        train, test = len(ids) * 7 // 10, len(ids) // 4
        for place, i in enumerate(ids):
            split = "train" if place < train else "test" if place < train + test else "validation"
            rows.append((i, character, [t for t in tags[i] if t in kept], records[i][3], split))
    return sorted(rows)
