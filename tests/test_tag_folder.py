"""`mfdn-tag`: what is written where, what is left alone, and what a broken picture costs."""

import csv
import hashlib
import json

import pytest
import torch
from PIL import Image

from modeling_mfdn import MFDNModel
from modeling_mfdn.publishing import tag_folder as tagger
from modeling_mfdn.publishing.tag_folder import build_parser, main


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
    argv = [str(folder), "--model", model, "--num_workers", "0", "--batch_size", "2", "--device", "cpu"]
    return main([*argv, *options])


def test_captions_stand_beside_the_pictures_and_broken_ones_are_named(folder, model, capsys):
    assert run(folder, model) == 1
    assert (folder / "a.txt").read_text() == "hatsune_miku, long_hair, >_<\n"
    assert (folder / "b.txt").exists() and (folder / "sub\nfolder" / "c.txt").exists()
    output = capsys.readouterr()
    assert "device: cpu" in output.out
    for name in ("empty.jpg", "page.jpg", "cut.png"):
        assert f"not read: '{name}'" in output.err and not (folder / name).with_suffix(".txt").exists()
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


def test_json_lines_go_on_where_they_were_cut_off(folder, model, capsys):
    progress = folder / "tags.jsonl.partial"
    progress.write_text('{"file": "a.png", "characters": ["from before"], "tags": []}\n{"file": "b.we')
    assert run(folder, model, "--format", "jsonl", "--scores") == 1
    rows = {row["file"]: row for row in map(json.loads, (folder / "tags.jsonl").read_text().splitlines())}
    assert set(rows) == {"a.png", "b.webp", "sub\nfolder/c.gif"} and rows["a.png"]["characters"] == ["from before"]
    assert rows["b.webp"]["tags"] == ["long_hair", ">_<"] and 0.9 < rows["b.webp"]["character_scores"][0] < 1
    assert not progress.exists()
    assert run(folder, model, "--format", "jsonl") == 2 and "--overwrite" in capsys.readouterr().err


def test_csv(folder, model):
    run(folder, model, "--format", "csv", "--output", str(folder.parent / "out.csv"))
    with (folder.parent / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {"file": "a.png", "characters": "hatsune_miku", "tags": "long_hair, >_<"}
    assert rows[2]["file"] == "sub\nfolder/c.gif"


def test_a_bomb_is_refused_and_the_rest_is_done(folder, model, monkeypatch, capsys):
    monkeypatch.setattr("modeling_mfdn.image_reading_mfdn.MAX_PIXELS", 599)
    assert run(folder, model) == 1
    assert "a.png" in capsys.readouterr().err and (folder / "sub\nfolder" / "c.txt").exists()


@pytest.mark.parametrize(
    "options, reason",
    [
        (["--format", "csv", "--append"], "--append adds to sidecars"),
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


def test_help_shows_commands_that_parse(capsys):
    with pytest.raises(SystemExit):
        build_parser().parse_args(["--help"])
    commands = [line.split("#")[0] for line in capsys.readouterr().out.splitlines() if line.startswith("  mfdn-tag ")]
    assert len(commands) >= 2
    for command in commands:
        build_parser().parse_args(command.split()[1:])
    assert tagger.best_device() in ("cpu", "cuda", "mps")
