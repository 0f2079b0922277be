"""The lists of a data set: JSON beside its rows. Nothing here needs PyTorch: who writes captions reads them, too."""

import contextlib
import json
from pathlib import Path

VOCABULARY_FILE = "vocabulary.json"  # beside a model: what `read_vocabulary` read when it was trained
LEAST_SHARE = 0.5  # of a character's posts that have a tag, to be listed there


def read_dataset_json(dataset: str, name: str):
    """A JSON file of a data set, in its folder or on the Hub. Raises OSError or ValueError."""
    path = Path(dataset, name)
    if not Path(dataset).is_dir():
        from huggingface_hub import hf_hub_download  # a third of a second

        path = Path(hf_hub_download(dataset, name, repo_type="dataset"))
    return json.loads(path.read_text(encoding="utf-8"))


def read_vocabulary(dataset: str) -> dict:
    """What tools that write tags ask of a data set's names, from its lists: `{"tags": {tag: posts}, "characters":
    {name: {"posts", "series", "series_share"}}, "implications": {tag: [tags]}, "character_tags": {name: {tag:
    share}}}`; of a list that is not there (an older build) nothing."""
    lists = {}
    for name in ("tags", "characters", "implications", "character_tags"):
        with contextlib.suppress(OSError, ValueError):
            lists[name] = read_dataset_json(dataset, f"{name}.json")
    wanted = ("posts", "series", "series_share")
    return {
        "tags": {entry["tag"]: entry["posts"] for entry in lists.get("tags", ())},
        "characters": {
            entry["character"]: {name: entry[name] for name in wanted if entry.get(name)}
            for entry in lists.get("characters", ())
        },
        "implications": {entry["tag"]: entry["implies"] for entry in lists.get("implications", ())},
        "character_tags": {
            entry["character"]: {tag: share for tag, share in entry["tags"].items() if share >= LEAST_SHARE}
            for entry in lists.get("character_tags", ())
        },
    }
