"""`mfdn-tag` in several sittings: interrupted, killed, begun by another model, or twice at once."""

import json
import os
import subprocess
import sys

import pytest
import torch
from test_tag_folder import model, picture, pictures, run  # noqa: F401 (fixtures)

from modeling_mfdn.tagging import tag_folder as tagger


def interrupted(pictures, model, monkeypatch, *options):
    """A run that ended after its first picture; the file it left."""
    results = tagger.results_of

    def first_only(*args):
        yield next(results(*args))
        raise KeyboardInterrupt

    monkeypatch.setattr(tagger, "results_of", first_only)
    assert run(pictures, model, *options) == 130
    monkeypatch.undo()
    (left,) = pictures.glob("*.partial")
    assert len(left.read_text().splitlines()) == 2
    return left


@pytest.mark.parametrize("form", ["jsonl", "csv"])
@pytest.mark.parametrize("cut", [0, 1, -1, -7], ids=["whole", "one byte", "no line break", "inside"])
def test_one_file_goes_on_where_it_was_cut(pictures, model, monkeypatch, form, cut):
    """Whatever byte it was cut at, and whatever options that change no record came."""
    picture(pictures / "äöü.png").rename(pictures / "0äöü.png")
    left = interrupted(pictures, model, monkeypatch, "--format", form)
    content = left.read_bytes()
    assert "äöü".encode() in content
    if cut:
        left.write_bytes(content + content.splitlines()[1][:1] if cut > 0 else content[:cut])
    assert run(pictures, model, "--format", form, "--num_workers", "1") == 0
    resumed = (pictures / f"tags.{form}").read_bytes()
    assert run(pictures, model, "--format", form, "--overwrite") == 0
    assert resumed == (pictures / f"tags.{form}").read_bytes() and not left.exists()


def test_what_another_model_or_other_options_left_is_not_mixed_in(pictures, model, monkeypatch, capsys, tiny_model):
    left = interrupted(pictures, model, monkeypatch, "--format", "jsonl")
    before = left.read_bytes()
    for options in (["--scores"], ["--max_tags", "1"], ["--exclude", "smile"], ["--tag_threshold", "0.5"]):
        assert run(pictures, model, "--format", "jsonl", *options) == 2
        assert "tags.jsonl.partial was begun with another" in capsys.readouterr().err and left.read_bytes() == before
    with torch.no_grad():
        tiny_model.character_head.bias.copy_(torch.tensor([0.0, 6, 0, 0, 0, 0]))
    tiny_model.save_pretrained(model)
    assert run(pictures, model, "--format", "jsonl") == 2 and "another model" in capsys.readouterr().err
    assert run(pictures, model, "--format", "jsonl", "--overwrite") == 0
    rows = [json.loads(line) for line in (pictures / "tags.jsonl").read_text().splitlines()]
    assert [row["file"] for row in rows] == ["a.png", "b.png"] and rows[0]["characters"] == rows[1]["characters"]
    assert "hatsune_miku" not in rows[0]["characters"]


@pytest.mark.parametrize("content", [b"", b"somebody's", b"somebody's\n", b'[1]\n{"file": "a.png"}\n', b"\xff\n"])
def test_a_partial_of_somebody_else_is_not_replaced(pictures, model, capsys, content):
    (pictures / "tags.jsonl.partial").write_bytes(content)
    expected = 0 if content == b"" else 2
    assert run(pictures, model, "--format", "jsonl") == expected
    if expected:
        assert (pictures / "tags.jsonl.partial").read_bytes() == content


def test_a_partial_that_is_a_link_is_not_written_through(pictures, model, tmp_path, capsys):
    (tmp_path / "precious").write_text("mine")
    (pictures / "tags.csv.partial").symlink_to(tmp_path / "precious")
    assert run(pictures, model, "--format", "csv", "--overwrite") == 2
    assert "no file of this command" in capsys.readouterr().err and (tmp_path / "precious").read_text() == "mine"


