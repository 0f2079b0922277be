"""The loss of a training step, put together by hand from the model's own outputs."""

import pytest
import torch
from datasets import Dataset
from torch.nn.functional import cross_entropy

from modeling_mfdn.data.collator import MFDNCollator
from modeling_mfdn.data.hidden_tags import hide_tags
from modeling_mfdn.training.schedules import MaskScheduler
from modeling_mfdn.training.trainer import MFDNTrainer, MFDNTrainingArguments


@pytest.fixture
def make_trainer(tiny_model, tags, tmp_path):
    """A trainer whose model has no dropout, so that two passes over one batch agree."""

    def make(**arguments) -> MFDNTrainer:
        args = MFDNTrainingArguments(output_dir=str(tmp_path), use_cpu=True, seed=3, eval_strategy="no", **arguments)
        collator = MFDNCollator(tiny_model.config, tags, training=False)
        return MFDNTrainer(
            model=tiny_model,
            args=args,
            train_dataset=Dataset.from_list([{"post_id": 1}]),
            data_collator=collator,
            eval_collator=collator,
            mask_scheduler=MaskScheduler("constant", peak=0.5),
        )

    return make


@pytest.fixture
def batch(tiny_config) -> dict:
    """3 posts of 5, 3 and no tags."""
    ids = [[2, 5, 6, 7, 8, 9, 3], [2, 10, 11, 12, 3, 0, 0], [2, 3, 0, 0, 0, 0, 0]]
    return {
        "pixel_values": torch.randn(3, 3, 16, 16),
        "input_ids": torch.tensor(ids),
        "attention_mask": (torch.tensor(ids) != 0).long(),
        "labels": torch.tensor([4, 0, 2]),
    }


def step_loss(trainer: MFDNTrainer, batch: dict) -> torch.Tensor:
    trainer.mask_scheduler.on_step_begin(None, trainer.state, None)
    return trainer.compute_loss(trainer.model.eval(), dict(batch))


def test_by_default_a_step_is_one_pass_with_the_mask_ratio_of_the_schedule(make_trainer, batch):
    trainer = make_trainer()
    loss = step_loss(trainer, batch)
    trainer._micro_step = (-1, 0)
    generator = trainer._next_generator(torch.device("cpu"))
    input_ids, tag_labels = hide_tags(batch["input_ids"], 0.5, trainer.model.config, generator)
    assert loss == trainer.model(**batch | {"input_ids": input_ids, "tag_labels": tag_labels}).loss


def test_the_pass_without_tags_adds_its_losses_and_what_it_learns_from_the_pass_with_tags(make_trainer, batch):
    trainer = make_trainer()
    plain = step_loss(trainer, batch)
    config, model = trainer.model.config, trainer.model
    _, all_tags = hide_tags(batch["input_ids"], 1.0, config)
    alone = model(pixel_values=batch["pixel_values"], labels=batch["labels"], tag_labels=all_tags)
    with_pass = step_loss(make_trainer(image_pass_weight=0.7), batch)
    torch.testing.assert_close(with_pass, plain + 0.7 * alone.loss)

    trainer._micro_step = (-1, 0)
    generator = trainer._next_generator(torch.device("cpu"))
    input_ids, _ = hide_tags(batch["input_ids"], 0.5, config, generator)
    teacher = model(pixel_values=batch["pixel_values"], input_ids=input_ids, attention_mask=batch["attention_mask"])
    distilled = -(teacher.logits.softmax(1) * alone.logits.log_softmax(1)).sum(1).mean()
    both = step_loss(make_trainer(image_pass_weight=0.7, distillation_weight=2.0), batch)
    torch.testing.assert_close(both, plain + 0.7 * (alone.loss + 2.0 * distilled))

    soft = -((teacher.logits / 3).softmax(1) * (alone.logits / 3).log_softmax(1)).sum(1).mean()
    arguments = {"image_pass_weight": 0.7, "distillation_weight": 2.0, "distillation_temperature": 3.0}
    torch.testing.assert_close(step_loss(make_trainer(**arguments), batch), plain + 0.7 * (alone.loss + 18.0 * soft))


def test_label_smoothing_smooths_the_character_of_both_passes_and_no_tag(make_trainer, batch):
    """transformers' own flag, which its Trainer would drop here without a word."""
    plain = step_loss(make_trainer(image_pass_weight=0.7), batch)
    trainer = make_trainer(image_pass_weight=0.7, label_smoothing_factor=0.2)
    smoothed = step_loss(trainer, batch)
    trainer._micro_step = (-1, 0)
    generator = trainer._next_generator(torch.device("cpu"))
    input_ids, _ = hide_tags(batch["input_ids"], 0.5, trainer.model.config, generator)
    pictures, labels = {"pixel_values": batch["pixel_values"]}, batch["labels"]
    expected = plain
    for weight, tags in ((1.0, {"input_ids": input_ids, "attention_mask": batch["attention_mask"]}), (0.7, {})):
        logits = trainer.model(**pictures, **tags).logits
        expected += weight * (cross_entropy(logits, labels, label_smoothing=0.2) - cross_entropy(logits, labels))
    torch.testing.assert_close(smoothed, expected)


def test_the_pass_with_tags_learns_nothing_from_the_pass_without(make_trainer, batch):
    """Distillation reaches the text branch through no path: the teacher's prediction is a constant."""
    trainer = make_trainer(image_pass_weight=1.0, distillation_weight=5.0)
    with_teacher = text_gradient(trainer, batch)
    without = text_gradient(make_trainer(image_pass_weight=1.0), batch)
    torch.testing.assert_close(with_teacher, without)


def text_gradient(trainer: MFDNTrainer, batch: dict) -> torch.Tensor:
    """Of the embedding of a tag, which the pass without tags never reads."""
    trainer.model.zero_grad()
    step_loss(trainer, batch).backward()
    return trainer.model.tag_embeddings.tag_embeddings.weight.grad[5:].clone()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"distillation_weight": 1.0}, "--image_pass_weight"),
        ({"distillation_temperature": 2.0}, "--distillation_weight"),
        ({"distillation_temperature": 0.0}, "above 0"),
    ],
)
def test_distillation_flags_that_would_mean_nothing_are_refused(make_trainer, arguments, named):
    with pytest.raises(ValueError, match=named):
        make_trainer(**arguments)
