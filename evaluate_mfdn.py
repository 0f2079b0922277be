"""Evaluate a trained MFDN on one split: characters and tags, from the image alone and from the image with tags."""

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from modeling_mfdn.training.terminal import check_model_name, command_line, count, positive, score

EXAMPLE = """example (one minute on a laptop, after `accelerate launch train_mfdn.py`):
  python evaluate_mfdn.py --model mfdn --dataset danmul --split test --max_images 200
several processes:
  accelerate launch evaluate_mfdn.py --model mfdn --dataset danmul
"""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="folder written by train_mfdn.py, or its id on the Hub")
    parser.add_argument("--dataset", default="danmul", help="data set folder or Hub id (default: %(default)s)")
    parser.add_argument(
        "--split",
        default="test",
        choices=["train", "validation", "test", "share"],
        help="on validation, also the best tag threshold is searched; share = Dan:share (default: %(default)s)",
    )
    parser.add_argument("--batch_size", type=positive, default=64, help="images a pass and device (default: 64)")
    parser.add_argument("--num_workers", type=count, default=2, help="processes that decode (default: %(default)s)")
    parser.add_argument("--max_images", type=positive, help="only the first so many images of the split")
    parser.add_argument(
        "--max_bad_share",
        type=score,
        default=0.01,
        help="images that cannot be decoded are left out and named; more than this share is an error (default: 0.01)",
    )
    parser.add_argument(
        "--output", help="JSON to write (default: results.json in the model folder; results_SPLIT.json unless test)"
    )
    parser.add_argument(
        "--tag_aggregation",
        choices=["noisy_or", "max", "mean"],
        help="how the tag slots become one score a tag (default: as saved with the model)",
    )
    parser.add_argument(
        "--tag_threshold",
        type=score,
        help="score in [0, 1] from which a tag is predicted, for Hamming error and F1 (default: as saved)",
    )
    parser.add_argument(
        "--calibrate",
        action="store_true",
        help="on validation: fit a temperature for characters and a threshold for each tag, stored with the model",
    )
    parser.add_argument(
        "--predictions",
        metavar="FILE.parquet",
        help="also write what was named for each picture, one row a picture, and how far it lies from the mean of its "
        "character",
    )
    parser.add_argument(
        "--hints", action="store_true", help="also the accuracy with 0, 1, 2, 4, 8, 16 and all true tags given"
    )
    parser.add_argument(
        "--unseen",
        metavar="DATASET",
        help="also how pictures of characters that the model does not know are met: those of DATASET, all splits. Are "
        "they refused, and are they learnt from 1, 2, 5 and 10 pictures? For a model that was trained with "
        "--leave_out_characters, the same data set",
    )
    parser.add_argument(
        "--errors",
        action="store_true",
        help="also accuracy by the number of training images and the most confused characters, with pictures of both",
    )
    parser.add_argument(
        "--trained_on", metavar="DATASET", help="of --errors: whose train split counts images (default: DATASET)"
    )
    parser.add_argument(
        "--push_to_hub", action="store_true", help="upload the --model folder with these results and a fresh card"
    )
    parser.add_argument("--hub_model_id", help="NAME/REPOSITORY to upload to (default: the folder's name)")
    parser.add_argument("--hub_dataset_id", help="the data set on the Hub, for the leaderboard entry")
    parser.add_argument(
        "--tag_order",
        choices=["random", "alphabetical", "frequency"],
        help="how given tags fill the slots (default: as saved with the model, which is as in training)",
    )
    return parser


def label_map(
    data_characters: Sequence[str], model_characters: Sequence[str], allow_unknown: bool = False
) -> list[int] | None:
    """See [`map_labels`].

    Raises:
        ValueError: the data set has characters that the model does not know, unless that is allowed.
    """
    from modeling_mfdn.data.dataset import map_labels

    known = set(model_characters)
    unknown = [name for name in data_characters if name not in known]
    if unknown and not allow_unknown:
        raise ValueError(
            f"The model knows {len(known)} characters and the data set has {len(data_characters)}, of which the "
            f"model does not know {len(unknown)}, {unknown[0]!r} for example. Needed: a data set whose characters the "
            "model was trained on. Evaluate on the data set it was trained with, or train it on this one; --unseen "
            "asks how it meets those that it does not know."
        )
    return map_labels(data_characters, model_characters)


