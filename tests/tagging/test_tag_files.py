"""Captions beside pictures: read as their owners wrote them, added to and replaced word by word."""

import codecs
import json
import random

import pytest
from test_tag_folder import FOUND, model, picture, pictures, run  # noqa: F401

from modeling_mfdn.tagging.tag_files import BYTE_ORDER_MARKS, Wording, read_caption
from modeling_mfdn.tagging.tag_folder import TagOptions


@pytest.mark.parametrize("name", ["a.txt", "a.TXT", "a.png.txt", "A.PNG.TXT", "a.caption", "a.png.caption"])
def test_a_caption_of_any_usual_name_is_one(pictures, model, name):
    (pictures / name).write_text("my tag, smile")
    assert run(pictures, model) == 0 and (pictures / name).read_text() == "my tag, smile"
    assert run(pictures, model, "--append", "--use_existing") == 0
    assert (pictures / name).read_text() == "my tag, smile, hatsune_miku, long_hair, >_<\n"
    assert sorted(path.name for path in pictures.iterdir()) == sorted([name, "a.png", "b.png", "b.txt"])


def test_an_empty_caption_is_none_yet(pictures, model):
    (pictures / "a.txt").touch()
    assert run(pictures, model) == 0 and (pictures / "a.txt").read_text() == FOUND


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-be"])
def test_a_byte_order_mark_is_believed_and_stays(pictures, model, encoding):
    mark = codecs.BOM_UTF16_BE if encoding == "utf-16-be" else b""
    (pictures / "a.txt").write_bytes(mark + "初音, smile".encode(encoding))
    assert run(pictures, model, "--append") == 0
    after = (pictures / "a.txt").read_bytes()
    assert after == mark + "初音, smile, hatsune_miku, long_hair, >_<\n".encode(encoding)


@pytest.mark.parametrize(
    "content",
    ["初音, smile".encode("cp932"), "café".encode("cp1252"), "smile".encode("utf-16-le"), b"x" * (2**20 + 1)],
    ids=["cp932", "cp1252", "UTF-16 without mark", "huge"],
)
@pytest.mark.parametrize("options", [["--append"], ["--use_existing", "--overwrite"], ["--use_existing", "--append"]])
def test_a_caption_that_cannot_be_read_is_left_alone_and_named(pictures, model, capsys, content, options):
    (pictures / "a.txt").write_bytes(content)
    assert run(pictures, model, *options) == 1
    assert (pictures / "a.txt").read_bytes() == content and (pictures / "b.txt").read_text() == FOUND
    assert "not done: 'a.png': a.txt" in capsys.readouterr().err


@pytest.mark.parametrize(
    "before, after",
    [
        ("A girl, standing.\nA longer text, in prose.\n", "A girl, standing., hatsune_miku, long_hair, >_<\nA longer"),
        ("my tag\nsmile\n", "my tag\nsmile\nhatsune_miku\nlong_hair\n>_<\n"),
        ("a,b ,c\r\nd\r\n", "a,b ,c, hatsune_miku, long_hair, >_<\r\nd\r\n"),
        ("smile,", "smile, hatsune_miku, long_hair, >_<\n"),
        ("hatsune miku, LONG HAIR, >_<,x", "hatsune miku, LONG HAIR, >_<,x"),
    ],
)
def test_lines_of_a_caption_stay_lines(pictures, model, before, after):
    (pictures / "a.txt").write_bytes(before.encode())
    assert run(pictures, model, "--append") == 0
    assert (pictures / "a.txt").read_bytes().decode().startswith(after)
    once = (pictures / "a.txt").read_bytes()
    assert run(pictures, model, "--append") == 0 and (pictures / "a.txt").read_bytes() == once


def test_excluded_and_replaced_words_are_so_wherever_they_come_from(pictures, model):
    words = "My Trigger, smile, a \\(b\\), old word, keep"
    options = ["--exclude", "my trigger", "--replace", "A (b)=c d", "smile=grin", "old word=", "hatsune_miku=miku"]
    (pictures / "a.txt").write_text(words)
    run(pictures, model, "--append", *options)
    assert (pictures / "a.txt").read_text() == "c d, keep, miku, long_hair, >_<".replace("c d", "grin, c d") + "\n"
    (pictures / "a.txt").write_text(words)
    run(pictures, model, "--use_existing", "--overwrite", *options)
    assert (pictures / "a.txt").read_text() == "miku, grin, long_hair, >_<\n"


def test_a_tag_with_an_equals_sign_is_replaced(pictures, model, tiny_processor):
    options = TagOptions("x", "y", replace=["=_==calm eyes", "a b=c"])
    wording = Wording(options, {"=_=", "smile"})
    assert wording.replaced("=_=") == "calm eyes" and wording.replaced("A b") == "c"


