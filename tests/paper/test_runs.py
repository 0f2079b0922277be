"""The list of experiments: every command parses, what is done is skipped, what was interrupted goes on."""

import json
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import evaluate_mfdn
import train_mfdn
from modeling_mfdn.paper.runs import EXPERIMENTS, main, planned_runs


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=[experiment.name for experiment in EXPERIMENTS])
def test_every_command_is_one_that_its_script_takes(experiment, tmp_path):
    (tmp_path / "more" / "share").mkdir(parents=True)
    (tmp_path / "run").mkdir()
    danmul, more = str(tmp_path / "danmul"), str(tmp_path / "more")
    commands = experiment.commands(danmul, more, "quick", 2, tmp_path / "run", ["--max_steps", "3"])
    script, args = train_mfdn.parse_arguments([*commands.pop("results.json")[3:], "--use_cpu"])
    train_mfdn.check_flags(script, args)
    assert (args.seed, script.evaluate_test, args.output_dir) == (2, True, str(tmp_path / "run"))
    assert (args.max_steps, script.dataset) == (3, danmul)
    assert list(commands) == ["results_validation.json", "results_test.json", "results_share.json"]
    for file, command in commands.items():
        asked = evaluate_mfdn.build_parser().parse_args(command[2:])
        assert asked.dataset == more
        assert asked.calibrate == (asked.split == "validation")
        assert evaluate_mfdn.output_path(asked.model, asked.split, asked.output or str(tmp_path / file)).name == file


def test_without_a_share_nothing_is_scored_on_it(tmp_path):
    vit = next(row for row in EXPERIMENTS if row.name == "vit")
    commands = vit.commands(str(tmp_path), str(tmp_path), "paper", 0, tmp_path / "run", [])
    assert list(commands) == ["results.json", "results_validation.json", "results_test.json"]
    assert "--hints" not in commands["results_test.json"], "a ViT reads no tags"


def test_a_row_is_called_by_what_differs_from_the_recipe():
    titles = {row.name: row.title for row in EXPERIMENTS}
    assert titles["mfdn"] == "(as it is)" and titles["peak_90"] == "`--mask_peak 0.9`"
    assert titles["trunk_both_ends"] == "`--recipe both_ends --vision_weights other_vit`"
    assert titles["vit_dafre"] == "`--train_modality image`, trained on DAF:re-style"


def test_table_v_has_all_seeds_and_the_others_one():
    runs = [(row.name, seed) for row, seed in planned_runs(["V", "VI"], None, 3)]
    assert runs[:3] == [("vit", 0), ("no_mlm", 0), ("mfdn", 0)] and runs[-1] == ("vit_equal", 2)
    assert [(row.name, seed) for row, seed in planned_runs(["IV"], ["vit_dafre"], 2)] == [("vit_dafre", 0)]
    assert [seed for name, seed in runs if name == "label2label_200"] == [0]
    assert planned_runs(["V"], ["peak_90"], 1)[0][0].name == "peak_90"
    with pytest.raises(ValueError, match="vlt is none of them"):
        planned_runs(["V"], ["vlt"], 1)


ACCURACY = {"top1_accuracy": 0.5, "top5_accuracy": 0.9, "macro_top1_accuracy": 0.4}


def fake_evaluation(command, **options):
    """In place of evaluate_mfdn.py: results, and three pictures of which the first is named right."""
    asked = evaluate_mfdn.build_parser().parse_args(command[2:])
    Path(asked.output).write_text(json.dumps({"num_images": 7, "image": ACCURACY}))
    names = pa.array(["ann", "bob", "eve"])
    pq.write_table(pa.table({"post_id": [3, 5, 8], "character": names, "image": ["ann"] * 3}), asked.predictions)
    return subprocess.CompletedProcess(command, 0)


@pytest.fixture
def fake_accelerate(tmp_path, monkeypatch):
    """A command of that name that notes its arguments, fails for no_mlm and writes results for the others."""
    run = subprocess.run
    monkeypatch.setattr(
        subprocess,
        "run",
        lambda command, **options: (run if command[0] == "accelerate" else fake_evaluation)(command, **options),
    )
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


def test_tables_are_written_and_results_outlive_the_folders_of_their_models(fake_accelerate, tmp_path, capsys):
    assert main(["--only", "vit", "linear", "--seeds", "2"]) == 0
    assert "| unimodal ViT | 2 | 50.0% ± 0.0 |" in (tmp_path / "runs" / "README.md").read_text()
    before = {file: (tmp_path / "runs" / file).read_bytes() for file in ("runs.jsonl", "hits.parquet", "README.md")}
    shutil.rmtree(tmp_path / "runs" / "vit-1")
    calls = fake_accelerate.read_text()
    assert main(["--only", "vit", "linear", "--seeds", "2"]) == 0
    assert "3 runs, 3 trained" in capsys.readouterr().out and fake_accelerate.read_text() == calls
    assert {file: (tmp_path / "runs" / file).read_bytes() for file in before} == before


def test_rows_on_dafre_wait_for_its_folder(fake_accelerate, capsys):
    assert main(["--tables", "IV", "--list"]) == 0
    assert "--dafre names no folder" in capsys.readouterr().out
    assert main(["--tables", "IV", "--list", "--dafre", "other", "--only", "vit_dafre"]) == 0
    assert "--dataset other" in capsys.readouterr().out


def test_list_runs_nothing(fake_accelerate, capsys):
    assert main(["--list"]) == 0
    assert not fake_accelerate.exists() and "--system label2label --num_tags 200" in capsys.readouterr().out
