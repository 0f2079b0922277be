"""The rows of Parquet files, read where they lie: from a folder or over the network, without a copy.

A row group (about 100 posts) is the least that can be read. So an epoch's order shuffles row groups and mixes a few of
them at a time, and each worker keeps those that its next batches come from.
"""

import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features
from torch.utils.data import Dataset, Sampler, get_worker_info

LANES = 4  # batches come from them in turn, so that up to so many workers read no row group twice
WINDOW_ROWS = 400  # of each lane that are mixed at a time: 1,600 rows lie in memory, in all workers together
MAX_OPEN_FILES = 8  # of each worker: a footer holds the names of all characters
THREADS = 16  # that read footers, of which each is a round trip to the Hub


class ParquetRows(Dataset):
    """Rows of Parquet files as a map-style data set: `rows[3]` is a dictionary of Python values, `rows[3:5]` are two.

    Only numbers of rows and places of row groups are held, and the few row groups that were read last. Picklable; safe
    in workers of any kind.

    Args:
        files: paths or URLs that fsspec knows, read in this order.
        columns: that a row has; None for all.

    Raises:
        OSError, pyarrow.ArrowException: a file cannot be read, or is no Parquet, or has other columns.
        ValueError: no files, or one with a schema of its own.
    """

    def __init__(self, files: Sequence[str], columns: Sequence[str] | None = None):
        if not files:
            raise ValueError("Expected Parquet files, got none.")
        self.files = list(files)
        sizes, places = [], []
        with ThreadPoolExecutor(THREADS) as threads:
            for file, (group_sizes, schema) in enumerate(threads.map(read_footer, self.files)):
                if file == 0:
                    self.schema: pa.Schema = schema
                elif not have_same_features(schema, self.schema):
                    raise ValueError(
                        f"{self.files[file]} has other columns or classes than {self.files[0]}: {schema.names}, "
                        f"{self.schema.names}. Are these files of one data set?"
                    )
                sizes += group_sizes
                places += [(file, group) for group in range(len(group_sizes))]
        self.columns = list(columns or self.schema.names)
        self.group_starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])  # [G + 1], rows before each
        self.group_places = np.array(places, np.int64).reshape(-1, 2)  # [G, 2]: file, row group of it
        self.rows: np.ndarray | None = None  # int64 [n], those that are left; None = all
        self._forget()

    def _forget(self) -> None:
        self._process = os.getpid()
        self._files: OrderedDict[int, pq.ParquetFile] = OrderedDict()
        self._groups: OrderedDict[int, pa.Table] = OrderedDict()

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_files": OrderedDict(), "_groups": OrderedDict()}

    def __len__(self) -> int:
        return int(self.group_starts[-1]) if self.rows is None else len(self.rows)

    @property
    def column_names(self) -> list[str]:
        return self.columns

    @property
    def window(self) -> int:
        """Row groups of a lane that are mixed at a time."""
        largest = int(np.diff(self.group_starts).max(initial=1))
        return max(1, WINDOW_ROWS // largest)

    def groups(self) -> np.ndarray:
        """int64 [n]: the row group of each row, rising."""
        rows = np.arange(len(self)) if self.rows is None else self.rows
        return np.searchsorted(self.group_starts, rows, side="right") - 1

    def select(self, indices: Sequence[int] | np.ndarray) -> "ParquetRows":
        """Some of the rows, in the order of the files."""
        return self._with(rows=np.sort(np.asarray(indices if self.rows is None else self.rows[indices], np.int64)))

    def with_columns(self, columns: Sequence[str]) -> "ParquetRows":
        """The same rows with these columns alone."""
        return self._with(columns=list(columns))

    def _with(self, **changes) -> "ParquetRows":
        changed = object.__new__(ParquetRows)
        changed.__dict__.update(self.__dict__ | changes)
        changed._forget()
        return changed

    def column(self, name: str) -> pa.ChunkedArray:
        """One column of all rows; nothing else is read."""
        with ThreadPoolExecutor(THREADS) as threads:
            parts = list(threads.map(lambda file: read_column(file, name), self.files))
        values = pa.chunked_array([chunk for part in parts for chunk in part.chunks], self.schema.field(name).type)
        return values if self.rows is None else values.take(pa.array(self.rows))

    def __getitem__(self, index):
        if isinstance(index, slice):
            return self.__getitems__(range(*index.indices(len(self))))
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict]:
        """The rows as dictionaries, in the order asked for."""
        wanted = np.asarray(indices, np.int64)
        if len(wanted) and not (0 <= wanted.min() and wanted.max() < len(self)):
            raise IndexError(f"Expected rows of 0 to {len(self) - 1}, got {wanted.min()} to {wanted.max()}.")
        wanted = wanted if self.rows is None else self.rows[wanted]
        groups = np.searchsorted(self.group_starts, wanted, side="right") - 1
        found: list[dict] = [{}] * len(wanted)
        for group in np.unique(groups).tolist():
            places = np.flatnonzero(groups == group)
            table = self._group(group).take(pa.array(wanted[places] - self.group_starts[group]))
            for place, row in zip(places.tolist(), table.to_pylist(), strict=True):
                found[place] = row
        return found

    def __iter__(self) -> Iterator[dict]:
        for index in range(len(self)):
            yield self[index]

    def _group(self, group: int) -> pa.Table:
        """A row group, kept until so many others were read as the batches of a worker come from."""
        if self._process != os.getpid():  # a forked worker must not share what its parent opened
            self._forget()
        if group in self._groups:
            return self._groups[group]
        file, number = self.group_places[group].tolist()
        table = self._file(file).read_row_group(number, columns=self.columns, use_threads=False)
        self._groups[group] = table
        worker = get_worker_info()
        lanes = -(-LANES // worker.num_workers) if worker else LANES
        # Two more: one for a batch that begins in the old window, one because lanes are not of one length.
        while len(self._groups) > (lanes + 2) * self.window:
            self._groups.popitem(last=False)  # the first that was read: lanes leave their windows in turn
        return table

    def _file(self, file: int) -> pq.ParquetFile:
        if file not in self._files:
            self._files[file] = open_parquet(self.files[file])
            if len(self._files) > MAX_OPEN_FILES:
                self._files.popitem(last=False)[1].close()
        self._files.move_to_end(file)
        return self._files[file]


def open_parquet(file: str) -> pq.ParquetFile:
    """A local file is mapped into memory; of one elsewhere only what is asked for is fetched."""
    if "://" in file:
        return pq.ParquetFile(fsspec.open(file).open(), pre_buffer=True)
    return pq.ParquetFile(file, memory_map=True)


def read_footer(file: str) -> tuple[list[int], pa.Schema]:
    """Rows of each row group, and the columns."""
    with open_parquet(file) as opened:
        metadata = opened.metadata
        return [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)], opened.schema_arrow


