"""The paper's experiments as a list of commands: runs what is missing, skips what is done, goes on after a kill.

    python -m modeling_mfdn.evaluation.experiments --dataset danmul --output runs --list
    python -m modeling_mfdn.evaluation.experiments --dataset danmul --output runs --seeds 3

Each run is `train_mfdn.py` with the flags below and leaves `runs/NAME-SEED/results.json`, from which
`python -m modeling_mfdn.evaluation.tables` writes Tables V and VI.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass
class Experiment:
    """One row: what differs from `train_mfdn.py --recipe quick`, in which tables it stands, and what it costs."""

    name: str
    tables: tuple[str, ...]
    flags: str
    minutes: float  # on two cores, on the embedded set

    def command(self, dataset: str, recipe: str, seed: int, folder: Path) -> list[str]:
        """The command line of one run; it goes on from the last checkpoint if there is one."""
        argv = ["accelerate", "launch", str(ROOT / "train_mfdn.py"), "--dataset", dataset, "--recipe", recipe]
        argv += ["--seed", str(seed), "--evaluate_test", "--output_dir", str(folder), *shlex.split(self.flags)]
        if any(folder.glob("checkpoint-*")):
            argv += ["--resume_from_checkpoint", "last"]
        return argv


EXPERIMENTS = (
    Experiment("vit", ("V",), "--train_modality image", 4),
    Experiment("no_mlm", ("V",), "--mask_schedule none", 5),
    Experiment("mfdn", ("V", "VI"), "", 5),
    # Table VI: the paper's two sizes of Label2Label, and the tagger that people would train today.
    Experiment("label2label_25", ("VI",), "--system label2label --num_tags 25 --tag_loss_weight 0.1", 6),
    Experiment("label2label_200", ("VI",), "--system label2label --num_tags 200 --tag_loss_weight 0.1", 20),
    Experiment("multi_label_bce", ("VI",), "--system multi_label --tag_loss bce --tag_loss_weight 0.1", 4),
    Experiment("multi_label_asl", ("VI",), "--system multi_label --tag_loss asymmetric --tag_loss_weight 0.1", 4),
    # Beyond the paper: what the curriculum is.
    Experiment("linear", ("curriculum",), "--mask_schedule linear_hold", 5),
    Experiment("constant_15", ("curriculum",), "--mask_schedule constant", 6),
    Experiment("always_hidden", ("curriculum",), "--mask_schedule constant --mask_peak 1", 5),
    Experiment("per_post", ("curriculum",), "--mask_schedule per_post", 6),
)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--dataset", default="danmul", help="built data set folder (default: %(default)s)")
    add("--output", default="runs", help="folder of the runs (default: %(default)s)")
    add("--tables", nargs="+", choices=["V", "VI", "curriculum"], default=["V", "VI"], help="(default: V VI)")
    add("--only", nargs="+", metavar="NAME", help="only these rows")
    add("--seeds", type=int, default=3, help="runs of each row of Table V; the others run once (default: %(default)s)")
    add("--recipe", choices=["quick", "paper"], default="quick", help="of train_mfdn.py (default: %(default)s)")
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
        if seed == 0 or "V" in experiment.tables
    ]


def is_done(folder: Path) -> bool:
    """Whether a run has left its results."""
    try:
        return "num_images" in json.loads((folder / "results.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return False


def main(argv: list[str] | None = None) -> int:
    """0, or 1 when a run failed (the others ran)."""
    args = build_parser().parse_args(argv)
    try:
        runs = planned_runs(args.tables, args.only, args.seeds)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    missing = [(row, seed) for row, seed in runs if not is_done(Path(args.output, f"{row.name}-{seed}"))]
    minutes = sum(row.minutes for row, _ in missing)
    print(f"{len(runs)} runs, {len(runs) - len(missing)} done, about {minutes:.0f} minutes to go on two cores")
    failed = []
    for row, seed in missing:
        folder = Path(args.output, f"{row.name}-{seed}")
        command = [*row.command(args.dataset, args.recipe, seed, folder), *args.flags]
        print(f"\n# {row.name}, seed {seed}, about {row.minutes:g} minutes\n{shlex.join(command)}", flush=True)
        if args.list:
            continue
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "log.txt").open("a", encoding="utf-8") as log:
            done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, env=os.environ | {"COLUMNS": "100"})
        if done.returncode or not is_done(folder):
            failed.append(f"{row.name}-{seed}")
            print(f"failed: see {folder}/log.txt", file=sys.stderr)
    if failed:
        print(f"{len(failed)} runs failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    raise SystemExit(main())
