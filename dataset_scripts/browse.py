"""Look inside a built data set: static pages with its pictures, characters, tags and duplicates, and what was dropped.

The pages are a few kilobytes. What they show lies in pieces beside them, `data/NAME-000.js`, which open from a disk as
from a server, so that a filter is over all that was written and not over a page.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from jinja2 import Environment, PackageLoader
from PIL import Image
from tqdm import tqdm
from upath import UPath

from dataset_scripts.dump.check_images import check_content
from dataset_scripts.dump.find_dump import find_dump
from dataset_scripts.dump.list_images import open_image
from dataset_scripts.dump.parse import merge, parse
from dataset_scripts.dump.pictures import FORMATS, upright_rgb
from dataset_scripts.folder.executors import run
from dataset_scripts.folder.files import replace_folder
from dataset_scripts.folder.lists import read_class_names, read_record, split_column
from dataset_scripts.folder.statistics import table_1_markdown
from dataset_scripts.folder.terminal import command_line
from dataset_scripts.rules.posts_table import runs_of
from dataset_scripts.rules.selection import RULES
from dataset_scripts.rules.split_posts import SPLITS

THUMBNAIL = 192  # pixels of the longer side
PIECE_BYTES = 200_000
MAX_GROUPS, MAX_SUSPICIOUS = 500, 500
MARKER = ".pages"  # of a folder that this command wrote, and may replace
HELP = """Write static pages to look at a built data set: its pictures by character and tag, near-duplicates side by
side, those that lie far from their character, and what was dropped."""
EXAMPLE = """examples:
  python -m dataset_scripts.browse --dataset danmul --source DUMP    # then open danmul_pages/index.html
  python evaluate_mfdn.py --model mfdn --dataset danmul --split train --output train.json --predictions train.parquet
  python -m dataset_scripts.browse --dataset danmul --predictions train.parquet    # with a list of suspicious posts"""
STATIC = ("browse.css", "browse.js")
# Page → (its title, what it says of itself). Of two there is nothing without what they are made of.
PAGES = {
    "index": ("Overview", ""),
    "posts": ("Pictures", "Type words of names and tags, all of which a picture has to have."),
    "characters": ("Characters", "Each leads to all its pictures."),
    "tags": ("Tags", "Each leads to all its pictures."),
    "duplicates": ("Duplicates", "Near-duplicates side by side; those that lie in several splits first."),
    "suspicious": (
        "Suspicious",
        "The pictures that lie farthest from the mean of their character, as the model sees them.",
    ),
    "dropped": ("Dropped", "What each rule dropped, with examples."),
}
# Nothing that a dump says is markup: every value is escaped.
TEMPLATES = Environment(
    loader=PackageLoader("dataset_scripts", "folder"), autoescape=True, trim_blocks=True, lstrip_blocks=True
)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "browse", description=HELP, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--dataset", default="danmul", metavar="DIR", help="built folder (default: danmul)")
    add("--source", metavar="DUMP", help="the dump, of any format, to show pictures of dropped posts too")
    add(
        "--predictions",
        nargs="+",
        default=[],
        metavar="FILE",
        help="what evaluate_mfdn.py --predictions wrote of one or more splits: lists the most suspicious pictures",
    )
    add("--output", metavar="DIR", help="folder to write (default: the built folder's name and _pages)")
    add("--max_posts", type=int, default=10_000, metavar="N", help="posts shown of each split (default: 10000)")
    add("--overwrite", action="store_true", help="replace pages that an earlier run wrote there")
    return parser


@command_line
def main(argv: list[str] | None = None) -> int:
    """Run the command; 0, or 2 after an error of the user's input in one sentence."""
    options = build_parser().parse_args(argv)
    folder = Path(options.dataset).resolve()
    output = Path(options.output or f"{folder}_pages").absolute()
    if options.max_posts < 1:
        raise ValueError("--max_posts expects a number of at least 1.")
    record = read_record(folder)
    if not any((folder / "data").glob("*.parquet")):
        raise FileNotFoundError(f"--dataset expects a built folder with data/*.parquet, {folder} has none.")
    distances = read_distances(options.predictions)
    with replace_folder(output, MARKER, options.overwrite) as unfinished:
        num_broken = write_pages(folder, record, unfinished, options, distances)
    if num_broken:
        print(f"{num_broken:,} pictures cannot be decoded; the pages say which.")
    print(f"Open {output}/index.html")
    return 0


