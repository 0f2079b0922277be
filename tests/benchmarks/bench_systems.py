"""What a training step of each system of Table V costs, as ratios in one run: the base of 'at equal compute'.

    python tests/benchmarks/bench_systems.py --model_size tiny --output bench_systems.json

The reference (1.00) is the unimodal ViT. Losses are those of `MFDNTrainer`, backward pass included; MFDN stands there
with half of its tags hidden and, as for most of its training, with all. Variants take turns.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from bench_step import make_batch
from rounds import report_steps

from modeling_mfdn import MFDNConfig, MFDNModel
from modeling_mfdn.data.collator import MFDNCollator
from modeling_mfdn.training.recipes import BOTH_ENDS_RECIPE, MODEL_SIZES
from modeling_mfdn.training.schedules import MaskScheduler
from modeling_mfdn.training.trainer import MFDNTrainer, MFDNTrainingArguments

BOTH_ENDS = (
    BOTH_ENDS_RECIPE["mask_schedule"],
    BOTH_ENDS_RECIPE["mask_peak"],
    {name: BOTH_ENDS_RECIPE[name] for name in ("image_pass_weight", "distillation_weight")},
)
VARIANTS = {  # changes of the configuration, mask schedule, its peak, flags of the second pass
    "unimodal ViT": ({"modality": "image"}, "none", None, {}),
    "MFDN without MLM": ({"num_decoder_layers": 0}, "none", None, {}),
    "MFDN, half of the tags hidden": ({}, "constant", 0.5, {}),
    "MFDN, all tags hidden": ({}, "constant", 1.0, {}),
    "MFDN, all tags hidden, --single_tag_query": ({"single_tag_query": True}, "constant", 1.0, {}),
    "MFDN, --recipe both_ends": ({}, *BOTH_ENDS),
    "MFDN, --recipe both_ends --single_tag_query": ({"single_tag_query": True}, *BOTH_ENDS),
}


def training_step(args: argparse.Namespace, changes: dict, schedule: str, peak: float | None, passes: dict):
    """A function without arguments that runs one step of a new model, but for the optimizer."""
    torch.manual_seed(0)
    config = MFDNConfig(**MODEL_SIZES[args.model_size], num_tags=793, num_labels=43)
    batch = make_batch(config, args.batch_size, 24)
    config.update(changes)
    model = MFDNModel(config)
    model.set_attn_implementation(args.attn_implementation)
    collator = MFDNCollator(config, [f"tag_{i}" for i in range(config.num_tags)], training=False)
    folder = tempfile.gettempdir()  # nothing is written
    trainer = MFDNTrainer(
        model=model.train(),
        args=MFDNTrainingArguments(folder, use_cpu=True, eval_strategy="no", report_to="none", **passes),
        data_collator=collator,
        eval_collator=collator,
        mask_scheduler=MaskScheduler(schedule, peak=peak),
    )
    trainer.state.max_steps = 1
    trainer.mask_scheduler.on_step_begin(None, trainer.state, None)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
            loss = trainer.compute_loss(model, dict(batch))
        loss.backward()
        model.zero_grad()

    return step


def main(argv: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_size", choices=list(MODEL_SIZES), default="tiny")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--bf16", action="store_true", help="autocast to bfloat16")
    parser.add_argument("--attn_implementation", choices=["sdpa", "eager"], default="sdpa")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--output", help="write the figures to this JSON file")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    steps = {name: training_step(args, *variant) for name, variant in VARIANTS.items()}
    return report_steps(args, steps)


if __name__ == "__main__":
    main()
