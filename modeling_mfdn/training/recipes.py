"""Model sizes, and recipes: the flags that differ from the paper's."""

import argparse
from collections.abc import Iterable, Sequence

from .files import public_name

MODEL_SIZES = {
    "large": {},  # MFDNConfig() is the paper, §IV: 588 M parameters
    "base": {  # ViT-B
        "hidden_size": 768,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "num_vision_layers": 6,
        "num_text_layers": 6,
        "num_fusion_layers": 6,
        "num_decoder_layers": 2,
    },
    "small": {
        "hidden_size": 384,
        "num_attention_heads": 6,
        "intermediate_size": 1536,
        "num_vision_layers": 6,
        "num_text_layers": 6,
        "num_fusion_layers": 6,
        "num_decoder_layers": 4,
    },
    "tiny": {
        "image_size": 48,
        "patch_size": 8,
        "hidden_size": 128,
        "num_attention_heads": 4,
        "intermediate_size": 512,
        "num_vision_layers": 3,
        "num_text_layers": 1,
        "num_fusion_layers": 3,
        "num_decoder_layers": 1,
        "hidden_dropout_prob": 0.0,
        "initializer_range": 0.08,  # about 1 / sqrt(hidden_size); 0.02 is for widths near 1,024 and learns 3x slower
    },
}

# Paper: SGD at 1e-3 for 50 epochs from ImageNet-21k weights, all tags hidden from half of the run on. Here, only where
# nothing else was asked for: AdamW from scratch, all tags hidden from 0.15 on, because the embedded set has 1,400
# training images, two cores and ten minutes: half of that is too short to learn to see without tags. Validation
# chose: of the holds that cost the image alone nothing, the latest (model_cards/results/README.md).
QUICK_RECIPE = {
    "model_size": "tiny",
    "optim": "adamw_torch_fused",
    "optim_args": None,
    "learning_rate": 1.5e-3,
    "mask_hold_from": 0.15,
    "tag_loss_weight": 0.2,  # at 1 the clipped gradient is mostly that of the tags
    # Drawn hair is red, orange or blonde by a few degrees of hue: 0.1 turns would paint one character as another.
    "color_jitter": [0.3, 0.2, 0.2, 0.02],
    "crop_share": [0.7, 1.0],  # evaluation shows whole pictures: crops of 0.8 alone never show that size
    "weight_decay": 0.05,
    "max_grad_norm": 1.0,
    "num_train_epochs": 50,
    "per_device_train_batch_size": 32,
    "eval_strategy": "steps",
    "eval_steps": 0.1,
    "save_strategy": "steps",
    "save_steps": 0.2,
    "dataloader_num_workers": 1,
    "dataloader_persistent_workers": True,
    "evaluate_test": True,
}

# Beyond the paper, on top of either: each step shows every picture with a random share of its tags, to the end, and
# once more without any, learning from the first pass. From the image alone it is level with a ViT of as many steps,
# which costs less than half: model_cards/results/README.md.
BOTH_ENDS_RECIPE = {
    "mask_schedule": "per_post",
    "mask_peak": 0.0,
    "image_pass_weight": 1.0,
    "distillation_weight": 1.0,
}

# From weights that can see already. Validation chose, against `quick` from the same trunk at equal steps: nearly whole
# pictures, as evaluation shows them; rates, schedules, averages and rests: model_cards/results/README.md. The rate was
# measured at width 128 and goes with 1 / width, as Adam's should (Yang et al. 2022, Tensor Programs V): 2.5e-4 for
# ViT-B, 1.9e-4 for ViT-L, where it was not measured.
FINETUNE_RECIPE = {name: value for name, value in QUICK_RECIPE.items() if name != "model_size"} | {
    "rate_width": 128,
    "crop_share": [0.95, 1.0],
    "num_train_epochs": 25,
}

RECIPES = {"paper": {}, "quick": QUICK_RECIPE, "finetune": FINETUNE_RECIPE, "both_ends": BOTH_ENDS_RECIPE}

# Flags of transformers.TrainingArguments that say how a model was trained. Only these, our own, and none else are
# written beside the weights: others hold tokens, addresses and folders.
TRAINER_FLAGS = {
    "optim",
    "optim_args",
    "learning_rate",
    "weight_decay",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "max_grad_norm",
    "num_train_epochs",
    "max_steps",
    "warmup_steps",
    "label_smoothing_factor",
    "seed",
    "data_seed",
    "per_device_train_batch_size",
    "per_device_eval_batch_size",
    "gradient_accumulation_steps",
    "gradient_checkpointing",
    "bf16",
    "fp16",
    "tf32",
    "use_cpu",
    "torch_compile",
    "eval_strategy",
    "eval_steps",
    "save_strategy",
    "save_steps",
    "logging_steps",
    "dataloader_num_workers",
    "dataloader_persistent_workers",
    "load_best_model_at_end",
    "metric_for_best_model",
    "disable_tqdm",
}
FOLDER_FLAGS = {"dataset", "vision_weights"}


def recorded_flags(parser: argparse.ArgumentParser, argv: Sequence[str], own_flags: Iterable[str]) -> list[str]:
    """The flags of a command line that may be read by everybody, in the parser's order: our own and `TRAINER_FLAGS`;
    folders by their last part."""
    for action in parser._actions:  # then only what was asked for is in the namespace
        action.default = argparse.SUPPRESS
    given = vars(parser.parse_args(list(argv)))
    found = []
    for name in given.keys() & (set(own_flags) | TRAINER_FLAGS):
        values = given[name] if isinstance(given[name], list) else [given[name]]
        found.append([f"--{name}", *(public_name(str(v)) if name in FOLDER_FLAGS else str(v) for v in values)])
    order = {name: place for place, name in enumerate(given)}
    return [word for flag in sorted(found, key=lambda flag: order[flag[0][2:]]) for word in flag]