def write_pages(
    folder: Path, record: dict, output: Path, options: argparse.Namespace, distances: dict[int, tuple[float, str]]
) -> int:
    """Write all pages of a built folder to `output`. Returns the number of pictures that do not decode."""
    for name in ("thumbnails", "data"):
        (output / name).mkdir()
    (output / MARKER).touch()
    for name in STATIC:
        shutil.copyfile(Path(__file__).with_name("folder") / name, output / name)
    index = read_index(folder)
    groups = groups_to_show(index)
    suspicious = sorted(distances, key=lambda post_id: -distances[post_id][0])[:MAX_SUSPICIOUS]
    sample = {post_id for split in SPLITS for post_id in index[split]["post_id"][: options.max_posts].tolist()}
    wanted = sample.union(suspicious, *groups)
    posts, num_broken = [], 0
    for post in tqdm(read_posts(folder, index, wanted), "pictures", len(wanted), unit=" pictures", disable=None):
        post["size"] = write_thumbnail(output, post["post_id"], post.pop("image"))
        num_broken += post["size"] is None
        if post["post_id"] in distances:
            post["distance"], post["taken_for"] = distances[post["post_id"]]
        posts.append(post)
    found = {post["post_id"] for post in posts}
    pieces = {
        "posts": write_pieces(output, "posts", posts),
        "characters": write_pieces(output, "characters", character_rows(folder)),
        "tags": write_pieces(output, "tags", [[row["tag"], row["posts"]] for row in read_list(folder, "tags")]),
        "duplicates": write_pieces(output, "duplicates", groups),
        "suspicious": write_pieces(output, "suspicious", [post_id for post_id in suspicious if post_id in found]),
        "dropped": write_pieces(output, "dropped", dropped_rows(output, record, options.source)),
    }
    shown = {name: title for name, (title, _) in PAGES.items()}
    for name, rows in (("duplicates", groups), ("suspicious", suspicious)):
        if not rows:
            del shown[name]
    common = {"pages": shown, "pieces": pieces, "record": record, "name": folder.name}
    common |= {"num_shown": len(posts), "statistics": read_list(folder, "statistics")}
    for name in shown:
        write_page(folder, output, name, **common)
    return num_broken


# ---------------------------------------------------------------- what is shown


