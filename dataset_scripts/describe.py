"""Tables I to III and Fig. 2 of a built folder, on the command line."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from upath import UPath

from dataset_scripts.folder.files import write_whole
from dataset_scripts.folder.lists import json_text, read_record, shard_batches
from dataset_scripts.folder.statistics import (
    all_statistics,
    draw_figures,
    table_1,
    table_1_markdown,
    table_2_markdown,
    table_3_markdown,
)
from dataset_scripts.folder.terminal import command_line
from dataset_scripts.rules.split_posts import SPLITS

HELP = "Tables I to III and Fig. 2 of the paper for a built folder; writes statistics.json, tables.md, figures/ there."
EXAMPLE = """examples:
  python -m dataset_scripts.describe --dataset danmul
  python -m dataset_scripts.describe --dataset danmul --dafre dafre    # a second built set, for Table II"""


def read_columns(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Split, character and number of tags of every post of a built folder, [N] each; no image is read.

    Raises FileNotFoundError when there are no shards, ValueError when one cannot be read.
    """
    columns: tuple[list, list, list] = ([], [], [])
    for split, name in enumerate(SPLITS):
        for batch in shard_batches(folder, name, ["character", "tags"]):
            columns[0].append(np.full(len(batch), split, np.int8))
            columns[1].append(batch["character"].to_numpy(zero_copy_only=False))
            columns[2].append(pc.list_value_length(batch["tags"]).to_numpy(zero_copy_only=False))
    if not columns[0]:
        raise FileNotFoundError(f"--dataset expects a built folder with data/*.parquet, {folder} has none.")
    return tuple(np.concatenate(column) for column in columns)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "describe", description=HELP, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", default="danmul", metavar="DIR", help="built folder (default: danmul)")
    parser.add_argument("--dafre", metavar="DIR", help="another built folder, such as DAF:re, for Table II")
    return parser


@command_line
def main(argv: list[str] | None = None) -> int:
    """Run the command; 0, or 2 after an error of the user's input in one sentence."""
    options = build_parser().parse_args(argv)
    folder = Path(options.dataset)
    record = read_record(folder)
    builds = [(folder.resolve().name, record)]
    if options.dafre:
        builds.append((Path(options.dafre).resolve().name, read_record(Path(options.dafre))))
    splits, characters, tag_counts = read_columns(folder)
    table = table_1(splits, characters, tag_counts, record["counts"]["characters"])
    text = f"Table I\n\n{table_1_markdown(table)}\n\nTable II\n\n{table_2_markdown(builds)}\n"
    if "share" in record:
        text += f"\nTable III\n\n{table_3_markdown(record)}\n"
    print(text)
    write_whole(folder / "statistics.json", json_text(all_statistics(table, record)))
    write_whole(folder / "tables.md", text)
    draw_figures(UPath(folder / "figures"), splits, characters, tag_counts)
    print(f"Wrote statistics.json, tables.md and figures/ (Fig. 2) into {folder}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
