"""How tags should fill the slots, and how slots become one score a tag (left open by the paper), on validation.

    python tests/benchmarks/compare_tag_slots.py --dataset danmul_more --output tag_slots.json \\
        random=mfdn alphabetical=mfdn_alphabetical frequency=mfdn_frequency

Each ORDER=FOLDER is a model trained with `--tag_order ORDER`. The figure is the mean average precision over all tags
from the image alone. "one query" asks a single hidden slot (`config.single_tag_query`) instead of all T - 2.
"""

import argparse
import json
import sys
from pathlib import Path

from accelerate import Accelerator
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).parents[2]))

from evaluate_mfdn import label_map
from modeling_mfdn import MFDNModel, MFDNProcessor
from modeling_mfdn.data.collator import MFDNCollator
from modeling_mfdn.data.dataset import load_split, read_characters
from modeling_mfdn.evaluation.predictions import evaluate_model

AGGREGATIONS = {"noisy-or": "noisy_or", "max": "max", "mean": "mean", "one query": "noisy_or"}


def main(argv: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="ORDER=FOLDER")
    parser.add_argument("--dataset", default="danmul")
    parser.add_argument("--split", default="validation")
    parser.add_argument("--output", help="write the figures to this JSON file")
    args = parser.parse_args(argv)
    accelerator = Accelerator()
    rows = load_split(args.dataset, args.split)
    figures = {}
    for entry in args.models:
        order, folder = entry.split("=", 1)
        model = MFDNModel.from_pretrained(folder).to(accelerator.device)
        config = model.config
        ids = list(range(config.num_special_tokens, config.vocab_size))
        tags = MFDNProcessor.from_pretrained(folder).tokenizer.convert_ids_to_tokens(ids)
        labels = label_map(read_characters(rows), [config.id2label[label] for label in range(config.num_labels)])
        collator = MFDNCollator(config, tags, training=False, tag_order=order.split(",")[0], label_map=labels)
        figures[order] = {}
        for name, aggregation in AGGREGATIONS.items():
            model.config.single_tag_query = name == "one query"
            loader = accelerator.prepare_data_loader(DataLoader(rows, batch_size=64, collate_fn=collator))
            results = evaluate_model(model, loader, accelerator, tag_aggregation=aggregation, progress=False)
            figures[order][name] = results["image"]["tags"]["all"]["mean_average_precision"]
        print(order, {name: round(value, 4) for name, value in figures[order].items()}, flush=True)
    if args.output:
        Path(args.output).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return figures


if __name__ == "__main__":
    main()
