"""`mfdn teach` and `mfdn group`: folders of pictures become characters that a model knows, and the other way round."""

import inspect
import json
import shutil

import pytest
import torch
from character_factory import give_statistics, picture_of
from PIL import Image

from modeling_mfdn import MFDNProcessor, commands
from modeling_mfdn.commands import main
from modeling_mfdn.tagging import group_folder
from modeling_mfdn.tagging.group_folder import GroupOptions
from modeling_mfdn.tagging.teach_folder import TeachOptions

QUICK = ["--num_workers", "0", "--device", "cpu"]


@pytest.fixture
def model(tiny_model, tiny_processor, tmp_path):
    """A folder with a model that can be taught."""
    give_statistics(tiny_model, tiny_processor)
    tiny_model.save_pretrained(tmp_path / "model")
    tiny_processor.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def lessons(tmp_path):
    """Five pictures of each of two characters that the model does not know."""
    for name, character in (("kiki", 9), ("ponyo", 11)):
        (tmp_path / "lessons" / name).mkdir(parents=True)
        for number in range(5):
            picture_of(character, number).save(tmp_path / "lessons" / name / f"{number}.png")
    return tmp_path / "lessons"


@pytest.fixture
def asked(tmp_path):
    """Pictures of a taught, a trained and an unknown character."""
    (tmp_path / "asked").mkdir()
    for name, character in (("kiki", 9), ("trained", 0), ("nobody", 40)):
        picture_of(character, 50).save(tmp_path / "asked" / f"{name}.png")
    return tmp_path / "asked"


def teach(*argv) -> int:
    return main(["teach", *map(str, argv), *QUICK])


def tag(folder, model, *options) -> dict[str, list[str]]:
    """{picture: characters}"""
    output = folder.parent / "tags.jsonl"
    argv = [folder, "--model", model, "--format", "jsonl", "--output", output, "--overwrite", *options]
    assert main(["tag", *map(str, argv), *QUICK]) == 0
    records = [json.loads(line) for line in output.read_text().splitlines()]
    return {record["file"]: record["characters"] for record in records}


def names_in(model) -> list[str]:
    return MFDNProcessor.from_pretrained(model).gallery.names


def test_a_folder_teaches_a_model_that_names_them_from_then_on(model, lessons, asked, tmp_path, capsys):
    assert teach(lessons, "--model", model, "--output", tmp_path / "taught") == 0
    output = capsys.readouterr()
    assert "2 taught characters from 10 pictures" in output.out and "Traceback" not in output.err
    assert names_in(tmp_path / "taught") == ["kiki", "ponyo"] and names_in(model) == []
    assert tag(asked, tmp_path / "taught")["kiki.png"] == ["kiki"]
    assert (tmp_path / "taught" / "README.md").exists()
    weights = [(folder / "model.safetensors").read_bytes() for folder in (model, tmp_path / "taught")]
    assert weights[0] == weights[1]


def test_a_gallery_is_shared_alone(model, lessons, asked, tmp_path, capsys):
    assert teach(lessons, "--model", model, "--output", tmp_path / "mine.safetensors") == 0
    assert names_in(model) == []
    assert tag(asked, model)["kiki.png"] != ["kiki"]
    assert tag(asked, model, "--gallery", tmp_path / "mine.safetensors")["kiki.png"] == ["kiki"]
    argv = ["--model", model, "--output", tmp_path / "joined", "--gallery", tmp_path / "mine.safetensors"]
    assert teach(*argv) == 0 and names_in(tmp_path / "joined") == ["kiki", "ponyo"]


