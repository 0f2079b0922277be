"""The paper's experiments as a list of commands: runs what is missing, skips what is done, goes on after a kill.

    python -m modeling_mfdn.evaluation.experiments --dataset danmul --output runs --list
    python -m modeling_mfdn.evaluation.experiments --dataset danmul --dafre dafre --output runs --seeds 3
    python -m modeling_mfdn.evaluation.experiments --dataset danmul --jobs 2 -- --bf16 True --use_cpu True

Each row is `train_mfdn.py` with the flags below, then `evaluate_mfdn.py` on Dan:share if DATASET has one, and, for
Table VI, on the test split with thresholds fitted on validation. Results stay in `runs/NAME-SEED/`; `runs/tables.md`
and `runs/tables.json` are written from them at the end.
"""

import argparse
import itertools
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from .paper_tables import CALIBRATED, SHARE, TEST, VALIDATION, ablations, markdown, table_4, table_5, table_6

ROOT = Path(__file__).parents[2]
TABLES = ("IV", "V", "VI", "both_ends", "ablation", "trunk", "long")
OVER_SEEDS = {"V", "both_ends"}


@dataclass
class Experiment:
    """One row: what differs from `train_mfdn.py --recipe quick`, in which tables it stands, and what it costs."""

    name: str
    tables: tuple[str, ...]
    flags: str
    minutes: float  # of one core, on the embedded set
    on_dafre: bool = False
    further_recipe: str = ""  # laid over the one that is asked for

    def commands(self, dataset: str, recipe: str, seed: int, folder: Path, further: list[str]) -> dict[str, list[str]]:
        """{file that it writes into the folder: command line}; training goes on from the last checkpoint if any."""
        train = ["accelerate", "launch", str(ROOT / "train_mfdn.py"), "--dataset", dataset]
        train += ["--recipe", recipe, *([self.further_recipe] if self.further_recipe else [])]
        train += ["--seed", str(seed), "--evaluate_test", "--output_dir", str(folder), *shlex.split(self.flags)]
        if any(folder.glob("checkpoint-*")):
            train += ["--resume_from_checkpoint", "last"]
        found = {TEST: [*train, *further]}
        evaluate = [sys.executable, str(ROOT / "evaluate_mfdn.py"), "--model", str(folder), "--dataset", dataset]
        if Path(dataset, "share").is_dir():
            found[SHARE] = [*evaluate, "--split", "share", "--output", str(folder / SHARE)]
        if "VI" in self.tables:
            found[VALIDATION] = [*evaluate, "--split", "validation", "--calibrate"]
            found[CALIBRATED] = [*evaluate, "--output", str(folder / CALIBRATED)]
        return found