def count_unknown_tags(rows, tags: Sequence[str]) -> dict[str, int]:
    """Tags of the data set that the model does not know: how many, and how often they occur."""
    import pyarrow.compute as pc

    counts = pc.value_counts(pc.list_flatten(rows.column("tags")))
    known = set(tags)
    unknown = [int(entry["counts"]) for entry in counts.to_pylist() if entry["values"] not in known]
    return {"tags": len(unknown), "occurrences": sum(unknown)}


def posts_near_train(rows) -> list[int] | None:
    """Ids of the posts of which a train post shows the same drawing; None where the data set does not say."""
    if "near_train" not in rows.schema.names:
        return None
    return rows.column("post_id").filter(rows.column("near_train")).to_pylist()


def count_training_images(dataset: str, characters: Sequence[str], allow_unknown: bool) -> list[int]:
    """Training images of each of the model's characters [C]; others have none, or are an error."""
    from modeling_mfdn.data.dataset import load_split, read_characters

    rows = load_split(dataset, "train", needs_tags=False)
    names = read_characters(rows)
    labels = label_map(names, characters, allow_unknown) or range(len(names))
    counts = Counter(labels[label] for label in rows.column("character").to_pylist())
    return [counts[label] for label in range(len(characters))]


def unseen_rows(dataset: str, characters: Sequence[str]):
    """Posts of all splits of a data set whose characters the model does not know.

    Raises ValueError: it knows them all.
    """
    from modeling_mfdn.data.dataset import load_split, read_characters, rows_of

    rows = load_split(dataset, "all", needs_tags=False)
    strangers = set(read_characters(rows)) - set(characters)
    if not strangers:
        raise ValueError(f"--unseen {dataset}: the model knows all its characters. Name a data set with others.")
    return rows_of(rows, strangers)


def output_path(model: str, split: str, output: str | None) -> Path:
    if output is not None:
        path = Path(output)
    elif Path(model).is_dir():
        path = Path(model) / ("results.json" if split == "test" else f"results_{split}.json")
    else:
        raise ValueError(f"--model {model} is not a folder on this machine, so --output must say where results go.")
    if path.is_dir():
        raise ValueError(f"--output {path}: expected a file, found a folder of that name.")
    if not path.parent.is_dir():
        raise ValueError(f"--output {path}: the folder {path.parent} does not exist. Create it first.")
    return path


