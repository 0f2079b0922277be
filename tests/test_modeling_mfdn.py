import dataclasses

import pytest
import torch

from modeling_mfdn.configuration_mfdn import IGNORE_INDEX, MFDNConfig
from modeling_mfdn.modeling_mfdn import MFDNModel

TOLERANCE = {"atol": 1e-6, "rtol": 1e-5}


@pytest.fixture
def model(tiny_config):
    torch.manual_seed(0)
    model = MFDNModel(tiny_config).eval()
    with torch.no_grad():  # the init is so small that a swapped state would hardly show
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.fixture
def batch(tiny_config):
    """Four posts with as many tags as fit, three of which two are hidden, none, and one."""
    size, slots = tiny_config.image_size, tiny_config.max_tags
    rows = [[2, *range(5, 5 + slots), 3], [2, 4, 9, 4, 3], [2, 3], [2, 14, 3]]
    input_ids = torch.zeros(4, tiny_config.max_tag_tokens, dtype=torch.long)
    for i, row in enumerate(rows):
        input_ids[i, : len(row)] = torch.tensor(row)
    pixel_values = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(1))
    return {"pixel_values": pixel_values, "input_ids": input_ids, "attention_mask": (input_ids != 0).long()}


def hide_all(batch, config):
    input_ids = batch["input_ids"]
    is_tag = input_ids >= config.num_special_tokens
    tag_labels = torch.where(is_tag, input_ids - config.num_special_tokens, IGNORE_INDEX)
    return {**batch, "input_ids": input_ids.masked_fill(is_tag, config.mask_token_id)}, tag_labels


def count_calls(module):
    """Shapes of the inputs that reach `module`."""
    shapes = []
    module.register_forward_hook(lambda module, args, output: shapes.append(tuple(args[0].shape)))
    return shapes


# ------------------------------------------------------------------ outputs
def test_output_shapes(model, batch, tiny_config):
    outputs = model(**batch)
    assert outputs.logits.shape == (4, tiny_config.num_labels)
    assert outputs.tag_logits.shape == (4, tiny_config.max_tag_tokens - 2, tiny_config.num_tags)
    assert outputs.character_embedding.shape == (4, tiny_config.hidden_size)
    assert model(**batch, return_tag_logits=False).tag_logits is None


def test_visible_tags_change_the_character(model, batch):
    assert (model(**batch).logits - model(batch["pixel_values"]).logits).abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("single_tag_query", [False, True])
def test_all_tags_hidden_is_exactly_image_only(model, batch, tiny_config, single_tag_query):
    model.config.single_tag_query = single_tag_query
    hidden, _ = hide_all(batch, tiny_config)
    with_hidden, image_only = model(**hidden), model(batch["pixel_values"])
    assert torch.equal(with_hidden.logits, image_only.logits)
    assert torch.equal(with_hidden.tag_logits, image_only.tag_logits)


@torch.no_grad()
@pytest.mark.parametrize("single_tag_query", [False, True])
def test_output_is_independent_of_batch_mates(model, batch, single_tag_query):
    model.config.single_tag_query = single_tag_query
    together = model(**batch)
    for i in range(4):
        alone = model(**{name: values[i : i + 1] for name, values in batch.items()})
        torch.testing.assert_close(alone.logits[0], together.logits[i], **TOLERANCE)
        torch.testing.assert_close(alone.tag_logits[0], together.tag_logits[i], **TOLERANCE)


@torch.no_grad()
def test_output_is_independent_of_padding(model, batch):
    row = {"pixel_values": batch["pixel_values"][1:2], "input_ids": torch.tensor([[2, 9, 3]])}
    padded = {**row, "input_ids": torch.tensor([[2, 9, 3, 0, 0]]), "attention_mask": torch.tensor([[1, 1, 1, 0, 0]])}
    torch.testing.assert_close(model(**row).logits, model(**padded).logits, **TOLERANCE)
    torch.testing.assert_close(model(**row).tag_logits, model(**padded).tag_logits, **TOLERANCE)


@torch.no_grad()
def test_output_does_not_tell_how_many_tags_are_hidden(model, batch):
    one = {"pixel_values": batch["pixel_values"][:1], "input_ids": torch.tensor([[2, 9, 3]])}
    more = {**one, "input_ids": torch.tensor([[2, 9, 4, 4, 4, 3]])}
    torch.testing.assert_close(model(**one).logits, model(**more).logits, **TOLERANCE)
    torch.testing.assert_close(model(**one).tag_logits, model(**more).tag_logits, **TOLERANCE)


