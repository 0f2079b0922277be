"""evaluate_mfdn.py from a saved model and a Parquet folder to results.json."""

import io
import json
import shutil
from datetime import date
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from character_factory import give_statistics, picture_of
from datasets import ClassLabel, Dataset, Features, Image, List, Value
from PIL import Image as PILImage

from evaluate_mfdn import label_map, main
from evaluate_mfdn import run as evaluate
from modeling_mfdn import MFDNConfig, MFDNModel
from modeling_mfdn.training.tag_tokenizer import build_processor

CHARACTERS = ["hatsune_miku", "rem_(re:zero)", "saber", "kaname_madoka", "asuka_langley", "holo"]
TAGS = ["1girl", "long_hair", "smile", ">_<", ":d", "hello,_good-bye", "école", "hat"]


def save_model(folder, characters=CHARACTERS, **options):
    names = {"id2label": dict(enumerate(characters)), "label2id": {name: i for i, name in enumerate(characters)}}
    sizes = {"image_size": 16, "patch_size": 8, "hidden_size": 24, "num_attention_heads": 3, "intermediate_size": 40}
    depths = {f"num_{stack}_layers": 1 for stack in ("vision", "text", "fusion", "decoder")}
    config = MFDNConfig(**(sizes | depths | names | {"max_tag_tokens": 7, "num_tags": len(TAGS)} | options))
    MFDNModel(config).save_pretrained(folder)
    build_processor(config, TAGS).save_pretrained(folder)
    return str(folder)


def save_dataset(folder, characters=CHARACTERS, count=13):
    def picture(i):
        file = io.BytesIO()
        PILImage.new("RGB", (20, 20), (i * 16, 90, 200)).save(file, "JPEG")
        return {"bytes": file.getvalue(), "path": None}

    features = Features(
        post_id=Value("int64"), image=Image(), character=ClassLabel(names=characters), tags=List(Value("string"))
    )
    columns = {
        "post_id": list(range(count)),
        "image": [picture(i) for i in range(count)],
        "character": [characters.index(sorted(characters)[i % len(characters)]) for i in range(count)],
        "tags": [[*TAGS[: i % 8], "no_such_tag"] for i in range(count)],
    }
    (folder / "data").mkdir(parents=True)
    for split in ("test", "validation"):
        Dataset.from_dict(columns, features=features).to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return str(folder)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return save_dataset(tmp_path_factory.mktemp("parent") / "danmul")


def run(*arguments):
    return main([*arguments, "--num_workers", "0", "--batch_size", "4"])


def test_results_are_returned_written_and_printed(model, dataset, tmp_path, capsys):
    path = tmp_path / "results.json"
    results = run("--model", model, "--dataset", dataset, "--output", str(path))
    written = json.loads(path.read_text())
    assert written.pop("versions")["transformers"] and date.fromisoformat(written.pop("date"))
    assert "commit" in written and written.pop("commit") != ""
    assert written == results
    assert (results["model"], results["dataset"], results["split"]) == (Path(model).name, "danmul", "test")
    assert results["num_images"] == 13
    assert results["unknown_tags"] == {"tags": 1, "occurrences": 13}
    for modality in ("image", "image+tags"):
        assert 0 <= results[modality]["top1_accuracy"] <= results[modality]["top5_accuracy"] <= 1
        assert set(results[modality]["tags"]) == {"top25", "top200", "all"}
        assert "best_threshold" not in results[modality]["tags"]["all"]
    printed = capsys.readouterr().out
    assert "1 tags (13 occurrences) are unknown" in printed
    assert "| image+tags |" in printed