EXPERIMENTS = (
    Experiment("vit", ("IV", "V"), "--train_modality image", 5),
    Experiment("no_mlm", ("IV", "V"), "--mask_schedule none", 8),
    Experiment("mfdn", ("V", "VI", "ablation"), "", 7),
    Experiment("vit_dafre", ("IV",), "--train_modality image", 3, on_dafre=True),
    Experiment("no_mlm_dafre", ("IV",), "--mask_schedule none", 5, on_dafre=True),
    # Table VI: the paper's two sizes of Label2Label, and the tagger that people would train today.
    Experiment("label2label_25", ("VI",), "--system label2label --num_tags 25 --tag_loss_weight 0.1", 7),
    Experiment("label2label_200", ("VI",), "--system label2label --num_tags 200 --tag_loss_weight 0.1", 20),
    Experiment("multi_label_bce", ("VI",), "--system multi_label --tag_loss bce --tag_loss_weight 0.1", 6),
    Experiment("multi_label_asl", ("VI",), "--system multi_label --tag_loss asymmetric --tag_loss_weight 0.1", 6),
    # The weight of the tags is the tagger's one new choice: Table VI takes the best of these on validation.
    Experiment("multi_label_bce_03", ("VI",), "--system multi_label --tag_loss bce --tag_loss_weight 0.3", 6),
    Experiment("multi_label_bce_1", ("VI",), "--system multi_label --tag_loss bce --tag_loss_weight 1", 6),
    Experiment("multi_label_asl_03", ("VI",), "--system multi_label --tag_loss asymmetric --tag_loss_weight 0.3", 6),
    Experiment("multi_label_asl_1", ("VI",), "--system multi_label --tag_loss asymmetric --tag_loss_weight 1", 6),
    Experiment("multi_label_bce_3", ("VI",), "--system multi_label --tag_loss bce --tag_loss_weight 3", 6),
    Experiment("multi_label_asl_3", ("VI",), "--system multi_label --tag_loss asymmetric --tag_loss_weight 3", 6),
    Experiment("multi_label_asl_10", ("VI",), "--system multi_label --tag_loss asymmetric --tag_loss_weight 10", 6),
    # Beyond the paper: what the ingredients give, and one model for both ends, whose step costs more than two.
    Experiment("vit_long", ("both_ends", "ablation"), "--train_modality image --num_train_epochs 100", 10),
    Experiment("vit_longest", ("ablation",), "--train_modality image --num_train_epochs 200", 20),
    # As long on the clock as both_ends_long when its passes shared nothing; then, twice that.
    Experiment("vit_equal", ("long",), "--train_modality image --num_train_epochs 325", 30),
    Experiment("vit_800", ("long",), "--train_modality image --num_train_epochs 800", 80),
    # Further from there (vit_800: the folder that the row above wrote, under this name here), with the rate raised and
    # lowered once more; half as long on the clock for both ends.
    Experiment("vit_onward", ("long",), "--train_modality image --vision_weights vit_800 --num_train_epochs 540", 55),
    Experiment("onward_both_ends", ("long",), "--vision_weights vit_800 --num_train_epochs 100", 28,
               further_recipe="both_ends"),
    # Whether the recipe's rate, 1.5e-3, is fair to the ViT.
    Experiment("vit_rate_07", ("ablation",), "--train_modality image --learning_rate 7e-4", 5),
    Experiment("vit_rate_3", ("ablation",), "--train_modality image --learning_rate 3e-3", 5),
    Experiment("always_hidden", ("ablation",), "--mask_schedule constant --mask_peak 1", 7),
    Experiment("constant_15", ("ablation",), "--mask_schedule constant", 7),
    Experiment("linear", ("ablation",), "--mask_schedule linear_hold", 7),
    Experiment("hold_30", ("ablation",), "--mask_hold_from 0.3", 7),
    Experiment("hold_50", ("ablation",), "--mask_hold_from 0.5", 7),
    Experiment("hold_70", ("ablation",), "--mask_hold_from 0.7", 7),
    Experiment("peak_90", ("ablation",), "--mask_peak 0.9", 7),
    Experiment("weight_1", ("ablation",), "--tag_loss_weight 1", 7),
    Experiment("frequency", ("ablation",), "--tag_order frequency", 7),
    Experiment("alphabetical", ("ablation",), "--tag_order alphabetical", 7),
    Experiment("decoder_3", ("ablation",), "--num_decoder_layers 3", 7),
    Experiment("per_post", ("ablation",), "--mask_schedule per_post", 7),
    Experiment("per_post_75", ("ablation",), "--mask_schedule per_post --mask_peak 0.75", 7),
    Experiment("per_post_75_long", ("ablation",), "--mask_schedule per_post --mask_peak 0.75 --num_train_epochs 100",
               14),
    Experiment("two_passes", ("ablation",), "--mask_schedule per_post --mask_peak 0 --image_pass_weight 1", 14),
    Experiment("both_ends", ("both_ends", "ablation"), "", 14, further_recipe="both_ends"),
    Experiment("smooth_vit", ("ablation",), "--train_modality image --label_smoothing_factor 0.1", 5),
    Experiment("smooth_vit_longest", ("ablation",),
               "--train_modality image --label_smoothing_factor 0.1 --num_train_epochs 200", 20),
    Experiment("smooth_both_ends", ("ablation",), "--label_smoothing_factor 0.1 --distillation_temperature 4", 14,
               further_recipe="both_ends"),
    Experiment("both_ends_long", ("both_ends", "ablation"), "--num_train_epochs 100", 24, further_recipe="both_ends"),
    # From a trunk that saw other characters, as the paper's saw ImageNet: `mini_booru --posts 10000 --seed 7`, built,
    # then `train_mfdn.py --recipe quick --train_modality image --num_train_epochs 25 --output_dir other_vit`.
    Experiment("trunk_vit", ("trunk",), "--train_modality image --vision_weights other_vit", 5),
    Experiment("trunk_no_mlm", ("trunk",), "--mask_schedule none --vision_weights other_vit", 8),
    Experiment("trunk_hold_50", ("trunk",), "--mask_hold_from 0.5 --vision_weights other_vit", 7),
    Experiment("trunk_both_ends", ("trunk",), "--vision_weights other_vit", 14, further_recipe="both_ends"),
)  # fmt: skip


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--dataset", default="danmul", help="built data set folder (default: %(default)s)")
    add("--output", default="runs", help="folder of the runs (default: %(default)s)")
    add("--dafre", help="folder built by DAF:re's rules, with share/ (build_danshare --also_dafre), for Table IV")
    add("--tables", nargs="+", choices=TABLES, default=["IV", "V", "VI"], help="(default: IV V VI)")
    add("--only", nargs="+", metavar="NAME", help="only these rows")
    add("--seeds", type=int, default=3, help="runs of each row of V and both_ends; others run once (default: 3)")
    add("--recipe", choices=["quick", "paper"], default="quick", help="of train_mfdn.py (default: %(default)s)")
    add("--jobs", type=int, default=1, help="runs side by side, which share the processor's cores (default: 1)")
    add("--copy_results", metavar="DIR", help="copy the results of all runs there, for a report; run nothing")
    add("--list", action="store_true", help="show the commands and their cost, run nothing")
    add("flags", nargs="*", help="further flags for every run, behind --")
    return parser


