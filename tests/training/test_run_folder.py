"""The folder of a run: whatever ends it, the next goes on to the same weights; what the data lack is said first."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import test_train_mfdn
import torch
from datasets import Dataset, Image
from safetensors.torch import load_file
from test_train_mfdn import (  # noqa: F401
    NUM_POSTS,
    ROOT,
    TINY_MODEL,
    danmul,
    log_of,
    tiny_model_size,
    train,
    trained,
)

import evaluate_mfdn
import train_mfdn
from modeling_mfdn.publishing import push as publish


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same_weights(one: Path, other: Path) -> bool:
    left, right = weights(one), weights(other)
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def cut(file: Path):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


DAMAGES = {
    "weights cut": lambda folder: cut(folder / "model.safetensors"),
    "weights empty": lambda folder: (folder / "model.safetensors").write_bytes(b""),
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "optimizer cut": lambda folder: cut(folder / "optimizer.pt"),
    "no optimizer": lambda folder: (folder / "optimizer.pt").unlink(),
    "no schedule": lambda folder: (folder / "scheduler.pt").unlink(),
    "no random state": lambda folder: (folder / "rng_state.pth").unlink(),
    "state cut": lambda folder: cut(folder / "trainer_state.json"),
    "no state": lambda folder: (folder / "trainer_state.json").unlink(),
    "empty": lambda folder: [file.unlink() for file in folder.iterdir()],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_half_checkpoint_is_skipped_and_said(trained, danmul, tmp_path, capsys, damage):
    folder = tmp_path / "mfdn"
    shutil.copytree(trained[0], folder)
    DAMAGES[damage](folder / "checkpoint-12")
    DAMAGES[damage](folder / "checkpoint-10")
    for name in ("checkpoint-12", "checkpoint-10"):
        with pytest.raises(ValueError, match=f"Cannot resume from .*{name}: it"):
            train(danmul, folder, "--resume_from_checkpoint", str(folder / name))
    before = len(log_of(folder))
    train(danmul, folder, "--resume_from_checkpoint", "last")
    said = capsys.readouterr().out
    assert "Skipped" in said and "checkpoint-12: it" in said and "checkpoint-10: it" in said
    assert same_weights(folder, trained[0]) and len(log_of(folder)) == before


def test_with_nothing_but_half_checkpoints_the_run_is_refused(danmul, tmp_path):
    (tmp_path / "checkpoint-7").mkdir()
    with pytest.raises(ValueError, match=r"Expected a whole checkpoint.*found only checkpoint-7 \(it has no model"):
        train(danmul, tmp_path, "--resume_from_checkpoint", "last")


@pytest.mark.parametrize("asked", ["True", "checkpoint-10", "relative"])
def test_checkpoints_are_asked_for_in_any_usual_way(trained, danmul, tmp_path, monkeypatch, asked):
    folder = tmp_path / "mfdn"
    shutil.copytree(trained[0], folder)
    if asked == "relative":
        monkeypatch.chdir(tmp_path)
        asked = "mfdn/checkpoint-5"
    train(danmul, folder, "--resume_from_checkpoint", asked)
    assert same_weights(folder, trained[0])


def test_a_checkpoint_that_is_not_there_is_named_with_those_that_are(trained, danmul):
    with pytest.raises(ValueError, match="no checkpoint checkpoint-11.*checkpoint-5, checkpoint-10, checkpoint-12"):
        train(danmul, trained[0], "--resume_from_checkpoint", "checkpoint-11")
    with pytest.raises(ValueError, match="Cannot resume from .*no optimizer|Did you mean .*checkpoint-12"):
        train(danmul, trained[0], "--resume_from_checkpoint", str(trained[0]))


def test_a_full_disk_within_a_save_leaves_the_checkpoint_before(trained, danmul, tmp_path, monkeypatch):
    save = torch.save

    def full(content, file, *args, **kwargs):
        if "checkpoint-10" in str(file) and "optimizer" in str(file):
            Path(file).write_bytes(b"PK half")
            raise OSError(28, "No space left on device")
        return save(content, file, *args, **kwargs)

    folder = tmp_path / "mfdn"
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        train(danmul, folder)
    monkeypatch.undo()
    monkeypatch.setitem(train_mfdn.MODEL_SIZES, "tiny", TINY_MODEL)
    assert [path.name for path in folder.glob("checkpoint-*")] == ["checkpoint-5"]
    train(danmul, folder, "--resume_from_checkpoint", "last")
    assert same_weights(folder, trained[0]) and not list(folder.glob("*unfinished*"))


def test_two_trainings_do_not_share_a_folder(danmul, tmp_path, monkeypatch):
    messages = []
    original = train_mfdn.load_split

    def meanwhile(*args, **kwargs):
        if not messages:
            messages.append("")
            with pytest.raises(FileExistsError) as refused:
                train(danmul, tmp_path / "run")
            messages[0] = str(refused.value)
        return original(*args, **kwargs)

    monkeypatch.setattr(train_mfdn, "load_split", meanwhile)
    train(danmul, tmp_path / "run", "--max_steps", "2")
    assert "Another run is writing" in messages[0] and (tmp_path / "run" / "config.json").exists()


def test_the_best_model_is_taken_at_the_end(danmul, tmp_path):
    train(danmul, tmp_path / "run", "--load_best_model_at_end", "True", "--eval_steps", "5", "--learning_rate", "0.5")
    state = json.loads((tmp_path / "run" / "trainer_state.json").read_text())
    scores = {
        entry["step"]: entry["eval_image_top1_accuracy"]
        for entry in log_of(tmp_path / "run")
        if "eval_image_top1_accuracy" in entry
    }
    best = state["best_model_checkpoint"]
    assert scores[int(best.removeprefix("checkpoint-"))] == max(scores.values()) == state["best_metric"]
    assert same_weights(tmp_path / "run", tmp_path / "run" / best)


KILLER = """
import os, random, signal, sys, time
import train_mfdn
sys.path.insert(0, os.path.dirname(sys.argv[1]))
from test_train_mfdn import TINY_MODEL, train