@torch.no_grad()
def test_padding_says_nothing_even_where_its_id_is_a_tag(model, batch):
    clean = {"pixel_values": batch["pixel_values"][:1], "input_ids": torch.tensor([[2, 9, 3, 0]])}
    dirty = {**clean, "input_ids": torch.tensor([[2, 9, 3, 8]]), "attention_mask": torch.tensor([[1, 1, 1, 0]])}
    torch.testing.assert_close(model(**clean).logits, model(**dirty).logits, **TOLERANCE)


@torch.no_grad()
def test_one_query_sees_the_tags_that_are_given(model, batch, tiny_config):
    model.config.single_tag_query = True
    outputs = model(**batch)
    assert outputs.tag_logits.shape == (4, 1, tiny_config.num_tags)
    assert (outputs.tag_logits - model(batch["pixel_values"]).tag_logits)[0].abs().max() > 1e-3


@torch.no_grad()
def test_vision_states_stand_for_the_pictures_whatever_the_tags(model, batch):
    states = model(batch["pixel_values"]).vision_states
    shapes = count_calls(model.vision_embeddings)
    again = model(**batch | {"pixel_values": None}, vision_states=states)
    assert shapes == []
    expected = model(**batch)
    assert torch.equal(again.logits, expected.logits)
    assert torch.equal(again.tag_logits, expected.tag_logits)
    for neither_or_both in ({}, {"pixel_values": batch["pixel_values"], "vision_states": states}):
        with pytest.raises(ValueError, match="either pixel_values or the vision_states"):
            model(**neither_or_both)


# ------------------------------------------------------------------ losses
def test_losses_are_eq_4_5_and_6(model, batch, tiny_config):
    hidden, tag_labels = hide_all(batch, tiny_config)
    labels = torch.tensor([0, 2, 1, 3])
    outputs = model(**hidden, labels=labels, tag_labels=tag_labels)
    log_probabilities = outputs.tag_logits.log_softmax(-1)
    by_post = []
    for post in range(4):
        scored = [
            -log_probabilities[post, slot - 1, label].item()
            for slot, label in enumerate(tag_labels[post].tolist())
            if label != IGNORE_INDEX
        ]
        by_post.append(sum(scored) / len(scored) if scored else 0.0)
    assert outputs.tag_loss.item() == pytest.approx(sum(by_post) / 4, rel=1e-5)
    assert outputs.character_loss.item() == pytest.approx(
        -outputs.logits.log_softmax(-1)[range(4), labels].mean().item(), rel=1e-5
    )
    expected = tiny_config.character_loss_weight * outputs.character_loss + (
        tiny_config.tag_loss_weight * outputs.tag_loss
    )
    assert outputs.loss.item() == pytest.approx(expected.item())


def test_one_query_answers_for_all_hidden_tags_of_a_post(model, batch, tiny_config):
    model.config.single_tag_query = True
    hidden, tag_labels = hide_all(batch, tiny_config)
    shapes = count_calls(model.tag_head)
    tag_loss = model(**hidden, tag_labels=tag_labels, return_tag_logits=False).tag_loss
    assert shapes == [(4, tiny_config.hidden_size)]  # a row a post, not a row a tag
    log_probabilities = model(**hidden).tag_logits.log_softmax(-1)[:, 0]
    by_post = [-log_probabilities[i, row[row != IGNORE_INDEX]].mean() for i, row in enumerate(tag_labels)]
    by_post[2] = torch.tensor(0.0)  # has no tags
    torch.testing.assert_close(tag_loss, torch.stack(by_post).mean())


def test_tag_loss_is_zero_not_nan_when_nothing_is_masked(model, batch):
    tag_labels = torch.full_like(batch["input_ids"], IGNORE_INDEX)
    outputs = model(**batch, labels=torch.zeros(4, dtype=torch.long), tag_labels=tag_labels)
    assert outputs.tag_loss.item() == 0.0
    assert torch.isfinite(outputs.loss)