@pytest.mark.parametrize("form", ["txt", "jsonl"])
def test_a_second_run_at_the_same_time_is_refused(pictures, model, capsys, monkeypatch, form):
    results, codes = tagger.results_of, []

    def meanwhile(*args):
        if not codes:
            codes.append(None)
            codes[0] = run(pictures, model, "--format", form)
        yield from results(*args)

    monkeypatch.setattr(tagger, "results_of", meanwhile)
    assert run(pictures, model, "--format", form) == 0 and codes == [2]
    assert "Another run is writing" in capsys.readouterr().err


def test_a_folder_where_the_one_file_should_be(pictures, model, capsys):
    (pictures / "tags.csv").mkdir()
    assert run(pictures, model, "--format", "csv", "--overwrite") == 2
    assert "found a folder of that name" in capsys.readouterr().err


KILLER = """
import os, random, signal, sys, time
import modeling_mfdn
import modeling_mfdn.tagging.tag_folder
from modeling_mfdn.commands import tag_alias as main

rng = random.Random(int(sys.argv[1]))
kills = 0
while True:  # this process imports, and never computes: its children do, each with threads of its own
    child = os.fork()
    if not child:
        sys.stdout = sys.stderr = open(os.devnull, "w")
        os._exit(main(sys.argv[2:]))
    deadline = time.monotonic() + (rng.uniform(0.0, 0.6) if kills < 60 else 600)  # a busy machine may need it
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
        time.sleep(0.002)
    if ended != (0, 0):
        break
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    kills += 1
    names = os.listdir(sys.argv[2])
    if {"tags.jsonl", "tags.csv"} & {*names} and not any(name.endswith(".partial") for name in names):
        ended = (child, 0)  # all was done, and the kill came before the process had gone
        break
print(kills, os.waitstatus_to_exitcode(ended[1]))
"""


@pytest.mark.parametrize(
    "form",
    [
        pytest.param("txt", marks=pytest.mark.long),
        pytest.param("jsonl", marks=pytest.mark.long),
        pytest.param("csv", marks=pytest.mark.long),
    ],
)
def test_whenever_it_is_killed_it_goes_on_and_the_outcome_is_the_same(pictures, model, form):
    for number in range(120):
        picture(pictures / f"äöü {number}.png")
    argv = [str(pictures), "--model", model, "--format", form, "--num_workers", "0", "--batch_size", "2"]
    argv += ["--device", "cpu", "--no_review"]
    done = subprocess.run([sys.executable, "-c", KILLER, "18", *argv], capture_output=True, text=True, check=True)
    kills, code = map(int, done.stdout.split())
    written = {path.name: path.read_bytes() for path in pictures.iterdir() if path.suffix != ".png"}
    assert kills >= 3 and code == 0, "else nothing was tried"
    assert run(pictures, model, "--format", form, "--overwrite") == 0
    assert written == {path.name: path.read_bytes() for path in pictures.iterdir() if path.suffix != ".png"}


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_ended_between_its_file_and_its_notes_a_run_is_complete(pictures, model, form, monkeypatch):
    output, write = pictures / f"tags.{form}", tagger.write_records

    def write_and_end(*args):
        write(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(tagger, "write_records", write_and_end)
    assert run(pictures, model, "--format", form) == 130
    whole = output.read_bytes()
    assert (pictures / f"{output.name}.partial").exists()
    for _ in range(2):
        assert run(pictures, model, "--format", form) == 0
        assert output.read_bytes() == whole and not (pictures / f"{output.name}.partial").exists()


def test_a_pipe_in_place_of_the_notes_of_a_file_that_is_there_is_not_read(pictures, model, capsys):
    (pictures / "tags.jsonl").write_text("mine\n")
    os.mkfifo(pictures / "tags.jsonl.partial")
    assert run(pictures, model, "--format", "jsonl") == 2
    assert (
        "is no jsonl of this command" in capsys.readouterr().err and (pictures / "tags.jsonl").read_text() == "mine\n"
    )
