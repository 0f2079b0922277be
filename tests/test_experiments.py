"""The list of experiments: every command parses, what is done is skipped, what was interrupted goes on."""

import json
import os
import stat

import pytest

import train_mfdn
from modeling_mfdn.evaluation.experiments import EXPERIMENTS, main, planned_runs


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=[experiment.name for experiment in EXPERIMENTS])
def test_every_command_is_one_that_training_takes(experiment, tmp_path):
    argv = experiment.command("danmul", "quick", 2, tmp_path / "run")
    script, args = train_mfdn.parse_arguments([*argv[3:], "--use_cpu"])
    train_mfdn.check_flags(script, args)
    assert (args.seed, script.evaluate_test, args.output_dir) == (2, True, str(tmp_path / "run"))


def test_table_v_has_all_seeds_and_the_others_one():
    runs = [(row.name, seed) for row, seed in planned_runs(["V", "VI"], None, 3)]
    assert runs[:3] == [("vit", 0), ("no_mlm", 0), ("mfdn", 0)] and runs[-1] == ("mfdn", 2)
    assert [seed for name, seed in runs if name == "label2label_200"] == [0]
    assert planned_runs(["V"], ["per_post"], 1)[0][0].name == "per_post"
    with pytest.raises(ValueError, match="vlt is none of them"):
        planned_runs(["V"], ["vlt"], 1)


@pytest.fixture
def fake_accelerate(tmp_path, monkeypatch):
    """A command of that name that notes its arguments, fails for no_mlm and writes results for the others."""
    program = tmp_path / "bin" / "accelerate"
    program.parent.mkdir()
    program.write_text(
        '#!/bin/sh\necho "$@" >> calls.txt\n'
        'while [ "$1" != --output_dir ]; do shift; done\n'
        'case "$2" in *no_mlm*) exit 3;; esac\necho \'{"num_images": 7}\' > "$2/results.json"\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "calls.txt"


def test_done_runs_are_skipped_failed_ones_reported_and_tried_again(fake_accelerate, capsys):
    assert main(["--tables", "V", "--seeds", "1", "--", "--max_steps", "3"]) == 1
    calls = fake_accelerate.read_text().splitlines()
    assert len(calls) == 3 and all(call.endswith("--max_steps 3") for call in calls)
    assert "1 runs failed: no_mlm-0" in capsys.readouterr().err
    assert main(["--tables", "V", "--seeds", "1"]) == 1
    assert len(fake_accelerate.read_text().splitlines()) == 4
    assert "2 done" in capsys.readouterr().out


def test_an_interrupted_run_goes_on_from_its_checkpoint(fake_accelerate, tmp_path):
    (tmp_path / "runs" / "vit-0" / "checkpoint-5").mkdir(parents=True)
    (tmp_path / "runs" / "vit-0" / "results.json").write_text("{")  # cut off
    assert main(["--only", "vit", "--seeds", "1"]) == 0
    assert "--resume_from_checkpoint last" in fake_accelerate.read_text()
    assert json.loads((tmp_path / "runs" / "vit-0" / "results.json").read_text())["num_images"] == 7


def test_list_runs_nothing(fake_accelerate, capsys):
    assert main(["--list"]) == 0
    assert not fake_accelerate.exists() and "--system label2label --num_tags 200" in capsys.readouterr().out