train_mfdn.MODEL_SIZES["tiny"] = TINY_MODEL
rng, kills, in_save = random.Random(18), 0, 0
danmul, folder = sys.argv[2:]
while kills < 24:  # this process imports, and never computes: its children do, each with threads of its own
    child = os.fork()
    if not child:
        sys.stdout = sys.stderr = open(os.devnull, "w")
        started = os.path.isdir(folder) and any(name.startswith("checkpoint-") for name in os.listdir(folder))
        begin = ["--resume_from_checkpoint", "last"] if started else ["--overwrite"]
        try:
            train(danmul, folder, *begin, "--save_steps", "1", "--save_total_limit", "2", "--eval_strategy", "no")
        finally:
            os._exit(1)
    unfinished = os.path.join(folder, "checkpoint.unfinished")
    while os.path.exists(unfinished):  # what the last one left
        if os.waitpid(child, os.WNOHANG) != (0, 0):
            sys.exit("a run ended by itself")
        time.sleep(0.0005)
    saves = rng.randrange(1, 3)
    while not os.path.exists(unfinished):
        if os.waitpid(child, os.WNOHANG) != (0, 0):
            print(kills, in_save, "done early")
            sys.exit()
        time.sleep(0.0005)
    time.sleep(rng.uniform(0.0, 0.05))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    kills += 1
    in_save += os.path.exists(unfinished)