def test_every_parameter_gets_a_gradient_whatever_is_hidden(model, batch, tiny_config):
    """DistributedDataParallel waits for ever for a parameter that a step leaves out."""
    nothing = batch, torch.full_like(batch["input_ids"], IGNORE_INDEX)
    no_tags = {**batch, "input_ids": torch.tensor([[2, 3]] * 4), "attention_mask": torch.ones(4, 2, dtype=torch.long)}
    no_post_has_tags = no_tags, torch.full((4, 2), IGNORE_INDEX)
    for inputs, tag_labels in (nothing, hide_all(batch, tiny_config), no_post_has_tags):
        model.train().zero_grad()
        outputs = model(**inputs, labels=torch.zeros(4, dtype=torch.long), tag_labels=tag_labels)
        outputs.loss.backward()
        assert torch.isfinite(outputs.loss)
        assert outputs.tag_logits is None
        assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


# ------------------------------------------------------------------ hidden tags cost nothing
def test_text_encoder_works_on_visible_tags_alone(model, batch, tiny_config):
    shapes = count_calls(model.text_encoder)
    model.train()
    model(**batch)
    few = {**batch, "input_ids": batch["input_ids"].clone()}
    few["input_ids"][0, 3 : tiny_config.max_tag_tokens - 1] = tiny_config.mask_token_id
    model(**few)
    hidden, _ = hide_all(batch, tiny_config)
    model(**hidden)
    width = tiny_config.hidden_size
    assert shapes == [(4, tiny_config.max_tag_tokens, width), (4, 2 + 2, width), (1, 2, width)]


def test_kept_states_do_not_stop_gradients(model, batch):
    with torch.no_grad():
        model(batch["pixel_values"])
    model(batch["pixel_values"]).logits.sum().backward()
    assert model.text_encoder.layers[0].mlp.fc1.weight.grad.abs().max() > 0


def test_tag_head_runs_only_where_a_tag_is_scored(model, batch, tiny_config):
    shapes = count_calls(model.tag_head)
    hidden, tag_labels = hide_all(batch, tiny_config)
    model.train()(**hidden, tag_labels=tag_labels)
    assert shapes == [(int((tag_labels != IGNORE_INDEX).sum()), tiny_config.hidden_size)]


# ------------------------------------------------------------------ the rows of Tables IV and V
def test_unimodal_vit_has_no_text_and_no_tags(tiny_config, batch):
    model = MFDNModel(MFDNConfig(**{**tiny_config.to_dict(), "modality": "image"})).eval()
    outputs = model(batch["pixel_values"])
    assert outputs.tag_logits is None
    assert not [name for name, _ in model.named_parameters() if "tag" in name or "text" in name]
    expected = model.character_head(model.vision_features(batch["pixel_values"])[:, 0])
    torch.testing.assert_close(outputs.logits, expected)
    with pytest.raises(ValueError, match="takes pictures alone"):
        model(**batch)


def test_mfdn_without_mlm_reads_tags_and_predicts_none(tiny_config, batch):
    model = MFDNModel(MFDNConfig(**{**tiny_config.to_dict(), "num_decoder_layers": 0})).eval()
    outputs = model(**batch, labels=torch.zeros(4, dtype=torch.long))
    assert outputs.tag_logits is None and outputs.tag_loss is None
    assert outputs.loss == outputs.character_loss
    with pytest.raises(ValueError, match="num_decoder_layers=0"):
        model(**batch, tag_labels=batch["input_ids"])


# ------------------------------------------------------------------ size, attention, checkpointing, compile
def test_paper_size_has_588_million_parameters():
    with torch.device("meta"):
        model = MFDNModel(MFDNConfig())
    count = lambda module: sum(parameter.numel() for parameter in module.parameters())  # noqa: E731
    layer, cross_attention = 12_596_224, 4_200_448  # 4 x 1024² + 2 x 1024 x 4096, biases and norms; + its norm
    assert {name: count(module) for name, module in model.named_children()} == {
        "vision_embeddings": 16 * 16 * 3 * 1024 + 1024 + 1024 + 65 * 1024,
        "vision_encoder": 12 * layer,
        "fusion_encoder": 12 * layer + 2048,
        "pool_norm": 0,
        "character_head": 1025 * 14_413,
        "tag_embeddings": (25_409 + 32) * 1024 + 2048,
        "text_encoder": 12 * layer,
        "tag_decoder": 4 * (layer + cross_attention) + 1024 + 2048,
        "tag_head": 1025 * 25_404,
    }
    assert count(model) == 588_376_969


