"""The model card: only from files, true where they are missing, and its snippets run."""

import json
import os
import re
import subprocess
import sys

import pytest
import yaml
from huggingface_hub import ModelCard

from modeling_mfdn.publishing.cards import MARKER, model_card, plain, write_hub_files


def scores(top1):
    tags = {"mean_average_precision": 0.5, "miss_rate": 0.25, "hamming_error": 0.125}
    tags |= {"predict_nothing": {"hamming_error": 0.375}}
    return {
        "top1_accuracy": top1,
        "top5_accuracy": 0.9,
        "macro_top1_accuracy": 0.3,
        "tags": {group: tags for group in ("top25", "top200", "all")},
    }


@pytest.fixture
def folder(tiny_model, tiny_processor, tmp_path):
    folder = tmp_path / "mfdn"
    tiny_model.save_pretrained(folder)
    tiny_processor.save_pretrained(folder)
    return folder


@pytest.fixture
def measured(folder):
    """With results, and with what training says of itself and of its data."""
    rules = [{"rule": "min_posts", "posts_dropped": 1234, "tags_dropped": 5}]
    data = {
        "source": "my_dump",
        "drawn": False,
        "posts": 31,
        "splits": {"train": 20, "validation": 4, "test": 7},
        "ratings": {"g": 30, "s": 1},
        "rules": rules,
    }
    training = {"flags": ["--seed", "3"], "dataset": "danmul", "data": data}
    (folder / "training.json").write_text(json.dumps(training))
    results = {"dataset": "danmul", "split": "test", "num_images": 7, "date": "2026-01-02", "tag_threshold": 0.35}
    results |= {"image": scores(0.51), "image+tags": scores(0.62)}
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "trainer_state.json").write_text(json.dumps({"epoch": 2.0, "global_step": 1234}))
    return folder


def test_a_model_without_results_says_not_measured(folder):
    assert write_hub_files(folder)
    text = (folder / "README.md").read_text()
    assert "Not measured yet" in text and "was not at hand" in text and "not recorded" in text
    assert ModelCard(text).data.pipeline_tag == "image-classification" and "%" not in text


def test_figures_are_those_of_the_files(measured):
    text = model_card(measured, "tester/mfdn", "tester/danmul")
    for wanted in (
        "| image | 51.0% | 90.0% | 30.0% |",
        "| image + tags | 62.0% |",
        "| min_posts | 1,234 | 5 |",
        "`g` 30, `s` 1",
        "2 epochs, 1,234 steps: `train_mfdn.py --seed 3`",
        "train 20, validation 4, test 7",
        "6 characters, 11 tags",
        "measured 2026-01-02",
        "| 0.500 | 25.0% | 12.50% | 37.50% |",
    ):
        assert wanted in text, wanted
    data = ModelCard(text).data
    found = {(entry.metric_name, entry.metric_value) for entry in data.eval_results}
    assert ("top-1 accuracy, image", 0.51) in found and ("top-1 accuracy, image + tags", 0.62) in found
    assert data.library_name == "transformers" and data.datasets == ["tester/danmul"] and data.license == "other"


def test_what_copies_in_train_are_worth_is_said_where_there_are_some(measured):
    results = json.loads((measured / "results.json").read_text())
    near = {"num_near": 13, "num_others": 87, "image": {"near": 0.9, "others": 0.456}}
    for found, is_said in ((near, True), (near | {"num_near": 0}, False)):
        (measured / "results.json").write_text(json.dumps(results | {"near_train": found}))
        said = "same drawing as 13 of them; without these top-1 is 45.6% (image)."
        assert (said in model_card(measured, "tester/mfdn")) == is_said


def test_leaderboard_entries_are_one_file_a_modality(measured):
    write_hub_files(measured, "tester/mfdn", "tester/danmul")
    entry = yaml.safe_load((measured / ".eval_results" / "image_tags.yaml").read_text())[0]
    assert entry["dataset"]["id"] == "tester/danmul" and entry["value"] == 62.0 and "image + tags" in entry["notes"]


