"""What a folder of runs found: one table with a row a run, one with a row a picture, and paired comparisons of them.

`runs.jsonl` has a line a run: `{"name", "seed", "training", "date", "commit", "test", "validation", "share"}`, of each
split what evaluate_mfdn.py wrote. `hits.parquet` has a row a picture (`split`, `post_id`) and columns of a run, such
as `mfdn-0 image`: whether the first character named was the right one (`image`, `image+tags`), and which share of its
true tags were found (`found_top25`, `found_top200`, `found_all`).
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..training.files import whole_file, write_whole

TRAINED = "results.json"  # what training itself wrote: its flags, its cost, and its own small test split
SPLITS = ("validation", "test", "share")
RUNS, HITS, COMPARED = "runs.jsonl", "hits.parquet", "comparisons.json"
RESAMPLES = 2_000


@dataclass
class RunResults:
    """The two tables.

    Args:
        rows: of runs.jsonl, by name and seed.
        hits: split → column → bool or float [n]; the pictures of a split in one order for all columns.
    """

    rows: list[dict]
    hits: dict[str, dict[str, np.ndarray]]

    def runs(self, name: str, split: str = "test") -> list[dict]:
        """The results on a split of every seed of a row, each with its "training"; [] where it was not run."""
        found = [row for row in self.rows if row["name"] == name and split in row]
        return [row[split] | {"training": row["training"]} for row in found]

    def hits_of(self, name: str, measure: str, split: str = "test") -> np.ndarray | None:
        """Right or wrong, or a share of tags, [seeds, pictures]; None where it was not run."""
        columns = self.hits.get(split, {})
        seeds = [row["seed"] for row in self.rows if row["name"] == name]
        found = [columns[key] for seed in seeds if (key := f"{name}-{seed} {measure}") in columns]
        return np.stack(found) if found else None


def results_file(split: str) -> str:
    """The file of a run's folder that holds its results on a split."""
    return f"results_{split}.json"


def predictions_file(split: str) -> str:
    """The file of a run's folder that holds what was named for each picture."""
    return f"predictions_{split}.parquet"


def collect(folder: Path) -> RunResults:
    """Both tables from the folders `NAME-SEED/` that the runner leaves; runs without results are left out.

    Runs whose folder is gone stay as they stand in the two files of `folder`: results outlive models.
    """
    earlier = read_run_results(folder)
    rows, pictures = [], {split: {} for split in SPLITS}
    for run in sorted(folder.glob("*-*/"), key=lambda path: (path.name.rpartition("-")[0], path.name)):
        name, _, seed = run.name.rpartition("-")
        trained = read_json(run / TRAINED)
        if not seed.isdigit() or trained is None:
            continue
        row = {"name": name, "seed": int(seed), "training": trained.get("training", {})}
        row |= {key: trained.get(key) for key in ("date", "commit")}
        for split in SPLITS:
            if found := read_json(run / results_file(split)):
                row[split] = {key: value for key, value in found.items() if key not in ("versions", "training")}
            if (path := run / predictions_file(split)).exists():
                pictures[split][run.name] = pq.read_table(path)
        rows.append(row)
    made = {(row["name"], row["seed"]) for row in rows}
    rows += [row for row in earlier.rows if (row["name"], row["seed"]) not in made]
    hits = {split: hits_by_column(tables, earlier.hits.get(split, {})) for split, tables in pictures.items()}
    return RunResults(
        sorted(rows, key=lambda row: (row["name"], row["seed"])),
        {split: columns for split, columns in hits.items() if columns},
    )