def test_errors_are_counted_and_drawn_and_the_share_is_a_split(model, dataset, tmp_path):
    folder = tmp_path / "danmul"
    shutil.copytree(dataset, folder)
    shutil.copy(folder / "data" / "test-00000-of-00001.parquet", folder / "data" / "train-00000-of-00001.parquet")
    (folder / "share").mkdir()
    table = pq.read_table(folder / "data" / "test-00000-of-00001.parquet")
    pq.write_table(table.slice(0, 5), folder / "share" / "test-00000-of-00001.parquet")
    splits = ", ".join(f"{{split: {s}, path: 'data/{s}-*.parquet'}}" for s in ("train", "validation", "test"))
    share = "{config_name: share, data_files: [{split: test, path: 'share/test-*.parquet'}]}"
    configs = f"- {{config_name: default, default: true, data_files: [{splits}]}}\n- {share}"
    (folder / "README.md").write_text(f"---\nconfigs:\n{configs}\n---\n")
    output = tmp_path / "results.json"
    results = run("--model", model, "--dataset", str(folder), "--errors", "--output", str(output))
    assert sum(entry["images"] for entry in results["errors"]["by_training_images"]) == 13
    wrong = round(13 * (1 - results["image"]["top1_accuracy"]))
    assert sum(pair["errors"] for pair in results["errors"]["most_confused"]) == wrong > 0
    loss = results["errors"]["negative_log_likelihood"]
    assert loss["at_temperature_1"] == loss["as_stored"] > 0 and results["errors"]["temperature"] == 1
    assert (tmp_path / "long_tail.png").exists() and (tmp_path / "confused.png").exists()
    shared = run("--model", model, "--dataset", str(folder), "--split", "share", "--output", str(output))
    assert shared["num_images"] == 5


def test_validation_searches_a_threshold_and_leaves_the_test_results_alone(model, dataset):
    run("--model", model, "--dataset", dataset)
    results = run("--model", model, "--dataset", dataset, "--split", "validation", "--max_images", "5")
    assert results["num_images"] == 5
    assert 0 <= results["image"]["tags"]["all"]["best_threshold"] <= 1
    with open(f"{model}/results.json") as test, open(f"{model}/results_validation.json") as validation:
        assert (json.load(test)["num_images"], json.load(validation)["num_images"]) == (13, 5)


def test_how_the_model_was_trained_outlives_a_new_evaluation(model, dataset):
    path = Path(model, "results.json")
    training = {"flags": ["--seed", "3"], "steps": 7, "parameters": 5, "seconds": {"training": 2.5}, "threads": 1}
    path.write_text(json.dumps({"num_images": 5, "training": training}))
    run("--model", model, "--dataset", dataset)
    written = json.loads(path.read_text())
    assert written["training"] == training and written["num_images"] == 13


def test_options_reach_the_metrics(model, dataset, tmp_path):
    arguments = ["--model", model, "--dataset", dataset, "--output", str(tmp_path / "results.json")]
    results = run(*arguments, "--tag_threshold", "0", "--tag_aggregation", "max", "--tag_order", "frequency")
    assert (results["tag_threshold"], results["tag_aggregation"], results["tag_order"]) == (0.0, "max", "frequency")
    tags = results["image"]["tags"]["all"]  # everything is predicted
    assert tags["hamming_error"] == pytest.approx(1 - tags["predict_nothing"]["hamming_error"])


def test_characters_in_another_order_give_the_same_accuracy(model, dataset, tmp_path):
    shuffled = save_dataset(tmp_path / "shuffled", CHARACTERS[::-1])
    expected = [len(CHARACTERS) - 1 - label for label in range(len(CHARACTERS))]
    assert label_map(CHARACTERS[::-1], CHARACTERS) == expected
    assert label_map(CHARACTERS, CHARACTERS) is None
    results = run("--model", model, "--dataset", shuffled, "--output", str(tmp_path / "results.json"))
    unshuffled = run("--model", model, "--dataset", dataset, "--output", str(tmp_path / "results.json"))
    for name in ("top1_accuracy", "macro_top1_accuracy", "character_loss"):
        assert results["image"][name] == pytest.approx(unshuffled["image"][name])


