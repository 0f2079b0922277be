"""What a model says follows from its weights of this moment, in whatever way they were changed.

A store of the text states of "no tags" once outlived every step of a fused optimizer: validation within training, and
the results that training wrote, mixed two models.
"""

import pytest
import torch
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from transformers import Trainer, TrainingArguments
from transformers.training_args import OptimizerNames

from modeling_mfdn import MFDNModel
from modeling_mfdn.data.collator import MFDNCollator
from modeling_mfdn.evaluation.predictions import evaluate_model
from modeling_mfdn.training.schedules import MaskScheduler
from modeling_mfdn.training.trainer import MFDNTrainer, MFDNTrainingArguments


def is_offered(name: str) -> bool:
    """Whether transformers has this optimizer here, without further packages."""
    try:
        Trainer.get_optimizer_cls_and_kwargs(TrainingArguments("unused", optim=name, use_cpu=True))
    except (ImportError, ValueError):
        return False
    return True


OFFERED = [name.value for name in OptimizerNames if is_offered(name.value)]
FUSED = {"fused SGD": torch.optim.SGD, "fused Adagrad": torch.optim.Adagrad, "fused Adam": torch.optim.Adam}


@pytest.fixture
def make_trainer(tiny_model, tags, rows, tmp_path):
    """Two steps of training on four posts, with validation after each."""

    def make(optim="sgd", **further) -> MFDNTrainer:
        args = MFDNTrainingArguments(
            str(tmp_path),
            use_cpu=True,
            optim=optim,
            optim_args=None,
            learning_rate=0.1,
            warmup_steps=0,
            max_steps=2,
            eval_strategy="steps",
            eval_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_num_workers=0,
        )
        return MFDNTrainer(
            model=tiny_model,
            args=args,
            train_dataset=rows,
            eval_dataset=rows,
            data_collator=MFDNCollator(tiny_model.config, tags, training=True),
            evaluate_model=evaluate_model,
            eval_collator=MFDNCollator(tiny_model.config, tags, training=False),
            mask_scheduler=MaskScheduler("constant", peak=0.5),
            **further,
        )

    return make


@pytest.fixture
def pixel_values() -> torch.Tensor:
    return torch.randn(2, 3, 16, 16)


@torch.no_grad()
def logits(model: MFDNModel, pixel_values: torch.Tensor) -> torch.Tensor:
    """Both heads' answers without tags, in one row a picture."""
    outputs = model.eval()(pixel_values=pixel_values)
    return torch.cat([outputs.logits, outputs.tag_logits.flatten(1)], dim=1)


def test_the_optimizers_that_the_recipes_name_are_among_those_that_are_tried():
    assert {"sgd", "adamw_torch_fused", "adamw_torch"} <= set(OFFERED)


def scores(metrics: dict) -> dict:
    return {name: value for name, value in metrics.items() if not name.endswith(("runtime", "per_second"))}


@pytest.mark.parametrize("optimizer", [*OFFERED, *FUSED])
def test_validation_within_training_is_that_of_the_saved_model(make_trainer, optimizer, tmp_path):
    if optimizer in FUSED:
        trainer = make_trainer()
        fused = FUSED[optimizer](trainer.model.parameters(), lr=0.1, fused=True)
        trainer = make_trainer(optimizers=(fused, None))
    else:
        trainer = make_trainer(optimizer)
    before = trainer.evaluate()["eval_image_character_loss"]
    trainer.train()
    within = scores(trainer.evaluate())
    trainer.model.save_pretrained(tmp_path / "saved")
    trainer.model = MFDNModel.from_pretrained(tmp_path / "saved")
    assert scores(trainer.evaluate()) == within
    assert within["eval_image_character_loss"] != before, "this optimizer took no step: the test says nothing"


def change_by_data(model):
    for parameter in model.text_encoder.parameters():
        parameter.data.copy_(parameter.data * 0.5 + 0.1)


def change_by_vector(model):
    vector_to_parameters(parameters_to_vector(model.parameters()) * 0.5 + 0.1, model.parameters())


def change_embeddings_in_place(model):
    with torch.no_grad():
        model.tag_embeddings.tag_embeddings.weight += 0.3


def change_by_hook(model):
    model.text_encoder.register_forward_hook(lambda module, inputs, output: output * 3)


@pytest.mark.parametrize("change", [change_by_data, change_by_vector, change_embeddings_in_place, change_by_hook])
def test_a_changed_text_branch_changes_the_next_answer(tiny_model, pixel_values, change):
    before = logits(tiny_model, pixel_values)
    change(tiny_model)
    after = logits(tiny_model, pixel_values)
    assert not torch.equal(before, after)
    if change is not change_by_hook:
        fresh = MFDNModel(tiny_model.config)
        fresh.load_state_dict(tiny_model.state_dict())
        assert torch.equal(after, logits(fresh, pixel_values))


def test_adapters_are_heard_when_they_are_switched(tiny_model, pixel_values):
    """As peft does it: the base weights stay untouched, a flag says whether an adapter's part is added."""
    peft = pytest.importorskip("peft")
    target = ["text_encoder.layers.0.mlp.fc1", "text_encoder.layers.0.attention.q_proj"]
    plain = logits(tiny_model, pixel_values)
    config = peft.LoraConfig(target_modules=target, init_lora_weights=False)
    model = peft.get_peft_model(tiny_model, config, adapter_name="first")
    model.add_adapter("second", config)
    answers = {}
    for name in ("first", "second"):
        model.set_adapter(name)
        answers[name] = logits(model, pixel_values)
    with model.disable_adapter():
        assert torch.equal(logits(model, pixel_values), plain)
    assert not torch.equal(answers["first"], answers["second"]) and not torch.equal(answers["first"], plain)
    model.set_adapter("second")
    assert torch.equal(logits(model, pixel_values), answers["second"])


def test_a_model_made_under_inference_mode_can_be_called(tiny_config, pixel_values):
    torch.manual_seed(5)
    expected = MFDNModel(tiny_config)
    torch.manual_seed(5)
    with torch.inference_mode():
        model = MFDNModel(tiny_config)
        inside = logits(model, pixel_values)
    assert torch.equal(inside, logits(expected, pixel_values))
    assert torch.equal(logits(model, pixel_values), inside)
