"""Look inside a built data set: static pages with its pictures, characters and tags, and what each rule dropped."""

from __future__ import annotations

import argparse
import html
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm
from upath import UPath

from dataset_scripts.dump.check_images import image_problem
from dataset_scripts.dump.list_images import SUFFIXES, ImageFile
from dataset_scripts.dump.pictures import upright_rgb
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
STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 76rem; padding: 1rem; }
nav a { margin-right: 1rem; } h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.posts { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: .8rem; padding: 0; }
.posts li { list-style: none; border: 1px solid var(--line); border-radius: .5rem; padding: .5rem; overflow: hidden; }
.posts img, .none { width: 100%; height: 10rem; object-fit: contain; background: var(--soft); border-radius: .3rem; }
.none { display: grid; place-items: center; text-align: center; }
.posts b { overflow-wrap: anywhere; } .tags { font-size: .8rem; overflow-wrap: anywhere; opacity: .85; }
.id { font-size: .75rem; opacity: .7; } figure { margin: 0; } 
.figures { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(24rem, 100%), 1fr)); }
.figures img { width: 100%; background: #fff; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
td, th { border-bottom: 1px solid var(--line); padding: .2rem .6rem; text-align: right; }
td:first-child, th:first-child { text-align: left; }
input { font: inherit; padding: .4rem .6rem; width: min(24rem, 100%); box-sizing: border-box; }
.columns { columns: 18rem; padding: 0; }
.columns li { list-style: none; break-inside: avoid; overflow-wrap: anywhere; }
"""
SCRIPT = """
const field = document.querySelector("input"), count = document.querySelector("output");
field?.addEventListener("input", () => {
  const words = field.value.toLowerCase().split(/\\s+/).filter(Boolean);
  let shown = 0;
  for (const item of document.querySelectorAll("[data-text]")) {
    const text = item.dataset.text.toLowerCase();
    item.hidden = !words.every(word => text.includes(word));
    shown += !item.hidden;
  }
  count.textContent = words.length ? `${shown} shown` : "";
});
"""


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
    if output.exists() and any(output.iterdir()) and not (options.overwrite and (output / MARKER).exists()):
        raise FileExistsError(
            f"--output expects a new folder, but {output} exists: --overwrite replaces pages of this command."
        )
    if not any((folder / "data").glob("*.parquet")):
        raise FileNotFoundError(f"--dataset expects a built folder with data/*.parquet, {folder} has none.")
    num_broken = write_pages(folder, record, output, options)
    if num_broken:
        print(f"{num_broken:,} pictures cannot be decoded; the pages say which.")
    print(f"Open {output}/index.html")
    return 0


def write_pages(folder: Path, record: dict, output: Path, options: argparse.Namespace) -> int:
    """All pages, in a sibling folder that is moved into place at the end. Returns the number of broken pictures."""
    partial = output.with_name(f"{output.name}.pages_partial")
    if (partial / MARKER).exists():  # of a killed run
        shutil.rmtree(partial)
    (partial / "thumbnails").mkdir(parents=True)
    (partial / MARKER).touch()
    (partial / "style.css").write_text(STYLE, encoding="utf-8")
    (partial / "filter.js").write_text(SCRIPT, encoding="utf-8")
    num_broken = 0
    for split in SPLITS:
        total, items = min(options.max_posts, record["counts"]["splits"][split]), []
        posts = shown_posts(folder, split, options.max_posts)
        for post in tqdm(posts, f"pictures of {split}", total, unit=" pictures", disable=None):
            thumbnail = write_thumbnail(partial, post["post_id"], post["image"]["bytes"])
            num_broken += thumbnail is None
            items.append(post_item(post, thumbnail))
        write_split(partial, split, items, record["counts"]["splits"][split], options.posts_per_page)
    write_dropped(partial, record, UPath(options.source) if options.source else None)
    write_index(partial, folder, record)
    if output.exists():
        shutil.rmtree(output)
    partial.rename(output)
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


def post_item(post: dict, thumbnail: str | None, why_none: str = "cannot be decoded") -> str:
    """One post as a list item; whatever stands in a name or a tag is text."""
    character = html.escape(post["character"] or "no or several characters")
    tags = html.escape(" ".join(post["tags"])) or ("no tags" if post["character"] else "")
    picture = f'<div class="none">{html.escape(why_none)}</div>'
    if thumbnail:
        picture = f'<img loading="lazy" src="{thumbnail}" alt="{character}">'
    return (
        f'<li data-text="{character} {tags} {post["post_id"]}">{picture}<b>{character}</b>'
        f'<div class="tags">{tags}</div><div class="id">{post["post_id"]} · rating '
        f"{html.escape(post['rating'] or 'none')}</div></li>"
    )


def write_split(folder: Path, split: str, items: list[str], total: int, per_page: int) -> None:
    """The pages of a split: SPLIT.html, SPLIT_2.html, …"""
    pages = [items[start : start + per_page] for start in range(0, len(items), per_page)] or [[]]
    links = " ".join(f'<a href="{page_name(split, number)}">{number + 1}</a>' for number in range(len(pages)))
    for number, page in enumerate(pages):
        intro = f"<p>{len(items):,} of {total:,} posts, a random sample. Page {number + 1}: {links}</p>"
        body = f'{intro}{search("character, tag or id on this page")}<ul class="posts">{"".join(page)}</ul>'
        write_page(folder / page_name(split, number), f"{split} posts", body)


def page_name(split: str, number: int) -> str:
    return f"{split}.html" if number == 0 else f"{split}_{number + 1}.html"


def search(what: str) -> str:
    field = f'<input type="search" placeholder="{what}" aria-label="Show only what has this {what}">'
    return f"<p>{field} <output></output></p>"


def write_dropped(folder: Path, record: dict, source: UPath | None) -> None:
    """What each rule dropped, with examples, and the pictures of dropped posts where the dump is at hand."""
    parts = [search("character, tag or id")]
    for rule in record["rules"]:
        parts.append(
            f"<h2>{html.escape(rule['rule'])}</h2><p>{rule['posts_dropped']:,} posts, {rule['characters_dropped']:,} "
            f"characters, {rule['tags_dropped']:,} tags dropped; {rule['posts_after']:,} posts left.</p>"
        )
        posts = [example for example in rule.get("examples", ()) if "post_id" in example]
        tags = [example for example in rule.get("examples", ()) if "tag" in example]
        items = [post_item(post, *dropped_thumbnail(folder, post["post_id"], source)) for post in posts]
        parts.append(f'<ul class="posts">{"".join(items)}</ul>' if items else "")
        parts.append(name_list([(tag["tag"], tag["posts"]) for tag in tags]) if tags else "")
    for reason, entry in record["images"].items():
        ids = ", ".join(map(str, entry["post_ids"][:100]))
        parts.append(f"<h2>images {html.escape(reason)}</h2><p>{entry['count']:,}: {ids}</p>")
    write_page(folder / "dropped.html", "What the rules dropped", "".join(parts))


def dropped_thumbnail(folder: Path, post_id: int, source: UPath | None) -> tuple[str | None, str]:
    """The thumbnail of a post that is not in the data set, or None and the reason."""
    if source is None:
        return None, "give --source to see it"
    for suffix in SUFFIXES:
        path = source / "512px" / f"{post_id % 1000:04d}" / f"{post_id}{suffix}"
        if path.exists():
            _, problem = image_problem(ImageFile(str(path)))
            return (None, problem) if problem else (write_thumbnail(folder, post_id, path.read_bytes()), "damaged")
    return None, "not in 512px/NNNN/ of the dump"


def name_list(rows: list[tuple[str, int]]) -> str:
    """Names with numbers in columns."""
    items = (
        f'<li data-text="{html.escape(name)}">{html.escape(name)} <small>{number:,}</small></li>'
        for name, number in rows
    )
    return f'<ul class="columns">{"".join(items)}</ul>'


def write_index(folder: Path, data: Path, record: dict) -> None:
    """Numbers, figures, characters and tags."""
    figures = []
    for path in sorted((data / "figures").glob("*.png")):
        shutil.copyfile(path, folder / path.name)
        figures.append(f'<img src="{path.name}" alt="{path.stem.replace("_", " ")}">')
    statistics = json.loads((data / "statistics.json").read_text(encoding="utf-8"))
    characters = json.loads((data / "characters.json").read_text(encoding="utf-8"))
    tags = json.loads((data / "tags.json").read_text(encoding="utf-8"))
    rows = sorted(((row["character"], row["posts"]) for row in characters), key=lambda row: (-row[1], row[0]))
    names = name_list(rows)
    shown = name_list([(row["tag"], row["posts"]) for row in tags[:LISTED_TAGS]])
    counts = record["counts"]
    body = f"""<p>{counts["posts"]:,} posts, {counts["characters"]:,} characters, {counts["tags"]:,} tags.</p>
{html_table(table_1_markdown(statistics))}<div class="figures">{"".join(figures)}</div>{search("character or tag")}
<h2>Characters</h2>{names}<h2>Tags{f", the first {LISTED_TAGS:,}" if len(tags) > LISTED_TAGS else ""}</h2>{shown}"""
    write_page(folder / "index.html", data.name, body)


def html_table(markdown: str) -> str:
    """A Markdown table as HTML."""
    rows = [[html.escape(cell.strip()) for cell in line.strip("|").split("|")] for line in markdown.splitlines()]
    head = "".join(f"<th>{cell}</th>" for cell in rows[0])
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows[2:])
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def write_page(path: Path, title: str, body: str) -> None:
    """A page with the navigation of all."""
    names = [("index", "overview"), *((split, split) for split in SPLITS), ("dropped", "dropped")]
    links = "".join(f'<a href="{name}.html">{text}</a>' for name, text in names)
    path.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="stylesheet" href="style.css">'
        f'<nav>{links}</nav><h1>{html.escape(title)}</h1>{body}<script src="filter.js"></script></html>',
        encoding="utf-8",
    )


if __name__ == "__main__":
    raise SystemExit(main())
