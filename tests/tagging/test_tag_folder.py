"""`mfdn-tag`: what is written where, what is left alone, and what a broken picture costs."""

import csv
import errno
import hashlib
import json
import os
import struct
import zlib

import pytest
import torch
from PIL import Image

from modeling_mfdn import MFDNModel
from modeling_mfdn.commands import tag_alias as main
from modeling_mfdn.tagging import tag_folder as tagger
from modeling_mfdn.tagging.torch_tagger import best_device


@pytest.fixture
def model(tiny_model, tiny_processor, tmp_path):
    """A model that sees `hatsune_miku` and the tags `long_hair` and `>_<` in every picture."""
    with torch.no_grad():
        tiny_model.character_head.weight.zero_()
        tiny_model.character_head.bias.copy_(torch.tensor([6.0, 0, 0, 0, 0, 0]))
        tiny_model.tag_head.weight.zero_()
        tiny_model.tag_head.bias.copy_(torch.tensor([0.0, 9, 0, 8.5, 0, 0, 0, 0, 0, 0, 0]))
    tiny_model.save_pretrained(tmp_path / "model")
    tiny_processor.save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


@pytest.fixture
def folder(tmp_path):
    """Three pictures, one in a sub-folder with a line break in its name, and three that are broken."""
    folder = tmp_path / "pictures"
    (folder / "sub\nfolder").mkdir(parents=True)
    Image.new("RGB", (20, 30), "red").save(folder / "a.png")
    Image.new("RGBA", (30, 20)).save(folder / "b.webp")
    frames = [Image.new("P", (9, 9), color) for color in (1, 2)]
    frames[0].save(folder / "sub\nfolder" / "c.gif", save_all=True, append_images=frames[1:])
    (folder / "empty.jpg").touch()
    (folder / "page.jpg").write_text("<html>")
    whole = (folder / "a.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    return folder


def run(folder, model, *options):
    argv = [str(folder), "--model", model, "--num_workers", "0", "--batch_size", "2", "--device", "cpu", "--no_review"]
    return main([*argv, *options])


def test_captions_stand_beside_the_pictures_and_broken_ones_are_named(folder, model, capsys):
    assert run(folder, model) == 1
    assert (folder / "a.txt").read_text() == "hatsune_miku, long_hair, >_<\n"
    assert (folder / "b.txt").exists() and (folder / "sub\nfolder" / "c.txt").exists()
    output = capsys.readouterr()
    assert "device: cpu" in output.out
    for name in ("empty.jpg", "page.jpg", "cut.png"):
        assert f"not done: '{name}'" in output.err and not (folder / name).with_suffix(".txt").exists()
    assert "Traceback" not in output.err and not list(folder.rglob("*.tmp"))


def test_what_is_there_is_left_alone_replaced_or_added_to(folder, model):
    (folder / "a.txt").write_text("my tag, Long hair")
    run(folder, model)
    assert (folder / "a.txt").read_text() == "my tag, Long hair"
    run(folder, model, "--append", "--spaces")
    assert (folder / "a.txt").read_text() == "my tag, Long hair, hatsune miku, >_<\n"  # no doubles
    run(folder, model, "--overwrite", "--no_characters")
    assert (folder / "a.txt").read_text() == "long_hair, >_<\n"


def test_nothing_is_written_through_a_link_and_no_long_name_is_too_long(folder, model, tmp_path):
    """Whatever somebody laid in the folder under the names that are written for a moment."""
    (tmp_path / "precious").write_text("mine")
    long_name = "n" * 250
    Image.new("RGB", (9, 9)).save(folder / f"{long_name}.png")
    run(folder, model)
    captions = sorted(folder.rglob("*.txt"))
    assert folder / f"{long_name}.txt" in captions and len(captions) == 4
    for path in captions:
        path.unlink()
    for path in captions:  # every name that was ever used, by hash or by suffix
        short = hashlib.sha256(path.name.encode()).hexdigest()[:16]
        for name in (f".{short}.tmp", f"{path.name}.tmp"):
            if len(name) < 255:
                path.with_name(name).symlink_to(tmp_path / "precious")
    run(folder, model)
    assert all(path.read_text() == "hatsune_miku, long_hair, >_<\n" for path in captions)
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_spreadsheet_runs_no_file_name(tmp_path, model):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.new("RGB", (9, 9)).save(pictures / "=cmd|' calc'!A0.png")
    Image.new("RGB", (9, 9)).save(pictures / "a.png")
    assert run(pictures, model, "--format", "csv", "--spreadsheet") == 0
    rows = list(csv.DictReader((pictures / "tags.csv").open(encoding="utf-8")))
    assert [row["file"] for row in rows] == ["'=cmd|' calc'!A0.png", "a.png"]
    assert run(pictures, model, "--format", "csv", "--overwrite") == 0, "on request only"
    assert "\n=cmd" in (pictures / "tags.csv").read_text()


def test_tags_are_excluded_replaced_put_first_and_spelled(folder, model):
    options = ["--exclude", "Long hair", "--replace", ">_<=closed_(eyes)", "--first", "style", "--escape", "--scores"]
    run(folder, model, *options)
    name, *_ = (folder / "a.txt").read_text().split(", ")
    assert name == "style"
    text = (folder / "a.txt").read_text()
    assert "long_hair" not in text and "closed_\\(eyes\\):0." in text and "hatsune_miku:0.9" in text


def test_thresholds_are_those_asked_for(folder, model):
    run(folder, model, "--tag_threshold", "1", "--character_threshold", "1")
    assert (folder / "a.txt").read_text() == "\n"


def test_existing_tags_are_hints_and_stay(folder, model, monkeypatch):
    (folder / "a.txt").write_text("smile, character:holo, hat:0.93, not_known, \\(x\\)")
    seen = []
    forward = MFDNModel.forward
    monkeypatch.setattr(MFDNModel, "forward", lambda self, **inputs: seen.append(inputs) or forward(self, **inputs))
    run(folder, model, "--use_existing", "--overwrite")
    assert (seen[0]["input_ids"][0] >= 5).sum() == 2  # smile and hat
    assert (folder / "a.txt").read_text() == "hatsune_miku, smile, hat, long_hair, >_<\n"


def test_hydrus_lists(folder, model):
    run(folder, model, "--format", "hydrus")
    assert (folder / "a.png.txt").read_text() == "character:hatsune_miku\nlong_hair\n>_<\n"


def test_json_lines(folder, model, capsys):
    assert run(folder, model, "--format", "jsonl", "--scores") == 1
    rows = {row["file"]: row for row in map(json.loads, (folder / "tags.jsonl").read_text().splitlines())}
    assert set(rows) == {"a.png", "b.webp", "sub\nfolder/c.gif"}
    assert rows["b.webp"]["tags"] == ["long_hair", ">_<"] and 0.9 < rows["b.webp"]["character_scores"][0] < 1
    before = (folder / "tags.jsonl").read_bytes()
    assert run(folder, model, "--format", "jsonl", "--scores") == 1 and (folder / "tags.jsonl").read_bytes() == before


def test_csv(folder, model):
    run(folder, model, "--format", "csv", "--output", str(folder.parent / "out.csv"))
    with (folder.parent / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {"file": "a.png", "characters": "hatsune_miku", "tags": "long_hair, >_<"}
    assert rows[2]["file"] == "sub\nfolder/c.gif"


def test_a_bomb_is_refused_and_the_rest_is_done(pictures, model, capsys):
    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    whole = (pictures / "a.png").read_bytes()
    bomb = whole[:16] + head + struct.pack(">I", zlib.crc32(b"IHDR" + head)) + whole[33:]
    (pictures / "a.png").write_bytes(bomb)
    assert run(pictures, model) == 1
    assert "'a.png'" in capsys.readouterr().err and (pictures / "b.txt").read_text() == FOUND


@pytest.mark.parametrize(
    "options, reason",
    [
        (["--format", "csv", "--append"], "--append adds to captions"),
        (["--output", "x"], "goes beside the pictures"),
        (["--append", "--overwrite"], "choose one"),
        (["--replace", "x"], "expects OLD=NEW"),
    ],
)
def test_options_that_contradict_are_refused(folder, model, capsys, options, reason):
    assert run(folder, model, *options) == 2
    assert reason in capsys.readouterr().err


def test_folders_without_pictures_are_explained(tmp_path, model, capsys):
    assert run(tmp_path / "absent", model) == 2 and "is none" in capsys.readouterr().err
    (tmp_path / "void").mkdir()
    assert run(tmp_path / "void", model) == 2 and "found none" in capsys.readouterr().err


def test_the_device_is_the_best_there_is():
    assert best_device() in ("cpu", "cuda", "mps")


def picture(path, color="red"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 30), color).save(path)
    return path


@pytest.fixture
def pictures(tmp_path):
    """A folder with the whole pictures a.png and b.png."""
    for name in ("a", "b"):
        picture(tmp_path / "whole" / f"{name}.png")
    return tmp_path / "whole"


FOUND = "hatsune_miku, long_hair, >_<\n"


# What stands in the way


@pytest.mark.parametrize("options", [[], ["--overwrite"], ["--append"], ["--use_existing", "--overwrite"]])
@pytest.mark.parametrize("kind", ["folder", "pipe", "pipe behind a link"])
def test_what_stands_where_a_caption_belongs_costs_that_picture_alone(pictures, model, capsys, options, kind):
    target = pictures / "b.txt"
    if kind == "folder":
        target.mkdir()
    elif kind == "pipe":
        os.mkfifo(target)
    else:
        os.mkfifo(pictures / "pipe")
        target.symlink_to(pictures / "pipe")
    before = os.lstat(target)
    assert run(pictures, model, *options) == 1
    assert "not done: 'b.png': b.txt stands where its caption belongs" in capsys.readouterr().err
    assert (pictures / "a.txt").read_text() == FOUND and os.lstat(target).st_ino == before.st_ino


def test_pipes_and_other_files_among_pictures_are_counted(pictures, model, capsys):
    os.mkfifo(pictures / "pipe.png")
    for name in ("c.psd", "d.psd", "e"):
        (pictures / name).write_text("x")
    picture(pictures / "elsewhere" / "f.jfif")
    (pictures / "linked").symlink_to(pictures / "elsewhere")
    assert run(pictures, model) == 0
    said = capsys.readouterr().out
    for part in ("2 .psd", "1 no suffix", "1 pipes, devices and broken links", "1 linked folders"):
        assert part in said
    assert (pictures / "elsewhere" / "f.txt").read_text() == FOUND


def test_names_that_are_no_text_are_named_and_cost_nothing_else(pictures, model, capsys):
    strange = os.fsencode(pictures) + b"/\xff\xfe.png"
    os.rename(pictures / "b.png", strange)
    assert run(pictures, model, "--format", "jsonl") == 1
    assert "\\udcff" in capsys.readouterr().err
    assert [json.loads(line)["file"] for line in (pictures / "tags.jsonl").read_text().splitlines()] == ["a.png"]
    assert run(pictures, model) == 0, "a caption beside it can have that name too"
    with open(os.fsencode(pictures) + b"/\xff\xfe.txt") as file:
        assert file.read() == FOUND


def test_names_as_long_as_the_file_system_allows(pictures, model):
    names = ["n" * 251 + ".png", "n" * 246 + ".jpg"]
    for name in names:
        picture(pictures / name.replace(".png", ".jpg")).rename(pictures / name)
    assert run(pictures, model) == 0 and len(list(pictures.glob("n*.txt"))) == 2
    assert run(pictures, model, "--full_names") == 1, "there is no room for .png.txt"
    assert (pictures / "a.png.txt").exists() and (pictures / ("n" * 246 + ".jpg.txt")).exists()


def test_a_folder_that_cannot_be_written_costs_its_pictures_alone(pictures, model, capsys, monkeypatch):
    picture(pictures / "shut" / "c.png")
    monkeypatch.setattr(tagger.Caption, "write", refuse_below(pictures / "shut", errno.EACCES, tagger.Caption.write))
    assert run(pictures, model) == 1 and "'shut/c.png'" in capsys.readouterr().err
    assert (pictures / "a.txt").read_text() == FOUND


def test_a_full_disk_ends_the_run_in_a_sentence(pictures, model, capsys, monkeypatch):
    monkeypatch.setattr(tagger.Caption, "write", refuse_below(pictures, errno.ENOSPC, tagger.Caption.write))
    assert run(pictures, model) == 2 and "is full: make room" in capsys.readouterr().err
    monkeypatch.undo()
    assert run(pictures, model) == 0 and (pictures / "b.txt").read_text() == FOUND


def refuse_below(folder, number, write):
    def refusing(caption, lines):
        if folder in caption.path.parents:
            raise OSError(number, os.strerror(number), str(caption.path))
        write(caption, lines)

    return refusing


# What was typed wrongly


@pytest.mark.parametrize(
    "options, reason",
    [
        (["--exclude", "long_hiar"], "near are long_hair"),
        (["--replace", "Hatsune mikuu=miku"], "near are hatsune_miku"),
        (["--device", "gpu"], "got 'gpu'"),
        (["--model", "nonsuch"], "There is no model 'nonsuch'"),
        (["--format", "hydrus", "--scores"], "namespaces"),
        (["--format", "jsonl", "--full_names"], "--full_names goes with"),
        (["--replace", "=x"], "expects OLD=NEW"),
    ],
)
def test_what_is_typed_wrongly_is_said_before_any_work(pictures, model, capsys, options, reason):
    assert run(pictures, model, *options) == 2
    said = capsys.readouterr().err
    assert reason in said.splitlines()[-1] and "Traceback" not in said and not list(pictures.glob("*.txt"))


def test_words_of_captions_may_be_excluded_though_the_model_does_not_know_them(pictures, model):
    (pictures / "a.txt").write_text("long hiar, x")
    assert run(pictures, model, "--append", "--exclude", "long_hiar") == 0
    assert (pictures / "a.txt").read_text() == "x, hatsune_miku, long_hair, >_<\n"


@pytest.mark.parametrize(
    "options",
    [
        ["--max_tags", "-3"],
        ["--batch_size", "0"],
        ["--num_workers", "-1"],
        ["--tag_threshold", "nan"],
        ["--max_tags", "x"],
    ],
)
def test_numbers_out_of_range_are_refused(pictures, model, capsys, options):
    assert run(pictures, model, *options) == 2
    said = capsys.readouterr().err.replace("_", " ")
    assert options[0].strip("-").replace("_", " ") in said


def test_no_tags_at_all_can_be_asked_for(pictures, model):
    run(pictures, model, "--max_tags", "0")
    assert (pictures / "a.txt").read_text() == "hatsune_miku\n"
