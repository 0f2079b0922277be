"""Every format of a dump gives the same table, is told by looking inside, and has an answer to dirt."""

import bz2
import csv
import gzip
import io
import json
import lzma
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from dump_factory import Post, picture, write_dump
from test_list_images import write_tar
from test_parse import rows
from upath import UPath

from dataset_scripts.build_danmul import main
from dataset_scripts.dump.find_dump import find_dump
from dataset_scripts.dump.list_images import open_image
from dataset_scripts.dump.parse import merge, parse
from dataset_scripts.dump.read_folders import caption_tags
from dataset_scripts.dump.site_posts import hash_text

POSTS = [
    Post(11, ["rem_(re:zero)"], ["blue_hair", "maid", ">_<"], other=[]),
    Post(1012, ["saber"], ["hello,_good-bye", "帽子"], "g", True, other=[]),
    Post(13, [], ["no_humans"], other=[]),
    Post(2014, ["saber", "holo"], ["2girls"], other=[]),
]
FLAT = [json.loads(post.flat()) for post in POSTS]


def read(source, format="auto"):
    dump = find_dump(UPath(source), format)
    parsed = merge((task, parse(task)) for task in dump.tasks)
    return dump, parsed


def reference(tmp_path):
    return sorted(rows(read(write_dump(tmp_path / "reference", POSTS))[1].posts))


def lines(posts=FLAT):
    return "".join(json.dumps(post) + "\n" for post in posts).encode()