def test_a_model_is_taught_in_its_place_and_pictures_are_added(model, lessons, capsys):
    before = (model / "model.safetensors").stat().st_mtime_ns
    assert teach(lessons, "--model", model, "--output", model) == 0
    assert teach(lessons, "--model", model, "--output", model) == 0
    assert "'kiki' was taught before" in capsys.readouterr().out
    gallery = MFDNProcessor.from_pretrained(model).gallery
    assert gallery.names == ["kiki", "ponyo"] and gallery.counts.tolist() == [10, 10]
    assert all(thumbnail.startswith(b"\xff\xd8") for thumbnail in gallery.thumbnails)  # JPEG
    assert (model / "model.safetensors").stat().st_mtime_ns == before
    assert teach("--model", model, "--output", model, "--forget", "kiki", "ponyo") == 0
    assert not (model / "gallery.safetensors").exists()


def test_a_teach_that_is_killed_leaves_the_old_gallery_whole(model, lessons, monkeypatch):
    assert teach(lessons, "--model", model, "--output", model) == 0
    before = (model / "gallery.safetensors").read_bytes()

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("modeling_mfdn.gallery_mfdn.os.replace", killed)
    assert teach(lessons, "--model", model, "--output", model) == 130
    assert (model / "gallery.safetensors").read_bytes() == before and names_in(model) == ["kiki", "ponyo"]
    assert not list(model.glob(".*"))


def test_what_cannot_be_read_is_named_and_costs_nothing_else(model, lessons, tmp_path, capsys):
    (lessons / "kiki" / "broken.png").write_bytes(b"no picture")
    (lessons / "nobody").mkdir()
    (lessons / "nobody" / "page.jpg").write_text("<html>")
    (lessons / "empty").mkdir()
    assert teach(lessons, "--model", model, "--output", tmp_path / "taught") == 1
    error = capsys.readouterr().err
    assert "broken.png" in error and "page.jpg" in error and "Traceback" not in error
    for name in ("nobody", "empty"):
        assert f"{name}: expected pictures that can be read, found none; it is not taught" in error
    gallery = MFDNProcessor.from_pretrained(tmp_path / "taught").gallery
    assert gallery.names == ["kiki", "ponyo"] and gallery.counts.tolist() == [5, 5]


def test_one_picture_and_a_stranger_among_the_others_are_said(model, lessons, tmp_path, capsys):
    picture_of(40, 0).save(lessons / "kiki" / "stranger.png")
    for number in range(1, 5):
        (lessons / "ponyo" / f"{number}.png").unlink()
    assert teach(lessons, "--model", model, "--output", tmp_path / "taught") == 0
    said = capsys.readouterr().out
    assert "'kiki': unlike the others is stranger.png" in said and "'ponyo' is taught from one picture" in said


@pytest.mark.parametrize(
    ("change", "argv", "said"),
    [
        (lambda lessons: None, [], "Nothing to do"),
        (lambda lessons: None, ["FOLDER/kiki"], "but 5 pictures: move those of each character"),
        (lambda lessons: None, ["FOLDER/none"], "is no folder"),
        (lambda lessons: (lessons / "names.json").write_text("[]"), ["FOLDER/names.json"], "found another file"),
        (
            lambda lessons: (lessons / "names.json").write_text(
                json.dumps({"folder": str(lessons), "characters": {"x": ["../../etc/passwd"]}})
            ),
            ["FOLDER/names.json"],
            "lies outside of",
        ),
        (lambda lessons: None, ["FOLDER", "--gallery", "FOLDER/none.safetensors"], "expected a file with gallery"),
        (lambda lessons: None, ["FOLDER", "--forget", "nobody"], "'nobody' was not taught"),
        (lambda lessons: shutil.rmtree(lessons / "kiki"), ["FOLDER", "--forget", "kik"], "was not taught"),
        (lambda lessons: (lessons / "a\nb").mkdir(), ["FOLDER"], "Expected the name of a character"),
    ],
)
def test_what_is_asked_wrongly_is_a_sentence_and_nothing_is_written(
    model, lessons, tmp_path, capsys, change, argv, said
):
    change(lessons)
    argv = [text.replace("FOLDER", str(lessons)) for text in argv]
    assert teach(*argv, "--model", model, "--output", tmp_path / "taught") == 2
    error = capsys.readouterr().err
    assert said in " ".join(error.split()) and "Traceback" not in error
    assert not (tmp_path / "taught").exists()


