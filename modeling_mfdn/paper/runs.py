"""The paper's experiments as a list of commands: runs what is missing, skips what is done, goes on after a kill.

    python -m modeling_mfdn.paper.runs --dataset danmul --evaluation danmul_more --output runs --list
    python -m modeling_mfdn.paper.runs --dataset danmul --evaluation danmul_more --output runs --jobs 2
    python -m modeling_mfdn.paper.runs --dataset danmul --jobs 2 -- --bf16 True --use_cpu True

Each row is `train_mfdn.py` with the flags below, then `evaluate_mfdn.py` on the splits of EVALUATION: validation,
where scores are calibrated, test, and Dan:share if it has one. Results stay in `runs/NAME-SEED/`; at the end all of
them go into `runs/runs.jsonl`, `runs/hits.parquet`, `runs/comparisons.json` and the tables of `runs/README.md`.
"""

import argparse
import itertools
import json
import os
import shlex
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ..training.files import write_whole
from ..training.terminal import command_line
from .run_results import (
    COMPARED,
    SPLITS,
    TRAINED,
    collect,
    predictions_file,
    read_json,
    read_run_results,
    results_file,
    write_run_results,
)
from .tables import ablations, comparisons, markdown_table, table_4, table_5, table_6, unseen_table

ROOT = Path(__file__).parents[2]
TABLES = ("IV", "V", "VI", "both_ends", "choices", "ablation", "trunk", "finetune", "tuning", "unseen")
OVER_SEEDS = {"V", "both_ends", "choices", "finetune", "unseen"}


@dataclass
class Experiment:
    """One row of experiments.toml, whose head says what the entries mean."""

    name: str
    question: str
    tables: tuple[str, ...]
    flags: str
    minutes: float
    expected: str
    on_dafre: bool = False
    further_recipe: str = ""  # laid over the one that is asked for

    @property
    def title(self) -> str:
        """What differs from the quick recipe, as Markdown."""
        flags = [f"--recipe {self.further_recipe}" * bool(self.further_recipe), self.flags]
        trained_on = ", trained on DAF:re-style" * self.on_dafre
        return (f"`{' '.join(filter(None, flags))}`" if any(flags) else "(as it is)") + trained_on

    def commands(
        self,
        dataset: str,
        evaluation: str,
        recipe: str,
        seed: int,
        folder: Path,
        further: list[str],
        unseen: str | None = None,
    ) -> dict[str, list[str]]:
        """{file that it writes into the folder: command line}; training goes on from the last checkpoint if any."""
        if "--leave_out_characters" in self.flags:
            unseen = evaluation
        train = ["accelerate", "launch", str(ROOT / "train_mfdn.py"), "--dataset", dataset]
        train += ["--recipe", recipe, *([self.further_recipe] if self.further_recipe else [])]
        train += ["--seed", str(seed), "--evaluate_test", "--output_dir", str(folder), *shlex.split(self.flags)]
        if any(folder.glob("checkpoint-*")):
            train += ["--resume_from_checkpoint", "last"]
        found = {TRAINED: [*train, *further]}
        for split in SPLITS:
            if split == "share" and not Path(evaluation, "share").is_dir():
                continue
            command = [sys.executable, str(ROOT / "evaluate_mfdn.py"), "--model", str(folder), "--dataset", evaluation]
            command += ["--split", split, "--output", str(folder / results_file(split))]
            command += ["--predictions", str(folder / predictions_file(split))]
            if unseen and (split == "test" or "--leave_out_characters" in self.flags):
                command += ["--unseen", unseen]
            if split == "validation":
                command.append("--calibrate")
            elif split == "test" and seed == 0 and {"V", "both_ends"} & set(self.tables):  # costs three times as much
                command += ["--errors", "--trained_on", dataset]
                command += [] if "--train_modality image" in self.flags else ["--hints"]
            found[results_file(split)] = command
        return found


def read_experiments() -> tuple[Experiment, ...]:
    """The rows of experiments.toml, in its order."""
    text = Path(__file__).with_name("experiments.toml").read_text(encoding="utf-8")
    return tuple(Experiment(**row | {"tables": tuple(row["tables"])}) for row in tomllib.loads(text)["experiment"])


EXPERIMENTS = read_experiments()


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--dataset", default="danmul", help="built data set folder (default: %(default)s)")
    add("--evaluation", help="data set folder to measure on, such as one of build_danmul --like (default: DATASET)")
    add("--output", default="runs", help="folder of the runs (default: %(default)s)")
    add("--unseen", help="data set folder with other characters, for evaluate_mfdn.py --unseen")
    add("--dafre", help="folder built by DAF:re's rules, with share/ (build_danshare --also_dafre), for Table IV")
    add("--dafre_evaluation", help="as --evaluation, for the rows trained on DAFRE (default: DAFRE)")
    add("--tables", nargs="+", choices=TABLES, default=["IV", "V", "VI"], help="(default: IV V VI)")
    add("--only", nargs="+", metavar="NAME", help="only these rows")
    add(
        "--seeds",
        type=int,
        default=3,
        help="runs of each row of V, both_ends, choices and finetune; others run once (default: 3)",
    )
    add("--recipe", choices=["quick", "paper"], default="quick", help="of train_mfdn.py (default: %(default)s)")
    add("--jobs", type=int, default=1, help="runs side by side, which share the processor's cores (default: 1)")
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