def test_characters_unknown_to_the_model_are_an_error(model, tmp_path):
    other = save_dataset(tmp_path / "other", [*CHARACTERS[:5], "kirby", "ibuki_suika"])
    with pytest.raises(ValueError, match="knows 6 characters.*has 7.*does not know 2, 'kirby'"):
        run("--model", model, "--dataset", other)


def test_a_unimodal_model_is_judged_on_images(dataset, tmp_path, capsys):
    results = run("--model", save_model(tmp_path / "vit", modality="image"), "--dataset", dataset)
    assert "image+tags" not in results and "tags" not in results["image"]
    assert "| image " in capsys.readouterr().out


def test_output_of_a_hub_model_must_be_said():
    with pytest.raises(ValueError, match="--output"):
        main(["--model", "someone/mfdn"])


def test_predictions_name_each_picture_once_and_agree_with_the_accuracy(model, dataset, tmp_path):
    results = main(
        [
            "--model",
            model,
            "--dataset",
            dataset,
            "--output",
            str(tmp_path / "r.json"),
            "--batch_size",
            "5",
            "--num_workers",
            "0",
            "--predictions",
            str(tmp_path / "p.parquet"),
        ]
    )
    rows = pq.read_table(tmp_path / "p.parquet").to_pylist()
    assert [row["post_id"] for row in rows] == list(range(13))
    assert [row["character"] for row in rows] == [sorted(CHARACTERS)[i % 6] for i in range(13)]
    for modality in ("image", "image+tags"):
        hits = [row["character"] == row[modality] for row in rows]
        assert sum(hits) / 13 == pytest.approx(results[modality]["top1_accuracy"])
    for group in ("top25", "top200", "all"):  # of 13 pictures with tags: 0 to 7 each, so micro is not the mean
        found = [row[f"found_{group}"] for row in rows]
        weights = [len(known) for known in ([tag for tag in TAGS[: i % 8]] for i in range(13))]
        miss_rate = 1 - sum(share * weight for share, weight in zip(found, weights, strict=True)) / sum(weights)
        assert results["image"]["tags"][group]["miss_rate"] == pytest.approx(miss_rate)
    assert "predictions" not in results and sorted(path.name for path in tmp_path.iterdir()) == ["p.parquet", "r.json"]
    with pytest.raises(ValueError, match="does not exist"):
        main(["--model", model, "--dataset", dataset, "--predictions", str(tmp_path / "no" / "p.parquet")])


# In a terminal


def cut(file: Path):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


