"""The embedded dump: same seed, same bytes; the dirt is there; tags say what is visible."""

import json
from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from dataset_scripts.mini_booru.__main__ import build_parser, image_path, main
from dataset_scripts.mini_booru.draw.character import draw
from dataset_scripts.mini_booru.draw.pen import ARTISTS, CLOTH, EYES, HAIR, Look, Scene
from dataset_scripts.mini_booru.metadata import DUPLICATE_ROWS, ROWS_WITHOUT_ID, write_metadata
from dataset_scripts.mini_booru.posts import make_posts
from dataset_scripts.mini_booru.tags import visible_tags

ARTIST = ARTISTS[0]


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows_of(path):
    """(records, number of lines that are not JSON)."""
    records, malformed = [], 0
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            malformed += 1
    return records, malformed


@pytest.fixture(scope="module")
def dump(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dump") / "mini_booru"
    main(["--output", str(folder), "--posts", "120", "--workers", "1"])
    return folder


@pytest.fixture(scope="module")
def metadata(tmp_path_factory):
    """Posts table and both generations of metadata of 300 posts, nothing drawn."""
    folder = tmp_path_factory.mktemp("metadata")
    table = make_posts(300, seed=0)
    write_metadata(table, 0, folder)
    return table, folder / "metadata/posts.jsonl", folder / "metadata_2021/posts000000000000.json"


def test_same_seed_gives_the_same_bytes_with_other_workers(dump, tmp_path):
    main(["--output", str(tmp_path / "again"), "--posts", "120", "--workers", "2"])
    assert files_of(tmp_path / "again") == files_of(dump)


def test_another_seed_gives_other_posts():
    first, second = make_posts(120, seed=0), make_posts(120, seed=1)
    assert not {post.id for post in first} & {post.id for post in second}
    assert {post.characters[0] for post in first if post.characters} != {
        post.characters[0] for post in second if post.characters
    }


def test_more_of_a_dump_has_its_characters_in_the_same_shares_and_none_of_its_posts():
    first, more = make_posts(600, seed=3), make_posts(1200, seed=3, earlier=600)
    assert not {post.id for post in first} & {post.id for post in more}

    def shares(table):
        alone = Counter(post.characters[0] for post in table if len(post.characters) == 1)
        return {name: number / alone.total() for name, number in alone.items()}

    before, after = shares(first), shares(more)
    assert before.keys() == after.keys()
    assert all(abs(after[name] - share) < 0.004 for name, share in before.items())
    hair, later = usual_hair(first), usual_hair(more)
    assert len(hair) > 5 and hair.items() <= later.items()


def usual_hair(table):
    """Of the characters with most posts; a few posts show another colour or cut."""
    hair = defaultdict(Counter)
    for post in table:
        if len(post.characters) == 1:
            hair[post.characters[0]][post.looks[0].hair] += 1
    return {name: seen.most_common(1)[0][0] for name, seen in sorted(hair.items()) if seen.total() >= 20}


def test_more_is_drawn_of_a_dump_that_says_how_it_was_drawn(dump, tmp_path, capsys):
    more = tmp_path / "more"
    main(["--output", str(more), "--posts", "130", "--workers", "1", "--more_of", str(dump)])
    counts = json.loads((more / "mini_booru.json").read_text())
    assert (counts["seed"], counts["posts"], counts["more_of"]) == (0, 130, {"posts": 120})
    for folder, message in ((tmp_path, "has no mini_booru.json"), (more, "itself more of another one")):
        assert main(["--output", str(tmp_path / "x"), "--more_of", str(folder)]) == 2
        assert message in capsys.readouterr().err
    for damaged in ("{", "[]", "{}"):
        (tmp_path / "mini_booru.json").write_text(damaged)
        assert main(["--output", str(tmp_path / "x"), "--more_of", str(tmp_path)]) == 2
        assert "is cut or damaged" in capsys.readouterr().err
    older = json.loads((dump / "mini_booru.json").read_text()) | {"drawing_version": -1}
    (tmp_path / "mini_booru.json").write_text(json.dumps(older))
    assert main(["--output", str(tmp_path / "x"), "--more_of", str(tmp_path)]) == 2
    assert "of version -1" in capsys.readouterr().err
    assert main(["--output", str(tmp_path / "x"), "--more_of", str(dump), "--seed", "0"]) == 2
    assert "--seed means nothing" in capsys.readouterr().err and not (tmp_path / "x").exists()


def test_images_are_512_pixels_in_the_folders_of_danbooru2021(dump):
    for post in make_posts(120, seed=0):
        path = image_path(dump, post.id)
        assert path.parent.name == f"{post.id % 1000:04d}"
        assert path.exists() == (post.image not in ("missing", "hidden"))
        if post.image == "valid":
            with Image.open(path) as image:
                assert (image.size, image.format, image.mode) == ((512, 512), "JPEG", "RGB")
                image.load()
        elif post.image == "truncated":
            with Image.open(path) as image, pytest.raises(OSError):
                image.load()
        elif post.image == "empty":
            assert path.stat().st_size == 0


def test_the_dump_says_how_it_was_made_and_leaves_nothing_else(dump):
    counts = json.loads((dump / "mini_booru.json").read_text())
    assert (counts["seed"], counts["posts"]) == (0, 120)
    assert sorted(path.name for path in dump.iterdir()) == [
        "512px",
        "contact_sheet.jpg",
        "metadata",
        "metadata_2021",
        "mini_booru.json",
    ]
    assert [path.name for path in dump.parent.iterdir()] == ["mini_booru"]


def test_both_generations_describe_the_same_posts(metadata):
    table, nested, flat = metadata
    old = {row["id"]: row for row in rows_of(nested)[0]}
    new = {row["id"]: row for row in rows_of(flat)[0] if "id" in row}
    assert set(old) == set(new) == {str(post.id) for post in table}
    kinds = {"0": "general", "1": "artist", "3": "copyright", "4": "character", "5": "meta"}
    for key, row in old.items():
        assert (row["rating"], row["is_deleted"]) == (new[key]["rating"], new[key]["is_deleted"])
        for code, kind in kinds.items():
            names = [tag["name"] for tag in row["tags"] if tag["category"] == code]
            assert names == new[key].get(f"tag_string_{kind}", "").split()


def test_numbers_are_strings_and_absent_fields_are_absent(metadata):
    _, nested, flat = metadata
    for path in (nested, flat):
        for row in rows_of(path)[0]:
            assert all(isinstance(value, (str, bool, list)) for value in row.values())
            assert "" not in [value for key, value in row.items() if key.startswith("tag_string_")]


def test_every_kind_of_dirt_is_in_300_posts(metadata):
    table, nested, flat = metadata
    assert {len(post.characters) for post in table} >= {0, 1, 2}
    assert {post.rating for post in table} == {"s", "q", "e"}
    assert {post.image for post in table} == {"valid", "missing", "truncated", "empty", "hidden"}
    assert all((post.image == "hidden") == (post.rating != "s") for post in table)
    assert any(post.is_deleted for post in table)
    assert any(not post.general for post in table)
    assert 30 < max(len(post.general) for post in table) <= 70
    counts = Counter(tag for post in table for tag in post.general)
    assert 1 in counts.values()
    assert {":d", "^_^", ":o"} <= set(counts)
    for path in (nested, flat):
        rows, malformed = rows_of(path)
        assert malformed == 1
        twice = [key for key, number in Counter(row.get("id") for row in rows).items() if key and number == 2]
        assert len(twice) == DUPLICATE_ROWS
    assert sum("id" not in row for row in rows_of(flat)[0]) == ROWS_WITHOUT_ID


def test_default_dump_has_enough_characters_and_a_long_tail():
    table = make_posts(build_parser().parse_args(["--output", "x"]).posts, seed=0)
    clean = Counter(post.characters[0] for post in table if len(post.characters) == 1 and post.image == "valid")
    kept = [number for number in clean.values() if number >= 10]
    assert len(kept) >= 42
    assert 1900 <= sum(kept) <= 2100
    assert 100 <= max(kept) <= 160
    assert sum(number < 10 for number in clean.values()) >= 6
    assert len({post.id for post in table}) == len(table)


def test_closed_eyes_have_no_eye_color():
    look, scene = Look(eyes=("red", "red")), Scene(ARTIST)
    assert "red_eyes" in visible_tags([look], scene)
    tags = visible_tags([replace(look, eye_state="closed")], scene)
    assert "closed_eyes" in tags
    assert not any(tag.endswith("_eyes") for tag in tags if tag != "closed_eyes")


def test_an_eye_behind_a_patch_is_not_tagged():
    tags = visible_tags([Look(eyes=("red", "blue"), ornaments={"eyepatch": "black"})], Scene(ARTIST))
    assert "red_eyes" in tags and "blue_eyes" not in tags and "heterochromia" not in tags


def test_pictures_without_color_have_no_color_tag():
    words = tuple(f"{word}_" for word in (*HAIR, *EYES, *CLOTH))
    grey = [post for post in make_posts(600, seed=0) if post.scene.is_greyscale or post.scene.artist.saturation == 0]
    assert grey
    for post in grey:
        assert not [tag for tag in post.general if tag.startswith(words)]


def test_close_ups_hide_the_clothes():
    look = Look(outfit="serafuku", ornaments={"scarf": "red"})
    assert {"serafuku", "scarf"} <= set(visible_tags([look], Scene(ARTIST, scale=1.0)))
    assert not {"serafuku", "scarf"} & set(visible_tags([look], Scene(ARTIST, scale=2.4, y=260)))


def test_a_drawing_depends_on_its_own_generator_only():
    look, scene = Look(hair="pink", style="twintails", ornaments={"cat_ears": "pink"}), Scene(ARTISTS[4], "starry_sky")
    first = draw([look], scene, np.random.default_rng(1))
    draw([Look()], Scene(ARTIST, "bookshelf"), np.random.default_rng(2))
    assert np.array_equal(first, draw([look], scene, np.random.default_rng(1)))
    assert (first.shape, first.dtype) == ((512, 512, 3), np.uint8)


def test_only_an_older_dump_is_overwritten_and_only_when_told(dump, tmp_path, capsys):
    before = files_of(dump)
    assert main(["--output", str(dump), "--posts", "120"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert files_of(dump) == before
    (tmp_path / "thesis.txt").write_text("mine")
    assert main(["--output", str(tmp_path), "--posts", "120", "--overwrite"]) == 2
    assert "thesis.txt" in capsys.readouterr().err
    assert (tmp_path / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "flags, words", [(["--posts", "99"], "99"), (["--workers", "0"], "0"), (["--seed", "-1"], "-1")]
)
def test_senseless_numbers_are_refused(flags, words, tmp_path, capsys):
    assert main(["--output", str(tmp_path / "x"), *flags]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def nearest_neighbour_accuracy(folder, table):
    """Top-1 of the nearest neighbour on 16 x 16 RGB; 70 % of each character with 10 images or more against 25 %."""
    posts_of = defaultdict(list)
    for post in table:
        if len(post.characters) == 1 and post.image == "valid":
            posts_of[post.characters[0]].append(post)
    train, test = [], []
    for name, posts in sorted(posts_of.items()):
        posts = [posts[i] for i in np.random.default_rng(0).permutation(len(posts))]
        n = len(posts) if len(posts) >= 10 else 0
        train += [(name, post) for post in posts[: n * 7 // 10]]
        test += [(name, post) for post in posts[n * 7 // 10 : n * 7 // 10 + n // 4]]

    def pixels(rows):
        images = [Image.open(image_path(folder, post.id)).resize((16, 16), Image.Resampling.BOX) for _, post in rows]
        return np.stack([np.asarray(image, np.float32).ravel() for image in images])

    known, asked = pixels(train), pixels(test)
    distance = (known**2).sum(1)[None] - 2 * asked @ known.T
    return np.mean([train[i][0] == name for i, (name, _) in zip(distance.argmin(1), test, strict=True)])


@pytest.mark.long
def test_the_default_dump_is_not_solved_by_looking_at_colors(tmp_path):
    main(["--output", str(tmp_path / "full")])
    posts = build_parser().parse_args(["--output", "x"]).posts
    assert 0.15 < nearest_neighbour_accuracy(tmp_path / "full", make_posts(posts, seed=0)) < 0.5
