"""Folders of pictures as people have them: several sites, other kinds of files, any names and encodings."""

import codecs
import io
import json
import os
import random
import tarfile

import pyarrow.parquet as pq
import pytest
from dump_factory import Post, image_path, picture, write_dump
from test_find_dump import read
from test_list_images import write_tar
from test_parse import rows

from dataset_scripts.build_danmul import main
from dataset_scripts.dump.list_images import open_image
from dataset_scripts.dump.site_posts import hash_text

DANBOORU = {"category": "danbooru", "rating": "g"}


def write_post(folder, name, content, **record):
    """A picture and its sidecar as gallery-dl writes them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    (folder / f"{name}.json").write_text(json.dumps(record), encoding="utf-8")


def labelled_pictures(source, format="auto"):
    """{id: (character, tags, bytes of the picture)} of all posts that have one."""
    dump, parsed = read(source, format)
    listing = dump.list_images(parsed, None)
    contents = [open_image(file).read() for file in listing.files(listing.ids)]
    table = {row[0]: row[1:3] for row in rows(parsed.posts)}
    assert len(table) == len(parsed.posts), "an id stands twice in the table"
    found = {
        post_id: (*table[post_id], content) for post_id, content in zip(listing.ids.tolist(), contents, strict=True)
    }
    return found, listing, parsed


def test_a_number_of_two_sites_is_two_posts_each_with_its_own_picture(tmp_path):
    for number in (1, 2):
        write_post(
            tmp_path / "danbooru",
            f"{number}.jpg",
            picture(number),
            id=number,
            **DANBOORU,
            tag_string_general="a b c",
            tag_string_character="rem",
        )
        write_post(
            tmp_path / "yandere",
            f"{number}.jpg",
            picture(number + 50),
            id=number,
            category="yandere",
            tags_general="x",
            tags_character="ram",
        )
    found, listing, _ = labelled_pictures(tmp_path)
    assert found == {
        1: ("rem", ["a", "b", "c"], picture(1)),
        2: ("rem", ["a", "b", "c"], picture(2)),
        hash_text("yandere/1"): ("ram", ["x"], picture(51)),
        hash_text("yandere/2"): ("ram", ["x"], picture(52)),
    }
    assert "posts of sites: 4 (danbooru 2, yandere 2)" in listing.describe()


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_of_two_records_of_an_id_one_wins_whole_and_the_other_is_counted(tmp_path, order):
    poor, rich = (tmp_path / name for name in order)
    write_post(poor, "1.jpg", picture(1), id=1, tag_string_general="x", tag_string_character="rem")
    write_post(rich, "1.jpg", picture(2), id=1, tag_string_general="x y", tag_string_character="ram")
    found, listing, _ = labelled_pictures(tmp_path)
    assert found == {1: ("ram", ["x", "y"], picture(2))}
    assert listing.num_conflicts == 1 and "further records of an id, left out with their pictures: 1" in (
        listing.describe()
    )


def test_a_record_with_its_picture_wins_over_a_richer_one_without(tmp_path):
    write_post(tmp_path / "a", "1.jpg", picture(1), id=1, tag_string_general="x y", tag_string_character="ram")
    write_post(tmp_path / "b", "1.jpg", picture(2), id=1, tag_string_general="x", tag_string_character="rem")
    (tmp_path / "a" / "1.jpg").unlink()
    assert labelled_pictures(tmp_path)[0] == {1: ("rem", ["x"], picture(2))}


def test_a_sample_with_several_pictures_or_records_says_so(tmp_path):
    def record(name):
        return json.dumps({"character_tags": [name], "general_tags": ["x"]}).encode()

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in (
            ("1.webp", picture(1, "WEBP")),
            ("1.json", record("rem")),
            ("1.json", record("ram")),
            ("1.JPG", picture(2)),
            ("1.png", picture(3, "PNG")),
            ("1.txt", b"x"),
            ("2.jpg", picture(4)),
            ("3.json", record("ram")),
            ("3.jpg", picture(5)),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    (tmp_path / "x.tar").write_bytes(buffer.getvalue())
    found, listing, _ = labelled_pictures(tmp_path)
    assert found == {1: ("rem", ["x"], picture(2)), 3: ("ram", ["x"], picture(5))}
    assert listing.ignored == {".webp": 1, ".json": 1, ".png": 1, ".txt": 1, ".jpg": 1}


@pytest.mark.parametrize("kind", [".gif", ".mp4", ".webm", ".zip", ".avif", ".GIF", ".swf"])
@pytest.mark.parametrize("format", ["auto", "gallery-dl"])
def test_a_post_of_another_kind_among_pictures_is_counted(tmp_path, kind, format):
    for number, suffix in ((1, ".jpg"), (2, ".JPG"), (3, ".jfif"), (4, kind)):
        write_post(tmp_path, f"{number}{suffix}", picture(number), id=number, tag_string_character="rem")
    (tmp_path / f"5{kind}.json").write_text('{"id": 5, "tag_string_character": "rem"}')
    (tmp_path / "6.png").write_bytes(picture(6))
    (tmp_path / "info.json").write_text("{}")
    found, listing, _ = labelled_pictures(tmp_path, format)
    assert sorted(found) == [1, 2, 3]
    assert f"posts without a picture of a kind that is read: 2 ({kind.lower()} 2)" in listing.describe()
    assert listing.ignored == {".png": 1, ".json": 1}


def test_sites_are_read_or_named(tmp_path):
    posts = {
        "danbooru": {"id": 1, "tags_general": ["a"], "tags_character": ["rem"], "tags": ["a", "rem"]},
        "sankaku": {"id": "JlrKE9gMzWv", "tags_general": ["long hair"], "tags_character": ["rem"]},
        "e621": {
            "id": 3,
            "tags": {"general": ["a"], "character": ["rem"], "species": ["cat"]},
            "flags": {"deleted": True},
        },
        "yandere": {"id": 4, "tags": "a rem", "tags_general": "a b", "tags_character": "rem"},
        "zerochan": {"id": "5", "tags": ["Mangaka:Someone", "Character:Kafuu Chino", "Theme:Long Hair"]},
        "gelbooru": {"id": 6, "tags": "x", "tags_general": "a", "tags_character": "jeanne_d&#039;arc"},
    }
    for site, record in posts.items():
        write_post(tmp_path / site, "1.jpg", picture(1), category=site, **record)
    for site, tags in (("konachan", "a b"), ("pixiv", [{"name": "x"}]), ("rule34", None), ("wallhaven", ["a"])):
        write_post(tmp_path / site, "1.jpg", picture(1), category=site, id=9, tags=tags)
    found, _, parsed = labelled_pictures(tmp_path)
    labels = {post_id: labels[:2] for post_id, labels in found.items()}
    assert labels == {
        1: ("rem", ["a"]),
        hash_text("sankaku/JlrKE9gMzWv"): ("rem", ["long_hair"]),
        hash_text("e621/3"): ("rem", ["a"]),
        hash_text("yandere/4"): ("rem", ["a", "b"]),
        hash_text("zerochan/5"): ("kafuu_chino", ["long_hair"]),
        hash_text("gelbooru/6"): ("jeanne_d'arc", ["a"]),
    }
    assert parsed.posts.is_deleted.sum() == 1
    reasons = {bad.file.split("/")[0]: bad.reason for bad in parsed.bad_lines}
    assert sorted(reasons) == ["konachan", "pixiv", "rule34", "wallhaven"]
    assert "no tags" in reasons["rule34"] and "without categories" in reasons["konachan"]


CAPTIONS = {  # name beside a.PNG: (its bytes, rank)
    "a.txt": b"t1",
    "a.PNG.txt": b"t2",
    "a.caption": b"t3",
    "a.PNG.caption": b"t4",
}


@pytest.mark.parametrize("first", range(4))
@pytest.mark.parametrize("is_upper", [False, True])
def test_which_caption_wins(tmp_path, first, is_upper):
    (tmp_path / "rem").mkdir()
    (tmp_path / "rem" / "a.PNG").write_bytes(picture(1, "PNG"))
    names = list(CAPTIONS)[first:]
    for name in names:
        stem, suffix = os.path.splitext(name)
        (tmp_path / "rem" / (stem + (suffix.upper() if is_upper else suffix))).write_bytes(CAPTIONS[name])
    found, listing, _ = labelled_pictures(tmp_path)
    assert found == {hash_text("rem/a.PNG"): ("rem", [f"t{first + 1}"], picture(1, "PNG"))}
    assert listing.num_ignored == len(names) - 1  # the others are counted


@pytest.mark.parametrize(
    "encoding, mark",
    [
        ("utf-8", b""),
        ("utf-8", codecs.BOM_UTF8),
        ("utf-16-le", codecs.BOM_UTF16_LE),
        ("utf-16-be", codecs.BOM_UTF16_BE),
        ("utf-32-le", codecs.BOM_UTF32_LE),
        ("utf-32-be", codecs.BOM_UTF32_BE),
    ],
)
def test_a_byte_order_mark_is_believed(tmp_path, encoding, mark):
    (tmp_path / "captions" / "rem").mkdir(parents=True)
    (tmp_path / "captions" / "rem" / "a.jpg").write_bytes(picture(1))
    (tmp_path / "captions" / "rem" / "a.txt").write_bytes(mark + "long hair, 帽子\r\n".encode(encoding))
    write_post(tmp_path / "sidecars", "a.jpg", picture(1))
    record = json.dumps({"id": 1, "tags_general": ["long hair", "帽子"], "tags_character": "rem"}, ensure_ascii=False)
    (tmp_path / "sidecars" / "a.jpg.json").write_bytes(mark + record.encode(encoding))
    for folder in ("captions", "sidecars"):
        ((character, tags, _),) = labelled_pictures(tmp_path / folder)[0].values()
        assert (character, tags) == ("rem", ["long_hair", "帽子"])


@pytest.mark.parametrize("content", ["long hair".encode("utf-16-le"), b"\xff\xfea", "caf\xe9".encode("latin-1")])
def test_a_caption_that_is_no_text_is_named(tmp_path, content):
    (tmp_path / "rem").mkdir()
    for name in "ab":
        (tmp_path / "rem" / f"{name}.jpg").write_bytes(picture(1))
        (tmp_path / "rem" / f"{name}.txt").write_bytes(content if name == "a" else b"x")
    found, _, parsed = labelled_pictures(tmp_path)
    assert list(found) == [hash_text("rem/b.jpg")]
    assert [bad.file for bad in parsed.bad_lines] == ["rem/a.txt"]


def test_captions_in_the_words_of_hydrus(tmp_path):
    (tmp_path / "a.png").write_bytes(picture(1, "PNG"))
    (tmp_path / "a.png.txt").write_text("character:rem (re:zero)\nseries:re:zero\nrating:safe\nre:zero fan\nmaid\n")
    ((character, tags, _),) = labelled_pictures(tmp_path)[0].values()
    assert (character, tags) == ("rem_(re:zero)", ["maid", "re:zero_fan"])


def build(source, output, *options):
    return main(
        [
            "--source",
            str(source),
            "--output",
            str(output),
            "--workers",
            "1",
            "--min_posts",
            "1",
            "--tfidf_threshold",
            "0",
            *options,
        ]
    )


def test_names_that_are_no_text_stop_nothing(tmp_path, capsys):
    for number in range(1, 5):
        write_post(
            tmp_path / "dump", f"{number}.jpg", picture(number), id=number, tags_general=["x"], tags_character=["rem"]
        )
    odd = os.fsencode(tmp_path / "dump") + b"/\xff\x1b[2J.jpg"
    for suffix, content in ((b"", picture(5)), (b".json", b'{"id": 5, "tags_general": "x", "tags_character": "rem"}')):
        with open(odd + suffix, "wb") as file:
            file.write(content)
    with open(os.fsencode(tmp_path / "dump") + b"/\xfe.jpg.json", "wb") as file:
        file.write(b"{broken")
    assert build(tmp_path / "dump", tmp_path / "out", "--max_bad_share", "0.5") == 0
    output = capsys.readouterr()
    assert "\\udcfe.jpg.json" in output.err and "\x1b" not in output.out + output.err
    rows = [row for path in (tmp_path / "out" / "data").iterdir() for row in pq.read_table(path).to_pylist()]
    assert {row["post_id"]: row["image"]["path"] for row in rows}[5] == "\\udcff\\x1b[2J.jpg"
    assert len(rows) == 5 and json.loads((tmp_path / "out" / "build.json").read_text())["metadata"]["bad_lines"] == 1


def test_a_folder_whose_name_is_no_text_names_no_character(tmp_path):
    for folder in (b"/rem", b"/\xff"):
        os.mkdir(os.fsencode(tmp_path) + folder)
        with open(os.fsencode(tmp_path) + folder + b"/a.jpg", "wb") as file:
            file.write(picture(1))
    found, _, parsed = labelled_pictures(tmp_path, "folder")
    assert list(found) == [hash_text("rem/a.jpg")] and [bad.file for bad in parsed.bad_lines] == ["\\udcff/a.jpg"]


def test_pipes_where_files_are_expected_stop_nothing(tmp_path, capsys):
    for name in ("a", "b", "c"):
        write_post(tmp_path / "dump", f"{name}.jpg", picture(1), id=ord(name), tags_general="x", tags_character="rem")
    for name in ("b.jpg", "c.jpg.json", "d.txt"):
        (tmp_path / "dump" / name).unlink(missing_ok=True)
        os.mkfifo(tmp_path / "dump" / name)
    (tmp_path / "dump" / "round").symlink_to(tmp_path / "dump")
    assert build(tmp_path / "dump", tmp_path / "out") == 0
    output = capsys.readouterr().out
    assert "no regular file 3" in output and "linked folder 1" in output and "images unreadable: 1" in output
    os.mkfifo(tmp_path / "x.tar")
    (tmp_path / "folder.tar").mkdir()
    assert read(tmp_path)[0].format == "gallery-dl"


@pytest.mark.parametrize("seed", range(3))
def test_every_file_of_a_random_folder_is_read_or_counted(tmp_path, seed):
    every_file_of_a_random_folder(tmp_path, random.Random(seed), 60)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 130))
def test_every_file_of_many_random_folders(tmp_path, seed):
    every_file_of_a_random_folder(tmp_path, random.Random(seed), 600)


def every_file_of_a_random_folder(tmp_path, rng, number):
    """Sites, kinds and records by lot. Each picture carries its labels, so that one with those of another is seen."""
    suffixes = [".jpg", ".JPG", ".jpeg", ".png", ".webp", ".jfif", ".jpe", ".gif", ".mp4", ".zip", ".txt", ".dat"]
    num_alone, num_sidecars = 0, 0
    for index in range(number):
        site, post_id = rng.choice(["danbooru", "yandere", "gelbooru", None]), rng.randrange(1, number // 2)
        name = f"{rng.choice(['a', 'b', 'b/c', 'ü'])}/{index}{rng.choice(suffixes)}"
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        tags = rng.sample(["u", "v", "w", "x", "y", "z"], rng.randrange(6))
        record = {"id": post_id, "tags_general": sorted(tags), "tags_character": [f"c{index}"]}
        record |= {"category": site} if site else {}
        is_there, has_record = rng.random() < 0.9, rng.random() < 0.9
        if is_there:
            path.write_text(json.dumps(record, sort_keys=True))  # labels for pixels: nothing here decodes
        if has_record:
            broken = rng.random() < 0.05
            path.with_name(f"{path.name}.json").write_text("{" if broken else json.dumps(record, sort_keys=True))
        num_alone += is_there and not has_record
        num_sidecars += has_record
    found, listing, parsed = labelled_pictures(tmp_path, "gallery-dl")
    for post_id, (character, tags, content) in found.items():
        record = json.loads(content)
        site = record.get("category", "")
        own_id = record["id"] if site in ("", "danbooru") else hash_text(f"{site}/{record['id']}")
        assert (post_id, character, tags) == (own_id, record["tags_character"][0], record["tags_general"])
    dump, read_again = read(tmp_path, "gallery-dl")
    sidecars = len(read_again.posts) + len(read_again.bad_lines) + dump.other_kinds.total() + listing.ignored[".json"]
    assert sidecars == num_sidecars and listing.num_ignored - listing.ignored[".json"] == num_alone
    left_out = len(read_again.posts) - len(parsed.posts)
    assert f"left out with their pictures: {left_out:,}" in listing.describe() or not left_out
    assert len(found) == len(set(read_again.posts.post_ids[[i is not None for i in read_again.images]].tolist()))


def test_the_suffixes_of_what_is_not_read_are_counted_in_tars_and_buckets(tmp_path, capsys):
    (tmp_path / "dump" / "metadata").mkdir(parents=True)
    records = [{"id": i, "tag_string_general": "x", "tag_string_character": "rem"} for i in (1, 2, 3, 4)]
    (tmp_path / "dump" / "metadata" / "posts.json").write_text("\n".join(map(json.dumps, records)))
    names = {"1.JPG": picture(1), "2.jfif": picture(2), "3.gif": b"x", "3.mp4": b"x", "4.jpg": picture(4)}
    for number, content in names.items():
        path = tmp_path / "dump" / "512px" / f"{int(number[0]):04d}" / number
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    assert build(tmp_path / "dump", tmp_path / "out", "--dry_run") == 0
    output = capsys.readouterr().out
    assert "images: 3 in 512px/NNNN/ID.*\n" in output and "files not read: 2 (.gif 1, .mp4 1)" in output
    write_tar(tmp_path / "dump" / "512px" / "0001.tar", names)
    assert build(tmp_path / "dump", tmp_path / "out", "--dry_run") == 0
    output = capsys.readouterr().out
    assert "images: 3 in 1 tars\n" in output and "files not read: 2 (.gif 1, .mp4 1)" in output


def test_a_pipe_and_a_name_that_is_no_text_among_the_buckets(tmp_path, capsys):
    dump = write_dump(tmp_path / "dump", [Post(i, ["a"], ["x", "y"]) for i in range(1, 6)])
    image_path(dump, 3).unlink()
    os.mkfifo(image_path(dump, 3))
    with open(os.fsencode(dump) + b"/512px/0001/\xff.jpg", "wb") as file:
        file.write(picture(1))
    os.rename(dump / "metadata_2021", os.fsencode(dump) + b"/metadata_\xff")
    assert build(dump, tmp_path / "out") == 0
    output = capsys.readouterr().out
    assert "images unreadable: 1" in output and "files not read: 1 (.jpg 1)" in output
    assert "metadata_\\udcff/posts000000000000.json" in output


def test_records_that_differ_are_counted_in_what_the_build_says_and_writes(tmp_path, capsys):
    for folder, name in (("a", "rem"), ("b", "ram")):
        for number in (1, 2, 3):
            write_post(
                tmp_path / "dump" / folder,
                f"{number}.jpg",
                picture(number),
                id=number,
                **DANBOORU,
                tag_string_general="x",
                tag_string_character=name if number < 3 else "rem",
            )
    (tmp_path / "dump" / "4.mp4.json").write_text("{}")
    assert build(tmp_path / "dump", tmp_path / "out") == 0
    output = capsys.readouterr().out
    assert "further records of an id, left out with their pictures: 3" in output
    assert "ids whose records differ (the one with most tags is kept): 2" in output
    assert "posts without a picture of a kind that is read: 1 (.mp4 1)" in output
    assert json.loads((tmp_path / "out" / "build.json").read_text())["duplicate_ids_that_differ"] == 2
