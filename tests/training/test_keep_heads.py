"""Last month's model is this month's start: names that both know keep their rows, whatever their new order."""

import pytest
import torch

from modeling_mfdn import (
    Label2LabelConfig,
    Label2LabelModel,
    MFDNConfig,
    MFDNModel,
    MultiLabelConfig,
    MultiLabelModel,
)
from modeling_mfdn.training.keep_heads import keep_heads
from modeling_mfdn.training.tag_tokenizer import build_processor
from modeling_mfdn.training.vision_weights import fill, read_vision_weights

SYSTEMS = [(MFDNConfig, MFDNModel), (MultiLabelConfig, MultiLabelModel), (Label2LabelConfig, Label2LabelModel)]
NEW_CHARACTERS = ["amiya", "saber", "rem_(re:zero)", "hatsune_miku", "new_one", "asuka_langley", "kaname_madoka", "zz"]


def saved(config_class, model_class, tiny_config, tags, folder, **changes):
    old = model_class(config_class(**{**tiny_config.to_diff_dict(), "auto_map": None, **changes})).eval()
    with torch.no_grad():
        for parameter in old.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    old.save_pretrained(folder)
    build_processor(old.config, tags).save_pretrained(folder)
    return old


def grown_model(config_class, model_class, folder, tags, **changes):
    weights = read_vision_weights(str(folder), changes.pop("image_size", None))
    names = {"id2label": dict(enumerate(NEW_CHARACTERS)), "num_tags": len(tags), "max_tag_tokens": 7}
    model = model_class(config_class(**weights.config | names | changes)).eval()
    fill(model, weights)
    return model


@pytest.mark.parametrize(("config_class", "model_class"), SYSTEMS, ids=lambda value: value.__name__)
@torch.no_grad()
def test_old_names_are_scored_as_before_and_new_ones_never_win(config_class, model_class, tiny_config, tags, tmp_path):
    old = saved(config_class, model_class, tiny_config, tags, tmp_path / "old")
    new_tags = ["new_tag", *reversed(tags[2:]), "another"]
    model = grown_model(config_class, model_class, tmp_path / "old", new_tags)
    assert keep_heads(model, str(tmp_path / "old"), new_tags) == (5, 9)
    pixel_values = torch.randn(40, 3, 16, 16)
    before, after = old(pixel_values), model(pixel_values)
    old_names = list(old.config.id2label.values())
    for label, name in enumerate(NEW_CHARACTERS):
        if name in old_names:
            torch.testing.assert_close(after.logits[:, label], before.logits[:, old_names.index(name)])
    both = [label for label, name in enumerate(old_names) if name in NEW_CHARACTERS]
    among_old = before.logits.argmax(dim=1)
    kept = [row for row in range(40) if int(among_old[row]) in both]
    assert len(kept) > 10
    for row in kept:
        assert NEW_CHARACTERS[after.logits[row].argmax()] == old_names[among_old[row]]
    for label, tag in enumerate(new_tags):
        if tag in tags and model_class is MultiLabelModel:
            torch.testing.assert_close(after.tag_logits[:, 0, label], before.tag_logits[:, 0, tags.index(tag)])


@torch.no_grad()
def test_hints_of_old_tags_mean_what_they_meant(tiny_config, tags, tmp_path):
    old = saved(MFDNConfig, MFDNModel, tiny_config, tags, tmp_path / "old")
    new_tags = ["new_tag", *reversed(tags)]
    model = grown_model(MFDNConfig, MFDNModel, tmp_path / "old", new_tags)
    assert keep_heads(model, str(tmp_path / "old"), new_tags) == (5, 11)
    pixel_values = torch.randn(2, 3, 16, 16)
    hints = ["smile", "blush"]
    rows = [[2, *(5 + vocabulary.index(tag) for tag in hints), 4, 3] for vocabulary in (tags, new_tags)]
    before, after = (each(pixel_values, torch.tensor([row] * 2)) for each, row in zip((old, model), rows, strict=True))
    label = NEW_CHARACTERS.index("saber")
    torch.testing.assert_close(
        after.logits[:, label], before.logits[:, list(old.config.id2label.values()).index("saber")]
    )
    torch.testing.assert_close(after.tag_logits[..., new_tags.index("hat")], before.tag_logits[..., tags.index("hat")])


@pytest.mark.parametrize("number", [24, 7, 2], ids=["as many as the width", "as the slots", "slots less special"])
def test_what_merely_has_as_many_rows_as_there_are_tags_stays(tiny_config, tmp_path, number):
    tags = [f"tag_{i}" for i in range(number)]
    old = saved(MFDNConfig, MFDNModel, tiny_config, tags, tmp_path / "old", num_tags=number)
    model = grown_model(MFDNConfig, MFDNModel, tmp_path / "old", tags[::-1])
    assert keep_heads(model, str(tmp_path / "old"), tags[::-1]) == (5, number)
    for part in ("norm.weight", "norm.bias", "position_embeddings.weight"):
        name = f"tag_embeddings.{part}"
        assert torch.equal(model.get_parameter(name), old.get_parameter(name))
    rows, old_rows = (each.tag_embeddings.tag_embeddings.weight for each in (model, old))
    assert torch.equal(rows[5:], old_rows[5:].flip(0)) and torch.equal(rows[:5], old_rows[:5])


def test_another_system_and_another_modality_are_refused(tiny_config, tags, tmp_path):
    saved(MultiLabelConfig, MultiLabelModel, tiny_config, tags, tmp_path / "other")
    model = grown_model(MFDNConfig, MFDNModel, tmp_path / "other", tags)
    with pytest.raises(ValueError, match="no model of the same --system"):
        keep_heads(model, str(tmp_path / "other"), tags)
    saved(MFDNConfig, MFDNModel, tiny_config, tags, tmp_path / "vit", modality="image")
    model = grown_model(MFDNConfig, MFDNModel, tmp_path / "vit", tags)
    with pytest.raises(ValueError, match="of another modality"):
        keep_heads(model, str(tmp_path / "vit"), tags)
