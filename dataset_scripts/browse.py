"""Look inside a built data set: static pages with its pictures, characters and tags, and what each rule dropped."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from jinja2 import Environment, PackageLoader
from tqdm import tqdm
from upath import UPath

from dataset_scripts.dump.check_images import check_image
from dataset_scripts.dump.list_images import SUFFIXES, ImageFile
from dataset_scripts.dump.pictures import upright_rgb
from dataset_scripts.folder.files import replace_folder
from dataset_scripts.folder.lists import read_record, shard_batches
from dataset_scripts.folder.statistics import table_1_markdown
from dataset_scripts.folder.terminal import command_line
from dataset_scripts.rules.split_posts import SPLITS

THUMBNAIL = 160  # pixels of the longer side
LISTED_TAGS = 2_000
MARKER = ".pages"  # of a folder that this command wrote, and may replace
HELP = "Write static pages to look at a built data set: its pictures with characters and tags, and what was dropped."
EXAMPLE = """example:
  python -m dataset_scripts.browse --dataset danmul --source DUMP    # then open danmul_pages/index.html"""
STATIC = ("browse.css", "browse.js")
# Nothing that a dump says is markup: every value is escaped.
PAGES = Environment(
    loader=PackageLoader("dataset_scripts", "folder"), autoescape=True, trim_blocks=True, lstrip_blocks=True
)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "browse", description=HELP, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--dataset", default="danmul", metavar="DIR", help="built folder (default: danmul)")
    add("--source", metavar="DUMP", help="the dump, to show pictures of dropped posts too (512px/NNNN/ID.jpg)")
    add("--output", metavar="DIR", help="folder to write (default: the built folder's name and _pages)")
    add("--max_posts", type=int, default=1_000, metavar="N", help="posts shown of each split (default: 1000)")
    add("--posts_per_page", type=int, default=200, metavar="N", help="(default: 200)")
    add("--overwrite", action="store_true", help="replace pages that an earlier run wrote there")
    return parser


@command_line
def main(argv: list[str] | None = None) -> int:
    """Run the command; 0, or 2 after an error of the user's input in one sentence."""
    options = build_parser().parse_args(argv)
    folder = Path(options.dataset).resolve()
    output = Path(options.output or f"{folder}_pages").absolute()
    if min(options.max_posts, options.posts_per_page) < 1:
        raise ValueError("--max_posts and --posts_per_page expect numbers of at least 1.")
    record = read_record(folder)
    if not any((folder / "data").glob("*.parquet")):
        raise FileNotFoundError(f"--dataset expects a built folder with data/*.parquet, {folder} has none.")
    with replace_folder(output, MARKER, options.overwrite) as unfinished:
        num_broken = write_pages(folder, record, unfinished, options)
    if num_broken:
        print(f"{num_broken:,} pictures cannot be decoded; the pages say which.")
    print(f"Open {output}/index.html")
    return 0


def write_pages(folder: Path, record: dict, output: Path, options: argparse.Namespace) -> int:
    """Write all pages of a built folder to `output`. Returns the number of pictures that do not decode."""
    (output / "thumbnails").mkdir()
    (output / MARKER).touch()
    for name in STATIC:
        shutil.copyfile(Path(__file__).with_name("folder") / name, output / name)
    num_broken = 0
    for split in SPLITS:
        total, posts = record["counts"]["splits"][split], []
        shown = shown_posts(folder, split, options.max_posts)
        bar = tqdm(shown, f"pictures of {split}", min(options.max_posts, total), unit=" pictures", disable=None)
        for post in bar:
            thumbnail = write_thumbnail(output, post["post_id"], post.pop("image")["bytes"])
            num_broken += thumbnail is None
            posts.append(post | {"name": post["character"], "thumbnail": thumbnail, "why_none": "cannot be decoded"})
        write_split(output, split, posts, total, options.posts_per_page)
    write_dropped(output, record, UPath(options.source) if options.source else None)
    write_index(output, folder, record)
    return num_broken