def planned_runs(tables: list[str], only: list[str] | None, seeds: int) -> list[tuple[Experiment, int]]:
    """(row, seed), seed by seed, so that an interrupted evening has whole tables of fewer seeds.

    Raises ValueError for a name that is no row.
    """
    unknown = sorted(set(only or ()) - {experiment.name for experiment in EXPERIMENTS})
    if unknown:
        known = ", ".join(experiment.name for experiment in EXPERIMENTS)
        raise ValueError(f"--only knows {known}; {', '.join(unknown)} is none of them.")
    chosen = [
        experiment
        for experiment in EXPERIMENTS
        if (experiment.name in only if only else set(experiment.tables) & set(tables))
    ]
    return [
        (experiment, seed)
        for seed in range(seeds)
        for experiment in chosen
        if seed == 0 or OVER_SEEDS & set(experiment.tables)
    ]


def is_done(path: Path) -> bool:
    """Whether a results file is whole."""
    try:
        return "num_images" in json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return False


def ablation_names() -> list[str]:
    """The rows that show what the ingredients give."""
    return [row.name for row in EXPERIMENTS if {"ablation", "trunk", "long"} & set(row.tables)]


def write_tables(folder: Path) -> None:
    """tables.md and tables.json from the runs of a folder."""
    tables = {
        "Table IV (Dan:share)": table_4(folder),
        "Table V (test split)": table_5(folder),
        "Table V (Dan:share)": table_5(folder, SHARE),
        "Table VI": table_6(folder),
        "Ingredients": ablations(folder, ablation_names()),
    }
    tables = {title: rows for title, rows in tables.items() if rows}
    page = "\n\n".join(f"## {title}\n\n{markdown(rows)}" for title, rows in tables.items())
    for path, text in ((folder / "tables.md", page), (folder / "tables.json", json.dumps(tables, indent=2))):
        unfinished = path.with_name(f"{path.name}.unfinished")
        unfinished.write_text(text + "\n", encoding="utf-8")
        os.replace(unfinished, path)


def copy_results(folder: Path, target: Path) -> int:
    """Results files of all runs, without the models. Returns how many."""
    files = sorted(folder.glob("*-*/results*.json"))
    for file in files:
        (target / file.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target / file.parent.name / file.name)
    return len(files)


def take_cores(slots: Iterator[int], jobs: int) -> None:
    """Give a thread its share of the cores; the runs that it starts inherit it, and `train_mfdn.py` goes by it."""
    if hasattr(os, "sched_setaffinity"):  # Linux; elsewhere the runs compete
        slot, cores = next(slots), sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[slot::jobs] or cores)


def run_row(row: Experiment, seed: int, dataset: str, args: argparse.Namespace) -> bool:
    """Run what is missing of one row and seed; whether all of it is there afterwards."""
    folder = Path(args.output, f"{row.name}-{seed}")
    commands = row.commands(dataset, args.recipe, seed, folder, args.flags)
    missing = {file: command for file, command in commands.items() if not is_done(folder / file)}
    for file, command in missing.items():
        print(f"\n# {row.name}, seed {seed}, {file}\n{shlex.join(command)}", flush=True)
        if args.list:
            continue
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "log.txt").open("a", encoding="utf-8") as log:
            done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, env=os.environ | {"COLUMNS": "100"})
        if done.returncode or not is_done(folder / file):
            print(f"failed: see {folder}/log.txt", file=sys.stderr)
            return False
    return True


def main(argv: list[str] | None = None) -> int:
    """0, 1 when a run failed (the others ran), 2 for a command that makes no sense."""
    args = build_parser().parse_args(argv)
    if args.copy_results:
        print(f"{copy_results(Path(args.output), Path(args.copy_results))} files copied to {args.copy_results}")
        return 0
    try:
        runs = planned_runs(args.tables, args.only, args.seeds)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if args.jobs < 1:
        print(f"error: --jobs is the number of runs side by side, at least 1, not {args.jobs}", file=sys.stderr)
        return 2
    if not args.dafre and any(row.on_dafre for row, _ in runs):
        print("Rows trained on DAF:re are left out: --dafre names no folder.")
        runs = [(row, seed) for row, seed in runs if not row.on_dafre]
    missing = [(row, seed) for row, seed in runs if not is_done(Path(args.output, f"{row.name}-{seed}", TEST))]
    minutes = sum(row.minutes for row, _ in missing)
    print(f"{len(runs)} runs, {len(runs) - len(missing)} trained, about {minutes / args.jobs:.0f} minutes to go")
    started = time.monotonic()
    with ThreadPoolExecutor(args.jobs, initializer=take_cores, initargs=(itertools.count(), args.jobs)) as pool:
        jobs = {
            f"{row.name}-{seed}": pool.submit(run_row, row, seed, args.dafre if row.on_dafre else args.dataset, args)
            for row, seed in runs
        }
        try:
            failed = [name for name, job in jobs.items() if not job.result()]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # Ctrl-C ends the runs under way; start no others
            raise
    if failed:
        print(f"{len(failed)} runs failed: {', '.join(failed)}", file=sys.stderr)
    if not args.list:
        write_tables(Path(args.output))
        print(f"\nTables: {args.output}/tables.md, after {(time.monotonic() - started) / 60:.0f} minutes")
    return int(bool(failed))


if __name__ == "__main__":
    raise SystemExit(main())
