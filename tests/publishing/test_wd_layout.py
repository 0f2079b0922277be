"""`mfdn export --layout wd`: read as front ends of WD taggers read theirs, it says what the pipeline says."""

import csv
import json

import numpy as np
import pytest
import torch
from character_factory import picture_of
from conftest import CHARACTERS, TAGS
from PIL import Image

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

import onnxruntime

from modeling_mfdn import MultiLabelConfig, MultiLabelModel, commands
from modeling_mfdn.pictures_mfdn import pad_to_square
from modeling_mfdn.training.tag_tokenizer import build_processor


def export(model, output, *flags) -> int:
    return commands.main(["export", "--model", str(model), "--output", str(output), "--layout", "wd", *flags])


def as_a_front_end(folder, images) -> tuple[list[dict], np.ndarray]:
    """Rows of selected_tags.csv and scores [B, N], by the steps that the front ends share."""
    with (folder / "selected_tags.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    _, height, width, channels = given.shape
    assert (height, width, channels) == (16, 16, 3)
    batch = []
    for image in images:
        side = max(image.size)
        square = Image.new("RGB", (side, side), (255, 255, 255))
        square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
        batch.append(np.asarray(square, np.float32)[:, :, ::-1])
    return rows, session.run([session.get_outputs()[0].name], {given.name: np.stack(batch)})[0]


@pytest.fixture(scope="session")
def exported(models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wd") / "out"
    assert export(models / "model", folder) == 0
    return folder


def test_a_front_end_reads_the_scores_of_the_pipeline(exported, pipeline):
    images = [picture_of(0, 30).resize((16, 11)), picture_of(4, 30).resize((16, 16))]
    images.append(pad_to_square(picture_of(9, 30)).resize((16, 16), pipeline.processor.image_processor.resample))
    rows, scores = as_a_front_end(exported, images)
    assert [row["name"] for row in rows[:4]] == ["general", "sensitive", "questionable", "explicit"]
    assert [row["category"] for row in rows] == ["9"] * 4 + ["0"] * len(TAGS) + ["4"] * (len(CHARACTERS) + 1)
    assert [row["name"] for row in rows[4:]] == [*TAGS, *CHARACTERS, "kiki"]
    counts = {row["name"]: int(row["count"]) for row in rows}
    assert counts["1girl"] == 100 and counts["hatsune_miku"] == 50 and counts["holo"] == 7
    assert (scores[:, :4] == 0).all(), "this model names no ratings"
    for image, row in zip(images, scores, strict=True):
        wanted = pipeline(image, top_k=7, tag_threshold=0.0)
        found = dict(zip([entry["name"] for entry in rows], row.tolist(), strict=True))
        for kind in ("characters", "tags"):
            for entry in wanted[kind]:
                assert found[entry["label"]] == pytest.approx(entry["score"], abs=1e-4)
    assert scores[2, -1] > 0.5, "kiki, who was taught"


def test_one_graph_one_vector_any_batch_and_what_older_programs_load(exported):
    import onnx

    session = onnxruntime.InferenceSession(exported / "model.onnx", providers=["CPUExecutionProvider"])
    assert len(session.get_outputs()) == 1
    for number in (1, 2, 7):
        (scores,) = session.run(None, {"input": np.zeros((number, 16, 16, 3), np.float32)})
        assert scores.shape == (number, 4 + len(TAGS) + len(CHARACTERS) + 1) and (0 <= scores).all()
    proto = onnx.load(exported / "model.onnx")
    assert proto.ir_version <= 9 and proto.opset_import[0].version <= 19
    report = json.loads((exported / "onnx.json").read_text())
    assert report["layout"] == "wd" and report["graphs"]["model"]["model"]["largest_difference"] < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(
    "ratings", [["general", "sensitive", "questionable", "explicit"], ["explicit", "safe"]], ids=str
)
def test_ratings_of_a_model_that_names_them_come_first_and_are_four(tiny_config, tags, tmp_path, ratings):
    sizes = (
        "image_size patch_size hidden_size num_attention_heads intermediate_size num_vision_layers num_fusion_layers"
    )
    known = {name: getattr(tiny_config, name) for name in [*sizes.split(), "num_tags", "max_tag_tokens", "id2label"]}
    config = MultiLabelConfig(**known, rating_names=ratings)
    model, processor = MultiLabelModel(config).eval(), build_processor(config, tags)
    processor.character_activation = "sigmoid"
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    assert export(tmp_path / "model", tmp_path / "wd", "--embeddings") == 0
    image = picture_of(3, 2).resize((16, 16))
    rows, scores = as_a_front_end(tmp_path / "wd", [image])
    names = [row["name"] for row in rows]
    assert names[: len(ratings)] == ratings and len({*names[:4]}) == 4 and rows[4]["category"] == "0"
    with torch.no_grad():
        wanted = model(**processor(images=[image])).rating_logits.sigmoid()[0]
    assert scores[0, : len(ratings)] == pytest.approx(wanted.numpy(), abs=1e-4)
    session = onnxruntime.InferenceSession(tmp_path / "wd" / "model.onnx", providers=["CPUExecutionProvider"])
    assert session.get_outputs()[1].shape[1] == 2 * tiny_config.hidden_size


@pytest.mark.parametrize("flags", [["--int8"], ["--fp16"]])
def test_what_goes_with_another_layout_is_refused(models, tmp_path, capsys, flags):
    assert export(models / "model", tmp_path / "wd", *flags) == 2
    assert "one graph, in float32" in capsys.readouterr().err and not (tmp_path / "wd").exists()