def test_the_characters_are_listed_and_the_hint_tells_them_apart(folder, tags, characters):
    write_hub_files(folder)
    card = (folder / "README.md").read_text()
    listed = card.split("<details>")[1].split("</details>")[0]
    assert all(f"`{name}`" in listed for name in characters) and "widget" not in card.split("---")[1]
    assert 'tags=["long_hair"]' in card, "nobody knows better"
    lists = {"characters": {name: {"posts": 9} for name in characters}, "tags": {"1girl": 90, "smile": 80, "hat": 5}}
    (folder / "vocabulary.json").write_text(json.dumps(lists))
    write_hub_files(folder)
    assert 'tags=["hat"]' in (folder / "README.md").read_text(), "which is not everywhere"
    lists["character_tags"] = {name: {"1girl": 0.9} for name in characters} | {"holo": {"1girl": 0.9, "blush": 0.8}}
    (folder / "vocabulary.json").write_text(json.dumps(lists))
    write_hub_files(folder)
    assert 'tags=["blush"]' in (folder / "README.md").read_text(), "which is somebody's"


def test_a_text_of_somebodys_own_is_left_alone(measured):
    (measured / "README.md").write_text("mine")
    assert not write_hub_files(measured) and (measured / "README.md").read_text() == "mine"
    assert (measured / "handler.py").exists()
    (measured / "README.md").write_text(f"{MARKER}\nold")
    assert write_hub_files(measured) and "old" not in (measured / "README.md").read_text().split("#")[0]


def test_names_from_data_cannot_break_out_of_the_card(measured):
    results = json.loads((measured / "results.json").read_text())
    results["split"] = "test`\n\n# Free GPUs <script>{{ 7 * 7 }}</script>|"
    (measured / "results.json").write_text(json.dumps(results))
    text = model_card(measured, "tester/mfdn")
    assert "<script>" not in text and "\n# Free" not in text and "49" not in text
    assert plain("a`b|c\nd\x1b[2J") == "abc d2J" and len(plain("x" * 9999)) == 1000


def test_only_pictures_that_were_drawn_here_are_free(measured, tmp_path, monkeypatch):
    """Neither a dump that is called mini_booru nor a data set of that name in the current folder makes them so."""
    training = json.loads((measured / "training.json").read_text())
    training["data"]["source"] = "mini_booru"
    (measured / "training.json").write_text(json.dumps(training))
    cards = []
    for place in (tmp_path, measured):
        monkeypatch.chdir(place)
        cards.append(model_card(measured, "tester/mfdn"))
    assert cards[0] == cards[1] and "license: other" in cards[0] and "drew" not in cards[0]
    training["data"]["drawn"] = True
    (measured / "training.json").write_text(json.dumps(training))
    assert "license: apache-2.0" in model_card(measured, "tester/mfdn")


def test_systems_are_told_apart(measured):
    config = json.loads((measured / "config.json").read_text())
    for changes, wanted in (
        ({"modality": "image"}, "a unimodal ViT"),
        ({"num_decoder_layers": 0}, "no MLM"),
        ({"model_type": "mfdn-label2label", "modality": "image"}, "Label2Label"),
    ):
        (measured / "config.json").write_text(json.dumps(config | changes))
        assert wanted in model_card(measured, "tester/mfdn")
    assert "tags=[" not in model_card(measured, "tester/mfdn")


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no saved model"):
        write_hub_files(tmp_path)


@pytest.mark.slow
def test_the_snippets_of_the_card_run(measured, picture):
    write_hub_files(measured)
    picture.save(measured.parent / "picture.png")
    code = "\n".join(re.findall(r"```python\n(.*?)```", (measured / "README.md").read_text(), flags=re.DOTALL))
    assert code.count("from_pretrained") == 2 and "tags=[" in code
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=measured.parent,
        capture_output=True,
        text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0 and "'label'" in done.stdout, done.stderr
