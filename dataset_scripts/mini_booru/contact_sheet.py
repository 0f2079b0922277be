"""The first picture of the embedded dump: one row a character, one column a post, as many artists as there are."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
from PIL import Image, ImageDraw, ImageFont

from dataset_scripts.dump.pictures import upright_rgb

if TYPE_CHECKING:
    from dataset_scripts.mini_booru.posts import Post

ROWS, COLUMNS = 7, 8
TILE, GAP, MARGIN, CAPTION, HEADER = 182, 8, 44, 34, 128  # pixels
LOOKS = (
    "_hair",
    "_eyes",
    "tails",
    "_bangs",
    "_bun",
    "_braids",
    "_cut",
    "_ears",
    "_hat",
    "_wings",
    "eyepatch",
    "glasses",
)
PAPER, INK, GREY = "#fbfaf8", "#2e2a33", "#8d8794"


def font(size: int, is_bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans in `size` pixels; it comes with matplotlib."""
    name = f"fonts/ttf/DejaVuSans{'-Bold' if is_bold else ''}.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / name), size)


def choose_rows(table: list[Post]) -> list[tuple[str, list[Post]]]:
    """The characters to show and their posts: unlike hair in each row, unlike artists along it."""
    posts_of = defaultdict(list)
    for post in table:
        if len(post.characters) == 1 and post.image == "valid":
            posts_of[post.characters[0]].append(post)
    ranked = sorted(posts_of, key=lambda name: (-len(posts_of[name]), name))
    rows, seen = [], set()
    for is_second_round in (False, True):  # the second fills up a small dump with characters that look alike
        for name in ranked:
            hair = Counter(post.looks[0].hair for post in posts_of[name]).most_common(1)[0][0]
            style = Counter(post.looks[0].style for post in posts_of[name]).most_common(1)[0][0]
            is_new = hair not in seen and f"style {style}" not in seen
            if len(rows) < ROWS and name not in [row[0] for row in rows] and (is_second_round or is_new):
                seen |= {hair, f"style {style}"}
                rows.append((name, spread_artists(posts_of[name])))
    return rows


def spread_artists(posts: list[Post]) -> list[Post]:
    """Up to COLUMNS posts, taking one artist after the other, and not a grey picture twice."""
    queues = defaultdict(list)
    for post in sorted(posts, key=lambda post: (post.scene.is_greyscale, post.scene.scale > 1.8, post.id)):
        queues[post.artist].append(post)
    chosen: list[Post] = []
    while len(chosen) < min(COLUMNS, len(posts)):
        for artist in sorted(queues, key=lambda artist: -len(queues[artist])):
            is_grey = bool(queues[artist]) and queues[artist][0].scene.artist.saturation == 0
            is_grey_again = is_grey and artist in {post.artist for post in chosen}
            if queues[artist] and len(chosen) < COLUMNS and not (is_grey_again and len(posts) > 2 * COLUMNS):
                chosen.append(queues[artist].pop(0))
    return chosen


def draw_contact_sheet(table: list[Post], folder: Path) -> None:
    """Write `contact_sheet.jpg` from the images that `folder` already holds."""
    rows = choose_rows(table)
    width = 2 * MARGIN + COLUMNS * TILE + (COLUMNS - 1) * GAP
    height = HEADER + len(rows) * (TILE + CAPTION + GAP) + MARGIN - GAP
    sheet = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, 38), "mini booru", font=font(36, True), fill=INK)
    characters = len({name for post in table for name in post.characters})
    pen.text(
        (MARGIN, 86),
        f"{len(table):,} posts · {characters} characters · {len({p.artist for p in table})} artists · "
        "drawn by code, every picture by its seed",
        font=font(15),
        fill=GREY,
    )
    corners = Image.new("L", (TILE * 4, TILE * 4), 0)
    ImageDraw.Draw(corners).rounded_rectangle((0, 0, TILE * 4 - 1, TILE * 4 - 1), 40, fill=255)
    corners = corners.resize((TILE, TILE), Image.Resampling.LANCZOS)
    for r, (name, posts) in enumerate(rows):
        y = HEADER + r * (TILE + CAPTION + GAP)
        pen.text((MARGIN, y + 4), name, font=font(15, True), fill=INK)
        seen = Counter(tag for post in posts for tag in post.general if tag.endswith(LOOKS) and tag != "bangs")
        shown = [tag for tag, number in seen.most_common(6) if number > 1]
        pen.text(
            (MARGIN + pen.textlength(name, font(15, True)) + 14, y + 5), "  ".join(shown), font=font(13), fill=GREY
        )
        for c, post in enumerate(posts):
            path = folder / "512px" / f"{post.id % 1000:04d}" / f"{post.id}.jpg"
            tile = upright_rgb(path.read_bytes()).resize((TILE, TILE), Image.Resampling.LANCZOS)
            sheet.paste(tile, (MARGIN + c * (TILE + GAP), y + CAPTION - 6), corners)
    sheet.save(folder / "contact_sheet.jpg", quality=92, subsampling=0)