def test_first_is_first(pictures, model):
    (pictures / "a.txt").write_text("my tag, style, smile")
    run(pictures, model, "--append", "--first", "style", "second")
    assert (pictures / "a.txt").read_text() == "style, second, my tag, smile, hatsune_miku, long_hair, >_<\n"
    assert (pictures / "b.txt").read_text() == "style, second, hatsune_miku, long_hair, >_<\n"
    run(pictures, model, "--format", "jsonl", "--first", ">_<")
    assert json.loads((pictures / "tags.jsonl").read_text().splitlines()[0])["tags"] == [">_<", "long_hair"]


def test_words_that_a_new_caption_leaves_out_are_named(pictures, model, capsys):
    for name in ("a", "b"):
        (pictures / f"{name}.txt").write_text(f"my_trigger, smile, long hair, only {name}\x1b[2J")
    assert run(pictures, model, "--use_existing", "--overwrite") == 0
    said = capsys.readouterr().err
    assert "'my_trigger' (2)" in said and "'only a\\x1b[2J' (1)" in said and "--append" in said
    assert "smile" not in said and "long" not in said and "\x1b" not in said


def test_captions_that_are_left_alone_are_said_with_what_to_add(pictures, model, capsys):
    (pictures / "a.txt").write_text("smile")
    run(pictures, model, "--use_existing")
    said = capsys.readouterr().out
    assert "1 pictures have captions and are left alone" in said and "--append" in said and "--overwrite" in said


def test_two_pictures_of_one_name_do_not_share_a_caption(pictures, model, capsys):
    picture(pictures / "a.jpg", "blue")
    assert run(pictures, model, "--overwrite") == 1
    said = capsys.readouterr().err
    assert "'a.jpg': a.txt would be the caption of several" in said and "'a.png': a.txt would" in said
    assert "--full_names" in said and not (pictures / "a.txt").exists() and (pictures / "b.txt").exists()
    assert run(pictures, model, "--full_names") == 0
    names = {path.name for path in pictures.glob("*.txt")}
    assert names == {"b.txt", "a.png.txt", "a.jpg.txt", "b.png.txt"}


def test_what_was_said_of_one_picture_only_stays_with_it(pictures, model):
    """Each of a.png and a.jpg has its own caption already: then there is nothing to share."""
    picture(pictures / "a.jpg", "blue")
    for name in ("a.png.txt", "a.jpg.txt"):
        (pictures / name).write_text(f"of {name}")
    assert run(pictures, model, "--append") == 0
    assert (pictures / "a.jpg.txt").read_text() == "of a.jpg.txt, hatsune_miku, long_hair, >_<\n"
    assert not (pictures / "a.txt").exists()


def test_captions_of_any_shape_keep_every_word_and_take_each_new_one_once(tmp_path):
    """2,000 random captions, each added to twice: words that nobody excluded stay in their order and spelling, new
    ones come once, and the second time nothing changes."""
    rng = random.Random(18)
    pieces = ["smile", "Long Hair", "a\\(b\\)", ":3", "hat:0.9", "初音", "x\u2028y", "", " ", "character:holo"]
    options = TagOptions("x", "y", append=True, exclude=["smile"], replace=["hat=cap"], first=["style"])
    wording = Wording(options, {"long_hair", "hat", ":3", "smile", "holo"})
    for number in range(2_000):
        mark, encoding = rng.choice(list(BYTE_ORDER_MARKS.items()) + [(b"", "utf-8")])
        newline, separator = rng.choice(["\n", "\r\n"]), rng.choice([",", ", ", " , "])
        rows = [rng.choices(pieces, k=rng.randrange(5)) for _ in range(rng.randrange(4))]
        path = tmp_path / "a.txt"
        path.write_bytes(mark + newline.join(separator.join(row) for row in rows).encode(encoding))
        before = read_caption(path).words()
        read_caption(path).add([":3", "new_tag", "holo", "New Tag"], wording)
        once = path.read_bytes()
        assert once.startswith(mark), number
        after = read_caption(path).words()
        kept = [wording.replaced(word) for word in before if wording.replaced(word)]
        there = {wording.key(word) for word in kept}
        new = [key for key in (":3", "new_tag", "holo") if key not in there]
        assert after[0] == "style" and [word for word in after[1:] if wording.key(word) not in new] == kept, number
        assert [wording.key(word) for word in after if wording.key(word) in new] == new, (number, before, after)
        read_caption(path).add([":3", "new_tag", "holo"], wording)
        assert path.read_bytes() == once, number