def hits_by_column(tables: dict[str, pa.Table], earlier: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """post_id and the hits of each run and modality, pictures by rising id; beside `earlier` columns.

    Raises:
        ValueError: two runs were scored on different pictures, which no comparison may mix.
    """
    columns = dict(earlier)
    for run, table in tables.items():
        post_ids = table["post_id"].to_numpy()
        if not np.array_equal(columns.setdefault("post_id", post_ids), post_ids):
            raise ValueError(
                f"{run} was scored on {len(post_ids)} pictures that are not the {len(columns['post_id'])} of the "
                "other runs. Score all runs of a folder on the same --evaluation set."
            )
        truth = np.array(table["character"].to_pylist())
        for measure in set(table.column_names) - {"post_id", "character"}:
            values = np.array(table[measure].to_pylist())
            columns[f"{run} {measure}"] = values.astype(np.float32) if measure.startswith("found") else values == truth
    return columns


def write_run_results(results: RunResults, folder: Path) -> None:
    """runs.jsonl and hits.parquet; each is whole or not there."""
    lines = [json.dumps(rounded(row), separators=(",", ":")) for row in results.rows]
    write_whole(folder / RUNS, "".join(f"{line}\n" for line in lines))
    if not results.hits:
        return
    parts = []
    for split, columns in results.hits.items():
        names = pa.array([split] * len(columns["post_id"])).dictionary_encode()
        parts.append(pa.table({"split": names} | {name: columns[name] for name in sorted(columns)}))
    with whole_file(folder / HITS) as unfinished:
        pq.write_table(pa.concat_tables(parts, promote_options="default"), unfinished, compression="zstd")


def read_run_results(folder: Path) -> RunResults:
    """What [`write_run_results`] wrote; nothing at all where there are no files."""
    path = folder / RUNS
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    hits: dict[str, dict[str, np.ndarray]] = {}
    if (folder / HITS).exists():
        table = pq.read_table(folder / HITS)
        for split in table["split"].unique().to_pylist():
            part = table.filter(pa.compute.equal(table["split"], split)).drop_columns("split")
            filled = [name for name in part.column_names if not part[name].null_count]
            hits[split] = {name: part[name].to_numpy() for name in filled}
    return RunResults(rows, hits)


def paired_difference(first: np.ndarray, second: np.ndarray) -> dict:
    """How much more often the first system is right than the second, on the same pictures, with a 95 % interval.

    Percentile bootstrap over pictures and, where a system has several, over its seeds, each resampled on its own
    (scipy). Three seeds are few to resample: such an interval is rather too narrow, so `by_seed` shows each pair.

    Args:
        first, second: right or wrong, or a share in [0, 1], [seeds, pictures].

    Returns:
        "difference", "low", "high" in [-1, 1], "by_seed" (seeds that both have), "seeds" (of each).
    """
    from scipy.stats import bootstrap  # a second to import

    if first.shape[1] != second.shape[1]:
        raise ValueError(f"Expected the same pictures, got {first.shape[1]} and {second.shape[1]}.")
    systems = [first.astype(np.float64), second.astype(np.float64)]
    resampled = [np.arange(len(hits)) for hits in systems if len(hits) > 1]

    def difference(pictures: np.ndarray, *seeds: np.ndarray) -> float:
        left = list(seeds)
        means = [hits[left.pop(0)].mean(axis=0) if len(hits) > 1 else hits[0] for hits in systems]
        return float((means[0] - means[1])[pictures].mean())

    samples = (np.arange(first.shape[1]), *resampled)
    found = bootstrap(
        samples, difference, vectorized=False, n_resamples=RESAMPLES, batch=100, method="percentile", rng=0
    ).confidence_interval
    return {
        "difference": difference(*samples),
        "low": float(found.low),
        "high": float(found.high),
        "by_seed": [float(a.mean() - b.mean()) for a, b in zip(*systems, strict=False)],
        "seeds": [len(hits) for hits in systems],
    }


def read_json(path: Path) -> dict | None:
    """A whole JSON file; None where there is none, or a part of one."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def rounded(value):
    """Floats to six places, all the way down: a hundredth of a picture among five thousand."""
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    return [rounded(part) for part in value] if isinstance(value, list) else value
