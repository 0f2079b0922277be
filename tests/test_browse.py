"""Pages to look at a data set: every post, whatever its names, every rule, and pictures that do not open."""

import json
import re

import pytest
from dump_factory import Post, image_path, write_dump

from dataset_scripts import build_danmul
from dataset_scripts.browse import main

EVIL = '"><script>alert(1)</script>'


@pytest.fixture
def built(tmp_path):
    posts = [Post(i, [f"{EVIL}_(x)" if i % 2 else "bob"], ["x", "<b>", f"t_{EVIL}"]) for i in range(1, 41)]
    posts += [Post(100, [], ["no_humans"]), Post(101, ["rare"], ["x"]), Post(102, ["bob", "rare"], ["x"])]
    dump = write_dump(tmp_path / "dump", posts)
    whole = image_path(dump, 3).read_bytes()
    middle = len(whole) // 2
    image_path(dump, 3).write_bytes(whole[: middle - 60] + whole[middle:])  # header and end are good
    options = ["--workers", "1", "--tfidf_threshold", "0"]
    assert build_danmul.main(["--source", str(dump), "--output", str(tmp_path / "danmul"), *options]) == 0
    return tmp_path


def browse(built, *options):
    return main(["--dataset", str(built / "danmul"), "--output", str(built / "pages"), *options])


def test_every_post_is_on_a_page_with_its_picture(built):
    assert browse(built, "--posts_per_page", "9") == 0
    pages = built / "pages"
    assert len(list(pages.glob("train*.html"))) == 4  # 28 posts
    shown = [number for path in pages.glob("*.html") for number in re.findall(r">(\d+) · rating", path.read_text())]
    counts = json.loads((built / "danmul" / "build.json").read_text())["counts"]["posts"]
    dropped = re.findall(r">(\d+) · rating", (pages / "dropped.html").read_text())
    assert len(shown) - len(dropped) == counts
    for path in pages.glob("*.html"):
        for target in re.findall(r'(?:src|href)="([^"#]+)"', path.read_text()):
            assert (pages / target).is_file(), (path.name, target)


def test_names_are_text_not_markup(built):
    assert browse(built) == 0
    for path in (built / "pages").glob("*.html"):
        text = path.read_text()
        assert "<script>alert" not in text and text.count("<script") == 1


def test_what_rules_dropped_is_shown_with_pictures_of_the_dump(built):
    assert browse(built, "--source", str(built / "dump")) == 0
    text = (built / "pages" / "dropped.html").read_text()
    assert {"100", "101", "102"} <= set(re.findall(r">(\d+) · rating", text))
    assert 'src="thumbnails/101.jpg"' in text and "min_posts" in text


def test_pages_are_not_replaced_unasked(built, capsys):
    assert browse(built, "--max_posts", "5") == 0
    assert browse(built) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert browse(built, "--overwrite", "--max_posts", "3") == 0
    assert "3 of" in (built / "pages" / "train.html").read_text()


def test_what_is_no_built_folder_is_refused(tmp_path, capsys):
    assert main(["--dataset", str(tmp_path)]) == 2
    assert "has no build.json" in capsys.readouterr().err
    assert main(["--dataset", str(tmp_path), "--max_posts", "0"]) == 2