def test_nothing_that_another_command_wrote_is_replaced(model, lessons, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    assert teach(lessons, "--model", model, "--output", tmp_path / "mine", "--overwrite") == 2
    assert teach(lessons, "--model", model, "--output", tmp_path / "taught") == 0
    assert teach(lessons, "--model", model, "--output", tmp_path / "taught") == 2
    assert "Pass --overwrite" in capsys.readouterr().err
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"


def test_a_gallery_is_added_to_or_replaced_only_when_told_to_and_weights_never(model, lessons, tmp_path, capsys):
    (tmp_path / "later").mkdir()
    (lessons / "kiki").rename(tmp_path / "later" / "kiki")
    argv = ["--model", model, "--output", tmp_path / "g.safetensors"]
    assert teach(lessons, *argv) == 0 and teach(tmp_path / "later", *argv) == 2
    assert "--gallery" in capsys.readouterr().err
    assert teach(tmp_path / "later", *argv, "--gallery", tmp_path / "g.safetensors") == 0
    gallery = MFDNProcessor.from_pretrained(model).gallery
    assert gallery.load(tmp_path / "g.safetensors") == ["ponyo", "kiki"]
    assert teach(tmp_path / "later", *argv, "--overwrite") == 0
    assert MFDNProcessor.from_pretrained(model).gallery.load(tmp_path / "g.safetensors") == ["kiki"]
    before = (model / "model.safetensors").read_bytes()
    assert teach(lessons, "--model", model, "--output", model / "model.safetensors", "--overwrite") == 2
    assert (model / "model.safetensors").read_bytes() == before


def test_the_gallery_of_another_model_is_refused_by_tag(
    model, lessons, asked, tiny_model, tiny_processor, tmp_path, capsys
):
    assert teach(lessons, "--model", model, "--output", tmp_path / "mine.safetensors") == 0
    with torch.no_grad():
        for parameter in tiny_model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    give_statistics(tiny_model, tiny_processor)
    tiny_model.save_pretrained(tmp_path / "other")
    tiny_processor.save_pretrained(tmp_path / "other")
    argv = ["tag", asked, "--model", tmp_path / "other", "--gallery", tmp_path / "mine.safetensors"]
    assert main([*map(str, argv), *QUICK]) == 2
    assert "another model made this gallery" in capsys.readouterr().err
    assert not list(asked.glob("*.txt"))


# ---------------------------------------------------------------- unknown


def test_no_character_is_written_where_none_is_known_and_the_summary_counts_them(model, asked, tmp_path, capsys):
    found = tag(asked, model, "--unknown_list", tmp_path / "unknown.txt")
    assert found["nobody.png"] == [] and found["trained.png"]
    assert "2 pictures show a character that the model does not know" in capsys.readouterr().out
    assert (tmp_path / "unknown.txt").read_text() == "kiki.png\nnobody.png\n"
    all_named = tag(asked, model, "--unknown_threshold", "1", "--character_threshold", "0")
    assert all(all_named.values())
    assert not any(tag(asked, model, "--unknown_threshold", "0").values())


def test_the_list_of_an_interrupted_run_is_gone_on_with(model, asked, tmp_path):
    (asked / "nobody.txt").write_text("solo\n")  # of an earlier run, which named it in the list
    (tmp_path / "unknown.txt").write_text("nobody.png\ngone.png\n")
    options = ["--unknown_list", str(tmp_path / "unknown.txt")]
    assert main(["tag", str(asked), "--model", str(model), *options, *QUICK]) == 0
    assert (tmp_path / "unknown.txt").read_text() == "kiki.png\nnobody.png\n"


def test_a_model_without_statistics_names_characters_as_before(model, asked, lessons, capsys):
    (model / "character_statistics.safetensors").unlink()
    assert all(tag(asked, model, "--character_threshold", "0").values())
    assert teach(lessons, "--model", model, "--output", model) == 2
    assert "mfdn teach --statistics DATASET" in capsys.readouterr().err


# ---------------------------------------------------------------- groups


@pytest.fixture
def strangers(tmp_path):
    """Six pictures of each of four characters that the model does not know, one that it knows, one broken."""
    folder = tmp_path / "strangers"
    for character in (9, 11, 23, 31):
        (folder / str(character)).mkdir(parents=True)
        for number in range(6):
            picture_of(character, number).save(folder / str(character) / f"{number}.png")
    picture_of(0, 50).save(folder / "known.png")
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


def test_pictures_of_unknown_characters_are_grouped_named_and_taught(model, strangers, tmp_path, capsys):
    output = tmp_path / "groups"
    argv = ["group", strangers, "--model", model, "--output", output]
    assert main([*map(str, argv), *QUICK]) == 1
    printed = capsys.readouterr()
    assert "broken.png" in printed.err and "Open" in printed.out
    said = json.loads((output / "groups.json").read_text())
    groups = [group["pictures"] for group in said["groups"]]
    assert all(len({name.split("/")[0] for name in group}) == 1 for group in groups) and len(groups) >= 3
    assert not any("known.png" in group for group in groups)
    sure = [group["sure"] for group in said["groups"]]
    assert sure == sorted(sure, reverse=True)
    page = (output / "index.html").read_text()
    assert page.count("<section>") == len(groups) and "mfdn teach names.json" in page
    assert Image.open(output / "thumbnails" / "1.jpg").size[0] <= 160

    names = {"folder": said["folder"], "characters": {"kiki": groups[0]}}  # as the page saves it
    (tmp_path / "names.json").write_text(json.dumps(names))
    assert teach(tmp_path / "names.json", "--model", model, "--output", model) == 0
    assert names_in(model) == ["kiki"]
    assert main([*map(str, argv), *QUICK, "--overwrite"]) == 1
    again = json.loads((output / "groups.json").read_text())["groups"]
    assert groups[0][0] not in [name for group in again for name in group["pictures"]]  # it is known now


def test_a_folder_where_all_are_known_gives_a_page_that_says_so(model, tmp_path):
    (tmp_path / "known").mkdir()
    picture_of(0, 50).save(tmp_path / "known" / "a.png")
    argv = ["group", tmp_path / "known", "--model", model, "--output", tmp_path / "groups"]
    assert main([*map(str, argv), *QUICK]) == 0
    assert "No group" in (tmp_path / "groups" / "index.html").read_text()


def test_too_many_pictures_to_group_are_said(model, strangers, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(group_folder, "MAX_GROUPED", 5)
    argv = ["group", strangers, "--model", model, "--output", tmp_path / "groups"]
    assert main([*map(str, argv), *QUICK]) == 2
    assert "Expected at most 5 pictures" in capsys.readouterr().err and not (tmp_path / "groups").exists()


def test_file_names_are_no_markup(model, strangers, tmp_path):
    (strangers / "9" / "0.png").rename(strangers / "9" / '"><script>alert(1)<.png')
    argv = ["group", strangers, "--model", model, "--output", tmp_path / "groups", "--unknown_threshold", "0"]
    assert main([*map(str, argv), *QUICK]) == 1
    assert "<script>alert" not in (tmp_path / "groups" / "index.html").read_text()


@pytest.mark.parametrize(
    ("command", "options", "given"),
    [
        (commands.teach, TeachOptions(None, "a model", "an output"), ("model", "output")),
        (commands.group, GroupOptions("a folder", "a model", "groups"), ("folder", "model")),
    ],
)
def test_what_can_be_asked_for_is_what_is_done_and_defaults_agree(command, options, given):
    asked = {name: parameter.default for name, parameter in inspect.signature(command).parameters.items()}
    assert asked == vars(options) | dict.fromkeys(given, inspect.Parameter.empty)
