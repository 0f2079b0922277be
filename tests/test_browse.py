"""Pages to look at a data set: every post, whatever its names, every rule, and pictures that do not open."""

import json
import re
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dump_factory import Post, image_path, picture, write_dump

from dataset_scripts import build_danmul
from dataset_scripts.browse import PIECE_BYTES, main

EVIL = '"><script>alert(1)</script>'
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


@pytest.fixture
def built(tmp_path):
    posts = [Post(i, [f"{EVIL}_(x)" if i % 2 else "bob"], ["x", "<b>", f"t_{EVIL}"]) for i in range(1, 41)]
    posts += [Post(100, [], ["no_humans"]), Post(101, ["rare"], ["x"]), Post(102, ["bob", "rare"], ["x"])]
    posts[5].more["parent_id"], posts[9].more["parent_id"] = 4, 4
    dump = write_dump(tmp_path / "dump", posts)
    whole = image_path(dump, 3).read_bytes()
    middle = len(whole) // 2
    image_path(dump, 3).write_bytes(whole[: middle - 60] + whole[middle:])  # header and end are good
    options = ["--workers", "1", "--tfidf_threshold", "0"]
    assert build_danmul.main(["--source", str(dump), "--output", str(tmp_path / "danmul"), *options]) == 0
    return tmp_path


def browse(built, *options):
    return main(["--dataset", str(built / "danmul"), "--output", str(built / "pages"), *options])


def rows_of(built, name):
    """What the pieces of a list hold, each read as the browser reads it."""
    rows = []
    for path in sorted((built / "pages" / "data").glob(f"{name}-*.js")):
        found = re.fullmatch(rf'add\("{name}", (\[.*\])\);\n', path.read_text(), re.S)
        rows += json.loads(found[1])
    return rows


def test_every_post_is_shown_with_its_picture(built):
    assert browse(built) == 0
    posts = rows_of(built, "posts")
    assert sorted(post["post_id"] for post in posts) == list(range(1, 41))
    for post in posts:
        thumbnail = built / "pages" / "thumbnails" / f"{post['post_id']}.jpg"
        assert thumbnail.is_file() == (post["size"] is not None)
    assert posts[0]["tags"] == [f"t_{EVIL}", "x"] and posts[0]["size"].startswith("8\u00a0×\u00a08, ")
    assert {post["split"] for post in posts} == {"train", "validation", "test"}
    for path in (built / "pages").glob("*.html"):
        for target in re.findall(r'(?:src|href)="([^"#]+)"', path.read_text()):
            assert (built / "pages" / target).is_file(), (path.name, target)
    assert [row[:2] for row in rows_of(built, "characters")] == [[f"{EVIL}_(x)", 20], ["bob", 20]]
    assert ["x", 40] in rows_of(built, "tags")


def test_nothing_is_larger_than_a_few_hundred_kilobytes(built, monkeypatch):
    monkeypatch.setattr("dataset_scripts.browse.PIECE_BYTES", 2_000)
    assert browse(built) == 0
    pieces = list((built / "pages" / "data").glob("posts-*.js"))
    assert len(pieces) > 3 and max(path.stat().st_size for path in pieces) < 3_000
    assert len(rows_of(built, "posts")) == 40 and PIECE_BYTES < 300_000
    assert f'"posts": {len(pieces)}' in (built / "pages" / "posts.html").read_text().replace("&#34;", '"')


def test_names_are_text_not_markup(built):
    assert browse(built, "--source", str(built / "dump")) == 0
    for path in [*(built / "pages").glob("*.html"), *(built / "pages" / "data").glob("*.js")]:
        text = path.read_text(encoding="ascii" if path.suffix == ".js" else "utf-8")
        assert path.suffix == ".js" or ("<script>alert" not in text and text.count("<script") == 1)


def test_duplicates_stand_side_by_side_also_beyond_the_sample(built):
    assert browse(built, "--max_posts", "1") == 0
    assert rows_of(built, "duplicates") == [[4, 6, 10]]
    assert {4, 6, 10} <= {post["post_id"] for post in rows_of(built, "posts")}
    assert 'href="duplicates.html"' in (built / "pages" / "index.html").read_text()


