"""Train MFDN (paper §V-A). Read `main` and `train` from top to bottom."""

import argparse
import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from itertools import islice
from pathlib import Path

import torch
from transformers import HfArgumentParser, TrainingArguments, pipeline, set_seed

from modeling_mfdn import Label2LabelConfig, Label2LabelModel, MFDNConfig, MFDNModel, MultiLabelConfig, MultiLabelModel
from modeling_mfdn.configuration_mfdn import MODALITIES
from modeling_mfdn.data.collator import COLOR_JITTER, CROP_SHARE, EXCHANGES, MFDNCollator
from modeling_mfdn.data.dataset import (
    BROKEN,
    describe_dataset,
    is_left_out,
    load_split,
    map_labels,
    read_characters,
    read_tag_vocabulary,
    rows_of,
)
from modeling_mfdn.data.lists import read_vocabulary
from modeling_mfdn.evaluation.figures import example_picture, training_curves
from modeling_mfdn.evaluation.predictions import evaluate_model
from modeling_mfdn.evaluation.results import format_results, write_results
from modeling_mfdn.gallery_mfdn import STATISTICS_FILE
from modeling_mfdn.modeling_baselines_mfdn import TAG_LOSSES
from modeling_mfdn.pictures_mfdn import load_rgb
from modeling_mfdn.publishing.cards import write_hub_files
from modeling_mfdn.publishing.push import publish_model, repository_id
from modeling_mfdn.training.character_statistics import fit_character_statistics
from modeling_mfdn.training.files import claim, public_name
from modeling_mfdn.training.keep_heads import keep_characters, keep_heads
from modeling_mfdn.training.recipes import MODEL_SIZES, RECIPES, recorded_flags
from modeling_mfdn.training.run_folder import check_run_folder, find_checkpoint, remove_checkpoints, save_artifacts
from modeling_mfdn.training.schedules import SCHEDULES, MaskScheduler
from modeling_mfdn.training.tag_tokenizer import build_processor
from modeling_mfdn.training.terminal import command_line
from modeling_mfdn.training.trainer import MFDNTrainer, MFDNTrainingArguments
from modeling_mfdn.training.vision_weights import VisionWeights, fill, read_vision_weights

EMBEDDED_DUMP = "mini_booru"
EMBEDDED_DATASET = "danmul"

SYSTEMS = {
    "mfdn": (MFDNConfig, MFDNModel),
    "multi_label": (MultiLabelConfig, MultiLabelModel),
    "label2label": (Label2LabelConfig, Label2LabelModel),
}