DAMAGES = {
    "weights cut": (lambda folder: cut(folder / "model.safetensors"), "model.safetensors is cut or damaged"),
    "config cut": (lambda folder: cut(folder / "config.json"), "config.json is cut or damaged"),
    "tokenizer cut": (lambda folder: cut(folder / "tokenizer.json"), "tokenizer.json is cut or damaged"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors"),
    "no processor": (lambda folder: (folder / "processor_config.json").unlink(), "processor"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "holds no config.json"),
    "config of nothing": (lambda folder: (folder / "config.json").write_text("{}"), "model_type"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_model_is_a_sentence(model, dataset, tmp_path, capsys, damage):
    folder = tmp_path / "mfdn"
    shutil.copytree(model, folder)
    spoil, said = DAMAGES[damage]
    spoil(folder)
    assert evaluate(["--model", str(folder), "--dataset", dataset, "--num_workers", "0"]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ") and said in last, last


@pytest.mark.parametrize(
    "flags, said",
    [
        (["--model", "nonsuch"], "There is no model 'nonsuch'"),
        (["--dataset", "nonsuch"], "Cannot read split 'test' of data set 'nonsuch'"),
        (["--split", "share"], "Cannot read split 'share'"),
        (["--output", "{here}/absent/results.json"], "absent does not exist"),
        (["--output", "{here}"], "found a folder of that name"),
        (["--calibrate"], "--calibrate fits on --split validation"),
        (["--hub_model_id", "a/b"], "go with --push_to_hub"),
    ],
)
def test_what_is_asked_wrongly_is_a_sentence(model, dataset, tmp_path, monkeypatch, capsys, flags, said):
    monkeypatch.chdir(tmp_path)
    flags = [flag.format(here=tmp_path) for flag in flags]
    assert evaluate(["--model", model, "--dataset", dataset, "--num_workers", "0", *flags]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ") and said in last, last


@pytest.mark.parametrize(
    "flags",
    [
        ["--max_images", "0"],
        ["--batch_size", "0"],
        ["--tag_threshold", "2"],
        ["--max_bad_share", "-1"],
        ["--num_workers", "-1"],
    ],
)
def test_numbers_out_of_range_are_refused(model, dataset, flags, capsys):
    with pytest.raises(SystemExit):
        main(["--model", model, "--dataset", dataset, *flags])
    assert flags[0] in capsys.readouterr().err


def test_slots_are_not_aggregated_where_there_are_none(dataset, tmp_path, capsys):
    from modeling_mfdn import MultiLabelConfig, MultiLabelModel

    names = {"id2label": dict(enumerate(CHARACTERS)), "label2id": {name: i for i, name in enumerate(CHARACTERS)}}
    sizes = {"image_size": 16, "patch_size": 8, "hidden_size": 24, "num_attention_heads": 3, "intermediate_size": 40}
    config = MultiLabelConfig(**sizes, **names, num_vision_layers=1, num_fusion_layers=1, num_tags=len(TAGS))
    MultiLabelModel(config).save_pretrained(tmp_path)
    build_processor(config, TAGS).save_pretrained(tmp_path)
    flags = ["--model", str(tmp_path), "--dataset", dataset, "--num_workers", "0"]
    assert evaluate([*flags, "--tag_aggregation", "max"]) == 2
    assert "nothing to aggregate" in capsys.readouterr().err and not (tmp_path / "results.json").exists()
    assert evaluate(flags) == 0


def test_broken_pictures_are_left_out_and_counted(model, dataset, tmp_path, capsys):
    folder = tmp_path / "broken"
    shutil.copytree(dataset, folder)
    (file,) = (folder / "data").glob("test-*")
    rows = Dataset.from_parquet(str(file)).cast_column("image", Image(decode=False))
    table = [row | ({"image": {"bytes": b"GIF89a", "path": None}} if row["post_id"] == 4 else {}) for row in rows]
    Dataset.from_list(table, features=rows.features).cast_column("image", Image()).to_parquet(file)
    flags = ["--model", model, "--dataset", str(folder), "--num_workers", "0", "--output", str(tmp_path / "r.json")]
    assert evaluate(flags) == 2 and "1 of 13 pictures cannot be decoded" in capsys.readouterr().err
    results = main([*flags, "--max_bad_share", "0.1", "--hints"])
    assert (results["num_images"], results["num_broken"]) == (12, 1)
    assert results["hints"]["0"] == pytest.approx(results["image"]["top1_accuracy"])


def test_a_tagger_that_scores_each_character_by_itself_gets_thresholds_and_no_temperature(dataset, tmp_path, capsys):
    from modeling_mfdn import MFDNProcessor, MultiLabelConfig, MultiLabelModel

    sizes = {"image_size": 16, "patch_size": 8, "hidden_size": 24, "num_attention_heads": 3, "intermediate_size": 40}
    names = {"id2label": dict(enumerate(CHARACTERS)), "rating_names": ["general", "explicit"]}
    config = MultiLabelConfig(**sizes, **names, num_vision_layers=1, num_fusion_layers=1, num_tags=len(TAGS))
    MultiLabelModel(config).save_pretrained(tmp_path)
    processor = build_processor(config, TAGS)
    processor.character_activation = "sigmoid"
    processor.save_pretrained(tmp_path)
    flags = ["--model", str(tmp_path), "--dataset", dataset, "--num_workers", "0", "--split", "validation"]
    assert evaluate([*flags, "--errors"]) == 2
    assert "scores each by itself" in capsys.readouterr().err
    assert evaluate([*flags, "--calibrate"]) == 0
    assert "\nThresholds are stored" in capsys.readouterr().out
    stored = MFDNProcessor.from_pretrained(tmp_path)
    assert stored.temperature == 1.0 and len(stored.tag_thresholds) == len(TAGS)
    assert stored.character_activation == "sigmoid" and stored.ratings == ["general", "explicit"]


def test_unseen_characters_are_asked_for_and_what_is_known_is_measured_alone(tmp_path, tiny_model, tiny_processor):
    """A data set with characters that the model does not know is the unseen set, and its known ones are the rest."""
    give_statistics(tiny_model, tiny_processor)
    tiny_model.save_pretrained(tmp_path / "model")
    tiny_processor.save_pretrained(tmp_path / "model")
    characters = [*CHARACTERS, "kiki", "ponyo"]
    rows = [(character, number) for character in (0, 2, 6, 7) for number in range(12)]
    (tmp_path / "danmul" / "data").mkdir(parents=True)
    for split in ("train", "validation", "test"):
        columns = {"post_id": [], "image": [], "character": [], "tags": []}
        for character, number in rows:
            picture_of(character, number + 100 * len(split)).save(content := io.BytesIO(), "PNG")
            columns["post_id"].append(1000 * len(split) + len(columns["post_id"]))
            columns["image"].append({"bytes": content.getvalue(), "path": None})
            columns["character"].append(character)
            columns["tags"].append(["long_hair", "hat"][: number % 3])
        features = Features(
            post_id=Value("int64"), image=Image(), character=ClassLabel(names=characters), tags=List(Value("string"))
        )
        file = tmp_path / "danmul" / "data" / f"{split}-00000-of-00001.parquet"
        Dataset.from_dict(columns, features=features).to_parquet(file)
    argv = ["--model", str(tmp_path / "model"), "--dataset", str(tmp_path / "danmul"), "--num_workers", "0"]
    with pytest.raises(ValueError, match="does not know 2, 'kiki' for example.*--unseen"):
        main(argv)
    main([*argv, "--unseen", str(tmp_path / "danmul")])
    results = json.loads((tmp_path / "model" / "results.json").read_text())
    assert results["num_images"] == 24 and results["open_set"]["num_unseen"] == 72
    assert results["open_set"]["unseen"] == "danmul" and list(results["open_set"]["hints"]) == ["1", "2", "4"]
    assert 0 <= results["open_set"]["fpr95"] <= 1 and results["open_set"]["auroc"] > 0.9
    assert results["few_shot"]["5"].keys() == {"new", "known_joint", "new_joint", "harmonic", "interval", "hints"}
    assert results["few_shot"]["5"]["new"] > 0.8
    assert (tmp_path / "model" / "unseen.png").exists()
    card = (tmp_path / "model" / "README.md").read_text()
    assert "unseen.png" in card and "AUROC" in card
    (tmp_path / "model" / "character_statistics.safetensors").unlink()
    with pytest.raises(ValueError, match="mfdn teach --statistics"):
        main([*argv, "--unseen", str(tmp_path / "danmul")])


def test_an_unseen_data_set_whose_characters_are_all_known_is_refused(tmp_path, tiny_model, tiny_processor, dataset):
    give_statistics(tiny_model, tiny_processor)
    tiny_model.save_pretrained(tmp_path / "model")
    tiny_processor.save_pretrained(tmp_path / "model")
    shutil.copytree(dataset, tmp_path / "danmul")
    shutil.copy(
        tmp_path / "danmul/data/test-00000-of-00001.parquet", tmp_path / "danmul/data/train-00000-of-00001.parquet"
    )
    argv = ["--model", str(tmp_path / "model"), "--dataset", dataset, "--num_workers", "0"]
    with pytest.raises(ValueError, match="the model knows all its characters"):
        main([*argv, "--unseen", str(tmp_path / "danmul")])
