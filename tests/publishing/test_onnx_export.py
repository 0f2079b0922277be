"""ONNX graphs: equal to PyTorch for any batch and any model, whole or not there."""

import csv
import errno
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from modeling_mfdn import MFDNModel, MultiLabelConfig, MultiLabelModel, commands
from modeling_mfdn.publishing import onnx_export
from modeling_mfdn.publishing.onnx_export import example_inputs, open_graph, run_graph
from modeling_mfdn.training import files as saving
from modeling_mfdn.training.tag_tokenizer import build_processor


@pytest.fixture
def save(tmp_path):
    def save(model, processor) -> str:
        model.save_pretrained(tmp_path / "model")
        processor.save_pretrained(tmp_path / "model")
        return str(tmp_path / "model")

    return save


def main(argv: list[str]) -> int:
    return commands.main(["export", *argv])


def export(model_folder, output, *flags) -> dict:
    assert main(["--model", model_folder, "--output", str(output), *flags]) == 0
    return json.loads((output / "onnx.json").read_text())["graphs"]


def test_both_graphs_equal_pytorch_on_any_batch(tiny_model, tiny_processor, save, tmp_path, characters, tags):
    tiny_processor.temperature = 2.5
    output = tmp_path / "onnx"
    report = export(save(tiny_model, tiny_processor), output)
    assert set(report) == {"model", "model_with_tags"}
    for batch_size in (1, 3, 8):
        pixels, input_ids, attention_mask = example_inputs(tiny_model, batch_size, True)
        with torch.no_grad():
            outputs = tiny_model(pixels, input_ids, attention_mask)
        session = open_graph(output / "model_with_tags.onnx")
        logits, scores, embedding = run_graph(session, (pixels, input_ids, attention_mask))
        assert [entry.name for entry in session.get_outputs()] == ["logits", "tag_scores", "picture_embedding"]
        torch.testing.assert_close(embedding, outputs.picture_embedding, atol=1e-4, rtol=1e-5)
        torch.testing.assert_close(logits, outputs.logits / 2.5, atol=1e-4, rtol=0)
        tokens = [tiny_processor.tokenizer.convert_ids_to_tokens(row.tolist(), True) for row in input_ids]
        wanted, _ = tiny_processor.tag_scores(outputs.tag_logits, tokens)
        torch.testing.assert_close(scores, wanted, atol=1e-4, rtol=0)
        # Nothing given: the graph with tags is the graph without.
        none = torch.zeros_like(input_ids) + torch.tensor([2, 3, 0, 0, 0, 0, 0])
        alone = run_graph(open_graph(output / "model.onnx"), (pixels,))
        empty = run_graph(open_graph(output / "model_with_tags.onnx"), (pixels, none, (none != 0).long()))
        for found, wanted in zip(empty, alone, strict=True):
            torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)
    rows = list(csv.reader((output / "selected_tags.csv").open(encoding="utf-8")))
    assert rows[0] == ["tag_id", "name", "category", "count"]
    assert [row[1] for row in rows[1:]] == [*tags, *characters] and {row[2] for row in rows[1:12]} == {"0"}
    preprocess = json.loads((output / "preprocess.json").read_text())
    assert preprocess["characters"] == characters and preprocess["image_size"] == 16
    assert preprocess["resample"] == {2: "bilinear", 3: "bicubic"}[tiny_processor.image_processor.resample]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "aggregation"),
    [
        ({"modality": "image"}, "mean"),
        ({"num_decoder_layers": 0}, "max"),
        ({"single_tag_query": True}, "max"),
        ({}, "mean"),
    ],
    ids=str,
)
def test_every_kind_of_model_exports(tiny_config, tags, save, tmp_path, options, aggregation):
    config = type(tiny_config)(**(tiny_config.to_dict() | options))
    processor = build_processor(config, tags)
    processor.tag_aggregation = aggregation
    report = export(save(MFDNModel(config), processor), tmp_path / "onnx")
    assert len(report) == (1 if config.modality == "image" else 2)


