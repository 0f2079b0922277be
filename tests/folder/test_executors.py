"""The same tasks on Dask and Ray give the same bytes as processes of this machine."""

import pytest
from dump_factory import write_dump
from test_build_danmul import random_posts, same_files

from dataset_scripts.build_danmul import main
from dataset_scripts.folder.executors import open_executor, run


def build(dump, output, *options):
    return main(["--source", str(dump), "--output", str(output), "--shard_size_mb", "0.02", *options])


@pytest.mark.slow
@pytest.mark.parametrize("kind, package", [("dask", "distributed"), ("ray", "ray")])
def test_shards_of_a_cluster_of_two_are_those_of_one_process(tmp_path, kind, package):
    pytest.importorskip(package)
    dump = write_dump(tmp_path / "dump", random_posts())
    assert build(dump, tmp_path / "alone", "--workers", "1") == 0
    assert build(dump, tmp_path / kind, "--workers", "2", "--executor", kind) == 0
    assert len(list((tmp_path / kind / "data").iterdir())) > 5
    assert same_files(tmp_path / "alone", tmp_path / kind)


@pytest.mark.slow
def test_an_existing_dask_scheduler_is_used_by_its_address(tmp_path):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        with open_executor("dask", 1, cluster.scheduler_address) as executor:
            assert [result for _, result in run(abs, [-1, 2, -3], executor)] == [1, 2, 3]


def test_an_address_without_a_cluster_is_refused(tmp_path, capsys):
    assert main(["--source", str(tmp_path), "--executor_address", "tcp://x:1"]) == 2
    assert "add --executor dask or ray" in capsys.readouterr().err
