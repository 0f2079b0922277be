"""Folders are whole or not there, and what a killed run left is gone after the next."""

import os
import signal
import subprocess
import sys

import pytest

from modeling_mfdn.training.files import replace_folder

CHILD = """
import sys, time
from modeling_mfdn.training.files import replace_folder
with replace_folder(sys.argv[1], "marker", False) as folder:
    (folder / "large").write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""


def write(output, text, overwrite=False):
    with replace_folder(output, "marker", overwrite) as folder:
        assert not list(folder.iterdir())
        (folder / "marker").write_text(text)


def test_a_folder_is_there_when_it_is_whole_and_nothing_else_is(tmp_path):
    output = tmp_path / "new" / "out"
    write(output, "one")
    with pytest.raises(FileExistsError, match="--overwrite"):
        write(output, "two")
    write(output, "two", overwrite=True)
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), replace_folder(output, "marker", True) as folder:
            (folder / "marker").write_text("three")
            raise error
    assert [path.name for path in output.parent.iterdir()] == ["out"]
    assert (output / "marker").read_text() == "two"


def test_what_came_to_lie_there_meanwhile_is_not_replaced(tmp_path):
    with pytest.raises(FileExistsError, match="was not written by this command"):
        with replace_folder(tmp_path / "out", "marker", True) as folder:
            (folder / "marker").write_text("one")
            (tmp_path / "out").mkdir()
            (tmp_path / "out" / "holiday.jpg").write_bytes(b"mine")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "holiday.jpg"]


@pytest.mark.skipif(sys.platform == "win32", reason="no locks, no SIGKILL")
def test_two_runs_do_not_mix_and_what_a_killed_run_left_is_removed_by_the_next(tmp_path):
    output = tmp_path / ("long " * 40)
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(output)], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout.readline() == "writing\n"
        with pytest.raises(FileExistsError, match="Another run is writing"):
            write(output, "one")
        assert child.poll() is None and list(tmp_path.rglob("large"))  # its work is still there
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.communicate()
    assert list(tmp_path.rglob("large")) and not output.exists()
    write(output, "one")
    assert list(tmp_path.iterdir()) == [output] and (output / "marker").read_text() == "one"


def test_nothing_is_written_or_removed_through_a_link(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "holiday.jpg").write_bytes(b"mine")
    with replace_folder(tmp_path / "out", "marker", True) as folder:
        work = folder.parent
    work.symlink_to(tmp_path / "mine")
    with pytest.raises(OSError):
        write(tmp_path / "out", "one", overwrite=True)
    assert (tmp_path / "mine" / "holiday.jpg").exists()
