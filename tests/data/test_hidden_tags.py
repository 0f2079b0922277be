import pytest
import torch

from modeling_mfdn.configuration_mfdn import IGNORE_INDEX
from modeling_mfdn.data.hidden_tags import hide_tags, step_generator

CPU = torch.device("cpu")
INPUT_IDS = torch.tensor([[2, 5, 6, 7, 8, 9, 3], [2, 10, 3, 0, 0, 0, 0], [2, 3, 0, 0, 0, 0, 0]])  # 5, 1 and 0 tags


@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.5, 1.0])
def test_share_of_hidden_tags_is_exact_in_expectation_for_any_number_of_tags(tiny_config, ratio):
    generator = torch.Generator().manual_seed(0)
    many = INPUT_IDS.repeat(2000, 1)
    input_ids, _ = hide_tags(many, ratio, tiny_config, generator)
    hidden = (input_ids == tiny_config.mask_token_id).sum(1).view(2000, 3).double()
    assert hidden.mean(0).tolist() == pytest.approx([5 * ratio, ratio, 0.0], abs=0.05)
    assert (hidden[:, 0] - 5 * ratio).abs().max() < 1  # never more than one tag from the exact share


def test_special_tokens_are_never_hidden(tiny_config):
    input_ids, tag_labels = hide_tags(INPUT_IDS, 1.0, tiny_config)
    special = INPUT_IDS < tiny_config.num_special_tokens
    assert torch.equal(input_ids[special], INPUT_IDS[special])
    assert (tag_labels[special] == IGNORE_INDEX).all()


def test_labels_are_the_hidden_tags_without_special_tokens(tiny_config):
    input_ids, tag_labels = hide_tags(INPUT_IDS, 0.5, tiny_config, torch.Generator().manual_seed(1))
    is_hidden = input_ids == tiny_config.mask_token_id
    assert torch.equal(tag_labels != IGNORE_INDEX, is_hidden)
    assert torch.equal(tag_labels[is_hidden], INPUT_IDS[is_hidden] - tiny_config.num_special_tokens)
    assert torch.equal(input_ids[~is_hidden], INPUT_IDS[~is_hidden])


def test_ratio_may_differ_from_post_to_post(tiny_config):
    input_ids, _ = hide_tags(INPUT_IDS, torch.tensor([0.0, 1.0, 1.0]), tiny_config)
    assert (input_ids == tiny_config.mask_token_id).sum(1).tolist() == [0, 1, 0]


def test_step_generator_depends_on_every_part_of_where_training_stands():
    draw = lambda *place: torch.rand(3, generator=step_generator(*place, CPU)).tolist()  # noqa: E731
    places = [(0, 1, 0, 0), (1, 1, 0, 0), (0, 2, 0, 0), (0, 1, 1, 0), (0, 1, 0, 1)]
    assert draw(*places[0]) == draw(*places[0])
    assert len({tuple(draw(*place)) for place in places}) == len(places)
