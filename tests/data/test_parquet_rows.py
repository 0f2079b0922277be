"""Rows read from Parquet files where they lie: the same rows, each once an epoch, in an order of their own."""

import os
import pickle
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Features
from torch.utils.data import DataLoader

from modeling_mfdn.data import parquet_rows
from modeling_mfdn.data.parquet_rows import LANES, ParquetRows, RowGroupBatches

SIZES = (250, 90, 613)  # rows of the files; row groups of 40


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[str]:
    folder, start, files = tmp_path_factory.mktemp("parquet"), 0, []
    for number, size in enumerate(SIZES):
        ids = np.arange(start, start + size)
        table = pa.table({"post_id": ids, "tags": [[f"tag_{i % 7}"] * (i % 3) for i in ids], "more": ids * 2.5})
        files.append(str(folder / f"train-{number:05d}-of-00003.parquet"))
        pq.write_table(table, files[-1], row_group_size=40)
        start += size
    return files


@pytest.fixture
def rows(files) -> ParquetRows:
    return ParquetRows(files, ["post_id", "tags"])


def ids_of(batches) -> list[list[int]]:
    return [[row["post_id"] for row in batch] for batch in batches]


def test_rows_are_those_of_the_files(rows, files):
    expected = [row for file in files for row in pq.read_table(file, columns=["post_id", "tags"]).to_pylist()]
    assert len(rows) == sum(SIZES) and list(rows) == expected and rows[:] == expected
    assert rows[611] == expected[611] and rows[5:900:111] == expected[5:900:111]
    assert rows.__getitems__([900, 3, 3, 251]) == [expected[i] for i in (900, 3, 3, 251)]
    assert rows.column("more").to_pylist() == [row["post_id"] * 2.5 for row in expected]
    with pytest.raises(IndexError, match="0 to 952, got 953"):
        rows[953]
    with pytest.raises(IndexError):
        rows[-1]


def test_some_of_the_rows_and_of_the_columns(rows):
    some = rows.select([950, 7, 300]).select([0, 2]).with_columns(["post_id"])
    assert len(some) == 2 and some[:] == [{"post_id": 7}, {"post_id": 950}]
    assert some.column("more").to_pylist() == [17.5, 2375.0]
    assert len(rows.select([])) == 0 and rows.select([])[:] == []


def test_files_that_do_not_fit_together_are_refused(files, tmp_path):
    pq.write_table(pa.table({"post_id": [1]}), tmp_path / "other.parquet")
    with pytest.raises(ValueError, match="other.parquet has other columns"):
        ParquetRows([*files, str(tmp_path / "other.parquet")])
    written = []
    for names, fingerprint in ((["alice"], "1"), (["alice"], "2"), (["bob"], "1")):
        features = Features({"character": ClassLabel(names=names)})
        metadata = features.arrow_schema.metadata | {b"fingerprint": fingerprint.encode()}
        table = pa.table({"character": [0]}).replace_schema_metadata(metadata)
        written.append(str(tmp_path / f"{len(written)}.parquet"))
        pq.write_table(table, written[-1])
    assert len(ParquetRows(written[:2])) == 2
    with pytest.raises(ValueError, match="2.parquet has other columns or classes"):
        ParquetRows(written)
    with pytest.raises(ValueError, match="got none"):
        ParquetRows([])


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 7])
@pytest.mark.parametrize("batch_size", [2, 16, 64, 1000])
def test_every_row_comes_once_an_epoch_and_every_process_has_as_many_batches(rows, num_ranks, batch_size):
    for epoch in range(2):
        seen, lengths = [], set()
        for rank in range(num_ranks):
            batches = RowGroupBatches(rows, batch_size, 5, rank, num_ranks)
            batches.set_epoch(epoch)
            drawn = list(batches)
            assert len(drawn) == len(batches) and all(0 < len(batch) <= batch_size for batch in drawn)
            lengths.add(len(drawn))
            seen += sum(drawn, [])
        assert sorted(seen) == list(range(sum(SIZES))) and len(lengths) == 1


