"""The training script from its command line to the saved model, on a data set of coloured squares."""

import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image, List, Value
from PIL import Image as PILImage
from safetensors.torch import load_file
from transformers import pipeline

import evaluate_mfdn
import train_mfdn
from modeling_mfdn import MFDNModel
from modeling_mfdn.data.dataset import is_left_out
from modeling_mfdn.data.parquet_rows import ParquetRows
from modeling_mfdn.paper.run_results import RunResults
from modeling_mfdn.paper.tables import table_5
from modeling_mfdn.training.schedules import learning_rate_factor, mask_ratio

ROOT = Path(train_mfdn.__file__).parent
COLORS = {"aka": (200, 40, 40), "ao": (40, 60, 200), "midori": (40, 180, 60)}
TAGS = [f"tag_{i}" for i in range(12)]
NUM_POSTS = {"train": 22, "validation": 7, "test": 9}
TINY_MODEL = {
    "image_size": 16,
    "patch_size": 8,
    "hidden_size": 12,
    "num_attention_heads": 2,
    "intermediate_size": 20,
    "num_vision_layers": 1,
    "num_text_layers": 2,
    "num_fusion_layers": 1,
    "num_decoder_layers": 1,
    "max_tag_tokens": 9,
}


def make_rows(count: int, first_id: int) -> list[dict]:
    rows = []
    for post_id in range(first_id, first_id + count):
        rng = np.random.default_rng(post_id)
        character = post_id % 3
        pixels = np.full((24, 24, 3), list(COLORS.values())[character]) + rng.integers(-30, 30, (24, 24, 3))
        file = io.BytesIO()
        PILImage.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=95)
        tags = sorted(rng.choice(TAGS, size=post_id % 5, replace=False).tolist())  # none, up to 4
        rows.append(
            {
                "post_id": post_id,
                "image": {"bytes": file.getvalue(), "path": f"{post_id}.jpg"},
                "character": character,
                "tags": tags,
                "rating": "s",
            }
        )
    return rows


@pytest.fixture(scope="module")
def danmul(tmp_path_factory):
    """A data set folder as dataset_scripts.build_danmul writes it, as far as training reads it."""
    folder = tmp_path_factory.mktemp("data") / "danmul"
    (folder / "data").mkdir(parents=True)
    features = Features(
        post_id=Value("int64"),
        image=Image(),
        character=ClassLabel(names=list(COLORS)),
        tags=List(Value("string")),
        rating=Value("string"),
    )
    first_id = 1
    for split, count in NUM_POSTS.items():
        rows = Dataset.from_list(make_rows(count, first_id), features=features)
        rows.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
        first_id += count
    (folder / "tags.json").write_text(
        json.dumps([{"tag": tag, "posts": 20 - i, "score": 1.0} for i, tag in enumerate(TAGS)])
    )
    return folder


@pytest.fixture(autouse=True)
def tiny_model_size(monkeypatch):
    monkeypatch.setitem(train_mfdn.MODEL_SIZES, "tiny", TINY_MODEL)


def train(danmul, output_dir, *flags) -> dict:
    steps = ["--max_steps", "12", "--eval_strategy", "steps", "--eval_steps", "6", "--save_strategy", "steps"]
    return train_mfdn.main(
        [
            "--dataset",
            str(danmul),
            "--model_size",
            "tiny",
            "--output_dir",
            str(output_dir),
            *steps,
            "--save_steps",
            "5",
            "--logging_steps",
            "1",
            "--per_device_train_batch_size",
            "4",
            "--save_total_limit",
            "5",
            "--dataloader_num_workers",
            "0",
            "--use_cpu",
            *flags,
        ]
    )


