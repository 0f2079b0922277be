"""Groups the pictures of a folder whose characters a model does not know, on a page where they can be named: what
`mfdn group` does."""

import json
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from jinja2 import Environment, PackageLoader
from PIL import Image
from tqdm.auto import tqdm

from .. import MFDNProcessor
from ..evaluation.open_set import MAX_GROUPED, group_pictures
from ..gallery_mfdn import CharacterGallery
from ..pictures_mfdn import load_rgb
from ..training.files import check_replaceable, replace_folder
from .picture_folder import find_pictures, show_problems
from .taggers import UNKNOWN_THRESHOLD
from .torch_tagger import Looking, load_model

MARKER = "groups.json"  # of a folder that this command wrote
THUMBNAIL = 160  # pixels of the longer side
NUM_NEAREST = 3
STATIC = ("groups.css", "groups.js")
# File names are no markup: every value is escaped.
PAGES = Environment(
    loader=PackageLoader("modeling_mfdn.tagging", "groups"), autoescape=True, trim_blocks=True, lstrip_blocks=True
)


@dataclass
class GroupOptions:
    """What `mfdn group` is asked for; `mfdn group --help` says what each means."""

    folder: str
    model: str
    output: str
    gallery: str | None = None
    unknown_threshold: float = UNKNOWN_THRESHOLD
    min_size: int = 3
    overwrite: bool = False
    not_recursive: bool = False
    batch_size: int = 32
    num_workers: int = 2
    device: str | None = None


def group_folder(options: GroupOptions) -> int:
    """Write the page. Returns the exit code: 1 where a picture could not be read; all others are there.

    Raises:
        ValueError, OSError: with a sentence for the user; nothing is written then.
    """
    output, folder = Path(options.output).absolute(), Path(options.folder)
    check_replaceable(output, MARKER, options.overwrite)
    paths, _, _ = find_pictures(folder, not options.not_recursive)
    model, processor = load_model(options)
    gallery = processor.known_gallery()
    if options.gallery:
        gallery.load(options.gallery)
    names, z, problems = unknown_pictures(model, processor, paths, folder, options)
    print(f"{len(paths):,} pictures, {len(names):,} of them of characters that the model does not know")
    if len(names) > MAX_GROUPED:
        raise ValueError(
            f"Expected at most {MAX_GROUPED:,} pictures to group at a time, found {len(names):,}: give a part of the "
            "folder, or raise --unknown_threshold."
        )
    groups = describe_groups(names, z, processor, options.min_size)
    with replace_folder(output, MARKER, options.overwrite) as unfinished:
        write_page(unfinished, folder, groups, options)
    grouped = sum(len(group["pictures"]) for group in groups)
    print(f"{len(groups):,} groups of {options.min_size} and more, {grouped:,} pictures; the others stand alone.")
    print(f"Open {options.output}/index.html, name those that you know, and teach them.")
    show_problems(problems)
    return int(bool(problems))


def unknown_pictures(
    model, processor: MFDNProcessor, paths: list[Path], folder: Path, options: GroupOptions
) -> tuple[list[str], torch.Tensor, list[str]]:
    """Names of the pictures that are unknown, by their place in the folder; z [n, Z] of these; and what could not be
    read."""
    statistics = processor.known_gallery().statistics
    names, found = [], [torch.zeros(0, len(statistics.spread))]
    looking = Looking(model, processor, paths, options, "looking")
    for indices, _, outputs in looking:
        _, _, unknown = processor.rank_characters(outputs.logits, outputs.picture_embedding)
        is_unknown = (unknown > options.unknown_threshold).tolist()
        chosen = [paths[index] for index, counts in zip(indices, is_unknown, strict=True) if counts]
        names += [path.relative_to(folder).as_posix() for path in chosen]
        found.append(statistics.axes(outputs.picture_embedding)[is_unknown].cpu())
    return names, torch.cat(found), looking.problems


def describe_groups(names: list[str], z: torch.Tensor, processor: MFDNProcessor, min_size: int) -> list[dict]:
    """Each group of `min_size` and more, surest first: its pictures, surest first; how sure, the mean log-odds of its
    pictures to be of one character; and the known characters that are nearest."""
    gallery = processor.known_gallery()
    statistics = gallery.statistics
    labels = group_pictures(z, statistics)
    trained = CharacterGallery(statistics)
    trained.append([str(row) for row in range(len(statistics.counts))], statistics.means, statistics.counts)
    known = [*(processor.characters or map(str, range(len(statistics.counts)))), *gallery.names]
    groups = []
    for label in labels.unique().tolist():
        rows = (labels == label).nonzero()[:, 0]
        if len(rows) < min_size:
            continue
        log_odds = CharacterGallery.of_pictures(statistics, z[rows]).taught_log_odds(z[rows])
        sure = (log_odds.sum(dim=1) - log_odds.diagonal()) / max(1, len(rows) - 1)
        order = sure.argsort(descending=True)
        near = torch.cat([trained.taught_log_odds(z[rows]), gallery.taught_log_odds(z[rows])], dim=1).mean(dim=0)
        nearest = [known[row] for row in near.topk(min(NUM_NEAREST, len(known))).indices.tolist()]
        pictures = [names[rows[row]] for row in order.tolist()]
        groups.append({"pictures": pictures, "sure": float(sure.mean()), "nearest": nearest})
    return sorted(groups, key=lambda group: -group["sure"])


def write_page(output: Path, folder: Path, groups: list[dict], options: GroupOptions) -> None:
    """The page, its thumbnails and groups.json."""
    (output / "thumbnails").mkdir()
    for name in STATIC:
        shutil.copyfile(Path(__file__).with_name("groups") / name, output / name)
    number, shown = 0, []
    total = sum(len(group["pictures"]) for group in groups)
    with tqdm(total=total, desc="thumbnails", unit=" pictures", disable=None) as bar:
        for group in groups:
            cells = []
            for name in group["pictures"]:
                number += 1
                picture = load_rgb(folder / name)
                picture.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
                picture.save(output / "thumbnails" / f"{number}.jpg", quality=85)
                cells.append({"name": name, "thumbnail": f"thumbnails/{number}.jpg"})
                bar.update()
            shown.append(group | {"cells": cells})
    facts = {"folder": str(folder.resolve()), "model": options.model}
    taught = f"{options.model.rstrip('/')}_taught"
    command = shlex.join(["mfdn", "teach", "names.json", "--model", options.model, "--output", taught])
    page = PAGES.get_template("index.html").render(groups=shown, command=command, **facts)
    (output / "index.html").write_text(page, encoding="utf-8", errors="surrogateescape")
    (output / MARKER).write_text(json.dumps(facts | {"groups": groups}, indent=1) + "\n", encoding="utf-8")
