"""Tables of strangers: an odd value costs its own row, a bomb is refused by name."""

import gzip
import io
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_find_dump import read, write_dafre
from test_parse import rows

from dataset_scripts.dump.read_tables import thrift_value


def write_parquet(folder, ids, general=None, **columns):
    number = len(ids)
    general = ["x"] * number if general is None else general
    columns = {"tag_string_general": general, "tag_string_character": ["a"] * number} | columns
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table({"id": ids} | columns), folder / "posts.parquet")
    return folder


@pytest.mark.parametrize(
    "ids, found, num_bad, num_without",
    [
        (pa.array([1.5, 1.9, 3.0, float("nan"), float("inf"), -float("inf"), 1e300]), [3], 5, 1),
        (pa.array(["1", " 2", "1_0", "٣", "1e3", "4.0", "", None, "9" * 30, "7"]), [1, 7], 7, 1),
        (pa.array([True, False]), [], 2, 0),
        (pa.array([2**63 - 1, 2**63, 5], pa.uint64()), [5, 2**63 - 1], 1, 0),
        (pa.array([b"1", b"2"]), [], 2, 0),
        (pa.array([[1], [2]]), [], 2, 0),
    ],
    ids=["floats", "texts", "bools", "large", "bytes", "lists"],
)
def test_an_id_is_a_whole_number_or_its_row_is_bad(tmp_path, ids, found, num_bad, num_without):
    _, parsed = read(write_parquet(tmp_path / "dump", ids))
    assert sorted(parsed.posts.post_ids.tolist()) == found
    assert (parsed.num_bad, parsed.num_without_id) == (num_bad, num_without)


def test_text_that_is_not_utf_8_costs_its_own_row(tmp_path):
    texts = pa.array([b"ok", b"\xff\xfe", b"long_hair ok", b"\x80"]).view(pa.string())
    lists = pa.array([[b"a"], [b"b"], [b"c", b"\xff"], [b"d"]]).view(pa.list_(pa.field("item", pa.string())))
    _, parsed = read(write_parquet(tmp_path / "dump", [1, 2, 3, 4], texts))
    assert parsed.posts.post_ids.tolist() == [1, 3] and [bad.line for bad in parsed.bad_lines] == [2, 4]
    assert "posts.parquet" in parsed.bad_lines[0].file and "utf-8" in parsed.bad_lines[0].reason
    (tmp_path / "dump" / "posts.parquet").unlink()
    columns = {"id": [1, 2, 3, 4], "general_tags": lists, "character_tags": [["m"]] * 4}
    pq.write_table(pa.table(columns), tmp_path / "dump" / "posts.parquet")
    _, parsed = read(tmp_path / "dump")
    assert parsed.posts.post_ids.tolist() == [1, 2, 4] and [bad.line for bad in parsed.bad_lines] == [3]


@pytest.mark.parametrize("kind", ["long text", "long list", "many long texts"])
def test_a_small_parquet_that_is_large_is_refused_by_name(tmp_path, kind):
    if kind == "long text":
        columns = {"id": [1], "tag_string_general": ["a" * 2**28], "tag_string_character": ["a"]}
    elif kind == "long list":
        values = pa.DictionaryArray.from_arrays(pa.array(np.zeros(3 * 10**7, np.int32)), ["tag"])
        general = pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)
        columns = {"id": [1], "general_tags": general, "character_tags": [["a"]]}
    else:
        general = pa.DictionaryArray.from_arrays(pa.array(np.zeros(10_000, np.int32)), ["tag " * 2**19])
        columns = {"id": range(10_000), "tag_string_general": general, "tag_string_character": ["a"] * 10_000}
    (tmp_path / "dump").mkdir()
    pq.write_table(pa.table(columns), tmp_path / "dump" / "posts.parquet", compression="zstd", compression_level=9)
    assert (tmp_path / "dump" / "posts.parquet").stat().st_size < 2**17
    with pytest.raises(ValueError, match="posts.parquet (unpacks to more than|has a value of)"):
        read(tmp_path / "dump")


