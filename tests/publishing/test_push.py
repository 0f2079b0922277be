"""Push to a Hub on this machine, then load from it in fresh processes that never heard of this package."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from character_factory import give_statistics, picture_of
from dump_factory import write_dump
from hub_server import running_hub
from safetensors.torch import load_file, save_file
from test_build_danmul import build, random_posts

from modeling_mfdn import commands
from modeling_mfdn.publishing import push as publish
from modeling_mfdn.publishing.push import publish_dataset, publish_model

ROOT = Path(__file__).parents[2]

STRANGER = """
import json, sys

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("modeling_mfdn", "dataset_scripts"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NotInstalled())
import torch
from transformers import AutoModel, AutoModelForImageClassification, AutoProcessor, pipeline
trust = {"trust_remote_code": True}
"""


@pytest.fixture(scope="module")
def hub():
    with running_hub() as server:
        yield server


@pytest.fixture
def environment(hub, tmp_path):
    """Of a process that talks to that Hub with a cache of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTHONPATH"))}
    return kept | {
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": "hf_test",
        "HF_HOME": str(tmp_path / "hf_home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }


@pytest.fixture
def run_child(environment, tmp_path):
    def run(code: str, *arguments: str, ours: bool = False, fails: bool = False) -> str:
        path = {"PYTHONPATH": str(ROOT)} if ours else {}
        away = tmp_path / "elsewhere"
        away.mkdir(exist_ok=True)
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], env=environment | path, cwd=away, capture_output=True, text=True
        )
        assert fails == (done.returncode != 0), done.stdout + done.stderr
        return done.stdout if not fails else done.stderr

    return run


@pytest.fixture
def model_folder(tiny_model, tiny_processor, characters, picture, tmp_path):
    folder = tmp_path / "mfdn"
    tiny_processor.characters = characters
    tiny_model.save_pretrained(folder)
    tiny_processor.save_pretrained(folder)
    scores = {"top1_accuracy": 0.5, "top5_accuracy": 0.9, "macro_top1_accuracy": 0.25}
    results = {"dataset": "danmul", "split": "test", "num_images": 7, "image": scores, "image+tags": scores}
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "checkpoint-3").mkdir()
    (folder / "checkpoint-3" / "optimizer.pt").write_bytes(b"pickle")
    (folder / "training_args.bin").write_bytes(b"pickle")
    picture.save(tmp_path / "picture.png")
    return folder


PUBLISH = "import sys; from modeling_mfdn.commands import main; sys.exit(main(['push', *sys.argv[1:]]))"


def main(argv: list[str]) -> int:
    return commands.main(["push", *argv])


@pytest.mark.slow
def test_a_stranger_loads_what_was_pushed_and_a_pinned_revision_stays(hub, run_child, model_folder, tmp_path):
    printed = run_child(PUBLISH, "model", str(model_folder), "tester/mfdn", "--dataset_id", "tester/danmul", ours=True)
    first = printed.rpartition('revision="')[2].partition('"')[0]
    files = hub.files("tester/mfdn")
    assert {"README.md", "handler.py", ".eval_results/image.yaml", "pipeline_mfdn.py", "results.json"} <= set(files)
    assert not [name for name in files if "checkpoint" in name or name.endswith((".bin", ".pt"))]
    assert b'model="tester/mfdn"' in files["README.md"]

    weights = load_file(model_folder / "model.safetensors")
    weights["character_head.bias"] += torch.arange(6) * 10.0  # now the last character always wins
    save_file(weights, model_folder / "model.safetensors", metadata={"format": "pt"})
    run_child(PUBLISH, "model", str(model_folder), "tester/mfdn", ours=True)

    found = json.loads(
        run_child(
            STRANGER
            + """
picture, first = sys.argv[1:]
processor = AutoProcessor.from_pretrained("tester/mfdn", **trust)
inputs = processor(images=picture, tags=["smile"])
with torch.no_grad():
    logits = {
        name: auto.from_pretrained("tester/mfdn", revision=revision, **trust)(**inputs).logits[0].tolist()
        for name, auto, revision in (("new", AutoModel, None), ("old", AutoModelForImageClassification, first))
    }
tagger = pipeline(model="tester/mfdn", task="character-tagging", **trust)
best = tagger(picture)["characters"][0]["label"]
classified = pipeline("image-classification", model="tester/mfdn", **trust)(picture)[0]["label"]

from huggingface_hub import snapshot_download
folder = snapshot_download("tester/mfdn")
sys.path.insert(0, folder)
from handler import EndpointHandler
handler = EndpointHandler(folder)
data = open(picture, "rb").read()
answer = handler({"inputs": data, "parameters": {"top_k": 1}})
print(json.dumps({**logits, "best": best, "classified": classified, "handler": answer["characters"][0]["label"]}))
""",
            str(tmp_path / "picture.png"),
            first,
        ).splitlines()[-1]
    )
    difference = [new - old for new, old in zip(found["new"], found["old"], strict=True)]
    torch.testing.assert_close(difference, [0.0, 10.0, 20.0, 30.0, 40.0, 50.0], atol=1e-4, rtol=0)
    assert found["best"] == found["classified"] == found["handler"] == "holo"