@pytest.mark.slow
def test_a_multi_label_classifier_exports_with_its_tags(tiny_config, tags, save, tmp_path):
    sizes = (
        "image_size",
        "patch_size",
        "hidden_size",
        "num_attention_heads",
        "intermediate_size",
        "num_vision_layers",
        "num_fusion_layers",
        "num_tags",
        "max_tag_tokens",
        "id2label",
    )
    config = MultiLabelConfig(**{name: getattr(tiny_config, name) for name in sizes})
    model = MultiLabelModel(config).eval()
    export(save(model, build_processor(config, tags)), tmp_path / "onnx")
    pixels = torch.randn(3, 3, 16, 16)
    _, scores, _ = run_graph(open_graph(tmp_path / "onnx" / "model.onnx"), (pixels,))
    with torch.no_grad():
        torch.testing.assert_close(scores, model(pixels).tag_logits[:, 0].sigmoid(), atol=1e-4, rtol=0)


@pytest.mark.long
def test_large_weights_lie_beside_and_int8_is_smaller(tiny_model, tiny_processor, save, tmp_path, monkeypatch):
    folder = save(tiny_model, tiny_processor)
    report = export(folder, tmp_path / "int8", "--int8")["model"]
    assert report["model_int8"]["bytes"] < report["model"]["bytes"]
    assert report["model_int8"]["largest_difference"] > report["model"]["largest_difference"]  # measured, not copied
    monkeypatch.setattr(onnx_export, "MAX_BYTES", 1000)
    export(folder, tmp_path / "large")
    assert (tmp_path / "large" / "model.onnx.data").stat().st_size > 10_000


def test_a_graph_that_differs_is_never_written(tiny_model, tiny_processor, save, tmp_path, monkeypatch, capsys):
    folder = save(tiny_model, tiny_processor)
    monkeypatch.setattr(onnx_export, "TOLERANCE", -1.0)
    assert main(["--model", folder, "--output", str(tmp_path / "onnx")]) == 2
    assert "differs from PyTorch" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_a_full_disk_is_said_with_the_room_it_takes(tiny_model, tiny_processor, save, tmp_path, monkeypatch, capsys):
    folder = save(tiny_model, tiny_processor)
    needed = 2 * 4 * sum(parameter.numel() for parameter in tiny_model.parameters())  # two graphs
    with monkeypatch.context() as patch:
        patch.setattr(saving.shutil, "disk_usage", lambda path: SimpleNamespace(free=needed - 1))
        assert main(["--model", folder, "--output", str(tmp_path / "onnx")]) == 2
    assert f"{needed / 1e6:,.1f} MB" in capsys.readouterr().err

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(onnx_export.torch.onnx, "export", full)
    assert main(["--model", folder, "--output", str(tmp_path / "onnx")]) == 2
    assert "onnx is full; nothing was written there" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_model_that_is_not_there_is_named_and_nothing_is_fetched(tmp_path, capsys):
    assert main(["--model", "nonsuch", "--output", str(tmp_path / "onnx")]) == 2
    assert capsys.readouterr().err.startswith("error: There is no model 'nonsuch': there is no such folder here")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("command", "source"), [("export", "--model"), ("page", "--onnx")])
def test_a_folder_of_anything_else_is_never_replaced(tmp_path, capsys, command, source):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "holiday.jpg").write_bytes(b"mine")
    for flags in ([], ["--overwrite"]):
        assert commands.main([command, source, "nowhere", "--output", str(tmp_path / "pictures"), *flags]) == 2
        assert "was not written by this command" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["holiday.jpg"]


def test_an_earlier_export_is_replaced_only_when_told_to(tmp_path, capsys):
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "onnx.json").write_text("{}")
    assert main(["--model", "nowhere", "--output", str(tmp_path / "onnx")]) == 2
    assert "--overwrite" in capsys.readouterr().err and Path(tmp_path, "onnx", "onnx.json").exists()