def tar_bytes(members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


PACKED = {
    "posts.json.gz": lambda content: gzip.compress(content),
    "posts.jsonl.xz": lambda content: lzma.compress(content),
    "posts.json.bz2": lambda content: bz2.compress(content),
    "posts.json.zst": lambda content: zstandard.compress(content),
    "metadata.json.tar.xz": lambda content: lzma.compress(
        tar_bytes({"tags.json": b'{"id": 1, "name": "x"}\n', "2021/posts.json": content})
    ),
    "metadata.tgz": lambda content: gzip.compress(tar_bytes({"posts.jsonl": content})),
    "metadata.tar": lambda content: tar_bytes({"posts.json": content}),
    "posts.json": lambda content: json.dumps(FLAT).encode(),  # an array, as the API answers
    "array.json.gz": lambda content: gzip.compress(json.dumps(FLAT, indent=1).encode()),
    "listed.jsonl": lambda content: lines(
        [
            {
                "id": post.id,
                "rating": post.rating,
                "is_deleted": post.deleted,
                "general_tags": post.general,
                "character_tags": post.characters,
            }
            for post in POSTS
        ]
    ),
    "posts.jsonl": lambda content: b"\xef\xbb\xbf" + content,
}


@pytest.mark.parametrize("name", PACKED)
def test_packed_json_gives_the_same_posts(tmp_path, name):
    (tmp_path / "dump" / "metadata").mkdir(parents=True)
    (tmp_path / "dump" / "metadata" / name).write_bytes(PACKED[name](lines()))
    dump, parsed = read(tmp_path / "dump")
    assert dump.describe().startswith("metadata: flat") and name in dump.describe()
    assert sorted(rows(parsed.posts)) == reference(tmp_path)


def test_records_over_several_lines_and_several_arrays(tmp_path):
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata" / "post.json").write_text("\n".join(json.dumps(post, indent=2) for post in FLAT[:2]))
    (tmp_path / "metadata" / "posts.json").write_text(json.dumps(FLAT[2:3]) + "\n" + json.dumps(FLAT[3:]) + "\n[]")
    _, parsed = read(tmp_path)
    assert sorted(rows(parsed.posts)) == reference(tmp_path) and not parsed.bad_lines


@pytest.mark.parametrize("damage", ["cut in a record", "cut behind", "stray bracket", "stray end", "no comma"])
def test_an_array_with_an_error_is_refused_by_name(tmp_path, damage):
    content = {
        "cut in a record": json.dumps(FLAT)[:-30],
        "cut behind": json.dumps(FLAT[:2])[:-1],
        "stray bracket": "[\n" + lines().decode(),
        "stray end": json.dumps(FLAT) + "]",
        "no comma": json.dumps(FLAT).replace('"rating"', 'rating"'),
    }[damage]
    (tmp_path / "posts.json").write_text(content)
    with pytest.raises(ValueError, match=r"posts.json is JSON with an error behind record \d"):
        read(tmp_path)


def test_nested_lines_in_a_tar(tmp_path):
    content = "\n".join(post.nested() for post in POSTS).encode()
    (tmp_path / "dump" / "metadata").mkdir(parents=True)
    (tmp_path / "dump" / "metadata" / "metadata.json.tar.xz").write_bytes(
        lzma.compress(tar_bytes({"2020/posts.json": content}))
    )
    dump, parsed = read(tmp_path / "dump")
    assert dump.format == "nested" and sorted(rows(parsed.posts)) == reference(tmp_path)


@pytest.mark.parametrize("kind", ["strings", "lists"])
def test_parquet_metadata(tmp_path, kind):
    general = [post.get("tag_string_general", "") for post in FLAT]
    character = [post.get("tag_string_character") for post in FLAT]
    columns = {"id": [post.id for post in POSTS], "rating": [post.rating for post in POSTS], "width": [1] * 4}
    columns["is_deleted"] = [post.deleted for post in POSTS]
    if kind == "strings":
        columns |= {"tag_string_general": general, "tag_string_character": character}
    else:
        columns |= {"general_tags": [post.general for post in POSTS], "character_tags": [p.characters for p in POSTS]}
    (tmp_path / "dump").mkdir()
    pq.write_table(pa.table(columns), tmp_path / "dump" / "posts.parquet", row_group_size=3)
    dump, parsed = read(tmp_path / "dump")
    assert dump.format == "parquet" and len(dump.tasks) == 2
    assert sorted(rows(parsed.posts)) == reference(tmp_path)


def test_gallery_dl_sidecars(tmp_path):
    folder = tmp_path / "dump" / "danbooru" / "some tag"
    folder.mkdir(parents=True)
    for post, record in zip(POSTS, FLAT, strict=True):
        lists = {"category": "danbooru", "tags": ["x"], "tags_general": post.general, "tags_character": []}
        (folder / f"danbooru_{post.id}_ab.jpg").write_bytes(picture(post.id))
        (folder / f"danbooru_{post.id}_ab.jpg.json").write_text(json.dumps(record | lists, indent=4))
    (folder / "info.json").write_text("{}")
    dump, parsed = read(tmp_path / "dump")
    assert dump.format == "gallery-dl" and "danbooru/some tag/danbooru_1012_ab.jpg.json" in dump.describe()
    assert sorted(rows(parsed.posts)) == reference(tmp_path)
    listing = dump.list_images(parsed, None)
    assert listing.ids.tolist() == [11, 13, 1012, 2014]
    assert [open_image(file).read() for file in listing.files(listing.ids[1:3])] == [picture(13), picture(1012)]


def test_webdataset_tars(tmp_path):
    members = {}
    for post in POSTS:
        record = {"rating": post.rating, "is_deleted": post.deleted, "general_tags": post.general}
        record |= {"id": post.id} if post.id == 11 else {}  # else the key is the id
        members[f"{post.id}.json"] = json.dumps(record | {"character_tags": post.characters}).encode()
        members[f"{post.id}.webp"] = picture(post.id, "WEBP")
    write_tar(tmp_path / "dump" / "0001.tar", members)
    dump, parsed = read(tmp_path / "dump")
    assert dump.format == "webdataset" and sorted(rows(parsed.posts)) == reference(tmp_path)
    (file,) = dump.list_images(parsed, None).files(parsed.posts.post_ids[1:2])
    assert file.name == "1012.webp" and open_image(file).read() == picture(1012, "WEBP")


def test_parquet_metadata_with_tars_of_images(tmp_path):
    columns = {"id": [11, 1012], "tag_string_general": ["a", "b"], "tag_string_character": ["x", "x"]}
    (tmp_path / "metadata").mkdir()
    pq.write_table(pa.table(columns), tmp_path / "metadata" / "posts.parquet")
    write_tar(tmp_path / "original" / "data-0011.tar", {"11.jpg": picture(11)})
    write_tar(tmp_path / "recent" / "data-1012.tar", {"1012.jpg": picture(1012)})
    dump, parsed = read(tmp_path)
    assert dump.list_images(parsed, None).ids.tolist() == [11, 1012]
    assert dump.list_images(parsed, "recent").ids.tolist() == [1012]


def test_kohya_folder(tmp_path):
    folder = tmp_path / "dump" / "10_rem_(re:zero)"
    folder.mkdir(parents=True)
    (folder / "a.png").write_bytes(picture(1, "PNG"))
    (folder / "a.txt").write_text("blue hair, rem \\(re:zero\\), maid ||| >_<\nlong_hair", encoding="utf-8-sig")
    (folder / "b.jpg").write_bytes(picture(2))
    dump, parsed = read(tmp_path / "dump")
    assert dump.format == "folder"
    found = {row[0]: row[1:3] for row in rows(parsed.posts)}
    assert found == {
        hash_text("10_rem_(re:zero)/a.png"): ("rem_(re:zero)", [">_<", "blue_hair", "long_hair", "maid"]),
        hash_text("10_rem_(re:zero)/b.jpg"): ("rem_(re:zero)", []),
    }
    assert len(dump.list_images(parsed, None).ids) == 2
    assert caption_tags("a, ,\n a_b ,a b") == {"a", "a_b"}


def write_dafre(folder, header):
    (folder / "labels").mkdir(parents=True)
    for post_id in (11, 1012, 13):
        path = folder / "faces" / f"{post_id % 1000:04d}" / f"{post_id}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(post_id))
    (folder / "labels" / "classid_classname.csv").write_text("0,rem\n1,saber alter\n")
    for split, row in (("train", "0,0011/11.jpg"), ("val", "1,0012/1012.jpg"), ("test", "1,0013/13.jpg")):
        (folder / "labels" / f"{split}.csv").write_text(("class_id,dir\n" if header else "") + row + "\n")
    buffer = io.StringIO()
    columns = ("id", "dir", "class_id", "tags_cat0", "tags_cat3", "tags_cat4")
    csv.writer(buffer).writerows([columns, (11, "", 0, "['blue hair', '1 girl']", "", "")])
    members = {"labels/train_tags.csv": buffer.getvalue().encode()}
    (folder / "labels" / "tags.tar.gz").write_bytes(gzip.compress(tar_bytes(members)))


@pytest.mark.parametrize("header", [False, True])
def test_dafre_csvs_with_the_published_split(tmp_path, header):
    write_dafre(tmp_path / "dump", header)
    dump, parsed = read(tmp_path / "dump")
    assert dump.format == "dafre"
    assert [row[:3] for row in rows(parsed.posts)] == [
        (11, "rem", ["1_girl", "blue_hair"]),
        (1012, "saber_alter", []),
        (13, "saber_alter", []),
    ]
    assert parsed.splits == {11: 0, 1012: 1, 13: 2}
    assert dump.list_images(parsed, None).ids.tolist() == [11, 13, 1012]
    options = ["--workers", "1", "--min_posts", "1", "--tfidf_threshold", "0", "--min_tag_posts", "1"]
    argv = ["--source", str(tmp_path / "dump"), "--output", str(tmp_path / "out"), *options]
    assert main([*argv, "--split", "published"]) == 0
    counts = json.loads((tmp_path / "out" / "build.json").read_text())["counts"]
    assert counts["splits"] == {"train": 1, "validation": 1, "test": 1}


def test_a_whole_dump_on_another_file_system(tmp_path):
    write_dump(tmp_path / "dump", [Post(i, ["a"], ["x", "y"]) for i in range(1, 21)])
    source = UPath("memory://a_whole_dump")
    for path in (tmp_path / "dump").rglob("*"):
        if path.is_file():
            target = source / path.relative_to(tmp_path / "dump").as_posix()
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    for name, place in (("one", str(tmp_path / "dump")), ("two", str(source))):
        assert main(["--source", place, "--output", str(tmp_path / name), "--workers", "1"]) == 0
    for path in (tmp_path / "one" / "data").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / "data" / path.name).read_bytes()