@pytest.mark.long
def test_what_was_taught_travels_over_the_hub_and_what_was_forgotten_leaves_it(
    hub, run_child, model_folder, tiny_model, tiny_processor, tmp_path
):
    give_statistics(tiny_model, tiny_processor)
    with torch.no_grad():
        outputs = tiny_model(**tiny_processor(images=[picture_of(9, number) for number in range(5)]))
    tiny_processor.teach("kiki", outputs.picture_embedding)
    tiny_processor.save_pretrained(model_folder)
    picture_of(9, 50).save(tmp_path / "asked.png")
    push = ["model", str(model_folder), "tester/taught"]
    code = """
import sys
from transformers import pipeline
tagger = pipeline("character-tagging", model="tester/taught", trust_remote_code=True, device="cpu")
print("KNOWS", tagger.processor.gallery.names, tagger(sys.argv[1])["characters"][0]["label"])
"""
    run_child(PUBLISH, *push, ours=True)
    assert "KNOWS ['kiki'] kiki" in run_child(code, str(tmp_path / "asked.png"))
    offline = "import os; os.environ['HF_HUB_OFFLINE'] = '1'\n" + code
    assert "KNOWS ['kiki'] kiki" in run_child(offline, str(tmp_path / "asked.png"))
    tiny_processor.gallery.forget("kiki")
    tiny_processor.save_pretrained(model_folder)
    run_child(PUBLISH, *push, ours=True)
    assert "gallery.safetensors" not in hub.files("tester/taught")
    assert "KNOWS [] " in run_child(code, str(tmp_path / "asked.png"))
    assert "KNOWS [] " in run_child(offline, str(tmp_path / "asked.png"))


@pytest.mark.long
def test_a_processor_that_is_pushed_alone_takes_all_its_files_along(hub, run_child, model_folder):
    code = """
import sys
from modeling_mfdn import MFDNProcessor
processor = MFDNProcessor.from_pretrained(sys.argv[1])
processor.save_pretrained(sys.argv[2], push_to_hub=True, repo_id="tester/processor")
"""
    run_child(code, str(model_folder), str(model_folder.with_name("again")), ours=True)
    found = set(hub.files("tester/processor"))
    assert {"processor_config.json", "preprocessor_config.json", "tokenizer.json", "gallery_mfdn.py"} <= found


@pytest.mark.slow
def test_without_trust_nothing_of_the_repository_runs(hub, run_child, model_folder, tmp_path):
    (model_folder / "configuration_mfdn.py").write_text(f"open({str(tmp_path / 'it_ran')!r}, 'w')\n")
    run_child(PUBLISH, "model", str(model_folder), "tester/evil", ours=True)
    code = STRANGER + 'AutoModel.from_pretrained("tester/evil", trust_remote_code=False)'
    assert "trust_remote_code" in run_child(code, fails=True)
    assert not (tmp_path / "it_ran").exists()


@pytest.mark.long
def test_a_push_that_breaks_off_is_repeated_without_sending_twice(hub, run_child, model_folder):
    hub.fail_next = ["POST /api/models/tester/broken/commit"] * 20
    message = run_child(PUBLISH, "model", str(model_folder), "tester/broken", ours=True, fails=True)
    assert message.count("error: ") == 1 and "Traceback" not in message
    assert hub.files("tester/broken") == {}
    sent = [path for method, path, _ in hub.requests if method == "PUT"]
    hub.fail_next = []
    run_child(PUBLISH, "model", str(model_folder), "tester/broken", ours=True)
    assert [path for method, path, _ in hub.requests if method == "PUT"] == sent
    files = hub.files("tester/broken")
    assert all(
        files[path.name] == path.read_bytes()
        for path in model_folder.iterdir()
        if path.is_file() and path.suffix != ".bin"
    )