def test_a_byte_order_mark_in_a_csv_of_dafre_changes_nothing(tmp_path):
    write_dafre(tmp_path / "plain", True)
    write_dafre(tmp_path / "marked", True)
    labels = tmp_path / "marked" / "labels"
    tags = gzip.decompress((labels / "tags.tar.gz").read_bytes())
    with tarfile.open(fileobj=io.BytesIO(tags)) as tar:
        content = tar.extractfile("labels/train_tags.csv").read()
    (labels / "train_tags.csv").write_bytes(b"\xef\xbb\xbf" + content)
    for path in [*labels.glob("*.csv")]:
        if path.name != "train_tags.csv":
            path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    plain, marked = (read(tmp_path / name)[1] for name in ("plain", "marked"))
    assert rows(plain.posts) == rows(marked.posts) and rows(plain.posts)[0][2] == ["1_girl", "blue_hair"]
    assert plain.num_bad == marked.num_bad == 0


@pytest.mark.parametrize("file", ["train.csv", "classid_classname.csv", "train_tags.csv"])
def test_a_stray_quote_costs_its_own_line(tmp_path, file):
    labels = tmp_path / "labels"
    write_dafre(tmp_path, True)
    (labels / "tags.tar.gz").unlink()
    lines = {
        "train.csv": ["class_id,dir"] + [f"{i},{i % 1000:04d}/{i}.jpg" for i in range(1, 1001)],
        "classid_classname.csv": [f"{i},name {i}" for i in range(1, 1001)],
        "train_tags.csv": ["id,dir,class_id,tags_cat0"] + [f"{i},x,{i},\"['tag {i}', 'b']\"" for i in range(1, 1001)],
    }
    lines[file][10] = '"' + lines[file][10]
    for name, rows_of_file in lines.items():
        (labels / name).write_text("\n".join(rows_of_file) + "\n")
    (labels / "val.csv").unlink()
    (labels / "test.csv").unlink()
    _, parsed = read(tmp_path)
    spoilt = 11 if file == "classid_classname.csv" else 10
    expected = {i for i in range(1, 1001) if file == "train_tags.csv" or i != spoilt}
    assert set(parsed.posts.post_ids.tolist()) == expected
    assert parsed.num_bad == (0 if file == "train_tags.csv" else 1)
    tags = {row[0]: row[2] for row in rows(parsed.posts)}
    assert all(tags[i] == ([] if file == "train_tags.csv" and i == spoilt else ["b", f"tag_{i}"]) for i in expected)


def test_the_footer_is_read_as_arrow_reads_it(tmp_path):
    rng = np.random.default_rng(18)
    lists = [[f"tag_{i}" for i in range(n)] for n in rng.integers(0, 9, 3000)]
    columns = {"id": range(3000), "general_tags": lists, "character_tags": [["a"]] * 3000, "score": rng.random(3000)}
    pq.write_table(pa.table(columns), tmp_path / "posts.parquet", row_group_size=700)
    metadata = pq.ParquetFile(tmp_path / "posts.parquet").metadata
    with (tmp_path / "posts.parquet").open("rb") as file:
        file.seek(-8 - metadata.serialized_size, 2)
        found = thrift_value(io.BytesIO(file.read(metadata.serialized_size)), 12)
    assert found[3] == 3000 and len(found[4]) == metadata.num_row_groups == 5
    for group in range(5):
        for column in range(4):
            ours, theirs = found[4][group][1][column][3], metadata.row_group(group).column(column)
            assert b".".join(ours[3]).decode() == theirs.path_in_schema
            assert (ours[5], ours[6], ours[7]) == (
                theirs.num_values,
                theirs.total_uncompressed_size,
                theirs.total_compressed_size,
            )


def test_a_damaged_footer_never_ends_the_process(tmp_path):
    """pyarrow 26 does, when it is asked for the column of a row group whose statistics do not fit."""
    columns = {"id": range(60), "general_tags": [["x", "y"]] * 60, "character_tags": [["a"]] * 60}
    pq.write_table(pa.table(columns), tmp_path / "posts.parquet", row_group_size=20)
    whole = (tmp_path / "posts.parquet").read_bytes()
    rng, refused = np.random.default_rng(18), 0
    for _ in range(1500):
        damaged = bytearray(whole)
        damaged[-1 - int(rng.integers(1500))] ^= 1 << int(rng.integers(8))
        (tmp_path / "posts.parquet").write_bytes(damaged)
        try:
            read(tmp_path)
        except (ValueError, OSError):  # in a sentence
            refused += 1
    assert refused > 300