@dataclass
class ScriptArguments:
    """Train MFDN on Dan:mul.

    Without --dataset a small dump is drawn, built and trained on with --recipe quick: minutes on two cores. With
    --dataset the defaults are the recipe of paper §V-A, and a row of Tables IV and V is the flags that differ:
    --train_modality image is the unimodal ViT, --mask_schedule none is MFDN without MLM.

    examples:
      accelerate launch train_mfdn.py
      accelerate launch train_mfdn.py --dataset danmul --vision_weights vit_large_patch16_224.augreg_in21k --bf16
      accelerate launch train_mfdn.py --dataset danmul --recipe quick --train_modality image --output_dir vit"""

    _argument_group_name = "what to train, and on what"

    dataset: str | None = field(
        default=None,
        metadata={
            "help": "folder from dataset_scripts.build_danmul, or a Hub data set of that layout, which is read over "
            "the network in every epoch; `hf download ID --repo-type dataset --local-dir DIR` makes a folder of it"
        },
    )
    recipe: list[str] | None = field(
        default=None,
        metadata={
            "help": "paper = §V-A, the default with --dataset; quick = from scratch on a CPU, the default without; "
            "finetune = from --vision_weights that can see already; both_ends = good with tags and without, at more "
            "than twice the cost of a step. Several are laid over one another: --recipe quick both_ends. Any flag "
            "given besides wins over them",
            "choices": list(RECIPES),
        },
    )
    vision_weights: str | None = field(
        default=None,
        metadata={
            "help": "weights to start from: a timm name (paper: ViT-L); OWNER/NAME on the Hub; a folder in timm's Hub "
            "layout, of a transformers ViT, or of a model of ours; or a .safetensors of timm's. Sizes follow them"
        },
    )
    keep_heads: bool = field(
        default=False,
        metadata={
            "help": "with --vision_weights of a model of ours: characters and tags that both know keep their rows, so "
            "that last month's model is this month's start"
        },
    )
    image_size: int | None = field(
        default=None,
        metadata={"help": "pixels a side, in steps of the patch (default: of the weights or of the model size)"},
    )
    model_size: str | None = field(
        default=None,
        metadata={
            "help": "from noise, without --vision_weights (default: large = paper §IV)",
            "choices": list(MODEL_SIZES),
        },
    )
    system: str = field(
        default="mfdn",
        metadata={
            "help": "mfdn, or a system of Table VI on the same image stack: multi_label = one linear layer over all "
            "tags; label2label = paper ref. [38]",
            "choices": list(SYSTEMS),
        },
    )
    train_modality: str = field(
        default="image+tags", metadata={"help": "image = the unimodal ViT baseline", "choices": list(MODALITIES)}
    )
    mask_schedule: str = field(
        default="cosine_hold",
        metadata={
            "help": "share of tags that is hidden: cosine_hold = Eq. 7, then held at 1; linear_hold; constant; "
            "per_post = all tags of a rising share of posts, of the others a random share; none = never, "
            "which trains no tag decoder (MFDN without MLM)",
            "choices": list(SCHEDULES),
        },
    )
    mask_hold_from: float = field(
        default=0.5, metadata={"help": "where all tags are hidden, as a fraction of the training (paper: 0.5)"}
    )
    mask_peak: float | None = field(
        default=None,
        metadata={"help": "where the schedule ends (default: 1, for constant 0.15, for per_post half of the posts)"},
    )
    color_jitter: list[float] = field(
        default_factory=lambda: list(COLOR_JITTER),
        metadata={"help": "how far brightness, contrast, saturation (shares) and hue (turns) may change"},
    )
    crop_share: list[float] = field(
        default_factory=lambda: list(CROP_SHARE),
        metadata={"help": "smallest and largest side of a training crop, as shares of the picture's side"},
    )
    tag_order: str = field(
        default="random",
        metadata={"help": "order in which tags fill the slots", "choices": ["random", "alphabetical", "frequency"]},
    )
    single_tag_query: bool = field(
        default=False,
        metadata={
            "help": "ask one slot for all hidden tags of a post, in training too, where the paper asks each slot for "
            "one of them: the same loss on average, cheaper by as many slots, with tags in random order"
        },
    )
    exchanged_colors: float = field(
        default=0.0,
        metadata={
            "help": "show this share of the training pictures with red, green and blue exchanged, as characters of "
            "their own, who are forgotten at the end: more characters to learn from teach the model to learn new ones "
            "(mfdn teach), if it has learnt those it has; try 0.5"
        },
    )
    leave_out_characters: float = field(
        default=0.0,
        metadata={
            "help": "train without this share of the characters, chosen by a hash of their names: evaluate_mfdn.py "
            "--unseen then asks how the model meets characters that nobody showed it"
        },
    )
    leave_out_fold: int = field(
        default=0, metadata={"help": "of --leave_out_characters: 0, 1, 2, … leave out others each time"}
    )
    num_tags: int | None = field(
        default=None, metadata={"help": "predict and read only so many of the most frequent tags (default: all)"}
    )
    num_decoder_layers: int | None = field(
        default=None, metadata={"help": "depth of the tag decoder (paper: 4; default: that of the model size)"}
    )
    attn_implementation: str = field(
        default="sdpa",
        metadata={
            "help": "as in from_pretrained; with --bf16 --use_cpu, eager is faster: sdpa is slow there in bfloat16",
            "choices": ["sdpa", "eager", "flash_attention_2", "flex_attention"],
        },
    )
    tag_loss_weight: float = field(default=1.0, metadata={"help": "λ of Eq. 6 for the tags (paper: 1)"})
    tag_loss: str = field(
        default="bce", metadata={"help": "of multi_label and label2label", "choices": list(TAG_LOSSES)}
    )
    posts: int = field(default=2500, metadata={"help": "posts to draw for the embedded dump"})
    evaluate_test: bool = field(
        default=False, metadata={"help": "after training, score the test split and show a few pictures"}
    )
    overwrite: bool = field(default=False, metadata={"help": "train into an --output_dir that holds a model"})