print(kills, in_save)
"""


@pytest.mark.long
def test_killed_within_its_saves_it_goes_on_to_the_very_weights(danmul, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", KILLER, test_train_mfdn.__file__, str(danmul), str(tmp_path / "killed")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    kills, in_save, *_ = map(str, done.stdout.split())
    print(f"{kills} kills, {in_save} within a save")
    assert int(in_save) >= 5, "else nothing was tried"
    flags = ("--save_steps", "1", "--save_total_limit", "2", "--eval_strategy", "no")
    train(danmul, tmp_path / "killed", "--resume_from_checkpoint", "last", *flags)
    train(danmul, tmp_path / "unbroken", *flags)
    assert same_weights(tmp_path / "killed", tmp_path / "unbroken")


# Data that is not as it should be


@pytest.fixture
def broken_danmul(danmul, tmp_path):
    """The same with one broken picture in training and one in test."""
    folder = tmp_path / "broken[1]"
    shutil.copytree(danmul, folder)
    for split, post_id in (("train", 5), ("test", 31)):
        (file,) = (folder / "data").glob(f"{split}-*")
        rows = Dataset.from_parquet(str(danmul / "data" / file.name)).cast_column("image", Image(decode=False))
        table = [
            row | ({"image": {"bytes": b"no picture", "path": None}} if row["post_id"] == post_id else {})
            for row in rows
        ]
        assert sum(row["image"]["bytes"] == b"no picture" for row in table) == 1
        Dataset.from_list(table, features=rows.features).cast_column("image", Image()).to_parquet(file)
    return folder


@pytest.mark.parametrize("workers", ["0", "2"])
def test_broken_pictures_are_left_out_and_counted(broken_danmul, tmp_path, workers):
    flags = ("--max_bad_share", "0.2", "--dataloader_num_workers", workers)
    results = train(broken_danmul, tmp_path / "run", "--evaluate_test", *flags)
    assert (results["num_images"], results["num_broken"]) == (NUM_POSTS["test"] - 1, 1)
    seen = json.loads((tmp_path / "run" / "training.json").read_text())["broken_pictures"]
    assert seen in (2, 3), "12 steps of 4 of 22 posts are two epochs and a bit"


def test_more_broken_pictures_than_allowed_end_the_run(broken_danmul, tmp_path):
    with pytest.raises(ValueError, match="1 of 22 pictures cannot be decoded, more than --max_bad_share 0.01.*verify"):
        train(broken_danmul, tmp_path / "run")


def test_a_missing_split_is_found_before_the_training(danmul, tmp_path):
    folder = tmp_path / "no_test"
    shutil.copytree(danmul, folder)
    (file,) = (folder / "data").glob("test-*")
    file.unlink()
    with pytest.raises(ValueError, match="Cannot read split 'test'"):
        train(folder, tmp_path / "run", "--evaluate_test")
    assert not list((tmp_path / "run").iterdir())


def test_a_data_set_without_tags_trains_a_model_of_pictures_alone(danmul, tmp_path):
    folder = tmp_path / "no_tags"
    shutil.copytree(danmul, folder)
    (folder / "tags.json").unlink()
    for file in (folder / "data").iterdir():
        Dataset.from_parquet(str(file)).remove_columns("tags").to_parquet(file)
    with pytest.raises(ValueError, match="tags"):
        train(folder, tmp_path / "run")
    results = train(folder, tmp_path / "run", "--train_modality", "image", "--evaluate_test")
    assert results["num_images"] == NUM_POSTS["test"] and "image+tags" not in results
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(tmp_path)
        again = evaluate_mfdn.main(["--model", "run", "--dataset", str(folder), "--num_workers", "0"])
    assert again["image"]["top1_accuracy"] == results["image"]["top1_accuracy"]


def test_it_starts_where_the_system_counts_no_cores_of_a_process(danmul, tmp_path, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("WORLD_SIZE", "1")
    set_threads = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # with a GPU the cores are left as they are
    monkeypatch.setattr(torch, "set_num_threads", set_threads.append)
    train(danmul, tmp_path / "run", "--max_steps", "1", "--eval_strategy", "no")
    assert set_threads == [max(1, os.cpu_count() // 2)]


def test_the_hub_is_asked_for_the_name_before_the_training(danmul, tmp_path, monkeypatch):
    asked, published = [], []
    monkeypatch.setattr(publish, "whoami", lambda token: asked.append(token) or {"name": "somebody"})
    monkeypatch.setattr(train_mfdn, "publish_model", lambda *args, **kwargs: published.append((args, kwargs)))
    train(danmul, tmp_path / "run", "--max_steps", "1", "--push_to_hub", "--hub_token", "hf_x")
    assert asked == ["hf_x"] and published[0][0][1] == "somebody/run" and published[0][1]["token"] == "hf_x"

    def nobody(token):
        raise OSError("Token is required")

    monkeypatch.setattr(publish, "whoami", nobody)
    monkeypatch.setattr(train_mfdn, "load_split", lambda *args, **kwargs: pytest.fail("trained first"))
    with pytest.raises(ValueError, match="Whose repository is other.*hub_model_id.*hf auth login"):
        train(danmul, tmp_path / "other", "--push_to_hub")


@pytest.mark.parametrize(
    "flags, said",
    [
        (["--dataset", "nonsuch"], "Cannot read split 'train' of data set 'nonsuch'"),
        (["--dataset", "{danmul}", "--output_dir", "{file}/x"], "Not a directory"),
        (["--dataset", "{danmul}", "--mask_peak", "3"], "mask_peak"),
        (["--dataset", "{danmul}", "--max_bad_share", "-1"], "--max_bad_share must lie in"),
    ],
)
def test_in_a_terminal_an_error_is_a_sentence(danmul, tmp_path, monkeypatch, capsys, flags, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    flags = [flag.format(danmul=danmul, file=tmp_path / "file") for flag in flags]
    assert train_mfdn.run([*flags, "--model_size", "tiny", "--use_cpu", "--max_steps", "1"]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ") and said in last