def shown_posts(folder: Path, split: str, number: int) -> Iterator[dict]:
    """The first posts of a split with the names of their characters. Rows are shuffled: these are a fair sample."""
    for batch in shard_batches(folder, split, rows=100):
        names = json.loads(batch.schema.metadata[b"huggingface"])["info"]["features"]["character"]["names"]
        for row in batch.slice(0, number).to_pylist():
            yield row | {"character": names[row["character"]]}
        number -= len(batch)
        if number <= 0:
            return


def write_thumbnail(folder: Path, post_id: int, content: bytes) -> str | None:
    """Path of a small picture relative to the pages; None when it cannot be decoded."""
    name = f"thumbnails/{post_id}.jpg"
    try:
        image = upright_rgb(content, THUMBNAIL)
        image.thumbnail((THUMBNAIL, THUMBNAIL))
        image.save(folder / name, "JPEG", quality=85)
    except Exception:  # PIL's parsers raise many types, and each means the same here
        return None
    return name


def write_split(output: Path, split: str, posts: list[dict], total: int, per_page: int) -> None:
    """The pages of a split: SPLIT.html, SPLIT_2.html, …"""
    starts = range(0, max(1, len(posts)), per_page)
    pages = [f"{split}.html", *(f"{split}_{number}.html" for number in range(2, len(starts) + 1))]
    common = {"page": "split", "title": f"{split} posts", "pages": pages, "shown": len(posts), "total": total}
    for number, (name, start) in enumerate(zip(pages, starts, strict=True), 1):
        write_page(output / name, posts=posts[start : start + per_page], number=number, **common)


def write_dropped(output: Path, record: dict, source: UPath | None) -> None:
    """What each rule dropped, with examples, and the pictures of dropped posts where the dump is at hand."""
    rules = []
    for rule in record["rules"]:
        posts, tags = [], []
        for example in rule.get("examples", ()):
            if "post_id" in example:
                thumbnail, why_none = dropped_thumbnail(output, example["post_id"], source)
                name = example["character"] or "no or several characters"
                posts.append(example | {"name": name, "thumbnail": thumbnail, "why_none": why_none})
            else:
                tags.append((example["tag"], example["posts"]))
        rules.append(rule | {"posts": posts, "tags": tags})
    page = {"page": "dropped", "title": "What the rules dropped"}
    write_page(output / "dropped.html", rules=rules, images=record["images"], **page)


def dropped_thumbnail(folder: Path, post_id: int, source: UPath | None) -> tuple[str | None, str]:
    """The thumbnail of a post that is not in the data set, or None and the reason."""
    if source is None:
        return None, "give --source to see it"
    for suffix in SUFFIXES:
        path = source / "512px" / f"{post_id % 1000:04d}" / f"{post_id}{suffix}"
        if path.exists():
            problem = check_image(ImageFile(str(path))).problem
            return (None, problem) if problem else (write_thumbnail(folder, post_id, path.read_bytes()), "damaged")
    return None, "not in 512px/NNNN/ of the dump"


def write_index(output: Path, folder: Path, record: dict) -> None:
    """Numbers, figures, characters and tags."""
    figures = sorted((folder / "figures").glob("*.png"))
    for path in figures:
        shutil.copyfile(path, output / path.name)
    statistics, characters, tags = (
        json.loads((folder / name).read_text(encoding="utf-8"))
        for name in ("statistics.json", "characters.json", "tags.json")
    )
    lines = table_1_markdown(statistics).splitlines()
    names = sorted(((row["character"], row["posts"]) for row in characters), key=lambda row: (-row[1], row[0]))
    write_page(
        output / "index.html",
        page="index",
        title=folder.name,
        counts=record["counts"],
        table=[[cell.strip() for cell in line.strip("|").split("|")] for line in [lines[0], *lines[2:]]],
        figures=[path.name for path in figures],
        characters=names,
        tags=[(row["tag"], row["posts"]) for row in tags[:LISTED_TAGS]],
        num_tags=len(tags),
    )


def write_page(path: Path, **content) -> None:
    """Fill folder/browse.html, which knows three kinds of pages."""
    path.write_text(PAGES.get_template("browse.html").render(splits=SPLITS, **content), encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
