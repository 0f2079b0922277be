"""The systems of Table VI: what they are told, what they answer, and what their losses weigh."""

import pytest
import torch

from modeling_mfdn import Label2LabelConfig, Label2LabelModel, MultiLabelConfig, MultiLabelModel
from modeling_mfdn.configuration_mfdn import IGNORE_INDEX
from modeling_mfdn.modeling_baselines_mfdn import asymmetric_loss, binary_loss, multi_hot

# B = 5, P = 5, C = 6, K = 11, D = 24
SIZES = {
    "image_size": 16,
    "patch_size": 8,
    "hidden_size": 24,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "num_vision_layers": 2,
    "num_fusion_layers": 1,
    "num_tags": 11,
    "num_labels": 6,
    "initializer_range": 0.2,
}
SYSTEMS = [(MultiLabelConfig, MultiLabelModel), (Label2LabelConfig, Label2LabelModel)]
TAG_LABELS = torch.tensor(
    [
        [0, 10, IGNORE_INDEX],
        [3, IGNORE_INDEX, IGNORE_INDEX],
        [IGNORE_INDEX] * 3,
        [1, 2, 3],
        [IGNORE_INDEX, 4, IGNORE_INDEX],
    ]
)


def make(config_class, model_class, **options):
    torch.manual_seed(0)
    return model_class(config_class(**SIZES, **options))


@pytest.mark.parametrize("config_class, model_class", SYSTEMS)
def test_both_heads_answer_and_every_parameter_learns(config_class, model_class):
    model = make(config_class, model_class, hidden_dropout_prob=0.0)
    if config_class is Label2LabelConfig:
        model.config.label_mask_prob = 0.5
    outputs = model(torch.randn(5, 3, 16, 16), labels=torch.arange(5), tag_labels=TAG_LABELS, return_tag_logits=True)
    assert outputs.logits.shape == (5, 6) and outputs.tag_logits.shape == (5, 1, 11)
    torch.testing.assert_close(outputs.loss, outputs.character_loss + outputs.tag_loss)
    outputs.loss.backward()
    assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]


@pytest.mark.parametrize("config_class, model_class", SYSTEMS)
def test_the_output_does_not_depend_on_batch_mates(config_class, model_class):
    model = make(config_class, model_class).eval()
    pixels = torch.randn(5, 3, 16, 16)
    torch.testing.assert_close(model(pixels).tag_logits[:2], model(pixels[:2]).tag_logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("config_class, model_class", SYSTEMS)
def test_a_few_steps_learn_one_batch(config_class, model_class):
    model = make(config_class, model_class, hidden_dropout_prob=0.0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    pixels = torch.randn(5, 3, 16, 16)
    for _ in range(60):
        outputs = model(pixels, labels=torch.arange(5), tag_labels=TAG_LABELS)
        optimizer.zero_grad()
        outputs.loss.backward()
        optimizer.step()
    answers = model(pixels, return_tag_logits=True).tag_logits[:, 0] > 0
    assert (answers == multi_hot(TAG_LABELS, 11)).float().mean() > 0.95


def test_label_tokens_are_masked_in_training_only():
    model = make(Label2LabelConfig, Label2LabelModel, hidden_dropout_prob=0.0, label_mask_prob=1.0)
    states = torch.randn(3, 5, 24)
    with torch.no_grad():
        before = [stage.clone() for stage in model.answer_tags(states)]
        change = torch.randn_like(model.mask_embeddings.weight)  # a constant would be lost in the LayerNorm
        model.mask_embeddings.weight.add_(change)
        after = model.answer_tags(states)
        torch.testing.assert_close(before[0], after[0])  # the first stage has no labels yet
        assert not torch.allclose(before[1], after[1])
        model.eval()
        before = model.answer_tags(states)[1].clone()
        model.mask_embeddings.weight.sub_(change)
        torch.testing.assert_close(before, model.answer_tags(states)[1])


def test_a_last_batch_of_one_post_trains_with_the_statistics_so_far():
    model = make(Label2LabelConfig, Label2LabelModel, hidden_dropout_prob=0.0, label_mask_prob=0.0)
    states = torch.randn(3, 5, 24)
    model.answer_tags(states)
    before = model.label_batch_norm.running_var.clone()
    one = model.answer_tags(states[:1])[1]
    torch.testing.assert_close(one, model.eval().answer_tags(states[:1])[1])
    assert torch.equal(model.label_batch_norm.running_var, before)
    outputs = model.train()(torch.randn(1, 3, 16, 16), labels=torch.tensor([1]), tag_labels=TAG_LABELS[:1])
    outputs.loss.backward()
    assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]


def test_no_gradient_flows_through_hard_labels():
    model = make(Label2LabelConfig, Label2LabelModel, hidden_dropout_prob=0.0)
    model.answer_tags(torch.randn(3, 5, 24))[1].sum().backward()
    assert model.queries.weight.grad is None and model.query_head.weight.grad is None


def test_multi_hot_ignores_what_is_no_tag():
    targets = multi_hot(TAG_LABELS, 11)
    assert [row.nonzero().flatten().tolist() for row in targets] == [[0, 10], [3], [], [1, 2, 3], [4]]


def test_losses_against_their_formulas():
    logits, targets = torch.tensor([[2.0, -1.0, -4.0]]), torch.tensor([[True, False, False]])
    p = logits.sigmoid()[0]
    expected = -(p[0].log() + (1 - p[1]).log() + (1 - p[2]).log())
    torch.testing.assert_close(binary_loss(logits, targets), expected[None])
    shifted = p[1] - 0.05  # p[2] is under the margin: an easy negative
    expected = -(p[0].log() + shifted**4 * (1 - shifted).log())
    torch.testing.assert_close(asymmetric_loss(logits, targets), expected[None])


def test_unknown_loss_is_refused():
    with pytest.raises(Exception, match="tag_loss must be one of"):
        MultiLabelConfig(tag_loss="focal")
