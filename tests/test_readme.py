"""What the README says is true: its figures, its commands, its words about other files."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

from modeling_mfdn.evaluation.tables import render

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(
    r"^(?:accelerate launch|python) (?:-m )?(train_mfdn|evaluate_mfdn|dataset_scripts\.\w+)(?:\.py)?(.*)$",
    README.replace("\\\n", " "),
    re.MULTILINE,
)


def test_figures_are_those_of_the_files_they_come_from():
    assert render(README) == README


@pytest.mark.parametrize("module, flags", COMMANDS, ids=[" ".join(command)[:60] for command in COMMANDS])
def test_command_parses(module, flags):
    importlib.import_module(module).build_parser().parse_args(shlex.split(flags, comments=True))


def test_the_two_commands_stand_there_literally():
    assert "pip install -e . && accelerate launch train_mfdn.py" in README
    assert "pip install -e '.[test]' && pytest" in README


def test_pictures_exist():
    for target in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README):
        assert (ROOT / target).exists(), target
