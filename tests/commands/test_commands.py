"""The `mfdn` command: fast to ask, one ending for every error."""

import inspect
import os
import resource
import shutil
import subprocess
import sys
import unittest.mock
from enum import StrEnum

import pytest

from modeling_mfdn import commands
from modeling_mfdn.commands import main, with_repeated_options
from modeling_mfdn.tagging.tag_folder import TagOptions

COMMANDS = ["tag", "review", "serve", "teach", "group", "import", "export", "page", "push"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches_with_an_example(command, capsys):
    assert main([command, "--help"]) == 0
    assert f"Example: mfdn {command} " in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("argv", [["--help"], ["tag", "--help"]])
def test_help_imports_nothing_heavy(argv):
    program = f"""
import sys
sys.argv = ["mfdn"]
from modeling_mfdn.commands import main
assert main({argv!r}) == 0
print(sorted({{"torch", "transformers", "numpy", "huggingface_hub", "fastapi"}} & {{*sys.modules}}))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_script_that_is_installed_is_this_command():
    script = shutil.which("mfdn", path=os.path.dirname(sys.executable))
    assert script, "pip install -e . puts it there"
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = subprocess.run([script, "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "tag" in done.stdout
    print(f"{resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before:.2f} s of CPU")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["tag", "nowhere", "--model", "nonsuch"], "There is no model 'nonsuch'"),
        (["export", "--model", "nonsuch"], "There is no model 'nonsuch'"),
        (["page", "--output", "nowhere"], "holds no page"),
        (["push", "dataset", "nowhere", "a/b", "--dry_run"], "nowhere"),
        (["push", "dataset", "nowhere", "a/b", "--dry_run", "--dataset_id", "c/d"], "--dataset_id is of a model"),
        (["tag", "x"], "Missing option '--model'"),
        (["tag", "x", "--model", "y", "--tag_threshold", "2"], "--tag_threshold"),
        (["nonsuch"], "nonsuch"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_what_is_asked_wrongly_is_a_sentence_and_2(argv, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert said in " ".join(error.split()) and "Traceback" not in error


def test_ctrl_c_is_a_word_and_130(monkeypatch, capsys):
    interrupted = unittest.mock.Mock(side_effect=KeyboardInterrupt)
    monkeypatch.setattr("modeling_mfdn.tagging.tag_folder.tag_folder", interrupted)
    assert main(["tag", "x", "--model", "y"]) == 130
    assert capsys.readouterr().err == "\nInterrupted.\n"


def test_options_of_several_values_are_written_behind_one_another():
    given = ["tag", "x", "--exclude", "solo", "1girl", "--first", "style", "--spaces", "--exclude", "a"]
    assert with_repeated_options(given) == (
        ["tag", "x", "--exclude", "solo", "--exclude", "1girl", "--first", "style", "--spaces", "--exclude", "a"]
    )
    assert with_repeated_options(["page", "--serve"]) == ["page", "--serve", "8000"]
    assert with_repeated_options(["page", "--serve", "9", "--int8"]) == ["page", "--serve", "9", "--int8"]


def test_no_sub_command_is_left_out_here():
    names = {command.name or command.callback.__name__ for command in commands.app.registered_commands}
    assert names == set(COMMANDS)


def test_what_can_be_asked_for_is_what_can_be_tagged_with_and_defaults_agree():
    asked = {
        name: parameter.default.value if isinstance(parameter.default, StrEnum) else parameter.default
        for name, parameter in inspect.signature(commands.tag).parameters.items()
        if name != "thresh"  # two thresholds at once
    }
    given = inspect.Parameter.empty
    assert asked == vars(TagOptions("a folder", "a model")) | {"folder": given, "model": given}
