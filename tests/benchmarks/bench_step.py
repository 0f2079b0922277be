"""What hidden tags cost: time of a training step and of inference at several mask ratios, as ratios in one run.

    python tests/benchmarks/bench_step.py --model_size small --output bench_step.json

The reference (1.00) is the same model with nothing hidden. Variants take turns, so that a machine that slows down
slows all of them; figures are medians of ratios within a round.
"""

import argparse
import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from rounds import measure

from modeling_mfdn import MFDNConfig, MFDNModel
from modeling_mfdn.data.hidden_tags import hide_tags
from modeling_mfdn.training.recipes import MODEL_SIZES

RATIOS = (0.0, 0.5, 1.0)


def make_batch(config: MFDNConfig, batch_size: int, tags_per_post: int) -> dict[str, torch.Tensor]:
    """Posts of the same number of tags (the paper's mean is 24), which is the worst case for packing nothing."""
    generator = torch.Generator().manual_seed(0)
    input_ids = torch.full((batch_size, config.max_tag_tokens), config.pad_token_id)
    input_ids[:, 0] = config.cls_token_id
    shape = (batch_size, tags_per_post)
    input_ids[:, 1 : tags_per_post + 1] = torch.randint(
        config.num_special_tokens, config.vocab_size, shape, generator=generator
    )
    input_ids[:, tags_per_post + 1] = config.sep_token_id
    pixels = torch.randn(batch_size, 3, config.image_size, config.image_size, generator=generator)
    return {
        "pixel_values": pixels,
        "input_ids": input_ids,
        "attention_mask": (input_ids != config.pad_token_id).long(),
        "labels": torch.randint(config.num_labels, (batch_size,), generator=generator),
    }


def training_step(model: MFDNModel, batch: dict, ratio: float) -> None:
    input_ids, tag_labels = hide_tags(batch["input_ids"], ratio, model.config)
    model(**{**batch, "input_ids": input_ids}, tag_labels=tag_labels).loss.backward()
    model.zero_grad()


def inference(model: MFDNModel, batch: dict, ratio: float | None, tags: bool) -> None:
    inputs = {"pixel_values": batch["pixel_values"]}
    if ratio is not None:
        inputs["input_ids"], _ = hide_tags(batch["input_ids"], ratio, model.config)
        inputs["attention_mask"] = batch["attention_mask"]
    with torch.inference_mode():
        model(**inputs, return_tag_logits=tags)


def main(argv: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_size", choices=list(MODEL_SIZES), default="small")
    parser.add_argument("--num_tags", type=int, default=25_404, help="tag vocabulary (default: the paper's)")
    parser.add_argument("--num_labels", type=int, default=14_413, help="characters (default: the paper's)")
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--tags_per_post", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", help="write the figures to this JSON file")
    args = parser.parse_args(argv)

    torch.manual_seed(0)
    sizes = {"num_tags": args.num_tags, "num_labels": args.num_labels}
    model = MFDNModel(MFDNConfig(**MODEL_SIZES[args.model_size], **sizes))
    batch = make_batch(model.config, args.batch_size, args.tags_per_post)
    model.train()
    training = measure({f"mask ratio {r:g}": lambda r=r: training_step(model, batch, r) for r in RATIOS}, args.rounds)
    model.eval()
    slots = {f"mask ratio {r:g}": lambda r=r: inference(model, batch, r, True) for r in RATIOS}
    slots["image only"] = lambda: inference(model, batch, None, True)
    slots["image only, one tag query"] = lambda: one_query(model, batch)
    slots["image only, character alone"] = lambda: inference(model, batch, None, False)
    args_that_matter = {name: value for name, value in vars(args).items() if name != "output"}
    results = {**args_that_matter, "threads": torch.get_num_threads(), "training_step": training}
    results["inference"] = measure(slots, args.rounds)
    for stage in ("training_step", "inference"):
        print(f"\n| {stage.replace('_', ' ')} | time / hiding nothing | ms an image |\n|---|---|---|")
        for name, figures in results[stage].items():
            print(f"| {name} | {figures['ratio']:.2f} | {1000 * figures['seconds'] / args.batch_size:.1f} |")
    if args.output:
        Path(args.output).write_text(json.dumps(results, indent=2) + "\n")
    return results


def one_query(model: MFDNModel, batch: dict) -> None:
    model.config.single_tag_query = True
    inference(model, batch, None, True)
    model.config.single_tag_query = False


if __name__ == "__main__":
    main()