OF_STOCK_TRAINER = {  # flags of transformers that nothing here would obey
    "lr_scheduler_type": "the learning rate follows the paper's two-stage cosine",
    "lr_scheduler_kwargs": "the learning rate follows the paper's two-stage cosine",
    "hub_strategy": "the whole folder is pushed once, at the end",
    "hub_always_push": "the whole folder is pushed once, at the end",
    "hub_revision": "the whole folder is pushed to main; mfdn push has --revision",
    "fp16_full_eval": "validation runs in the precision of training",
    "bf16_full_eval": "validation runs in the precision of training",
    "batch_eval_metrics": "metrics are counted batch by batch anyway",
    "eval_accumulation_steps": "no prediction is kept on the device",
    "dataloader_drop_last": "every post is seen once an epoch",
    "train_sampling_strategy": "row groups of the Parquet files are shuffled, and mixed a few at a time",
}


class AllHelp(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Keeps the lines of the description and names every default."""


class Help(AllHelp):
    """Leaves out what transformers.TrainingArguments has beyond the flags whose default or meaning is ours."""

    def add_argument(self, action: argparse.Action) -> None:
        ours = {entry.name for entry in fields(ScriptArguments)} | set(MFDNTrainingArguments.__annotations__)
        if action.dest in ours | {"help", argparse.SUPPRESS}:
            super().add_argument(action)


class ShowAllHelp(argparse.Action):
    """--help_all."""

    def __call__(self, parser, namespace, values, option_string=None):
        parser.formatter_class = AllHelp
        parser.print_help()
        parser.exit()


def build_parser() -> HfArgumentParser:
    parser = HfArgumentParser(
        (ScriptArguments, MFDNTrainingArguments),
        description=ScriptArguments.__doc__,
        usage="accelerate launch train_mfdn.py [--dataset DIR] [--output_dir DIR] [--FLAG VALUE ...]",
        epilog="Every other flag of transformers.TrainingArguments works too, such as --bf16, --use_cpu, --seed, "
        "--max_steps, --gradient_accumulation_steps, --resume_from_checkpoint and --push_to_hub: see --help_all.",
        formatter_class=Help,
    )
    show_all = "show this message with every flag of transformers.TrainingArguments and exit"
    parser.add_argument(
        "--help_all", action=ShowAllHelp, nargs=0, dest=argparse.SUPPRESS, default=argparse.SUPPRESS, help=show_all
    )
    return parser


def parse_arguments(argv: list[str] | None) -> tuple[ScriptArguments, MFDNTrainingArguments]:
    """Parse the command line: flags win over recipes, recipes over defaults."""
    parser = build_parser()
    asked = parser.parse_args(argv)
    if asked.vision_weights and asked.model_size:
        raise ValueError(
            "--model_size is for training from noise: with --vision_weights sizes are those of the weights."
        )
    parser.set_defaults(model_size="large")
    for recipe in asked.recipe or ["paper" if asked.dataset else "quick"]:
        parser.set_defaults(**RECIPES[recipe])
    return parser.parse_args_into_dataclasses(argv)


def own_flags() -> set[str]:
    """Flags that transformers.TrainingArguments does not have."""
    inherited = {entry.name for entry in fields(TrainingArguments)}
    return {entry.name for entry in [*fields(ScriptArguments), *fields(MFDNTrainingArguments)]} - inherited


def run_command(*command: str) -> None:
    """Run one of our own commands, shown as the user would type it, outside of any distributed environment."""
    print(f"\n$ python {' '.join(command)}", flush=True)
    distributed = ("RANK", "WORLD_SIZE", "LOCAL_", "MASTER_", "ACCELERATE_", "TORCHELASTIC_", "OMP_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(distributed)}
    if subprocess.run([sys.executable, *command], env=environment).returncode:
        raise ValueError(f"python {' '.join(command)} did not end well; what it said stands above.")


@contextmanager
def stopwatch(seconds: dict[str, float], stage: str):
    """Adds the wall time of a stage to `seconds`."""
    start = time.perf_counter()
    yield
    seconds[stage] = round(time.perf_counter() - start, 1)


def embedded_dataset(posts: int, seconds: dict[str, float]) -> str:
    """Draw the embedded dump and build Dan:mul from it, unless that was done before. They meet us in files only."""
    if not Path(EMBEDDED_DUMP).exists():
        with stopwatch(seconds, "drawing"):
            run_command("-m", "dataset_scripts.mini_booru", "--output", EMBEDDED_DUMP, "--posts", str(posts))
    if not Path(EMBEDDED_DATASET).exists():
        with stopwatch(seconds, "building"):
            run_command("-m", "dataset_scripts.build_danmul", "--source", EMBEDDED_DUMP, "--output", EMBEDDED_DATASET)
    source = json.loads(Path(EMBEDDED_DATASET, "build.json").read_text())["source"]
    drawn = json.loads(Path(EMBEDDED_DUMP, "mini_booru.json").read_text())["posts"]
    if source != EMBEDDED_DUMP or drawn != posts:
        raise ValueError(
            f"Expected {EMBEDDED_DATASET}/ built from {posts} drawn posts, found one built from {source} "
            f"({drawn} posts in {EMBEDDED_DUMP}/). Train on it with --dataset {EMBEDDED_DATASET}, or remove both "
            "folders."
        )
    return EMBEDDED_DATASET


def num_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux alone
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def use_all_cores(num_processes: int) -> None:
    """`accelerate launch` pins a CPU process to one thread (OMP_NUM_THREADS=1); share the cores of this machine among
    its `num_processes` instead."""
    if not torch.cuda.is_available():
        torch.set_num_threads(max(1, num_cores() // num_processes))


def check_flags(script: ScriptArguments, args: MFDNTrainingArguments) -> None:
    """Raises ValueError for flags that the asked system would ignore."""
    defaults = ScriptArguments()
    sees_no_tags = script.system != "mfdn" or script.train_modality == "image"
    has_no_decoder = sees_no_tags or script.mask_schedule == "none"
    ignored = {
        "tag_loss": script.system == "mfdn",
        "train_modality": script.system != "mfdn",
        "mask_schedule": sees_no_tags,
        "tag_order": sees_no_tags,
        "num_decoder_layers": has_no_decoder,
        "single_tag_query": has_no_decoder,
        "exchanged_colors": script.system != "mfdn",  # whose tags would be answered with "none"
    }
    for name, is_ignored in ignored.items():
        value = getattr(script, name)
        if is_ignored and value != getattr(defaults, name):
            model = f"--system {script.system}, modality {script.train_modality}, mask schedule {script.mask_schedule}"
            raise ValueError(f"--{name} {value} means nothing to {model}; leave it.")
    stock = {entry.name: entry.default for entry in fields(TrainingArguments)}
    for name, instead in OF_STOCK_TRAINER.items():
        if getattr(args, name) != stock[name]:
            raise ValueError(f"--{name} {getattr(args, name)} would be ignored here: {instead}. Leave it.")
    if "finetune" in (script.recipe or []) and not script.vision_weights:
        raise ValueError("--recipe finetune needs --vision_weights: from noise, --recipe quick or the paper's.")
    if not 0 <= script.exchanged_colors <= 1:
        raise ValueError(f"--exchanged_colors is a share in [0, 1], got {script.exchanged_colors}.")
    if not 0 <= script.leave_out_characters < 1:
        raise ValueError(f"--leave_out_characters is a share in [0, 1), got {script.leave_out_characters}.")
    if script.leave_out_fold and not script.leave_out_characters:
        raise ValueError("--leave_out_fold goes with --leave_out_characters SHARE.")
    if script.keep_heads and not (script.vision_weights and Path(script.vision_weights, "config.json").is_file()):
        raise ValueError("--keep_heads needs --vision_weights with the folder of a model of ours.")
    if args.image_pass_weight and sees_no_tags:
        raise ValueError("--image_pass_weight is for a model that reads tags; this one sees pictures alone anyway.")
    if script.num_decoder_layers is not None and script.num_decoder_layers < 1:
        raise ValueError(f"--num_decoder_layers must be at least 1, got {script.num_decoder_layers}.")
    if script.num_tags is not None and script.num_tags < 1:
        raise ValueError(f"--num_tags must be at least 1, got {script.num_tags}.")


def build_model(
    script: ScriptArguments, characters: list[str], tags: list[str], weights: VisionWeights | None
) -> MFDNModel:
    """A new model for these characters and tags, of the asked size or of that of the weights, and with them."""
    config_class, model_class = SYSTEMS[script.system]
    sizes = weights.config if weights else MODEL_SIZES[script.model_size]
    if script.image_size:
        sizes = sizes | {"image_size": script.image_size}
    config = config_class(
        **sizes,
        **({"modality": script.train_modality} if script.system == "mfdn" else {"tag_loss": script.tag_loss}),
        tag_loss_weight=script.tag_loss_weight,
        single_tag_query=script.single_tag_query,
        num_tags=len(tags),
        id2label=dict(enumerate(characters)),
        label2id={name: i for i, name in enumerate(characters)},
    )
    if script.num_decoder_layers is not None:
        config.num_decoder_layers = script.num_decoder_layers
    if script.system == "mfdn" and script.mask_schedule == "none":
        config.num_decoder_layers = 0  # nothing is ever hidden: a decoder would stay untrained
    model = model_class(config)
    model.set_attn_implementation(script.attn_implementation)
    if weights:
        fill(model, weights)
    if script.keep_heads:
        kept = keep_heads(model, script.vision_weights, tags)
        old_names = f"{kept[0]:,} of {len(characters):,} characters and {kept[1]:,} of {len(tags):,} tags"
        print(f"--keep_heads: {old_names} go on with their rows; the others start as the mean of the old.")
    start = f"from {script.vision_weights}" if weights else f"{script.model_size} from noise"
    size = f"{model.num_parameters() / 1e6:.1f} M parameters, {config.image_size} pixels"
    print(f"{script.system} {start}: {size}, modality {config.modality}")
    return model


def show(folder: str, test_split, is_drawn: bool) -> None:
    """Load the saved model through `pipeline` and print what it names in a few test pictures.

    Args:
        is_drawn: whether the pictures are this project's, so that they may travel along, as samples for the page.
    """
    tagger = pipeline("character-tagging", model=folder, trust_remote_code=True)
    posts, pictures = [], []
    for post in islice(test_split, 20):
        try:
            pictures.append(load_rgb(post["image"]["bytes"]))
            posts.append(post)
        except BROKEN:  # counted and named by the evaluation
            continue
        if len(posts) == 4:
            break
    results = [tagger(picture) for picture in pictures]
    names = read_characters(test_split)
    truths = [{"character": names[post["character"]], "tags": post.get("tags", [])} for post in posts]
    example_picture(pictures, results, Path(folder, "example.png"), truths)
    for result, truth in zip(results, truths, strict=True):
        best = result["characters"][0]
        print(
            f"  {truth['character']}: the model says {best['label']} ({best['score']:.0%}), "
            f"{', '.join(tag['label'] for tag in result['tags'][:6])}"
        )
    print(f"Pictures: {folder}/example.png")
    if is_drawn:
        Path(folder, "samples").mkdir(exist_ok=True)
        for number, picture in enumerate(pictures, 1):
            picture.save(Path(folder, "samples", f"{number}.jpg"), quality=88)


def write_statistics(model, processor, splits: dict, trainer: MFDNTrainer, label_map) -> None:
    """What teaching and "unknown" stand on, beside the model; not where there are too few pictures for it."""
    try:
        statistics = fit_character_statistics(
            model,
            processor,
            splits["train"],
            splits["validation"],
            trainer.accelerator,
            label_maps=(label_map, label_map),
            batch_size=trainer.args.eval_batch_size,
            num_workers=trainer.args.dataloader_num_workers,
        )
        if trainer.is_world_process_zero():
            statistics.save(Path(trainer.args.output_dir, STATISTICS_FILE))
    except ValueError as error:
        print(f"This model cannot be taught characters: {error}")


def main(argv: list[str] | None = None) -> dict:
    """Returns the results on the test split, or {} without --evaluate_test."""
    # ------------------------------------------------------------------ arguments
    script, args = parse_arguments(argv)
    check_flags(script, args)
    check_run_folder(args.output_dir, script.overwrite, args.resume_from_checkpoint)
    use_all_cores(int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
    set_seed(args.seed)
    # Trainer would push each checkpoint, without processor and card: here all is pushed once, at the end. And it
    # writes its arguments into every checkpoint, where a token has no business.
    push_to_hub, args.push_to_hub, token, args.hub_token = args.push_to_hub, False, args.hub_token, None
    if args.process_index == 0:
        if push_to_hub:  # a name without owner would be found out after the training
            args.hub_model_id = repository_id(args.hub_model_id or Path(args.output_dir).resolve().name, token)
        Path(args.output_dir).mkdir(parents=True, exist_ok=True)
        with claim(Path(args.output_dir), Path(args.output_dir)):
            return train(script, args, sys.argv[1:] if argv is None else argv, push_to_hub, token)
    return train(script, args, [], False, None)


def train(script: ScriptArguments, args: MFDNTrainingArguments, argv: list[str], push_to_hub: bool, token) -> dict:
    """The run itself; nobody else writes to --output_dir meanwhile."""
    # ------------------------------------------------------------------ data
    seconds: dict[str, float] = {}
    if script.dataset is None:
        with args.main_process_first(desc="drawing and building the embedded data set"):
            script.dataset = embedded_dataset(script.posts, seconds)
    needs_tags = script.system != "mfdn" or script.train_modality != "image"
    asked = {"train": True, "validation": True, "test": script.evaluate_test}
    splits = {name: load_split(script.dataset, name, needs_tags=needs_tags) for name in asked if asked[name]}
    names = read_characters(splits["train"])
    characters = [name for name in names if not is_left_out(name, script.leave_out_characters, script.leave_out_fold)]
    if len(characters) < 2 <= len(names):
        raise ValueError(f"--leave_out_characters leaves {len(characters)} of {len(names)} to train on; lower it.")
    if len(characters) < len(names):
        print(f"--leave_out_characters: {len(names) - len(characters):,} of {len(names):,} are not trained.")
        splits = {name: rows_of(rows, set(characters)) for name, rows in splits.items()}
    tags = read_tag_vocabulary(script.dataset, needs_tags)[: script.num_tags]

    # ------------------------------------------------------------------ model
    weights = read_vision_weights(script.vision_weights, script.image_size) if script.vision_weights else None
    learnt = characters
    if script.exchanged_colors:
        learnt = characters + [f"{name} (colors {order})" for order in EXCHANGES for name in characters]
    model = build_model(script, learnt, tags, weights)
    processor = build_processor(model.config, tags, script.tag_order, weights.image_processor if weights else None)
    if args.rate_width:
        args.learning_rate *= args.rate_width / model.config.hidden_size
        print(f"--rate_width: a learning rate of {args.learning_rate:.3g} for a width of {model.config.hidden_size}.")
    collate = {"config": model.config, "tags": tags, "seed": args.seed, "tag_order": script.tag_order}
    collate["image_processor"] = processor.image_processor
    collate["label_map"] = map_labels(names, characters)
    # A trunk may hold what only its own answer reads, and so no gradient reaches.
    if model.config.trunk_config is not None or args.freeze_trunk:
        args.ddp_find_unused_parameters = True

    # ------------------------------------------------------------------ training
    mask_scheduler = MaskScheduler(script.mask_schedule, script.mask_hold_from, script.mask_peak)
    trainer = MFDNTrainer(
        model=model,
        args=args,
        train_dataset=splits["train"],
        eval_dataset=splits.get("validation"),
        data_collator=MFDNCollator(
            training=True,
            color_jitter=script.color_jitter,
            crop_share=script.crop_share,
            exchanged_share=script.exchanged_colors,
            **collate,
        ),
        eval_collator=MFDNCollator(training=False, **collate),
        evaluate_model=evaluate_model,
        mask_scheduler=mask_scheduler if model.config.modality == "image+tags" else None,
        tag_aggregation=processor.tag_aggregation,
        processing_class=processor,
    )
    checkpoint = find_checkpoint(args.output_dir, args.resume_from_checkpoint)
    if trainer.is_world_process_zero():
        remove_checkpoints(args.output_dir, only_unfinished=checkpoint is not None)
    with stopwatch(seconds, "training"):
        trainer.train(resume_from_checkpoint=checkpoint)
    trainer.count_broken()
    trainer.take_average()
    if script.exchanged_colors:
        keep_characters(model, len(characters))

    # ------------------------------------------------------------------ artifacts
    results = {}
    training = {
        "flags": recorded_flags(build_parser(), argv, own_flags()),
        "steps": trainer.state.global_step,
        "parameters": model.num_parameters(),
        "seconds": seconds,
        "threads": torch.get_num_threads(),
        "broken_pictures": trainer.num_broken,
    }
    if trainer.is_world_process_zero():
        dataset = {"dataset": public_name(script.dataset), "data": describe_dataset(script.dataset)}
        vocabulary = read_vocabulary(script.dataset)
        save_artifacts(model, processor, args.output_dir, training | dataset, vocabulary)
        try:
            training_curves(trainer.state.log_history, Path(args.output_dir, "training_curves.png"))
        except ValueError as error:  # a run of a few steps has nothing to draw, and its model is as good as any
            print(f"No training curves: {error}")
    with stopwatch(seconds, "character statistics"):
        write_statistics(model, processor, splits, trainer, collate["label_map"])
    if trainer.state.best_model_checkpoint:  # a path of this machine, in a file that is uploaded
        trainer.state.best_model_checkpoint = Path(trainer.state.best_model_checkpoint).name
    trainer.save_state()
    if script.evaluate_test:
        with stopwatch(seconds, "evaluating"):
            results = evaluate_model(
                model,
                trainer.get_test_dataloader(splits["test"]),
                trainer.accelerator,
                tag_aggregation=processor.tag_aggregation,
                tag_threshold=processor.tag_threshold,
                max_bad_share=args.max_bad_share,
            )
        if trainer.is_world_process_zero():
            results = {
                "model": public_name(args.output_dir),
                "dataset": public_name(script.dataset),
                "split": "test",
                "tag_aggregation": processor.tag_aggregation,
                "tag_threshold": processor.tag_threshold,
                "tag_order": script.tag_order,
                **results,
                "training": training,
            }
            write_results(results, Path(args.output_dir, "results.json"))
            print(format_results(results))
            print("Seconds: " + ", ".join(f"{stage} {value:.0f}" for stage, value in seconds.items()))
            is_drawn = describe_dataset(script.dataset).get("drawn") is True
            show(args.output_dir, splits["test"], is_drawn)
    if trainer.is_world_process_zero():
        write_hub_files(args.output_dir, args.hub_model_id)
        if push_to_hub:
            publish_model(args.output_dir, args.hub_model_id, private=args.hub_private_repo, token=token)
    return results


@command_line
def run(argv: list[str] | None = None) -> int:
    """`main` for a terminal: 0, or what went wrong in a sentence and 2."""
    main(argv)
    return 0


if __name__ == "__main__":
    raise SystemExit(run())
