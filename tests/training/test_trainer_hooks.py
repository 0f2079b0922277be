"""The documented parts of transformers' Trainer, on ours."""

import numpy as np
import pytest
import torch
from transformers import AutoModel, Trainer, TrainerCallback, TrainingArguments

from modeling_mfdn.data.collator import MFDNCollator
from modeling_mfdn.evaluation.predictions import evaluate_model
from modeling_mfdn.training.schedules import MaskScheduler
from modeling_mfdn.training.trainer import MFDNTrainer, MFDNTrainingArguments


@pytest.fixture
def make_trainer(tiny_model, tags, rows, tmp_path):
    def make(eval_dataset=rows, further=None, **options) -> MFDNTrainer:
        flags = {"eval_strategy": "no", "save_strategy": "no", "max_steps": 2} | (further or {})
        args = MFDNTrainingArguments(
            str(tmp_path), use_cpu=True, report_to="none", disable_tqdm=True, dataloader_num_workers=0, **flags
        )
        return MFDNTrainer(
            model=tiny_model,
            args=args,
            train_dataset=rows,
            eval_dataset=eval_dataset,
            data_collator=MFDNCollator(tiny_model.config, tags, training=True),
            eval_collator=MFDNCollator(tiny_model.config, tags, training=False),
            evaluate_model=evaluate_model,
            mask_scheduler=MaskScheduler("constant", peak=0.5),
            **options,
        )

    return make


def test_predict_gives_the_logits_of_every_picture_and_its_metrics(make_trainer, rows):
    found = make_trainer().predict(rows)
    assert found.predictions.shape == (4, 6) and found.label_ids.tolist() == [1, 2, 3, 4]
    accuracy = float((found.predictions.argmax(axis=1) == found.label_ids).mean())
    assert found.metrics["test_image_top1_accuracy"] == accuracy
    assert "test_loss" in found.metrics and "test_runtime" in found.metrics


def test_the_loaders_of_evaluation_do_not_augment_and_are_let_go(make_trainer, rows):
    trainer = make_trainer()
    batch = next(iter(trainer.get_eval_dataloader()))
    assert "tag_targets" in batch and "num_broken" not in batch
    before = len(trainer.accelerator._dataloaders)
    metrics = [trainer.evaluate() for _ in range(3)]
    assert len(trainer.accelerator._dataloaders) == before
    assert metrics[0]["eval_loss"] == metrics[2]["eval_loss"] and metrics[0]["eval_runtime"] >= 0


def test_several_data_sets_are_evaluated_by_name_and_none_is_a_sentence(make_trainer, rows):
    metrics = make_trainer(eval_dataset={"old": rows, "new": rows.select([0])}).evaluate()
    assert {"eval_old_image_top1_accuracy", "eval_new_loss"} <= set(metrics)
    with pytest.raises(ValueError, match="eval_dataset"):
        make_trainer(eval_dataset=None).evaluate()


def test_metrics_of_the_user_are_computed_from_logits_and_labels(make_trainer):
    seen = []

    def compute_metrics(found):
        seen.append(found)
        return {"mine": float(np.mean(found.predictions.argmax(axis=1) == found.label_ids))}

    metrics = make_trainer(compute_metrics=compute_metrics).evaluate()
    assert seen[0].predictions.shape == (4, 6) and metrics["eval_mine"] == metrics["eval_image_top1_accuracy"]


def test_callbacks_hear_of_every_batch_of_evaluation(make_trainer):
    class Counter(TrainerCallback):
        steps = 0

        def on_prediction_step(self, *args, **kwargs):
            self.steps += 1

    counter = Counter()
    make_trainer(callbacks=[counter], further={"per_device_eval_batch_size": 3}).evaluate()
    assert counter.steps == 2


def test_an_attempt_that_did_not_fit_leaves_no_losses(make_trainer):
    trainer = make_trainer()
    trainer._losses["character_loss"] = ["of the failed attempt"]
    trainer.train()
    assert trainer.state.global_step == 2


def test_a_stock_trainer_trains_the_model_with_its_processor(tiny_model, tiny_processor, pictures, tmp_path):
    """As somebody trains any classifier: no class of ours but the model and its processor."""
    posts = [{"picture": picture, "label": label} for label, picture in enumerate(pictures)]

    def collate(posts):
        inputs = tiny_processor(images=[post["picture"] for post in posts], tags=[["smile"]] * len(posts))
        return {**inputs, "labels": torch.tensor([post["label"] for post in posts])}

    args = TrainingArguments(
        str(tmp_path),
        max_steps=20,
        learning_rate=3e-3,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        label_names=["labels"],  # of the two kinds that the model takes
        save_steps=20,
    )
    trainer = Trainer(tiny_model, args, collate, posts, posts, compute_metrics=lambda found: {"ran": 1.0})
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    after = trainer.evaluate()
    assert after["eval_loss"] < before and after["eval_ran"] == 1.0
    saved = AutoModel.from_pretrained(tmp_path / "checkpoint-20")
    assert torch.equal(saved.character_head.weight, tiny_model.character_head.weight)
