"""What a caption says: kohya's options and ours, in which order, and what is left out."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from test_tag_folder import FOUND, model, picture, pictures, run  # noqa: F401 (fixtures)

from modeling_mfdn import commands
from modeling_mfdn.tagging.tag_files import Caption, Wording
from modeling_mfdn.tagging.tag_folder import TagOptions

VOCABULARY = {
    "characters": {"hatsune_miku": {"posts": 9, "series": "vocaloid"}, "rem": {"posts": 9}},
    "implications": {"white_shirt": ["shirt", "clothes"]},
    "character_tags": {"hatsune_miku": {"twintails": 0.95, "aqua_hair": 0.81, "smile": 0.6}},
}
RESULT = {
    "characters": [{"label": "hatsune_miku", "score": 0.9}, {"label": "rem", "score": 0.7}],
    "tags": [
        {"label": label, "score": score}
        for label, score in (
            ("twintails", 0.99),
            ("white_shirt", 0.8),
            ("shirt", 0.7),
            ("aqua_hair", 0.6),
            ("smile", 0.5),
        )
    ],
    "ratings": [{"label": "general", "score": 0.8}, {"label": "explicit", "score": 0.1}],
    "unknown": 0.1,
}


def caption(tmp_path, **options) -> str:
    """What is written of `RESULT`."""
    options = TagOptions("a folder", "a model", character_threshold=0.8, **options)
    known = {row["label"] for kind in ("characters", "tags") for row in RESULT[kind]}
    wording = Wording(options, known, VOCABULARY)
    target = Caption(tmp_path / "a.txt", [], options.format == "hydrus", separator=options.caption_separator)
    target.replace(wording.words(wording.chosen(RESULT)), wording)
    return target.path.read_text()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "hatsune_miku, twintails, white_shirt, shirt, aqua_hair, smile"),
        ({"series": True}, "hatsune_miku, vocaloid, twintails, white_shirt, shirt, aqua_hair, smile"),
        ({"no_implied": True}, "hatsune_miku, twintails, white_shirt, aqua_hair, smile"),
        ({"prune_character_tags": 0.8}, "hatsune_miku, white_shirt, shirt, smile"),
        ({"character_tags_first": False}, "twintails, white_shirt, shirt, aqua_hair, smile, hatsune_miku"),
        ({"rating": True}, "hatsune_miku, twintails, white_shirt, shirt, aqua_hair, smile, general"),
        ({"use_rating_tags": True}, "general, hatsune_miku, twintails, white_shirt, shirt, aqua_hair, smile"),
        ({"undesired_tags": "shirt, Aqua hair"}, "hatsune_miku, twintails, white_shirt, smile"),
        ({"tag_replacement": "shirt,top;smile,"}, "hatsune_miku, twintails, white_shirt, top, aqua_hair"),
        ({"always_first_tags": "style, smile"}, "style, smile, hatsune_miku, twintails, white_shirt, shirt, aqua_hair"),  # noqa: E501
        ({"first": ["x"], "last": ["smile", "y"]}, "x, hatsune_miku, twintails, white_shirt, shirt, aqua_hair, smile, y"),  # noqa: E501
        ({"caption_separator": " | "}, "hatsune_miku | twintails | white_shirt | shirt | aqua_hair | smile"),
        ({"spaces": True}, "hatsune miku, twintails, white shirt, shirt, aqua hair, smile"),
        ({"max_tags": None, "no_characters": True, "series": True}, "twintails, white_shirt, shirt, aqua_hair, smile"),
        ({"format": "hydrus", "series": True, "exclude": ["twintails", "white_shirt", "shirt", "aqua_hair", "smile"]},
         "character:hatsune_miku\nseries:vocaloid"),
    ],
    ids=str,
)  # fmt: skip
def test_each_option_says_what_is_written(tmp_path, options, text):
    assert caption(tmp_path, **options) == text + "\n"


def test_what_is_always_last_stays_last_when_tags_are_added_twice(pictures, model):
    (pictures / "a.txt").write_text("mine, smile")
    for _ in range(2):
        assert run(pictures, model, "--append", "--last", "smile", "end", "--first", "begin") == 0
        assert (pictures / "a.txt").read_text() == "begin, mine, hatsune_miku, long_hair, >_<, smile, end\n"


def test_a_tag_that_holds_a_comma_is_added_once(pictures, model, tiny_model):
    with torch.no_grad():
        tiny_model.tag_head.bias[7] = 9.0
    tiny_model.save_pretrained(model)
    for options in (["--append"], ["--append", "--spaces"], ["--append"]):
        assert run(pictures, model, *options) == 0
        assert (pictures / "a.txt").read_text().replace(" ", "_").count("good-bye") == 1
    (pictures / "a.txt").write_text("hello, good-bye, x")
    assert run(pictures, model, "--append", "--exclude", "hello,_good-bye") == 0
    assert "good-bye" not in (pictures / "a.txt").read_text()


def test_another_extension_and_separator_are_read_and_written(pictures, model):
    (pictures / "a.tags").write_text("mine; long hair")
    assert run(pictures, model, "--caption_extension", "tags", "--caption_separator", "; ") == 0
    assert (pictures / "a.tags").read_text() == "mine; long hair"
    assert (pictures / "b.tags").read_text() == "hatsune_miku; long_hair; >_<\n" and not list(pictures.glob("*.txt"))
    assert run(pictures, model, "--caption_extension", ".tags", "--caption_separator", "; ", "--append") == 0
    assert (pictures / "a.tags").read_text() == "mine; long hair; hatsune_miku; >_<\n"


def test_what_is_hidden_is_left_alone_and_spaces_are_no_caption(pictures, model, capsys):
    (pictures / "a.txt").write_text(" \n\t\r\n")
    picture(pictures / ".thumbnails" / "c.png")
    picture(pictures / "._a.png")
    assert run(pictures, model) == 0
    assert (pictures / "a.txt").read_text() == FOUND
    assert not list((pictures / ".thumbnails").glob("*.txt")) and not list(pictures.glob("._*.txt"))
    said = capsys.readouterr().out
    assert "1 hidden files" in said and "1 hidden folders" in said


@pytest.mark.parametrize("form", ["txt", "jsonl", "csv", "parquet", "imagefolder"])
def test_pictures_that_came_later_are_tagged_by_the_same_command(pictures, model, form):
    assert run(pictures, model, "--format", form) == 0
    before = {path: path.read_bytes() for path in pictures.iterdir()}
    picture(pictures / "new.png")
    assert run(pictures, model, "--format", form) == 0
    if form == "txt":
        assert (pictures / "new.txt").read_text() == FOUND
        assert all(path.read_bytes() == content for path, content in before.items())
        return
    from modeling_mfdn.tagging.records import FILES, read_records

    options = TagOptions(str(pictures), model, format=form)
    assert list(read_records(pictures / FILES[form], options)) == ["a.png", "b.png", "new.png"]
    if form in ("jsonl", "csv"):
        assert (pictures / FILES[form]).read_bytes().startswith(before[pictures / FILES[form]])


def test_records_of_other_columns_are_not_mixed(pictures, model, capsys):
    assert run(pictures, model, "--format", "csv") == 0
    picture(pictures / "new.png")
    before = (pictures / "tags.csv").read_bytes()
    assert run(pictures, model, "--format", "csv", "--scores") == 2
    assert "has the columns file, characters, tags" in capsys.readouterr().err
    assert (pictures / "tags.csv").read_bytes() == before


def test_a_dry_run_shows_captions_and_writes_nothing(pictures, model, capsys):
    for form in ("txt", "jsonl", "xmp"):
        assert run(pictures, model, "--format", form, "--dry_run", "--last", "end") == 0
        said = capsys.readouterr().out
        assert "nothing is written; 2 pictures would be" in said and "long_hair" in said and "end" in said
    assert sorted(path.name for path in pictures.iterdir()) == ["a.png", "b.png"]


def test_the_version_is_said(capsys):
    for argv in (["--version"], ["tag", "--version"]):
        assert commands.main(argv) == 0 and capsys.readouterr().out.startswith("mfdn 0.")


def test_the_word_at_the_end_counts_and_says_why(pictures, model, capsys):
    (pictures / "broken.png").write_bytes(b"<html>")
    (pictures / "notes.md").write_text("x")
    assert run(pictures, model, "--frequency_tags") == 1
    said = capsys.readouterr()
    assert "skipped: 1 .md" in said.out
    for part in ("2 tagged", "characters: hatsune_miku 2", "long_hair 2", ">_< 2"):
        assert part in said.out
    assert "not done: 'broken.png'" in said.err
    assert run(pictures, model) == 1 and "skipped: 2 that have their tags already, 1 .md" in capsys.readouterr().out
    assert run(pictures, model, "--overwrite", "--tag_threshold", "1", "--character_threshold", "1") == 1
    assert "2 pictures have neither a character nor a tag" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--series"], "--series: neither vocabulary.json"),
        (["--prune_character_tags", "0.8"], "--prune_character_tags: neither"),
        (["--no_implied"], "--no_implied: neither"),
        (["--use_rating_tags"], "names no ratings"),
        (["--use_rating_tags", "--rating"], "choose one"),
        (["--tag_replacement", "a;b"], "--tag_replacement expects"),
        (["--caption_extension", "png"], "ending of a text file"),
        (["--caption_separator", ""], "--caption_separator expects"),
        (["--row_per_tag"], "--row_per_tag goes with --format csv"),
        (["--copy_to", "x"], "--copy_to goes with --format xmp"),
        (["--variant", "int8"], "of a folder of mfdn export"),
        (["--format", "imagefolder", "--output", "x"], "leave --output out"),
    ],
)
def test_what_cannot_be_done_is_said_before_any_work(pictures, model, capsys, options, reason):
    assert run(pictures, model, *options) == 2
    assert reason in " ".join(capsys.readouterr().err.split()) and len(list(pictures.iterdir())) == 2


def test_the_lists_of_a_data_set_say_what_the_model_does_not(pictures, model, tmp_path):
    """A model of before, whose data set is still there."""
    danmul = tmp_path / "danmul"
    danmul.mkdir()
    lists = {
        "characters": [{"character": "hatsune_miku", "posts": 9, "series": "vocaloid", "series_share": 0.9}],
        "implications": [{"tag": "long_hair", "implies": [">_<"]}],
        "character_tags": [{"character": "hatsune_miku", "tags": {"long_hair": 0.85}}],
    }
    for name, rows in lists.items():
        (danmul / f"{name}.json").write_text(json.dumps(rows))
    options = ["--dataset", str(danmul), "--overwrite"]
    assert run(pictures, model, *options, "--series", "--no_implied") == 0
    assert (pictures / "a.txt").read_text() == "hatsune_miku, vocaloid, long_hair\n"
    assert run(pictures, model, *options, "--prune_character_tags", "0.8") == 0
    assert (pictures / "a.txt").read_text() == "hatsune_miku, >_<\n"
    Path(model, "vocabulary.json").write_text(json.dumps({"character_tags": {"hatsune_miku": {">_<": 0.9}}}))
    assert run(pictures, model, "--overwrite", "--prune_character_tags", "0.8") == 0
    assert (pictures / "a.txt").read_text() == "hatsune_miku, long_hair\n"


def test_csv_has_a_row_for_each_name_on_request(pictures, model):
    assert run(pictures, model, "--format", "csv", "--row_per_tag", "--scores") == 0
    lines = (pictures / "tags.csv").read_text().splitlines()
    assert lines[0] == "file,kind,name,score" and len(lines) == 7
    assert lines[1].startswith("a.png,character,hatsune_miku,0.9") and lines[2].startswith("a.png,tag,long_hair,0.")
    picture(pictures / "new.png")
    assert run(pictures, model, "--format", "csv", "--row_per_tag", "--scores") == 0
    assert (pictures / "tags.csv").read_text().splitlines()[:7] == lines


def test_parquet_and_imagefolder_are_read_by_datasets(pictures, model):
    from datasets import load_dataset

    Image.new("RGB", (9, 9)).save(pictures / "broken.png")
    (pictures / "broken.png").write_bytes((pictures / "broken.png").read_bytes()[:40])
    assert run(pictures, model, "--format", "parquet", "--scores") == 1
    rows = load_dataset("parquet", data_files=str(pictures / "tags.parquet"), split="train")
    assert rows[0]["tags"] == ["long_hair", ">_<"] and rows[0]["tag_scores"][0] > 0.4
    (pictures / "tags.parquet").unlink()
    assert run(pictures, model, "--format", "imagefolder") == 1
    (pictures / "broken.png").unlink()
    rows = load_dataset("imagefolder", data_dir=str(pictures), split="train")
    assert len(rows) == 2 and rows[1]["characters"] == ["hatsune_miku"] and rows[0]["image"].size == (20, 30)