def test_the_pictures_farthest_from_their_character_come_first(built, capsys):
    table = {"post_id": [8, 2, 5, 4, 999], "image": ["bob", "alice", "bob", "bob", "bob"]}
    table["distance"] = [0.5, 2.25, 1.5, float("nan"), 9.0]
    pq.write_table(pa.table(table), built / "predictions.parquet")
    assert browse(built, "--predictions", str(built / "predictions.parquet"), "--max_posts", "1") == 0
    assert rows_of(built, "suspicious") == [2, 5, 8]
    post = next(post for post in rows_of(built, "posts") if post["post_id"] == 2)
    assert (post["distance"], post["taken_for"]) == (2.25, "alice")
    pq.write_table(pa.table({"post_id": [1]}), built / "other.parquet")
    assert browse(built, "--overwrite", "--predictions", str(built / "other.parquet")) == 2
    assert "with a column 'distance'" in capsys.readouterr().err


def test_what_rules_dropped_is_shown_with_pictures_of_the_dump(built):
    assert browse(built, "--source", str(built / "dump")) == 0
    dropped = {rule["rule"]: rule for rule in rows_of(built, "dropped")}
    assert dropped["min_posts"]["drops"] == "characters with few posts"
    posts = [post for rule in dropped.values() for post in rule.get("posts", ())]
    assert {100, 101, 102} == {post["post_id"] for post in posts} and all(post["size"] for post in posts)
    assert (built / "pages" / "thumbnails" / "101.jpg").is_file()
    assert browse(built, "--overwrite") == 0
    posts = [post for rule in rows_of(built, "dropped") for post in rule.get("posts", ())]
    assert {post["why_none"] for post in posts} == {"give --source to see it"}


def test_dropped_posts_of_a_folder_of_pictures_are_shown_too(tmp_path):
    for name, number in (("alice", 12), ("bob", 3)):
        (tmp_path / "dump" / name).mkdir(parents=True)
        for i in range(number):
            path = tmp_path / "dump" / name / f"{i}.jpg"
            path.write_bytes(picture(i))
            path.with_suffix(".txt").write_text(f"{name}, smile, tag_{i % 3}")
    flags = ["--source", str(tmp_path / "dump"), "--output", str(tmp_path / "danmul"), "--workers", "1"]
    assert build_danmul.main(flags) == 0
    assert browse(tmp_path, "--source", str(tmp_path / "dump")) == 0
    posts = [post for rule in rows_of(tmp_path, "dropped") for post in rule.get("posts", ())]
    assert [post["character"] for post in posts] == ["bob"] * 3 and all(post["size"] for post in posts)


def test_pages_are_not_replaced_unasked(built, capsys):
    assert browse(built, "--max_posts", "5") == 0
    assert browse(built) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert browse(built, "--overwrite", "--max_posts", "4") == 0
    assert "random sample" in (built / "pages" / "index.html").read_text()


def test_an_older_build_without_groups_can_be_looked_at(built):
    for path in (built / "danmul" / "data").glob("*.parquet"):
        pq.write_table(pq.read_table(path).drop_columns(["picture_hash", "group", "near_train"]), path)
    assert browse(built) == 0
    assert len(rows_of(built, "posts")) == 40 and not (built / "pages" / "duplicates.html").exists()


def test_what_is_no_built_folder_is_refused(tmp_path, capsys):
    assert main(["--dataset", str(tmp_path)]) == 2
    assert "has no build.json" in capsys.readouterr().err
    assert main(["--dataset", str(tmp_path), "--max_posts", "0"]) == 2


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_a_curator_finds_her_way_by_mouse_and_by_keys(built):
    """From the disk, as she opens it."""
    sync_api = pytest.importorskip("playwright.sync_api")
    expect = sync_api.expect
    assert browse(built, "--source", str(built / "dump")) == 0
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 390, "height": 844})
        errors = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("dialog", lambda dialog: errors.append(dialog.message))  # EVIL would open one
        page.goto((built / "pages" / "characters.html").as_uri())
        page.get_by_label("Order").select_option("name")
        page.get_by_role("link", name="bob").click()
        expect(page.locator("#count")).to_have_text("20 pictures show all")
        expect(page.get_by_role("heading", level=1)).to_have_text("bob")
        page.goto((built / "pages" / "posts.html").as_uri())
        expect(page.locator("#count")).to_have_text("40 pictures")
        page.keyboard.press("/")
        page.keyboard.type("alert bob")  # words of a tag and of a name, over all pieces
        expect(page.locator("#count")).to_contain_text("20 pictures")
        page.keyboard.press("Escape")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowDown")
        focused = page.evaluate("[...document.querySelectorAll('.posts li')].indexOf(document.activeElement)")
        assert focused == 2  # two in a row on a phone
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_have_text("bob")
        page.goto((built / "pages" / "duplicates.html").as_uri())
        expect(page.locator(".group img")).to_have_count(3)
        page.goto((built / "pages" / "dropped.html").as_uri())
        expect(page.get_by_text("min_posts: characters with few posts")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        assert errors == []
        browser.close()