def main(argv: list[str] | None = None) -> dict:
    """Returns what is written to results.json, without the versions."""
    # ------------------------------------------------------------------ arguments
    args = build_parser().parse_args(argv)
    check_model_name(args.model)
    path = output_path(args.model, args.split, args.output)
    if args.predictions and not Path(args.predictions).absolute().parent.is_dir():
        raise ValueError(f"--predictions {args.predictions}: its folder does not exist. Create it first.")
    if args.trained_on and not args.errors:
        raise ValueError("--trained_on goes with --errors.")
    if args.calibrate and (args.split != "validation" or not Path(args.model).is_dir()):
        raise ValueError("--calibrate fits on --split validation, never on test, and needs a --model folder.")
    if args.push_to_hub and not Path(args.model).is_dir():
        raise ValueError("--push_to_hub uploads a --model folder; this one is not on this machine.")
    if (args.hub_model_id or args.hub_dataset_id) and not args.push_to_hub:
        raise ValueError("--hub_model_id and --hub_dataset_id go with --push_to_hub.")
    if args.push_to_hub:
        from modeling_mfdn.publishing.push import repository_id

        args.hub_model_id = repository_id(args.hub_model_id or Path(args.model).resolve().name)
    # Here, because torch and `evaluate` take seconds to import and --help should not.
    from accelerate import Accelerator
    from torch.utils.data import DataLoader
    from transformers import AutoModelForImageClassification

    from modeling_mfdn import MFDNProcessor
    from modeling_mfdn.data.collator import MFDNCollator
    from modeling_mfdn.data.dataset import load_split, read_characters, rows_of
    from modeling_mfdn.evaluation.figures import draw_errors, draw_unseen, reliability_plot
    from modeling_mfdn.evaluation.metrics import accuracy_by_training_images, most_confused
    from modeling_mfdn.evaluation.open_set import HINTS, CharacterQueries, judge_unseen
    from modeling_mfdn.evaluation.predictions import (
        Calibrator,
        Confidence,
        Hints,
        NearTrain,
        Predictions,
        evaluate_model,
        predict_split,
    )
    from modeling_mfdn.evaluation.results import format_results, write_predictions, write_results
    from modeling_mfdn.publishing.cards import write_hub_files
    from modeling_mfdn.publishing.push import publish_model
    from modeling_mfdn.training.files import public_name

    accelerator = Accelerator()

    # ------------------------------------------------------------------ model
    model = AutoModelForImageClassification.from_pretrained(args.model)  # MFDN or a baseline, from our own code
    processor = MFDNProcessor.from_pretrained(args.model)
    config = model.config
    tags = processor.tag_names
    aggregation = args.tag_aggregation or processor.tag_aggregation
    if args.tag_aggregation and processor.tag_aggregation == "sigmoid":
        raise ValueError(
            f"--tag_aggregation {args.tag_aggregation} is for a model whose tag slots are distributions; this one "
            "answers each tag with yes or no, and there is nothing to aggregate. Leave it out."
        )
    shares_one_whole = processor.character_activation == "softmax"
    if args.errors and not shares_one_whole:
        raise ValueError("--errors is about the confidence in one character; this model scores each by itself.")
    threshold = processor.tag_threshold if args.tag_threshold is None else args.tag_threshold

    # ------------------------------------------------------------------ data
    with accelerator.main_process_first():
        rows = load_split(args.dataset, args.split, needs_tags=config.modality != "image" or config.predicts_tags)
    if args.max_images is not None:
        rows = rows.select(range(min(args.max_images, len(rows))))
    characters = [config.id2label[label] for label in range(config.num_labels)]
    if args.unseen:  # who is not known is asked there
        rows = rows_of(rows, characters)
    labels = label_map(read_characters(rows), characters, args.unseen is not None)
    unknown_tags = count_unknown_tags(rows, tags) if "tags" in rows.column_names else {"tags": 0, "occurrences": 0}
    if unknown_tags["tags"] and accelerator.is_main_process:
        print(f"{unknown_tags['tags']} tags ({unknown_tags['occurrences']} occurrences) are unknown to the model.")
    tag_order = processor.tag_order if args.tag_order is None else args.tag_order
    collator = MFDNCollator(config, tags, False, processor.image_processor, tag_order, label_map=labels)
    loader = DataLoader(rows, batch_size=args.batch_size, collate_fn=collator, num_workers=args.num_workers)

    # ------------------------------------------------------------------ evaluation
    if args.unseen:
        processor.check_gallery(model)
        processor.known_gallery()  # before the pictures: what it raises should not take minutes
        strangers = unseen_rows(args.unseen, characters)
        accelerator.print(f"{len(strangers):,} pictures of characters that the model does not know")
    model, loader = accelerator.prepare_model(model, evaluation_mode=True), accelerator.prepare_data_loader(loader)
    statistics = processor.gallery.statistics if processor.gallery is not None else None
    reducers = [Predictions(statistics)] if args.predictions is not None else []
    reducers += [Hints(config)] if args.hints else []
    hints = HINTS if config.modality == "image+tags" else ()
    reducers += [CharacterQueries(processor, hints)] if args.unseen else []
    reducers += [Confidence(processor.temperature)] if args.errors else []
    reducers += [Calibrator()] if args.calibrate else []
    near_train = posts_near_train(rows)
    reducers += [NearTrain(near_train)] if near_train is not None else []
    results = {
        "model": public_name(args.model),
        "dataset": public_name(args.dataset),
        "split": args.split,
        "tag_aggregation": aggregation,
        "tag_threshold": threshold,
        "tag_order": tag_order,
        "unknown_tags": unknown_tags,
    } | evaluate_model(
        model,
        loader,
        accelerator,
        tag_aggregation=aggregation,
        tag_threshold=threshold,
        tune_threshold=args.split == "validation",
        reducers=reducers,
        max_bad_share=args.max_bad_share,
    )
    predictions = results.pop("predictions", None)
    if args.unseen:
        unseen_queries = CharacterQueries(processor, hints)
        collator = MFDNCollator(config, tags, False, processor.image_processor, tag_order)
        loader = DataLoader(strangers, batch_size=args.batch_size, collate_fn=collator, num_workers=args.num_workers)
        loader = accelerator.prepare_data_loader(loader)
        options = {"hints": hints, "max_bad_share": args.max_bad_share}
        for found in predict_split(model, loader, accelerator, **options):
            unseen_queries.add(found)
        results |= judge_unseen(results.pop("queries"), unseen_queries.compute(), processor)
        results["open_set"] |= {"unseen": public_name(args.unseen)}
    if args.errors:
        confidence = results.pop("confidence")
        truth, predicted = confidence.pop("truth"), confidence.pop("predicted")
        training_images = count_training_images(args.trained_on or args.dataset, characters, bool(args.unseen))
        results["errors"] = {
            "by_training_images": accuracy_by_training_images(truth, predicted, training_images),
            "most_confused": most_confused(truth, predicted, characters),
            "temperature": processor.temperature,
            **confidence,
        }
    tag_thresholds = results["calibration"].pop("tag_thresholds") if args.calibrate else None
    if path.name == "results.json" and path.exists():  # how it was trained stands there too, and on the card
        earlier = json.loads(path.read_text(encoding="utf-8"))
        results |= {"training": earlier["training"]} if "training" in earlier else {}
    if accelerator.is_main_process:
        write_results(results, path)
        if predictions is not None:
            write_predictions(predictions, characters, args.predictions)
        print(format_results(results))
        if args.hints:
            shares = "   ".join(f"{number}: {share:.1%}" for number, share in results["hints"].items())
            print(f"top-1 by number of true tags given   {shares}")
        if args.unseen:
            draw_unseen(results, path.with_name("unseen.png"))
        if args.errors:
            for name in ("expected_calibration_error", "negative_log_likelihood"):
                before, after = results["errors"][name].values()
                print(f"{name.replace('_', ' ')} {before:.3f}, as stored {after:.3f}")
            draw_errors(results["errors"], rows, read_characters(rows), path.parent)
        if args.calibrate:
            calibration = results["calibration"]
            stored = "Thresholds"
            if shares_one_whole:  # a temperature, and the curve, are those of softmax
                stored = "Temperature and thresholds"
                processor.temperature = calibration["temperature"]
                reliability_plot(calibration, path.with_name("reliability.png"))
                before, after = calibration["error_before"], calibration["error_after"]
                print(f"expected calibration error {before:.3f}, {after:.3f} at temperature {processor.temperature:g}")
            processor.tag_thresholds = tag_thresholds
            processor.tag_threshold = calibration["tag_threshold"] or processor.tag_threshold
            processor.save_pretrained(args.model)
            print(f"{stored} are stored in {args.model}.")
        print(f"Everything else: {path}")
        if Path(args.model).is_dir() and path.parent == Path(args.model):  # the card is about files beside it
            write_hub_files(args.model, args.hub_model_id, args.hub_dataset_id)
        if args.push_to_hub:
            publish_model(args.model, args.hub_model_id, args.hub_dataset_id)
    accelerator.end_training()
    return results


@command_line
def run(argv: list[str] | None = None) -> int:
    """`main` for a terminal: 0, or what went wrong in a sentence and 2."""
    main(argv)
    return 0


if __name__ == "__main__":
    raise SystemExit(run())