def test_formats_are_told_by_content_and_may_be_overridden(tmp_path):
    write_dump(tmp_path, POSTS, "nested")
    write_dump(tmp_path, POSTS, "flat")
    (tmp_path / "metadata_2021" / "tags000000000000.json").write_text('{"id": "1", "name": "1girl"}\n')
    dump = find_dump(UPath(tmp_path))
    assert [path.name for path in dump.files] == ["posts000000000000.json"]
    assert dump.describe().startswith("metadata: flat") and "not read" in dump.describe()
    assert find_dump(UPath(tmp_path), "nested").format == "nested"
    assert find_dump(UPath(tmp_path), "folder").format == "folder"


def test_pictures_without_their_metadata_are_no_dump_of_captions(tmp_path):
    dump = write_dump(tmp_path, POSTS)
    (dump / "metadata_2021" / "posts000000000000.json").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match="Expected metadata"):
        find_dump(UPath(dump))
    assert find_dump(UPath(dump), "folder").format == "folder"  # if she says so


def test_a_sidecar_whose_picture_is_missing_is_a_post_without_image(tmp_path):
    for post, record in zip(POSTS, FLAT, strict=True):
        (tmp_path / f"{post.id}.jpg.json").write_text(json.dumps(record))
        (tmp_path / f"{post.id}.jpg").write_bytes(picture(post.id))
    (tmp_path / "13.jpg").unlink()
    dump, parsed = read(tmp_path)
    assert dump.format == "gallery-dl" and len(parsed.posts) == 4
    assert dump.list_images(parsed, None).ids.tolist() == [11, 1012, 2014]