@pytest.mark.slow
def test_a_data_set_is_pushed_loaded_and_streamed_and_old_shards_go(hub, run_child, tmp_path):
    dump = write_dump(tmp_path / "dump", random_posts())
    folder = tmp_path / "danmul"
    assert build(dump, folder, "--workers", "1") == 0
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    run_child(PUBLISH, "dataset", str(folder), "anime", ours=True)  # whose: the Hub knows
    card = hub.files("tester/anime", "dataset")["README.md"].decode()
    assert 'danmul = load_dataset("tester/anime")  # streaming' in card and 'load_dataset("danmul"' not in card
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    run_child(PUBLISH, "dataset", str(folder), "tester/danmul", ours=True)
    stale = dict(hub.files("tester/danmul", "dataset"))
    stale["data/train-00001-of-00002.parquet"] = b"of an older build"
    hub.repositories["dataset", "tester/danmul"].commit(stale)
    run_child(PUBLISH, "dataset", str(folder), "tester/danmul", ours=True)
    assert "data/train-00001-of-00002.parquet" not in hub.files("tester/danmul", "dataset")
    found = json.loads(
        run_child(
            """
import json
from datasets import load_dataset
whole = load_dataset("tester/danmul")
stream = load_dataset("tester/danmul", split="train", streaming=True)
print(json.dumps({"sizes": {name: len(rows) for name, rows in whole.items()},
                  "same": [row["post_id"] for row in stream] == list(whole["train"]["post_id"]),
                  "names": whole["train"].features["character"].names}))
"""
        ).splitlines()[-1]
    )
    counts = json.loads((folder / "build.json").read_text())["counts"]
    assert found["sizes"] == counts["splits"] and found["same"] and len(found["names"]) == counts["characters"]
    # What training reads: pieces of the files, each when it is needed, none of them kept.
    seen = len(hub.requests)
    read = json.loads(
        run_child(
            """
import json
from modeling_mfdn.data.dataset import load_split, read_tag_vocabulary
from modeling_mfdn.data.parquet_rows import RowGroupBatches
rows = load_split("tester/danmul", "train")
ids = [row["post_id"] for batch in RowGroupBatches(rows, 32) for row in rows.__getitems__(batch)]
tags = len(read_tag_vocabulary("tester/danmul"))
print(json.dumps([sorted(ids), rows.column("post_id").to_pylist(), tags, rows.files[0].split("://")[0]]))
""",
            ours=True,
        ).splitlines()[-1]
    )
    assert read[0] == sorted(read[1]) and len(read[0]) == counts["splits"]["train"]
    assert read[2:] == [counts["tags"], "hf"]
    statuses = [status for method, path, status in hub.requests[seen:] if method == "GET" and ".parquet" in path]
    assert statuses and set(statuses) == {206}


@pytest.mark.long
def test_training_and_evaluation_push_what_they_made(hub, run_child, tmp_path):
    dump = write_dump(tmp_path / "dump", random_posts())
    assert build(dump, tmp_path / "danmul", "--workers", "1") == 0
    flags = [
        "--dataset",
        str(tmp_path / "danmul"),
        "--recipe",
        "quick",
        "--max_steps",
        "2",
        "--output_dir",
        str(tmp_path / "trained"),
        "--push_to_hub",
        "--hub_model_id",
        "tester/trained",
        "--use_cpu",
        "--evaluate_test",
        "False",
        "--save_steps",
        "1",
        "--eval_strategy",
        "no",
    ]
    run_child("import sys, train_mfdn; train_mfdn.main(sys.argv[1:])", *flags, ours=True)
    files = hub.files("tester/trained")
    assert {"model.safetensors", "README.md", "handler.py", "tokenizer.json", "trainer_state.json"} <= set(files)
    assert b"Not measured yet" in files["README.md"] and not [name for name in files if "checkpoint" in name]
    flags = [
        "--model",
        str(tmp_path / "trained"),
        "--dataset",
        str(tmp_path / "danmul"),
        "--push_to_hub",
        "--hub_model_id",
        "tester/trained",
        "--hub_dataset_id",
        "tester/danmul",
    ]
    run_child("import sys, evaluate_mfdn; evaluate_mfdn.main(sys.argv[1:])", *flags, ours=True)
    files = hub.files("tester/trained")
    assert b"Not measured yet" not in files["README.md"] and ".eval_results/image.yaml" in files
    top1 = json.loads(files["results.json"])["image"]["top1_accuracy"]
    assert f"| image | {top1:.1%} |" in files["README.md"].decode()


