"""Rates by depth, averaged weights, a trunk that rests: what each does, and that a run resumes."""

import json

import pytest
import torch
from safetensors.torch import load_file
from test_train_mfdn import danmul, tiny_model_size, train  # noqa: F401  # fixtures
from test_vision_weights import SMALL, started_from, timm_folder

from modeling_mfdn import MFDNConfig
from modeling_mfdn.training.finetuning import decayed_groups

FLAGS = ["--optim", "adamw_torch", "--optim_args", "", "--weight_decay", "0.1", "--rate_schedule", "cosine"]
FLAGS += ["--layer_decay", "0.5", "--ema_decay", "0.9", "--freeze_trunk", "0.5"]


def rates_of(model, layer_decay=0.5):
    groups = decayed_groups(model, 1.0, 0.1, layer_decay)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {names[id(p)]: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert found.keys() == set(names.values())
    return found


def test_each_layer_below_the_answer_learns_more_slowly(tiny_model):
    rates = rates_of(tiny_model)  # patch embedding, 2 vision, 3 fusion layers, answer
    assert rates["character_head.weight"] == (1.0, 0.1) and rates["tag_decoder.layers.0.mlp.fc1.weight"] == (1.0, 0.1)
    for layer, rate in (("fusion_encoder.layers.2", 2**-1), ("fusion_encoder.layers.0", 2**-3)):
        assert rates[f"{layer}.mlp.fc1.weight"] == (rate, 0.1)
    assert rates["vision_encoder.layers.1.mlp.fc1.weight"] == (2**-4, 0.1)
    assert rates["vision_encoder.layers.0.norm1.weight"] == (2**-5, 0.0)
    assert rates["vision_embeddings.patch_embed.weight"] == (2**-6, 0.1)
    for name in ("vision_embeddings.cls_token", "vision_embeddings.position_embeddings"):
        assert rates[name] == (2**-6, 0.0)
    assert rates["tag_decoder.mask_vector"] == (1.0, 0.0)


def test_the_blocks_of_a_trunk_are_layers_too(tmp_path):
    timm_folder(tmp_path / "vit", "eva02_base_patch14_224", **SMALL | {"img_size": 28, "patch_size": 7})
    rates = rates_of(started_from(tmp_path / "vit")[0])  # stem, 5 blocks, 4 fusion layers, answer
    assert rates["trunk.timm_model.patch_embed.proj.weight"][0] == 2**-10
    assert rates["trunk.timm_model.blocks.0.mlp.fc1_g.weight"][0] == 2**-9
    assert rates["trunk.timm_model.blocks.4.mlp.fc2.weight"][0] == 2**-5
    assert rates["fusion_encoder.layers.3.mlp.fc2.weight"][0] == 2**-1


@pytest.fixture(scope="module")
def finetuned(danmul, tmp_path_factory):  # noqa: F811
    folder = tmp_path_factory.mktemp("run") / "tuned"
    with pytest.MonkeyPatch.context() as monkeypatch:
        from test_train_mfdn import TINY_MODEL

        import train_mfdn

        monkeypatch.setitem(train_mfdn.MODEL_SIZES, "tiny", TINY_MODEL)
        train(danmul, folder, *FLAGS)
    return folder


def test_the_image_stack_rests_for_its_share_of_the_steps(finetuned):
    first, last = (load_file(finetuned / f"checkpoint-{step}" / "model.safetensors") for step in (5, 12))
    config = MFDNConfig.from_pretrained(finetuned)
    assert config.num_vision_layers
    moved = {name.split(".")[0] for name in first if not torch.equal(first[name], last[name])}
    assert {"vision_embeddings", "vision_encoder", "fusion_encoder", "character_head"} <= moved
    torch.manual_seed(0)
    start = load_file(finetuned / "checkpoint-5" / "ema.safetensors")
    for name, tensor in first.items():
        if name.startswith(("vision_", "fusion_")):  # the average of what did not move
            torch.testing.assert_close(start[name], tensor)
    assert not torch.equal(start["character_head.weight"], first["character_head.weight"])


def test_what_is_saved_is_the_average(finetuned):
    saved, average, raw = (
        load_file(finetuned / name)
        for name in ("model.safetensors", "checkpoint-12/ema.safetensors", "checkpoint-12/model.safetensors")
    )
    assert saved.keys() == average.keys()
    for name, tensor in saved.items():
        torch.testing.assert_close(tensor, average[name], rtol=0, atol=0)
    assert not torch.equal(saved["character_head.weight"], raw["character_head.weight"])


@pytest.mark.parametrize("checkpoint", [5, 10])
def test_a_resumed_run_has_the_very_weights_of_the_unbroken_one(finetuned, danmul, tmp_path, checkpoint):  # noqa: F811
    asked = ["--resume_from_checkpoint", str(finetuned / f"checkpoint-{checkpoint}")]
    train(danmul, tmp_path / "resumed", *FLAGS, *asked)
    unbroken, resumed = (load_file(path / "model.safetensors") for path in (finetuned, tmp_path / "resumed"))
    assert [name for name in unbroken if not torch.equal(unbroken[name], resumed[name])] == []


def test_an_average_cannot_be_resumed_from_a_run_that_had_none(danmul, tmp_path):  # noqa: F811
    train(danmul, tmp_path, "--max_steps", "6")
    with pytest.raises(ValueError, match="holds no ema.safetensors: its run had no --ema_decay"):
        train(danmul, tmp_path, "--ema_decay", "0.9", "--resume_from_checkpoint", "last")


def test_the_recipe_starts_from_weights_and_takes_its_rate_from_their_width(finetuned, danmul, tmp_path):  # noqa: F811
    import train_mfdn

    flags = ["--dataset", str(danmul), "--recipe", "finetune", "--output_dir", str(tmp_path / "next"), "--use_cpu"]
    flags += ["--max_steps", "3", "--warmup_steps", "0", "--logging_steps", "1", "--dataloader_num_workers", "0"]
    flags += ["--eval_strategy", "no", "--save_strategy", "no", "--evaluate_test", "False"]
    with pytest.raises(ValueError, match="--recipe finetune needs --vision_weights"):
        train_mfdn.main(flags)
    train_mfdn.main([*flags, "--vision_weights", str(finetuned)])
    history = json.loads((tmp_path / "next" / "trainer_state.json").read_text())["log_history"]
    assert history[0]["learning_rate"] == pytest.approx(1.5e-3 * 128 / 12)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--rate_width", "-1"], "--rate_width must not be negative"),
        (["--layer_decay", "1.5"], "--layer_decay must lie in"),
        (["--ema_decay", "0.9", "--load_best_model_at_end", "--eval_steps", "5"], "choose one"),
        (["--freeze_trunk", "-1"], "--freeze_trunk must lie in"),
    ],
)
def test_senseless_flags_are_refused(danmul, tmp_path, flags, message):  # noqa: F811
    with pytest.raises(ValueError, match=message):
        train(danmul, tmp_path, *flags)
