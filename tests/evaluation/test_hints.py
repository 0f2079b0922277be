"""The curve between image only and all tags: its ends are the two modalities, and more hints keep the earlier ones."""

import json

import pytest
import torch
from test_evaluate_mfdn import dataset, model, run, save_model  # noqa: F401  (fixtures)

from modeling_mfdn import MFDNConfig
from modeling_mfdn.data.hidden_tags import show_some

CONFIG = MFDNConfig(num_tags=8, max_tag_tokens=7, num_labels=6)


def test_its_ends_are_the_two_modalities(model, dataset, tmp_path):  # noqa: F811
    output = tmp_path / "results.json"
    results = run("--model", model, "--dataset", dataset, "--hints", "--output", str(output))
    hints = json.loads(output.read_text())["hints"]
    assert list(hints) == ["0", "1", "2", "4", "8", "16", "all"]
    assert hints["0"] == pytest.approx(results["image"]["top1_accuracy"])
    assert hints["all"] == hints["16"] == pytest.approx(results["image+tags"]["top1_accuracy"])


def test_more_hints_keep_the_earlier_ones_and_hide_the_rest():
    ids = torch.tensor([[2, 9, 10, 11, 12, 3, 0], [2, 7, 3, 0, 0, 0, 0]])
    shown = []
    for number in range(5):
        some = show_some(ids, torch.tensor([5, 6]), CONFIG, number)
        shown.append([{tag for tag in row if tag >= 5} for row in some.tolist()])
        assert [len(tags) for tags in shown[-1]] == [min(number, 4), min(number, 1)]
        assert torch.equal(some[:, 0], ids[:, 0]) and (some == 4).sum() == 5 - sum(map(len, shown[-1]))
    assert all(fewer[0] <= more[0] for fewer, more in zip(shown, shown[1:], strict=False))


def test_a_model_without_text_has_no_hints(dataset, tmp_path):  # noqa: F811
    vit = save_model(tmp_path / "vit", modality="image")
    with pytest.raises(ValueError, match="takes pictures alone"):
        run("--model", vit, "--dataset", dataset, "--hints", "--output", str(tmp_path / "results.json"))
