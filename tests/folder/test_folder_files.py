"""A build that is interrupted, refused, or spread over jobs: the same bytes in the end, and nothing lost."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
from dump_factory import picture, write_dump
from test_build_danmul import build, fails, random_posts, same_files
from upath import UPath

from dataset_scripts.build_danmul import main
from dataset_scripts.folder import shards
from dataset_scripts.folder.files import work_folder


def test_a_failed_build_leaves_the_old_data_set_and_no_rubbish(tmp_path, capsys, monkeypatch):
    dump = write_dump(tmp_path / "dump", random_posts())
    output = tmp_path / "danmul"
    assert build(dump, output) == 0
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}

    def disk_full(task):
        raise OSError(28, "No space left on device", task.path)

    monkeypatch.setattr("dataset_scripts.build_danmul.write_shard", disk_full)
    argv = ["--source", dump, "--output", output, "--overwrite", "--workers", "1"]
    assert "No space left on device" in fails(capsys, *argv)
    assert before == {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    assert sorted(os.listdir(tmp_path)) == ["danmul", "dump"]


def test_a_full_disk_keeps_finished_shards_and_a_rerun_goes_on(tmp_path, capsys, monkeypatch):
    dump = write_dump(tmp_path / "dump", random_posts())
    assert build(dump, tmp_path / "whole", "--shard_size_mb", "0.02") == 0
    argv = ["--source", dump, "--output", tmp_path / "danmul", "--workers", "1", "--shard_size_mb", "0.02"]
    written = []

    def disk_full_at_the_third(task):
        if len(written) == 2:
            raise OSError(28, "No space left on device", task.path)
        written.append(shards.write_shard(task))
        return written[-1]

    monkeypatch.setattr("dataset_scripts.build_danmul.write_shard", disk_full_at_the_third)
    assert "No space left on device" in fails(capsys, *argv)
    monkeypatch.undo()
    rows = []
    write_rows = shards.write_rows
    monkeypatch.setattr(shards, "write_rows", lambda task, file: rows.append(task) or write_rows(task, file))
    assert main([*map(str, argv)]) == 0
    total = len(list((tmp_path / "whole" / "data").iterdir()))
    assert total > 5 and len(rows) == total - 2
    assert same_files(tmp_path / "danmul", tmp_path / "whole")
    assert sorted(os.listdir(tmp_path)) == ["danmul", "dump", "whole"]


@pytest.mark.parametrize("damage", ["content", "plan", "image", "options"])
def test_a_finished_shard_is_written_again_when_anything_it_depends_on_changed(tmp_path, capsys, monkeypatch, damage):
    dump = write_dump(tmp_path / "dump", random_posts())
    monkeypatch.setattr(
        "dataset_scripts.build_danmul.move_into_place", lambda *args: (_ for _ in ()).throw(OSError("killed"))
    )
    argv = ["--source", dump, "--output", tmp_path / "danmul", "--workers", "1", "--shard_size_mb", "0.02"]
    assert "killed" in fails(capsys, *argv)
    monkeypatch.undo()
    shard = sorted((tmp_path / "danmul.partial" / "data").iterdir())[0]
    if damage == "content":
        shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    elif damage == "plan":
        shards.plan_path(UPath(shard)).write_text("{")
    elif damage == "image":
        for path in dump.glob("512px/*/*.jpg"):
            path.write_bytes(picture(int(path.stem) + 1))
    else:
        argv += ["--seed", "3"]
    assert main([*map(str, argv)]) == 0
    options = ["--shard_size_mb", "0.02", *(["--seed", "3"] if damage == "options" else [])]
    assert build(dump, tmp_path / "whole", *options) == 0
    assert same_files(tmp_path / "danmul", tmp_path / "whole")


def test_two_builds_into_one_folder_are_refused(tmp_path, capsys):
    dump = write_dump(tmp_path / "dump", random_posts())
    with work_folder(UPath(tmp_path / "danmul")):
        error = fails(capsys, "--source", dump, "--output", tmp_path / "danmul", "--workers", "1")
    assert "Another build writes to" in error


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path, capsys):
    dump = write_dump(tmp_path / "dump", random_posts())
    assert build(dump, tmp_path / "danmul") == 0
    before = (tmp_path / "danmul" / "build.json").read_bytes()
    (tmp_path / "danmul").rename(tmp_path / "danmul.old")
    assert "replace it with --overwrite" in fails(capsys, "--source", dump, "--output", tmp_path / "danmul")
    assert (tmp_path / "danmul" / "build.json").read_bytes() == before


def test_a_stranger_named_old_is_neither_taken_nor_removed(tmp_path, capsys):
    dump = write_dump(tmp_path / "dump", random_posts())
    (tmp_path / "danmul.old").mkdir()
    (tmp_path / "danmul.old" / "thesis.tex").touch()
    assert "move yours away" in fails(capsys, "--source", dump, "--output", tmp_path / "danmul")
    assert (tmp_path / "danmul.old" / "thesis.tex").exists()


def test_what_appears_at_the_output_during_the_build_costs_no_shard(tmp_path, capsys, monkeypatch):
    dump = write_dump(tmp_path / "dump", random_posts())
    write_shard = shards.write_shard

    def someone_else_is_faster(task):
        (tmp_path / "danmul").mkdir(exist_ok=True)
        (tmp_path / "danmul" / "thesis.tex").touch()
        return write_shard(task)

    monkeypatch.setattr("dataset_scripts.build_danmul.write_shard", someone_else_is_faster)
    argv = ["--source", dump, "--output", tmp_path / "danmul", "--workers", "1"]
    assert "not written by this command" in fails(capsys, *argv)
    assert len(list((tmp_path / "danmul.partial" / "plans").iterdir())) == 3


@pytest.mark.parametrize("what", ["metadata_2021", "512px", "output"])
def test_unreadable_folders_are_named(tmp_path, capsys, monkeypatch, what):
    dump = write_dump(tmp_path / "dump", random_posts())
    scandir, mkdir, listdir = os.scandir, os.mkdir, os.listdir

    def refusing(function, name):
        def call(path=".", *args, **kwargs):
            if name in str(path):
                raise PermissionError(13, "Permission denied", str(path))
            return function(path, *args, **kwargs)

        return call

    # Not chmod: the tests may run as root, who reads everything.
    if what == "output":
        monkeypatch.setattr(os, "mkdir", refusing(mkdir, "danmul.partial"))
    else:
        monkeypatch.setattr(os, "scandir", refusing(scandir, what))
        monkeypatch.setattr(os, "listdir", refusing(listdir, what))
    error = fails(capsys, "--source", dump, "--output", tmp_path / "danmul", "--workers", "1")
    assert "Permission denied" in error and what.replace("output", "danmul.partial") in error


def test_output_on_another_file_system(tmp_path):
    dump = write_dump(tmp_path / "dump", random_posts())
    assert build(dump, tmp_path / "local", "--shard_size_mb", "0.02") == 0
    output = UPath("memory://output_on_another/danmul")
    assert build(dump, output, "--shard_size_mb", "0.02") == 0
    files = [path for path in (tmp_path / "local").rglob("*") if path.is_file()]
    names = sorted(str(path.relative_to(tmp_path / "local")) for path in files)
    assert sorted(str(path)[len(str(output)) + 1 :] for path in output.rglob("*") if path.is_file()) == names
    for name in names:
        assert (output / name).read_bytes() == (tmp_path / "local" / name).read_bytes()
    assert not UPath("memory://output_on_another/danmul.partial").exists()


@pytest.mark.long
def test_killed_at_random_moments_and_started_again_it_gives_the_same_bytes(tmp_path):
    dump = write_dump(tmp_path / "dump", random_posts(3000))
    argv = ["--source", str(dump), "--workers", "2", "--shard_size_mb", "0.01"]
    command = [sys.executable, "-m", "dataset_scripts.build_danmul", *argv, "--output"]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True)
    num_shards = len(list((tmp_path / "whole" / "data").iterdir()))
    output, plans = tmp_path / "danmul", tmp_path / "danmul.partial" / "plans"
    rng, kills = random.Random(0), 0
    # When so many shards are finished, the run is killed: at once for -1, while it reads; near the end for the last.
    for target in [-1, *sorted(rng.randrange(num_shards) for _ in range(4)), num_shards - 1]:
        process = subprocess.Popen([*command, str(output)], stderr=subprocess.PIPE, start_new_session=True)
        while process.poll() is None and target >= 0 and len(list(plans.glob("*.json"))) < target:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.03) if target >= 0 else 1.0)
        if process.poll() is None:
            assert not output.exists() or same_files(output, tmp_path / "whole")
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
        _, error = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), error
        assert not output.exists() or same_files(output, tmp_path / "whole")
        if output.exists():
            break
    if not output.exists():
        subprocess.run([*command, str(output)], check=True, capture_output=True)
    print(f"{kills} kills, {num_shards} shards")
    assert kills >= 4 and same_files(output, tmp_path / "whole")
    assert sorted(os.listdir(tmp_path)) == ["danmul", "dump", "whole"]
