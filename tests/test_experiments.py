"""The list of experiments: every command parses, what is done is skipped, what was interrupted goes on."""

import json
import os
import stat

import pytest

import evaluate_mfdn
import train_mfdn
from modeling_mfdn.evaluation.experiments import EXPERIMENTS, main, planned_runs


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=[experiment.name for experiment in EXPERIMENTS])
def test_every_command_is_one_that_its_script_takes(experiment, tmp_path):
    (tmp_path / "danmul" / "share").mkdir(parents=True)
    (tmp_path / "run").mkdir()
    commands = experiment.commands(str(tmp_path / "danmul"), "quick", 2, tmp_path / "run", ["--max_steps", "3"])
    script, args = train_mfdn.parse_arguments([*commands.pop("results.json")[3:], "--use_cpu"])
    train_mfdn.check_flags(script, args)
    assert (args.seed, script.evaluate_test, args.output_dir) == (2, True, str(tmp_path / "run"))
    assert args.max_steps == 3 and "results_share.json" in commands
    for file, command in commands.items():
        asked = evaluate_mfdn.build_parser().parse_args(command[2:])
        assert evaluate_mfdn.output_path(asked.model, asked.split, asked.output or str(tmp_path / file)).name == file


def test_without_a_share_and_outside_of_table_6_training_is_all(tmp_path):
    vit = next(row for row in EXPERIMENTS if row.name == "vit")
    assert list(vit.commands(str(tmp_path), "paper", 0, tmp_path / "run", [])) == ["results.json"]


def test_table_v_has_all_seeds_and_the_others_one():
    runs = [(row.name, seed) for row, seed in planned_runs(["V", "VI"], None, 3)]
    assert runs[:3] == [("vit", 0), ("no_mlm", 0), ("mfdn", 0)] and runs[-1] == ("mfdn", 2)
    assert [(row.name, seed) for row, seed in planned_runs(["IV"], ["vit_dafre"], 2)] == [("vit_dafre", 0)]
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
        'case "$2" in *no_mlm*) exit 3;; esac\n'
        'echo \'{"num_images": 7, "image": {"top1_accuracy": 0.5, "top5_accuracy": 0.9, "macro_top1_accuracy": 0.4}}\''
        ' > "$2/results.json"\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "calls.txt"


def test_done_runs_are_skipped_failed_ones_reported_and_tried_again(fake_accelerate, capsys):
    rows = ["--only", "vit", "no_mlm", "linear", "--seeds", "1"]
    assert main([*rows, "--", "--max_steps", "3"]) == 1
    calls = fake_accelerate.read_text().splitlines()
    assert len(calls) == 3 and all(call.endswith("--max_steps 3") for call in calls)
    assert "1 runs failed: no_mlm-0" in capsys.readouterr().err
    assert main(rows) == 1
    assert len(fake_accelerate.read_text().splitlines()) == 4
    assert "2 trained" in capsys.readouterr().out


def test_runs_side_by_side_share_the_cores_and_do_what_one_after_the_other_does(fake_accelerate, capsys):
    program = fake_accelerate.parent / "bin" / "accelerate"
    program.write_text(program.read_text().replace('"$@" >>', '$(nproc) "$@" >>'))
    assert main(["--only", "vit", "no_mlm", "linear", "--seeds", "1", "--jobs", "2"]) == 1
    calls = fake_accelerate.read_text().splitlines()
    share = -(-len(os.sched_getaffinity(0)) // 2)
    assert all(int(call.split()[0]) <= share for call in calls)
    assert len(calls) == 3
    assert "1 runs failed: no_mlm-0" in capsys.readouterr().err
    assert main(["--only", "vit", "--jobs", "0"]) == 2 and "at least 1, not 0" in capsys.readouterr().err


def test_an_interrupted_run_goes_on_from_its_checkpoint(fake_accelerate, tmp_path):
    (tmp_path / "runs" / "vit-0" / "checkpoint-5").mkdir(parents=True)
    (tmp_path / "runs" / "vit-0" / "results.json").write_text("{")  # cut off
    assert main(["--only", "vit", "--seeds", "1"]) == 0
    assert "--resume_from_checkpoint last" in fake_accelerate.read_text()
    assert json.loads((tmp_path / "runs" / "vit-0" / "results.json").read_text())["num_images"] == 7


def test_tables_are_written_and_results_copied_without_models(fake_accelerate, tmp_path):
    run = tmp_path / "runs" / "vit-1"
    run.mkdir(parents=True)
    scores = {"top1_accuracy": 0.875, "top5_accuracy": 0.9, "macro_top1_accuracy": 0.8}
    (run / "results.json").write_text(json.dumps({"num_images": 7, "image": scores}))
    (run / "model.safetensors").write_bytes(b"weights")
    assert main(["--only", "constant_15", "--seeds", "1"]) == 0
    assert "| unimodal ViT | 1 | 87.5% |" in (tmp_path / "runs" / "tables.md").read_text()
    rows = json.loads((tmp_path / "runs" / "tables.json").read_text())["Table V (test split)"]
    assert rows[0]["image: top-1"] == {"mean": 0.875, "std": None}
    assert main(["--copy_results", str(tmp_path / "report")]) == 0
    copied = sorted(path.relative_to(tmp_path / "report").as_posix() for path in (tmp_path / "report").rglob("*.*"))
    assert copied == ["constant_15-0/results.json", "vit-1/results.json"]


def test_rows_on_dafre_wait_for_its_folder(fake_accelerate, capsys):
    assert main(["--tables", "IV", "--list"]) == 0
    assert "--dafre names no folder" in capsys.readouterr().out
    assert main(["--tables", "IV", "--list", "--dafre", "other", "--only", "vit_dafre"]) == 0
    assert "--dataset other" in capsys.readouterr().out


def test_list_runs_nothing(fake_accelerate, capsys):
    assert main(["--list"]) == 0
    assert not fake_accelerate.exists() and "--system label2label --num_tags 200" in capsys.readouterr().out