def read_index(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    """Of each split the ids of its posts and their groups, in the order of the files; no picture is read."""
    index = {}
    for split in SPLITS:
        post_ids, groups = (split_column(UPath(folder), split, name) for name in ("post_id", "group"))
        index[split] = {"post_id": post_ids, "group": groups if len(groups) else post_ids}  # older builds have none
    return index


def groups_to_show(index: dict[str, dict[str, np.ndarray]]) -> list[list[int]]:
    """Post ids of up to MAX_GROUPS near-duplicates: those in several splits first, then the largest."""
    post_ids, groups = (np.concatenate([index[split][name] for split in SPLITS]) for name in ("post_id", "group"))
    splits = np.repeat(np.arange(len(SPLITS)), [len(index[split]["post_id"]) for split in SPLITS])
    order = np.lexsort((post_ids, groups))
    starts, ends = runs_of(groups[order])
    found = []
    for start, end in zip(starts[ends - starts > 1].tolist(), ends[ends - starts > 1].tolist(), strict=True):
        rows = order[start:end]
        found.append((len(np.unique(splits[rows])) == 1, start - end, post_ids[rows].tolist()))
    return [ids for _, _, ids in sorted(found)[:MAX_GROUPS]]


def read_posts(folder: Path, index: dict[str, dict[str, np.ndarray]], wanted: set[int]) -> Iterator[dict]:
    """The wanted posts with the bytes of their pictures and the names of their characters. Row groups of which none is
    wanted are not read."""
    wanted_ids, names = np.array(sorted(wanted), np.int64), read_class_names(folder)
    for split in SPLITS:
        start, is_wanted = 0, np.isin(index[split]["post_id"], wanted_ids)
        for path in sorted((folder / "data").glob(f"{split}-*.parquet")):
            with pq.ParquetFile(path) as file:
                for number in range(file.num_row_groups):
                    size = file.metadata.row_group(number).num_rows
                    rows = np.flatnonzero(is_wanted[start : start + size])
                    start += size
                    if not len(rows):
                        continue
                    for row in file.read_row_group(number).take(rows).to_pylist():
                        picture = row["image"]["bytes"]
                        yield row | {"image": picture, "character": names[row["character"]], "split": split}


def read_distances(paths: Sequence[str]) -> dict[int, tuple[float, str]]:
    """{post id: (distance from the mean of its character, what the model takes it for)} of files of predictions.

    Raises ValueError for what is no such file.
    """
    found: dict[int, tuple[float, str]] = {}
    for path in paths:
        try:
            table = pq.read_table(path, columns=["post_id", "distance", "image"])
            columns = [table[name].to_pylist() for name in ("post_id", "distance", "image")]
        except (OSError, ValueError, LookupError) as error:
            raise ValueError(
                f"--predictions {path} expects what `evaluate_mfdn.py --predictions` writes of a model with character "
                f"statistics, with a column 'distance' ({error})."
            ) from error
        found |= {i: (round(d, 3), name) for i, d, name in zip(*columns, strict=True) if np.isfinite(d)}
    return found


def character_rows(folder: Path) -> list[list]:
    """[name, posts, series or None] of each character."""
    return [[row["character"], row["posts"], row.get("series")] for row in read_list(folder, "characters")]


def read_list(folder: Path, name: str) -> list | dict:
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


def dropped_rows(output: Path, record: dict, source: str | None) -> list[dict]:
    """What each rule dropped, with examples; of the posts pictures, where the dump is at hand."""
    drops = {rule.name: rule.drops for rule in RULES}
    rules = [rule | {"posts": [], "tags": [], "drops": drops.get(rule["rule"])} for rule in record["rules"]]
    examples = {example["post_id"] for rule in rules for example in rule.get("examples", ()) if "post_id" in example}
    shown, why_none = thumbnails_of_dump(output, record, source, sorted(examples))
    for rule in rules:
        for example in rule.pop("examples", ()):
            if "post_id" not in example:
                rule["tags"].append([example["tag"], example["posts"]])
                continue
            reason = why_none.get(example["post_id"], "not in the dump")
            rule["posts"].append(example | {"size": shown.get(example["post_id"]), "why_none": reason})
    images = [{"rule": f"images {reason}", **entry} for reason, entry in record["images"].items()]
    return rules + [entry | {"post_ids": entry["post_ids"][:100]} for entry in images]


def thumbnails_of_dump(
    output: Path, record: dict, source: str | None, post_ids: list[int]
) -> tuple[dict[int, str], dict[int, str]]:
    """Sizes of the pictures that could be shown, and why the others cannot, by post id."""
    if source is None:
        return {}, dict.fromkeys(post_ids, "give --source to see it")
    dump = find_dump(UPath(source), record["options"].get("format", "auto"))
    parsed = merge(tqdm(run(parse, dump.tasks, None), "reading metadata", len(dump.tasks), disable=None))
    listing = dump.list_images(parsed, record["options"].get("images"))
    there = np.array(post_ids, np.int64)[np.isin(post_ids, listing.ids)]
    sizes, why_none = {}, {}
    for post_id, file in zip(there.tolist(), listing.files(there), strict=True):
        try:
            with open_image(file) as stream:
                content = stream.read()
        except OSError as error:
            why_none[post_id] = type(error).__name__
            continue
        problem = check_content(content).problem
        size = None if problem else write_thumbnail(output, post_id, content)
        why_none[post_id] = problem or "cannot be decoded"
        if size:
            sizes[post_id] = size
    return sizes, why_none


# ---------------------------------------------------------------- what is written


def write_thumbnail(folder: Path, post_id: int, content: bytes) -> str | None:
    """Write a small picture; sides and bytes of the large one in words, or None when it cannot be decoded."""
    try:
        image = upright_rgb(content, THUMBNAIL)
        image.thumbnail((THUMBNAIL, THUMBNAIL))
        image.save(folder / "thumbnails" / f"{post_id}.jpg", "JPEG", quality=85)
        with Image.open(io.BytesIO(content), formats=FORMATS) as large:
            return f"{large.width}\u00a0×\u00a0{large.height}, {len(content) / 1000:,.0f}\u00a0kB"
    except Exception:  # PIL's parsers raise many types, and each means the same here
        return None


def write_pieces(output: Path, name: str, rows: Iterable) -> int:
    """Write rows as `data/NAME-000.js` and so on, of PIECE_BYTES each; how many they are."""
    pieces: list[list[str]] = [[]]
    size = 0
    for row in rows:
        text = json.dumps(row)  # ASCII, so that nothing in it ends a line of JavaScript
        if pieces[-1] and size + len(text) > PIECE_BYTES:
            pieces.append([])
            size = 0
        pieces[-1].append(text)
        size += len(text)
    for number, piece in enumerate(pieces):
        text = f"add({json.dumps(name)}, [\n" + ",\n".join(piece) + "\n]);\n"
        (output / "data" / f"{name}-{number:03d}.js").write_text(text, encoding="ascii")
    return len(pieces)


def write_page(folder: Path, output: Path, page: str, *, statistics: dict, **common) -> None:
    """One page, of folder/browse.html."""
    content = {"page": page, "title": PAGES[page][0], "note": PAGES[page][1]}
    if page == "index":
        figures = sorted((folder / "figures").glob("*.png"))
        for path in figures:
            shutil.copyfile(path, output / path.name)
        lines = table_1_markdown(statistics).splitlines()
        content["figures"] = [path.name for path in figures]
        content["table"] = [[cell.strip() for cell in line.strip("|").split("|")] for line in [lines[0], *lines[2:]]]
    text = TEMPLATES.get_template("browse.html").render(**common, **content)
    (output / f"{page}.html").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
