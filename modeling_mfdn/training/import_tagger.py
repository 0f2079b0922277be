"""A published tagger in the layout of WD v3, as a model of ours: what it answers is what it answered.

Its folder holds `config.json` and `model.safetensors` of timm and `selected_tags.csv`, a row for each output: general
tags (category 0), characters (4) and ratings (9). Each has a score of its own, so several characters may be named.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import ModelCard
from transformers.image_utils import PILImageResampling

from .. import MFDNProcessor, MultiLabelConfig, MultiLabelModel
from .files import public_name
from .tag_tokenizer import CHARACTER, RATING, TAG_LIST, build_processor
from .timm_weights import from_timm, timm_model
from .vision_weights import fill
from .weight_files import download, load_folder, read_json

# Of the author's own application: general tags from 0.35, characters from 0.85.
TAG_THRESHOLD, CHARACTER_THRESHOLD = 0.35, 0.85


@dataclass
class Tagger:
    """A tagger that was read.

    Args:
        model, processor: with its weights and names.
        facts: for the card: where it comes from, its licence, and how many names of each kind it knows.
        vocabulary: posts of its tags and characters, as `data.lists.read_vocabulary` says them.
    """

    model: MultiLabelModel
    processor: MFDNProcessor
    facts: dict
    vocabulary: dict


def read_tagger(source: str, licence: str | None = None, is_bgr: bool = True) -> Tagger:
    """Read a tagger from a folder or from the Hub.

    Args:
        source: a folder, or `OWNER/NAME` on the Hub.
        licence: of the weights; None = what the card beside them says.
        is_bgr: whether it expects blue first, as the WD taggers do.

    Raises:
        FileNotFoundError: a file is missing.
        OSError: the Hub cannot be reached, or wants a token.
        ValueError: the files contradict each other, or the trunk is of no family that can be taken.
    """
    folder = Path(source) if Path(source).is_dir() else download(source)
    config = read_json(folder / "config.json")
    if "architecture" not in config:
        raise ValueError(f"{source}: config.json names no architecture of timm, so this is no tagger of WD's layout.")
    rows = read_tag_list(folder / TAG_LIST)
    saved = load_folder(folder, ("head.",))
    head = {part: saved.get(f"head.{part}") for part in ("weight", "bias")}
    if head["weight"] is None or len(head["weight"]) != len(rows):
        found = "no head" if head["weight"] is None else f"a head of {len(head['weight']):,} outputs"
        raise ValueError(f"{source}: {TAG_LIST} names {len(rows):,} outputs, the weights have {found}.")
    if head["bias"] is None:
        head["bias"] = torch.zeros(len(rows))
    vit, pixels = timm_model(folder, config, source), config.get("pretrained_cfg") or {}
    weights = from_timm(vit, source, None, pixels, config, is_bgr, num_fusion_layers=0)

    kinds = {"rating_head": [], "character_head": [], "tag_head": []}
    for place, (_, category, _) in enumerate(rows):
        kind = {RATING: "rating_head", CHARACTER: "character_head"}.get(category, "tag_head")
        kinds[kind].append(place)
    names = {kind: [rows[place][0] for place in places] for kind, places in kinds.items()}
    if not names["character_head"] or not names["tag_head"]:
        raise ValueError(f"{source}: {TAG_LIST} names no characters (category 4) or no tags (0).")
    model = MultiLabelModel(
        MultiLabelConfig(
            **weights.config,
            num_tags=len(names["tag_head"]),
            id2label=dict(enumerate(names["character_head"])),
            label2id={name: label for label, name in enumerate(names["character_head"])},
            rating_names=names["rating_head"] or None,
        )
    ).eval()
    for kind, places in kinds.items():
        if places:
            weights.state |= {f"{kind}.{part}": tensor[places] for part, tensor in head.items()}
    if untouched := fill(model, weights):
        raise ValueError(f"{source}: nothing in the weights for {untouched[:3]}.")

    options = {"resample": PILImageResampling.BICUBIC} | weights.image_processor
    processor = build_processor(model.config, names["tag_head"], "random", options)
    processor.character_activation = "sigmoid"
    processor.tag_threshold, processor.character_threshold = TAG_THRESHOLD, CHARACTER_THRESHOLD
    processor.ratings = model.config.rating_names
    facts = {
        "imported_from": public_name(source),
        "licence": licence or licence_of(folder),
        "tags": len(names["tag_head"]),
        "characters": len(names["character_head"]),
        "ratings": len(names["rating_head"]),
    }
    counts = {name: count for name, _, count in rows if count}
    vocabulary = {
        "tags": {tag: counts[tag] for tag in names["tag_head"] if tag in counts},
        "characters": {name: {"posts": counts[name]} for name in names["character_head"] if name in counts},
    }
    return Tagger(model, processor, facts, vocabulary)


def read_tag_list(path: Path) -> list[tuple[str, int, int]]:
    """(name, category, posts) of each output, from selected_tags.csv; 0 posts where it does not count them.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: no such columns, or a row that cannot be read.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no {path.name} in {path.parent}, so nobody knows what the outputs mean.")
    rows = []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                rows.append((row["name"], int(row["category"]), int(row.get("count") or 0)))
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise ValueError(
            f"{path}, line {len(rows) + 2}: expected the columns name and category (a number), found {error!r}."
        ) from error
    return rows


def licence_of(folder: Path) -> str:
    """What the card beside the weights says of its licence; "unknown" where it says nothing."""
    path = folder / "README.md"
    if not path.is_file():
        return "unknown"
    try:
        return str(ModelCard.load(path).data.license or "unknown")
    except Exception:  # yaml raises many types, and a card is no reason to refuse weights
        return "unknown"


__all__ = ["Tagger", "read_tagger"]