@torch.no_grad()
def test_eager_and_sdpa_attention_agree(model, batch):
    sdpa = model(**batch)
    model.set_attn_implementation("eager")
    eager = model(**batch, output_attentions=True, output_hidden_states=True)
    torch.testing.assert_close(sdpa.logits, eager.logits, **TOLERANCE)
    torch.testing.assert_close(sdpa.tag_logits, eager.tag_logits, **TOLERANCE)
    tokens = model.config.num_vision_tokens + model.config.max_tag_tokens
    assert [tuple(a.shape) for a in eager.attentions] == [
        (4, model.config.num_attention_heads, tokens, tokens)
    ] * model.config.num_fusion_layers
    assert len(eager.hidden_states) == model.config.num_fusion_layers + 1


def test_gradient_checkpointing_gives_the_same_gradients(model, batch, tiny_config):
    hidden, tag_labels = hide_all(batch, tiny_config)
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable()
        model.train().zero_grad()
        torch.manual_seed(0)
        model(**hidden, labels=torch.zeros(4, dtype=torch.long), tag_labels=tag_labels).loss.backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed, **TOLERANCE)


@torch.no_grad()
def test_image_only_compiles_without_graph_breaks(model, batch):
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(
        compiled(batch["pixel_values"]).logits, model(batch["pixel_values"]).logits, **TOLERANCE
    )


@torch.no_grad()
def test_tags_compile_without_graph_breaks_and_export(model, batch):
    expected = model(**batch)
    inputs = (batch["pixel_values"], batch["input_ids"], batch["attention_mask"])
    for graph in (torch.compile(model, fullgraph=True, backend="eager"), torch.export.export(model, inputs).module()):
        torch.testing.assert_close(graph(*inputs).logits, expected.logits, **TOLERANCE)
        torch.testing.assert_close(graph(*inputs).tag_logits, expected.tag_logits, **TOLERANCE)


@pytest.mark.long
@torch.no_grad()
def test_image_only_compiles_with_inductor(model, batch):
    compiled = torch.compile(model, fullgraph=True)
    outputs, expected = compiled(batch["pixel_values"]), model(batch["pixel_values"])
    torch.testing.assert_close(outputs.logits, expected.logits, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(outputs.tag_logits, expected.tag_logits, atol=1e-5, rtol=1e-4)


def test_bfloat16_runs_and_stays_close(model, batch):
    with torch.no_grad():
        expected = model(**batch).logits
        low = model.to(torch.bfloat16)(**batch).logits  # float pixels, as the processor gives them
        same = model(**{**batch, "pixel_values": batch["pixel_values"].bfloat16()}).logits
    assert low.dtype == torch.bfloat16 and torch.equal(low, same)
    assert (low.float() - expected).abs().max() < 0.1 * expected.abs().max()


def test_save_and_load_keep_every_output(model, batch, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = MFDNModel.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(loaded(**batch).logits, model(**batch).logits)
        assert torch.equal(loaded(**batch).tag_logits, model(**batch).tag_logits)


def test_every_parameter_is_initialised_when_weights_are_missing(tiny_config, tmp_path):
    """from_pretrained builds on meta: what no init rule covers would hold whatever the memory held."""
    model = MFDNModel(tiny_config)
    left_out = ("vision_embeddings.cls_token", "vision_embeddings.position_embeddings", "tag_decoder.mask_vector")
    state = {name: value for name, value in model.state_dict().items() if name not in left_out}
    model.save_pretrained(tmp_path, state_dict=state)
    loaded = dict(MFDNModel.from_pretrained(tmp_path).named_parameters())
    for name in left_out:
        assert 0.2 * tiny_config.initializer_range < loaded[name].std() < 2 * tiny_config.initializer_range


# ------------------------------------------------------------------ bad input
def test_wrong_picture_size_is_said(model, tiny_config):
    with pytest.raises(ValueError, match=rf"\[batch, 3, {tiny_config.image_size}, .*got \[2, 3, 7, 9\]"):
        model(torch.zeros(2, 3, 7, 9))


def test_too_many_tokens_are_said(model, batch, tiny_config):
    too_many = torch.full((4, tiny_config.max_tag_tokens + 1), 5)
    most = tiny_config.max_tag_tokens
    with pytest.raises(ValueError, match=f"at most {most}.*got {most + 1}"):
        model(batch["pixel_values"], too_many)


def test_output_fields_are_documented():
    from modeling_mfdn.modeling_mfdn import MFDNOutput

    for field in dataclasses.fields(MFDNOutput):
        assert field.name in MFDNOutput.__doc__