def test_folders_that_are_not_complete_are_refused(model_folder, tmp_path, capsys):
    (model_folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="model.safetensors is missing"):
        publish_model(model_folder, "tester/mfdn")
    folder = tmp_path / "danmul"
    (folder / "data").mkdir(parents=True)
    with pytest.raises(ValueError, match="needs build.json"):
        publish_dataset(folder, "tester/danmul")
    shard = {"file": "train-00000-of-00001.parquet", "bytes": 5}
    (folder / "build.json").write_text(json.dumps({"shards": [shard]}))
    (folder / "README.md").write_text("---\n---\n")
    (folder / "data" / shard["file"]).write_bytes(b"four")
    assert main(["dataset", str(folder), "tester/danmul"]) == 2
    assert "has 4 bytes, build.json says 5" in capsys.readouterr().err


def test_a_dry_run_names_what_would_travel_sends_nothing_and_writes_nothing(model_folder, capsys):
    before = {path: path.read_bytes() for path in model_folder.rglob("*") if path.is_file()}
    assert main(["model", str(model_folder), "tester/mfdn", "--dry_run"]) == 0
    assert {path: path.read_bytes() for path in model_folder.rglob("*") if path.is_file()} == before
    printed, warned = capsys.readouterr()
    assert "README.md" in printed and "handler.py" in printed
    assert "training.json is missing" in warned, "what the card cannot say is a warning"
    assert "model.safetensors" in printed and "for the model tester/mfdn" in printed
    assert "checkpoint-3" not in printed and "training_args.bin" not in printed


def test_a_file_with_a_token_of_the_hub_stays_home(model_folder, capsys):
    """Models of earlier versions recorded every flag."""
    results = json.loads((model_folder / "results.json").read_text())
    results["training"] = {"flags": ["--hub_token", "hf_abcdefghijklmnopqrstuvwxyz"]}
    (model_folder / "results.json").write_text(json.dumps(results))
    assert main(["model", str(model_folder), "tester/mfdn"]) == 2
    assert "results.json holds what looks like a token of the Hub" in capsys.readouterr().err


def test_what_is_not_finished_or_of_this_machine_stays_home(model_folder, capsys):
    for name in (
        "checkpoint.unfinished/checkpoint-4/model.safetensors",
        "tags.jsonl.partial",
        ".lock",
        "train.log",
        "a.unfinished",
        "runs/events.out",
        ".0123456789abcdef.tmp",
    ):
        (model_folder / name).parent.mkdir(parents=True, exist_ok=True)
        (model_folder / name).write_text("x")
    os.mkfifo(model_folder / "pipe.json")
    assert main(["model", str(model_folder), "tester/mfdn", "--dry_run"]) == 0
    printed = capsys.readouterr().out
    for name in ("unfinished", "partial", "lock", ".log", "runs", ".tmp", "pipe.json"):
        assert name not in printed
    (model_folder / "model.unfinished").mkdir()
    assert main(["model", str(model_folder), "tester/mfdn", "--dry_run"]) == 2
    assert "interrupted" in capsys.readouterr().err


def test_a_link_out_of_the_folder_is_not_followed_to_the_hub(model_folder, tmp_path, capsys):
    (tmp_path / "private.txt").write_text("mine")
    (model_folder / "notes.txt").symlink_to(tmp_path / "private.txt")
    assert main(["model", str(model_folder), "tester/mfdn", "--dry_run"]) == 2
    assert "notes.txt is a link to" in capsys.readouterr().err
    (model_folder / "notes.txt").unlink()
    (model_folder / "also.json").symlink_to(model_folder / "config.json")
    assert main(["model", str(model_folder), "tester/mfdn", "--dry_run"]) == 0, "within the folder it is a file"


def test_a_name_without_owner_is_completed_by_the_hub(monkeypatch):
    monkeypatch.setattr(publish, "whoami", lambda token: {"name": "somebody"})
    assert publish.repository_id("mfdn") == "somebody/mfdn" and publish.repository_id("a/mfdn") == "a/mfdn"

    def nobody(token):
        raise OSError("Token is required, but no token found.")

    monkeypatch.setattr(publish, "whoami", nobody)
    with pytest.raises(ValueError, match="Whose repository is mfdn.*no token found.*hf auth login"):
        publish.repository_id("mfdn")