def have_same_features(one: pa.Schema, other: pa.Schema) -> bool:
    """Whether columns and names of classes are the same."""
    if one.equals(other, check_metadata=True):  # which is quick, and nearly always so
        return True
    return one.equals(other) and Features.from_arrow_schema(one) == Features.from_arrow_schema(other)


def read_column(file: str, name: str) -> pa.ChunkedArray:
    with open_parquet(file) as opened:
        return opened.read(columns=[name], use_threads=False)[name]


class RowGroupBatches(Sampler[list[int]]):
    """Batches of an epoch in an order that depends on seed and epoch alone, whatever the number of workers; every row
    exactly once over all processes, which all have the same number of batches.

    Row groups are shuffled and dealt to the processes, and in each to `LANES`. In a lane a window of row groups is
    mixed at a time, and the batches come from the lanes in turn; what is no full batch in a lane is mixed at the end.

    Args:
        rows: the data set.
        batch_size: of this process.
        seed: any integer from 0.
        rank, num_ranks: this process among all of them.
    """

    def __init__(self, rows: ParquetRows, batch_size: int, seed: int = 0, rank: int = 0, num_ranks: int = 1):
        self.groups, self.window = rows.groups(), rows.window
        self.batch_size, self.seed, self.rank, self.num_ranks = batch_size, seed, rank, num_ranks
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.groups) // (self.num_ranks * self.batch_size))

    def __iter__(self) -> Iterator[list[int]]:
        num_batches, batches = len(self), self.batches()
        if len(batches) < num_batches:  # this process has no row for the last batch of the others
            batches += [batches[0][:1]]
            batches[0] = batches[0][1:] if self.batch_size > 1 else batches[0]  # else one row comes twice
        return iter([batch.tolist() for batch in batches])

    def batches(self) -> list[np.ndarray]:
        rng = np.random.default_rng((self.seed, self.epoch))
        _, starts, sizes = np.unique(self.groups, return_index=True, return_counts=True)
        order = rng.permutation(len(sizes))
        sizes, starts = sizes[order], starts[order]
        rows = np.repeat(starts - (np.cumsum(sizes) - sizes), sizes) + np.arange(len(self.groups))
        mine = slice(*(len(rows) * rank // self.num_ranks for rank in (self.rank, self.rank + 1)))
        groups = np.repeat(np.arange(len(sizes)), sizes)[mine]
        groups -= groups[0] if len(groups) else 0
        lanes, windows = groups % LANES, groups // (LANES * self.window)
        mixed = np.lexsort((rng.random(len(rows))[mine], windows, lanes))
        rows, lanes = rows[mine][mixed], lanes[mixed]
        of_lane = [rows[lanes == lane] for lane in range(LANES)]
        full = [len(lane) // self.batch_size for lane in of_lane]
        batches = [
            of_lane[lane][number * self.batch_size : (number + 1) * self.batch_size]
            for number in range(max(full))
            for lane in range(LANES)
            if number < full[lane]
        ]
        left = [lane[number * self.batch_size :] for lane, number in zip(of_lane, full, strict=True)]
        rest = rng.permutation(np.concatenate(left))
        return batches + [rest[start : start + self.batch_size] for start in range(0, len(rest), self.batch_size)]
