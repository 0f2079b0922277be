"""Dan:share (paper Table III): the posts that are in the test splits of Dan:mul and of DAF:re."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tqdm import tqdm
from upath import UPath

from dataset_scripts.folder.card import dataset_card
from dataset_scripts.folder.files import check_replaceable, replace_folder, write_whole
from dataset_scripts.folder.lists import json_text, read_class_names, read_record, split_column
from dataset_scripts.folder.shards import parquet_writer, size_and_digest
from dataset_scripts.folder.statistics import all_statistics, table_3_markdown
from dataset_scripts.folder.terminal import command_line
from dataset_scripts.rules.split_posts import SPLITS

MARKER = "test-00000-of-*.parquet"  # of a share/ that this command wrote, and may replace
HELP = """Write DANMUL/share/: posts of DANMUL's test split that are in DAFRE's test split too, by post id. Never by
class name: `_(kantai_collection)` became `_(kancolle)`. Then load_dataset("danmul", "share") reads them."""
EXAMPLE = """example:
  python -m dataset_scripts.build_danmul --source DAFRE_DOWNLOAD --output dafre --split published --min_posts 1
  python -m dataset_scripts.build_danshare --danmul danmul --dafre dafre --also_dafre"""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "build_danshare", description=HELP, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--danmul", default="danmul", metavar="DIR", help="built folder to add share/ to (default: danmul)")
    add("--dafre", default="dafre", metavar="DIR", help="built folder to share with (default: dafre)")
    add(
        "--also_dafre",
        action="store_true",
        help="add share/ to DAFRE too: the same posts with its own images and classes, for Table IV",
    )
    add("--overwrite", action="store_true", help="replace a share/ that is there")
    return parser


@command_line
def main(argv: list[str] | None = None) -> int:
    """Run the command; 0, or 2 after an error of the user's input in one sentence."""
    options = build_parser().parse_args(argv)
    danmul, dafre = Path(options.danmul), Path(options.dafre)
    print(table_3_markdown({"share": build_share(danmul, dafre, options.overwrite)}))
    if options.also_dafre:
        build_share(dafre, danmul, options.overwrite)
    return 0


def build_share(folder: Path, other: Path, overwrite: bool) -> dict:
    """Write `folder/share/` and what it is into build.json and README.md. Returns the entry "share" of build.json.

    Raises FileNotFoundError, FileExistsError or ValueError with a sentence for the user.
    """
    record, _ = read_record(folder), read_record(other)
    check_replaceable(folder / "share", MARKER, overwrite)
    ours, theirs = ({split: split_column(path, split, "post_id") for split in SPLITS} for path in (folder, other))
    shared = np.intersect1d(ours["test"], theirs["test"])
    if not len(shared):
        raise ValueError(
            f"Expected posts in both test splits, but those of {folder} ({len(ours['test']):,}) and of {other} "
            f"({len(theirs['test']):,}) have no id in common: are both of the same board?"
        )
    with replace_folder(folder / "share", MARKER, overwrite) as unfinished:
        shards, num_classes = write_share(folder, unfinished, shared)
    entry = {
        "images": len(shared),
        "classes": num_classes,
        "test_images": len(ours["test"]),
        "test_images_of_the_other": len(theirs["test"]),
        # What a model trained on the other set has seen of this test, and the other way round.
        "of_these_in_train_or_validation_of_the_other": count_elsewhere(ours["test"], theirs),
        "of_the_others_test_in_train_or_validation": count_elsewhere(theirs["test"], ours),
        "shards": shards,
    }
    record["share"] = entry
    statistics = all_statistics(json.loads((folder / "statistics.json").read_text(encoding="utf-8")), record)
    write_whole(folder / "build.json", json_text(record))
    write_whole(folder / "statistics.json", json_text(statistics))
    card = dataset_card(record, statistics, read_class_names(UPath(folder)), has_share=True)
    write_whole(folder / "README.md", card)
    return entry


def count_elsewhere(ids: np.ndarray, splits: dict[str, np.ndarray]) -> int:
    """How many ids are in train or validation of the other set."""
    return sum(len(np.intersect1d(ids, splits[split])) for split in ("train", "validation"))


def write_share(folder: Path, output: Path, shared: np.ndarray) -> tuple[list[dict], int]:
    """One shard for each test shard that has shared posts, a row group at a time. Returns the shards and classes."""
    sources = sorted((folder / "data").glob("test-*.parquet"))
    wanted = pa.array(shared)
    sources = [path for path in sources if np.isin(pq.read_table(path, columns=["post_id"])["post_id"], shared).any()]
    shards, classes = [], set()
    for number, path in enumerate(tqdm(sources, "writing share", unit=" shards", disable=None)):
        target = UPath(output / f"test-{number:05d}-of-{len(sources):05d}.parquet")
        source, rows = pq.ParquetFile(path), 0
        with target.open("wb") as file, parquet_writer(file, source.schema_arrow) as writer:
            for group in range(source.num_row_groups):
                table = source.read_row_group(group)
                table = table.filter(pc.is_in(table["post_id"], wanted))
                classes.update(table["character"].to_pylist())
                rows += len(table)
                if len(table):
                    writer.write_table(table)
        shards.append({"file": target.name, "rows": rows} | size_and_digest(target))
    return shards, len(classes)


if __name__ == "__main__":
    raise SystemExit(main())