def test_a_process_without_a_row_for_the_last_batch_of_the_others_still_takes_part(rows):
    some = rows.select(range(129))  # 65 and 64 rows of two processes, in batches of 32: three batches each
    parts = [list(RowGroupBatches(some, 32, 0, rank, 2)) for rank in range(2)]
    assert [len(part) for part in parts] == [3, 3]
    assert sorted(sum(parts[0] + parts[1], [])) == list(range(129))


def test_the_order_is_that_of_seed_and_epoch(rows):
    def order(seed, epoch):
        batches = RowGroupBatches(rows, 32, seed)
        batches.set_epoch(epoch)
        return list(batches)

    assert order(1, 0) == order(1, 0) and order(1, 2) == order(1, 2)
    assert order(1, 0) != order(1, 1) and order(1, 0) != order(2, 0)


def test_a_batch_is_mixed_from_several_row_groups_and_another_epoch_mixes_others(rows):
    groups, met = rows.groups(), []
    for epoch in range(2):
        batches = RowGroupBatches(rows, 32)
        batches.set_epoch(epoch)
        drawn = list(batches)
        assert np.mean([len(set(groups[batch].tolist())) for batch in drawn]) > 4
        met.append({frozenset((a, b)) for batch in drawn for a in batch for b in batch if a < b})
    assert len(met[0] & met[1]) < 0.2 * len(met[0])


@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_batches_do_not_depend_on_the_number_of_workers(rows, num_workers):
    alone = DataLoader(rows, batch_sampler=RowGroupBatches(rows, 24), collate_fn=list)
    shared = DataLoader(rows, batch_sampler=RowGroupBatches(rows, 24), collate_fn=list, num_workers=num_workers)
    assert ids_of(shared) == ids_of(alone)


def test_no_row_group_is_read_twice_and_few_are_kept(files, monkeypatch):
    read = []
    monkeypatch.setattr(parquet_rows, "WINDOW_ROWS", 80)  # of two row groups
    read_row_group = pq.ParquetFile.read_row_group
    counting = lambda self, number, **options: (read.append(number), read_row_group(self, number, **options))[1]  # noqa: E731
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counting)
    rows = ParquetRows(files)
    full = len(rows) // 24 - LANES  # behind them what is left of the lanes is mixed
    for batch in list(RowGroupBatches(rows, 24))[:full]:
        rows.__getitems__(batch)
        assert len(rows._groups) <= (LANES + 2) * 2
    assert len(read) <= len(rows.group_places)


def test_it_is_pickled_without_what_it_has_read(rows):
    size = len(pickle.dumps(rows))
    list(rows)
    assert len(pickle.dumps(rows)) == size
    assert pickle.loads(pickle.dumps(rows))[17] == rows[17]


MEMORY = """
import resource, sys
from modeling_mfdn.data.parquet_rows import ParquetRows, RowGroupBatches
rows = ParquetRows(sys.argv[1:])
for batch in RowGroupBatches(rows, 32):
    rows.__getitems__(batch)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.long
def test_memory_does_not_grow_with_the_set(tmp_path):
    """Four times the files, and no more memory: what is read lies in a few row groups. The files are not mapped, for
    pages of a mapped file count as memory of the process while the machine has room."""
    content = np.random.default_rng(0).bytes(20_000)
    schema = pa.schema({"post_id": pa.int64(), "image": pa.binary()})
    files = []
    for number in range(16):
        files.append(str(tmp_path / f"{number}.parquet"))
        ids = range(number * 1000, number * 1000 + 1000)
        table = pa.table({"post_id": ids, "image": [content] * 1000}, schema=schema)
        pq.write_table(table, files[-1], row_group_size=100, use_dictionary=False, compression="none")

    def peak(some):
        done = subprocess.run(
            [sys.executable, "-c", MEMORY, *(f"file://{file}" for file in some)],
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": os.getcwd()},
        )
        assert done.returncode == 0, done.stderr[-800:]
        return int(done.stdout)

    small, large = peak(files[:4]), peak(files)
    assert large < small + 60  # MB; the files have 80 and 320