def is_done(run: Path, file: str) -> bool:
    """Whether a run has this results file, whole; where its folder is gone, whether runs.jsonl has what it said."""
    if run.is_dir():
        return "num_images" in (read_json(run / file) or {})
    row = next((row for row in read_run_results(run.parent).rows if f"{row['name']}-{row['seed']}" == run.name), {})
    return bool(row) and (file == TRAINED or any(file == results_file(split) for split in SPLITS if split in row))


def write_tables(folder: Path) -> None:
    """runs.jsonl, hits.parquet, comparisons.json and README.md from the runs of a folder."""
    results = collect(folder)
    write_run_results(results, folder)
    compared = comparisons(results, {row.name: row.title for row in EXPERIMENTS})
    write_whole(folder / COMPARED, json.dumps(compared, indent=1, ensure_ascii=False) + "\n")
    tables = {
        "Table IV (Dan:share)": table_4(results),
        "Table V (test split)": table_5(results),
        "Table V (Dan:share)": table_5(results, "share"),
        "Table VI": table_6(results),
        "Comparisons": compared,
        "Characters that nobody trained": unseen_table(results, {row.name: row.title for row in EXPERIMENTS}),
        "Ingredients": ablations(results, ablation_titles()),
    }
    page = "\n\n".join(f"## {title}\n\n{markdown_table(rows)}" for title, rows in tables.items() if rows)
    write_whole(folder / "README.md", page + "\n")


def ablation_titles() -> dict[str, str]:
    """The rows that show what the ingredients give, and what they are called."""
    return {
        row.name: row.title for row in EXPERIMENTS if {"ablation", "trunk", "finetune", "tuning"} & set(row.tables)
    }


def take_cores(slots: Iterator[int], jobs: int) -> None:
    """Give a thread its share of the cores; the runs that it starts inherit it, and `train_mfdn.py` goes by it."""
    if hasattr(os, "sched_setaffinity"):  # Linux; elsewhere the runs compete
        slot, cores = next(slots), sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[slot::jobs] or cores)


def run_row(row: Experiment, seed: int, args: argparse.Namespace) -> bool:
    """Run what is missing of one row and seed; whether all of it is there afterwards."""
    folder = Path(args.output, f"{row.name}-{seed}")
    dataset = args.dafre if row.on_dafre else args.dataset
    evaluation = (args.dafre_evaluation if row.on_dafre else args.evaluation) or dataset
    commands = row.commands(dataset, evaluation, args.recipe, seed, folder, args.flags, args.unseen)
    missing = {file: command for file, command in commands.items() if not is_done(folder, file)}
    if args.list and missing:
        print(f"\n## {row.name}: {row.question} About {row.minutes:g} minutes of a core; expected: {row.expected}")
    for file, command in missing.items():
        print(f"\n# {row.name}, seed {seed}, {file}\n{shlex.join(command)}", flush=True)
        if args.list:
            continue
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "log.txt").open("a", encoding="utf-8") as log:
            done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, env=os.environ | {"COLUMNS": "100"})
        if done.returncode or not is_done(folder, file):
            print(f"failed: see {folder}/log.txt", file=sys.stderr)
            return False
    return True


@command_line
def main(argv: list[str] | None = None) -> int:
    """0, 1 when a run failed (the others ran), 2 for a command that makes no sense."""
    args = build_parser().parse_args(argv)
    runs = planned_runs(args.tables, args.only, args.seeds)
    if args.jobs < 1:
        raise ValueError(f"--jobs is the number of runs side by side, at least 1, not {args.jobs}")
    if not args.dafre and any(row.on_dafre for row, _ in runs):
        print("Rows trained on DAF:re are left out: --dafre names no folder.")
        runs = [(row, seed) for row, seed in runs if not row.on_dafre]
    missing = [(row, seed) for row, seed in runs if not is_done(Path(args.output, f"{row.name}-{seed}"), TRAINED)]
    minutes = sum(row.minutes for row, _ in missing)
    print(f"{len(runs)} runs, {len(runs) - len(missing)} trained, about {minutes / args.jobs:.0f} minutes to go")
    started = time.monotonic()
    with ThreadPoolExecutor(args.jobs, initializer=take_cores, initargs=(itertools.count(), args.jobs)) as pool:
        jobs = {f"{row.name}-{seed}": pool.submit(run_row, row, seed, args) for row, seed in runs}
        try:
            failed = [name for name, job in jobs.items() if not job.result()]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # Ctrl-C ends the runs under way; start no others
            raise
    if failed:
        print(f"{len(failed)} runs failed: {', '.join(failed)}", file=sys.stderr)
    if not args.list:
        write_tables(Path(args.output))
        print(f"\nTables: {args.output}/README.md, after {(time.monotonic() - started) / 60:.0f} minutes")
    return int(bool(failed))


if __name__ == "__main__":
    raise SystemExit(main())