@pytest.fixture(scope="module")
def trained(danmul, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "mfdn"
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setitem(train_mfdn.MODEL_SIZES, "tiny", TINY_MODEL)
        results = train(danmul, folder, "--evaluate_test")
    return folder, results


def log_of(folder: Path) -> list[dict]:
    return json.loads((folder / "trainer_state.json").read_text())["log_history"]


def test_log_has_rate_ratio_and_both_losses_of_every_step(trained):
    folder, _ = trained
    logs = [entry for entry in log_of(folder) if "loss" in entry]
    assert [entry["step"] for entry in logs] == list(range(1, 13))
    for entry in logs:
        done = entry["step"] - 1
        assert entry["mask_ratio"] == pytest.approx(mask_ratio(done, 12), abs=1e-6)
        assert entry["learning_rate"] == pytest.approx(1e-3 * learning_rate_factor(done, 12, 0), rel=1e-4)
        assert entry["loss"] == pytest.approx(entry["character_loss"] + entry["tag_loss"], abs=2e-3)
    assert logs[0]["tag_loss"] == 0.0  # nothing is hidden in the first step
    assert logs[-1]["tag_loss"] > 0.0


def test_validation_is_in_both_modalities(trained):
    folder, _ = trained
    validations = [entry for entry in log_of(folder) if "eval_image_top1_accuracy" in entry]
    assert [entry["step"] for entry in validations] == [6, 12]
    for name in ("top1_accuracy", "top5_accuracy", "tag_map"):
        assert {f"eval_image_{name}", f"eval_image+tags_{name}"} <= set(validations[0])


def test_results_count_every_test_image_once(trained):
    folder, results = trained
    written = json.loads((folder / "results.json").read_text())
    assert written["num_images"] == results["num_images"] == NUM_POSTS["test"]
    assert written["split"] == "test"
    assert 0.0 <= written["image+tags"]["top1_accuracy"] <= written["image+tags"]["top5_accuracy"] <= 1.0


def test_folder_holds_model_processor_tokenizer_code_and_pictures(trained):
    folder, _ = trained
    expected = (
        "config.json model.safetensors processor_config.json preprocessor_config.json tokenizer.json "
        "configuration_mfdn.py image_processing_mfdn.py pictures_mfdn.py modeling_mfdn.py processing_mfdn.py "
        "pipeline_mfdn.py "
        "training.json results.json training_curves.png example.png"
    )
    assert set(expected.split()) <= {path.name for path in folder.iterdir()}
    assert not (folder / "unfinished_save").exists()
    assert MFDNModel.from_pretrained(folder).config.id2label == dict(enumerate(COLORS))


def test_nothing_that_is_written_tells_a_secret_or_where_it_was_made(danmul, tmp_path):
    """Checkpoints, the model and its card, after training and after an evaluation that stores its calibration."""
    folder = tmp_path / "somebodys_home" / "mfdn"
    flags = (
        "--hub_token",
        "hf_secretsecretsecretsecret",
        "--load_best_model_at_end",
        "True",
        "--evaluate_test",
        "--metric_for_best_model",
        "image_top1_accuracy",
        "--eval_steps",
        "5",
    )
    train(danmul, folder, *flags)
    evaluation = ["--model", str(folder), "--dataset", str(danmul), "--num_workers", "0"]
    evaluate_mfdn.main([*evaluation, "--split", "validation", "--calibrate"])
    evaluate_mfdn.main([*evaluation, "--errors", "--predictions", str(folder / "predictions_test.parquet")])
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len([path for path in files if path.suffix == ".json"]) > 10
    published = [path for path in files if "checkpoint-" not in str(path) and path.name != "training_args.bin"]
    assert [path for path in files if b"secretsecret" in path.read_bytes()] == []
    assert [path for path in published if str(tmp_path).encode() in path.read_bytes()] == []
    flags = json.loads((folder / "training.json").read_text())["flags"]
    assert "--seed" not in flags and flags[flags.index("--dataset") + 1] == "danmul"
    assert "hub_token" not in (folder / "README.md").read_text() and "--evaluate_test" in flags


def test_another_model_takes_all_that_was_said_of_the_one_before(trained, danmul, tmp_path):
    folder = tmp_path / "mfdn"
    shutil.copytree(trained[0], folder)
    for name in ("results_validation.json", "predictions_test.parquet", "reliability.png", "mine.txt"):
        (folder / name).write_text("of the old model")
    (folder / "checkpoint-99").mkdir()
    with pytest.raises(ValueError, match="already holds a trained model"):
        train(danmul, folder)
    train(danmul, folder, "--overwrite", "--seed", "5")
    left = {path.name for path in folder.iterdir()}
    gone = {"results.json", "results_validation.json", "predictions_test.parquet", "reliability.png", "example.png"}
    assert not left & (gone | {"checkpoint-99"}) and {"mine.txt", "training_curves.png"} <= left
    assert "Not measured yet" in (folder / "README.md").read_text()


def test_checkpoints_of_another_run_are_neither_mixed_in_nor_taken_for_its_own(danmul, tmp_path):
    (tmp_path / "checkpoint-99").mkdir()
    with pytest.raises(ValueError, match="checkpoints of another run"):
        train(danmul, tmp_path)
    assert (tmp_path / "checkpoint-99").exists()


@pytest.mark.parametrize("checkpoint", [5, 10])
def test_resumed_run_has_the_very_weights_of_the_unbroken_one(trained, danmul, tmp_path, checkpoint):
    folder, _ = trained
    train(danmul, tmp_path / "resumed", "--resume_from_checkpoint", str(folder / f"checkpoint-{checkpoint}"))
    unbroken, resumed = (load_file(path / "model.safetensors") for path in (folder, tmp_path / "resumed"))
    assert unbroken.keys() == resumed.keys()
    assert [name for name in unbroken if not torch.equal(unbroken[name], resumed[name])] == []


def test_a_resumed_run_reads_nothing_of_what_was_seen(danmul, tmp_path, monkeypatch):
    batches, read = [], ParquetRows.__getitems__
    monkeypatch.setattr(ParquetRows, "__getitems__", lambda rows, i: (batches.append(list(i)), read(rows, i))[1])
    flags = ["--eval_strategy", "no", "--max_steps", "9"]
    train(danmul, tmp_path / "unbroken", *flags)
    unbroken, batches[:] = batches[:9], []
    checkpoint = str(tmp_path / "unbroken" / "checkpoint-5")
    train(danmul, tmp_path / "resumed", *flags, "--resume_from_checkpoint", checkpoint)
    assert batches[:4] == unbroken[5:] and unbroken[0] not in batches[:4]


def test_same_seed_gives_the_same_weights_and_the_same_table_with_any_number_of_workers(trained, danmul, tmp_path):
    folder, _ = trained
    train(danmul, tmp_path / "again", "--dataloader_num_workers", "2", "--evaluate_test")
    one, two = (load_file(path / "model.safetensors") for path in (folder, tmp_path / "again"))
    assert [name for name in one if not torch.equal(one[name], two[name])] == []
    runs = [json.loads((path / "results.json").read_text()) for path in (folder, tmp_path / "again")]
    rows = [{"name": "mfdn", "seed": 0, "training": {}, "test": run} for run in runs]
    first, second = (table_5(RunResults([row], {})) for row in rows)
    assert first == second and first[0]["top-5"]["mean"] > 0


def test_gradient_accumulation_keeps_the_schedule_in_optimizer_steps(danmul, tmp_path):
    train(danmul, tmp_path / "run", "--gradient_accumulation_steps", "2")
    ratios = [entry["mask_ratio"] for entry in log_of(tmp_path / "run") if "loss" in entry]
    assert ratios == pytest.approx([mask_ratio(step, 12) for step in range(12)], abs=1e-6)


def test_unimodal_vit_and_mfdn_without_mlm_are_one_flag_away(danmul, tmp_path):
    vit = train(danmul, tmp_path / "vit", "--train_modality", "image", "--evaluate_test")
    assert MFDNModel.from_pretrained(tmp_path / "vit").config.modality == "image"
    assert "image+tags" not in vit and "tags" not in vit["image"]
    no_mlm = train(danmul, tmp_path / "no_mlm", "--mask_schedule", "none", "--evaluate_test")
    assert MFDNModel.from_pretrained(tmp_path / "no_mlm").config.num_decoder_layers == 0
    assert {"image", "image+tags"} <= set(no_mlm) and "tags" not in no_mlm["image"]


LOAD_ELSEWHERE = """
import sys
from PIL import Image
from transformers import AutoModel, AutoProcessor, pipeline
model = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True)
result = pipeline("character-tagging", model=sys.argv[1], trust_remote_code=True)(Image.new("RGB", (20, 30)))
print(type(model).__name__, len(result["characters"]), AutoProcessor.from_pretrained(
    sys.argv[1], trust_remote_code=True).tag_aggregation)
"""


@pytest.mark.parametrize("system, name", [("multi_label", "MultiLabelModel"), ("label2label", "Label2LabelModel")])
def test_systems_of_table_6_train_and_load_without_this_package(danmul, tmp_path, system, name):
    folder = tmp_path / system
    flags = ("--system", system, "--num_tags", "7", "--tag_loss", "asymmetric", "--tag_loss_weight", "0.1")
    results = train(danmul, folder, *flags, "--evaluate_test")
    assert "image+tags" not in results and results["image"]["tags"]["all"]["num_tags"] == 7
    assert all(np.isfinite(entry["tag_loss"]) for entry in log_of(folder) if "tag_loss" in entry)
    command = [sys.executable, "-c", LOAD_ELSEWHERE, str(folder)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-3:] == [name, "3", "sigmoid"]


@pytest.mark.parametrize(
    "flags",
    [
        ("--tag_loss", "asymmetric"),
        ("--system", "label2label", "--mask_schedule", "none"),
        ("--system", "multi_label", "--single_tag_query", "True"),
        ("--train_modality", "image", "--mask_schedule", "linear_hold"),
        ("--train_modality", "image", "--tag_order", "frequency"),
        ("--mask_schedule", "none", "--single_tag_query", "True"),
        ("--mask_schedule", "none", "--num_decoder_layers", "2"),
        ("--num_decoder_layers", "0"),
        ("--num_tags", "0"),
        ("--image_pass_weight", "1", "--train_modality", "image"),
    ],
)
def test_flags_that_a_system_would_ignore_are_refused(danmul, tmp_path, flags):
    with pytest.raises(ValueError, match="leave it|at least 1|sees pictures alone"):
        train(danmul, tmp_path / "run", *flags)


def test_bf16_trains(danmul, tmp_path):
    train(danmul, tmp_path / "run", "--bf16", "--max_steps", "2")
    losses = [entry["loss"] for entry in log_of(tmp_path / "run") if "loss" in entry]
    assert len(losses) == 2 and np.isfinite(losses).all()


def test_a_new_model_has_the_attention_that_was_asked_for():
    script, _ = train_mfdn.parse_arguments(["--model_size", "tiny", "--attn_implementation", "eager"])
    assert train_mfdn.build_model(script, ["one", "two"], ["tag"], None).config._attn_implementation == "eager"


def test_a_trained_model_is_not_overwritten_unasked(trained, danmul):
    folder, _ = trained
    with pytest.raises(ValueError, match="already holds a trained model.*--overwrite"):
        train(danmul, folder)


def test_resuming_from_nothing_says_so(danmul, tmp_path):
    with pytest.raises(ValueError, match="checkpoint-.*found none"):
        train(danmul, tmp_path, "--resume_from_checkpoint", "last")


def test_defaults_are_the_paper_with_a_dataset_and_quick_without():
    _, paper = train_mfdn.parse_arguments(["--dataset", "danmul"])
    assert (paper.learning_rate, paper.num_train_epochs, paper.per_device_train_batch_size) == (1e-3, 50, 64)
    assert (paper.optim, paper.optim_args, paper.weight_decay, paper.max_grad_norm) == ("sgd", "momentum=0.9", 0, 0)
    script, quick = train_mfdn.parse_arguments([])
    assert script.model_size == "tiny" and quick.optim == "adamw_torch_fused"
    script, asked = train_mfdn.parse_arguments(["--model_size", "small", "--learning_rate", "0.5"])
    assert (script.model_size, asked.learning_rate) == ("small", 0.5)  # a flag wins over the recipe


def test_recipes_are_laid_over_one_another_and_a_flag_wins():
    flags = "--dataset danmul --recipe quick both_ends --mask_peak 0.2 --use_cpu"
    script, asked = train_mfdn.parse_arguments(flags.split())
    assert (script.model_size, script.mask_schedule, asked.image_pass_weight) == ("tiny", "per_post", 1.0)
    assert script.mask_peak == 0.2
    script, asked = train_mfdn.parse_arguments("--dataset danmul --recipe both_ends --use_cpu".split())
    assert (script.model_size, script.mask_schedule, asked.optim) == ("large", "per_post", "sgd")


def test_unknown_flags_are_errors(capsys):
    with pytest.raises(SystemExit):
        train_mfdn.parse_arguments(["--no_such_flag", "1"])
    message = capsys.readouterr().err
    assert "--no_such_flag" in message and len(message.splitlines()) < 5


def test_help_shows_our_flags_and_examples_first_and_those_of_transformers_when_asked(capsys):
    shown = {}
    for flag in ("--help", "--help_all"):
        with pytest.raises(SystemExit, match="0"):
            train_mfdn.main([flag])
        shown[flag] = capsys.readouterr().out
    for wanted in ("accelerate launch train_mfdn.py --dataset danmul", "--train_modality image", "--dataset"):
        assert wanted in shown["--help"][:3000]
    assert "\n  --max_bad_share" in shown["--help"] and "\n  --help_all" in shown["--help"]
    flags = {name: set(re.findall(r"^  --(\w+)", text, re.M)) for name, text in shown.items()}
    assert train_mfdn.own_flags() < flags["--help"] < flags["--help_all"]
    assert {"torch_compile", "fsdp"} <= flags["--help_all"] - flags["--help"]


def run_outside(command: str, cwd: Path, **environment) -> subprocess.CompletedProcess:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("ACCELERATE_", "OMP_"))}
    environment = {**inherited, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", **environment}
    bin_folder = Path(sys.executable).parent
    environment["PATH"] = f"{bin_folder}{os.pathsep}{environment['PATH']}"
    return subprocess.run(shlex.split(command), cwd=cwd, env=environment, capture_output=True, text=True, timeout=900)


@pytest.mark.slow
def test_two_processes_train_and_count_every_image_once(danmul, tmp_path):
    """With two passes in a step, too. As two processes on a CPU are launched: --cpu --num_processes 2 starts one."""
    done = run_outside(
        "accelerate launch --multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no "
        f"{ROOT / 'train_mfdn.py'} --dataset {danmul} --recipe quick both_ends --max_steps 3 --eval_steps 2 "
        "--save_steps 3 --per_device_train_batch_size 4 --per_device_eval_batch_size 4 --dataloader_num_workers 0 "
        "--logging_steps 1",
        tmp_path,
        ACCELERATE_USE_CPU="1",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    state = json.loads((tmp_path / "mfdn" / "trainer_state.json").read_text())
    assert state["global_step"] == 3
    assert json.loads((tmp_path / "mfdn" / "results.json").read_text())["num_images"] == NUM_POSTS["test"]


@pytest.mark.slow
def test_the_one_command_draws_builds_trains_evaluates_and_shows(tmp_path):
    done = run_outside(
        f"accelerate launch {ROOT / 'train_mfdn.py'} --posts 400 --max_steps 4 --eval_steps 4 --save_steps 4", tmp_path
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "mini_booru" / "contact_sheet.jpg").exists()
    results = json.loads((tmp_path / "mfdn" / "results.json").read_text())
    assert results["num_images"] > 0 and {"image", "image+tags"} <= set(results)
    assert "the model says" in done.stdout
    again = run_outside(
        f"accelerate launch {ROOT / 'train_mfdn.py'} --posts 300 --max_steps 4 --output_dir other", tmp_path
    )
    assert again.returncode != 0 and "Expected danmul/ built from 300 drawn posts" in again.stderr


@pytest.mark.parametrize(
    "flags",
    [
        ("--lr_scheduler_type", "cosine"),
        ("--hub_strategy", "checkpoint"),
        ("--hub_always_push", "True"),
        ("--bf16_full_eval", "True"),
        ("--eval_accumulation_steps", "3"),
    ],
    ids=lambda flags: flags[0],
)
def test_flags_that_would_be_ignored_are_refused(flags):
    script, args = train_mfdn.parse_arguments(["--dataset", "danmul", "--use_cpu", *flags])
    with pytest.raises(ValueError, match=f"{flags[0]} .* would be ignored here"):
        train_mfdn.check_flags(script, args)


# ---------------------------------------------------------------- characters that are taught, later


def test_a_trained_model_can_be_taught(trained):
    tagger = pipeline("character-tagging", model=str(trained[0]), trust_remote_code=True, device="cpu")
    green = PILImage.new("RGB", (24, 24), (250, 250, 20))
    tagger.teach("kiiro", [green] * 2)
    assert "kiiro" in {entry["label"] for entry in tagger(green, top_k=4)["characters"]}
    assert 0 <= tagger(green)["unknown"] <= 1


def test_characters_that_are_left_out_are_not_trained_and_are_the_unseen_ones(danmul, tmp_path, capsys):
    shares = [percent / 100 for percent in range(100)]
    share = next(share for share in shares if sum(is_left_out(name, share) for name in COLORS) == 1)
    train(danmul, tmp_path / "mfdn", "--leave_out_characters", str(share), "--evaluate_test")
    assert "1 of 3 are not trained" in capsys.readouterr().out
    names = json.loads((tmp_path / "mfdn" / "config.json").read_text())["id2label"]
    assert list(names.values()) == [name for name in COLORS if not is_left_out(name, share)]
    results = json.loads((tmp_path / "mfdn" / "results.json").read_text())
    known = [name for name in COLORS if not is_left_out(name, share)]
    rows = make_rows(NUM_POSTS["test"], 1 + NUM_POSTS["train"] + NUM_POSTS["validation"])
    assert results["num_images"] == sum(list(COLORS)[row["character"]] in known for row in rows)
    training = json.loads((tmp_path / "mfdn" / "training.json").read_text())
    assert "--leave_out_characters" in training["flags"]


def test_exchanged_colors_are_characters_until_the_end(danmul, tmp_path):
    train(danmul, tmp_path / "mfdn", "--exchanged_colors", "0.5")
    model = MFDNModel.from_pretrained(tmp_path / "mfdn")
    assert model.config.num_labels == 3 and model.character_head.weight.shape == (3, 12)
    assert list(model.config.id2label.values()) == list(COLORS)
    assert (tmp_path / "mfdn" / "character_statistics.safetensors").exists()


def test_an_earlier_model_takes_its_gallery_with_it(danmul, tmp_path):
    train(danmul, tmp_path / "mfdn")
    (tmp_path / "mfdn" / "gallery.safetensors").write_bytes(b"of the model before")
    train(danmul, tmp_path / "mfdn", "--overwrite", "--seed", "3")
    assert not (tmp_path / "mfdn" / "gallery.safetensors").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--leave_out_characters", "1.5"], "a share in"),
        (["--leave_out_characters", "0.99"], "leaves . of 3 to train on"),
        (["--leave_out_fold", "1"], "goes with --leave_out_characters"),
        (["--exchanged_colors", "2"], "a share in"),
        (["--exchanged_colors", "0.5", "--system", "multi_label"], "means nothing to --system multi_label"),
    ],
)
def test_flags_for_unseen_characters_that_mean_nothing_are_refused(danmul, tmp_path, flags, said):
    with pytest.raises(ValueError, match=said):
        train(danmul, tmp_path / "mfdn", *flags)


def test_the_same_characters_are_left_out_everywhere_and_folds_have_none_in_common():
    names = [f"character {number}" for number in range(2_000)]
    folds = [{name for name in names if is_left_out(name, 0.25, fold)} for fold in range(4)]
    assert set().union(*folds) == set(names) and sum(map(len, folds)) == len(names)
    assert all(400 < len(fold) < 600 for fold in folds)
    assert {name for name in names if is_left_out(name, 0.1)} < folds[0]
    assert is_left_out("hatsune_miku", 0.25) == is_left_out("hatsune_miku", 0.25)