@pytest.mark.parametrize("damage", ["field", "no tar", "cut", "no names"])
def test_damaged_files_of_dafre_are_named(tmp_path, damage, capsys):
    write_dafre(tmp_path / "dump", True)
    labels = tmp_path / "dump" / "labels"
    if damage == "field":
        (labels / "train.csv").write_text('0,"' + "x" * 200_000 + "\n")
    elif damage == "no tar":
        (labels / "tags.tar.gz").write_bytes(gzip.compress(b"x" * 2000))
    elif damage == "cut":
        content = (labels / "tags.tar.gz").read_bytes()
        (labels / "tags.tar.gz").write_bytes(content[: len(content) // 2])
    else:
        (labels / "classid_classname.csv").unlink()
    assert main(["--source", str(tmp_path / "dump"), "--output", str(tmp_path / "out"), "--workers", "1"]) == 2
    error = capsys.readouterr().err
    assert "error: " in error and "labels/" in error and "Traceback" not in error


def test_sources_without_posts_are_explained(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        find_dump(UPath(tmp_path / "absent"))
    with pytest.raises(FileNotFoundError, match="Found nothing"):
        find_dump(UPath(tmp_path))
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata" / "posts.json").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"metadata/posts.json \(0 bytes\)"):
        find_dump(UPath(tmp_path))
    (tmp_path / "metadata" / "posts.json").write_text("<html>\n")
    with pytest.raises(ValueError, match="posts.json:1: "):
        find_dump(UPath(tmp_path))
    (tmp_path / "metadata" / "posts.json").write_bytes(lines())
    with pytest.raises(FileNotFoundError, match="512px/NNNN/ID.jpg"):
        dump, parsed = read(tmp_path)
        dump.list_images(parsed, None)


BAD = [
    (b'{"id": 9223372036854775808}', "$.id"),
    (b'{"id": "../../etc/passwd"}', "$.id"),
    (b'{"id": [1]}', "$.id"),
    (b'{"id": 1, "tag_string_general": {"a": 1}}', "$.tag_string_general"),
    (b"null", "object"),
    (b'{"id": 1', "truncated"),
]


@pytest.mark.parametrize("content, reason", BAD)
@pytest.mark.parametrize("container", ["array", "sidecar", "webdataset", "gz"])
def test_a_bad_record_is_named_in_every_container_and_the_others_are_read(tmp_path, container, content, reason):
    good = json.dumps(FLAT[0]).encode()
    if container == "array":
        if reason == "truncated":
            pytest.skip("an array with broken syntax has no records")
        (tmp_path / "posts.json").write_bytes(b"[" + content + b", " + good + b"]")
    elif container == "sidecar":
        for name, record in (("a.jpg", content), ("b.jpg", good)):
            (tmp_path / name).write_bytes(picture(1))
            (tmp_path / f"{name}.json").write_bytes(record)
    elif container == "webdataset":
        write_tar(tmp_path / "x.tar", {"a.json": content, "a.jpg": b"x", "b.json": good, "b.jpg": picture(1)})
    else:
        (tmp_path / "posts.json.gz").write_bytes(gzip.compress(content + b"\n" + good))
    format = "flat" if container == "array" else "auto"
    _, parsed = read(tmp_path, format)
    assert parsed.posts.post_ids.tolist() == [11]
    (bad,) = parsed.bad_lines
    assert reason in bad.reason
    assert bad.file and bad.line >= 1


@pytest.mark.parametrize("value", [-1, 2**63 - 1, "abc", None])
def test_parquet_rows_with_bad_ids(tmp_path, value):
    column = pa.array([value, "5"] if isinstance(value, str) else [value, 5])
    columns = {"id": column, "tag_string_general": ["x", "y"], "tag_string_character": ["a", "a"]}
    pq.write_table(pa.table(columns), tmp_path / "posts.parquet")
    _, parsed = read(tmp_path)
    expected = {-1: (1, 0), 2**63 - 1: (0, 0), "abc": (1, 0), None: (0, 1)}[value]
    assert (len(parsed.bad_lines), parsed.num_without_id) == expected
    assert 5 in parsed.posts.post_ids.tolist()


@pytest.mark.parametrize("row", ["7,0011/11.jpg", "0,../../../etc/passwd", "0", "0,0011/99999999999999999999.jpg"])
def test_dafre_rows_that_are_no_posts(tmp_path, row):
    write_dafre(tmp_path, True)
    (tmp_path / "labels" / "val.csv").write_text(f"class_id,dir\n{row}\n")
    _, parsed = read(tmp_path)
    assert [(bad.file, bad.line) for bad in parsed.bad_lines] == [("labels/val.csv", 2)]


@pytest.mark.parametrize("name", ["posts.json.gz", "posts.json.xz", "posts.json.zst", "posts.parquet", "a.tgz"])
def test_damaged_archives_are_named_and_no_traceback(tmp_path, name, capsys):
    (tmp_path / "dump").mkdir()
    content = lines(FLAT * 2000)
    if name == "posts.parquet":
        content = b"PAR1" + content
    else:
        pack = {"gz": gzip.compress, "xz": lzma.compress, "zst": zstandard.compress, "tgz": gzip.compress}
        content = pack[name.rsplit(".", 1)[-1]](content if name != "a.tgz" else tar_bytes({"posts.json": content}))
        content = content[: len(content) // 2]
    (tmp_path / "dump" / name).write_bytes(content)
    assert main(["--source", str(tmp_path / "dump"), "--output", str(tmp_path / "out"), "--workers", "1"]) == 2
    error = capsys.readouterr().err
    assert name in error and "Traceback" not in error


def test_a_line_that_is_a_bomb_is_cut(tmp_path, monkeypatch):
    monkeypatch.setattr("dataset_scripts.dump.read_json.MAX_RECORD_BYTES", 2000)
    bomb = b'{"id": 1, "tag_string_general": "' + b"x" * 10_000 + b'"}\n'
    (tmp_path / "posts.json.gz").write_bytes(gzip.compress(lines() + bomb + lines()))
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata" / "posts.json").write_bytes(lines() + bomb + lines())
    for source in (tmp_path, tmp_path / "metadata"):
        _, parsed = read(source)
        assert len(parsed.posts) == 8 and [bad.line for bad in parsed.bad_lines] == [5]
        assert "longer than" in parsed.bad_lines[0].reason


def test_vocab_pkl_is_never_opened(tmp_path):
    write_dafre(tmp_path, True)
    (tmp_path / "labels" / "vocab.pkl").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    assert len(read(tmp_path)[1].posts) == 3


@pytest.mark.parametrize("name", ["帽" * 50 + "/posts.json", "a/" * 90 + "posts.json"])
@pytest.mark.parametrize("damage", ["none", "zeros", "letters", "inside"])
def test_a_damaged_long_name_in_a_tar_hides_no_posts(tmp_path, name, damage):
    """It has no sum: read as it stands, the member would be called something that is no .json, and be passed over."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        info = tarfile.TarInfo(name)
        info.size = len(lines())
        tar.addfile(info, io.BytesIO(lines()))
    content = bytearray(buffer.getvalue())
    if damage == "zeros":
        content[512:580] = bytes(68)
    elif damage == "letters":
        content[515:520] = b"xxxxx"
    elif damage == "inside":
        content[512 + 120] = 0
    (tmp_path / "posts.tar").write_bytes(content)
    if damage == "none":
        assert len(read(tmp_path)[1].posts) == len(FLAT)
    else:
        with pytest.raises(ValueError, match="posts.tar is no whole tar"):
            read(tmp_path)


def test_files_in_an_archive_that_are_not_read_are_counted(tmp_path, capsys):
    members = {"posts.json": lines(), "posts.jsom": lines(), "README": b"x", "a.txt": b"y"}
    (tmp_path / "posts.tar").write_bytes(tar_bytes(members))
    _, parsed = read(tmp_path)
    assert len(parsed.posts) == len(FLAT) and parsed.ignored == {".jsom": 1, "other names": 1, ".txt": 1}
    main(["--source", str(tmp_path), "--output", str(tmp_path / "x"), "--dry_run", "--workers", "1"])
    assert "files in archives of metadata that are not read: 3 (" in capsys.readouterr().out


def test_an_extended_header_of_a_tar_with_an_unknown_field_is_damage(tmp_path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("a/" * 90 + "posts.json")
        info.size, info.pax_headers = len(lines()), {"LIBARCHIVE.creationtime": "1"}
        tar.addfile(info, io.BytesIO(lines()))
    (tmp_path / "posts.tar").write_bytes(buffer.getvalue())
    assert len(read(tmp_path)[1].posts) == len(FLAT)
    (tmp_path / "posts.tar").write_bytes(buffer.getvalue().replace(b" path=", b" qath="))
    with pytest.raises(ValueError, match="extended header with a field 'qath'"):
        read(tmp_path)
