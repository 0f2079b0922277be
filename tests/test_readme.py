"""What the README says is true: its figures, its commands, its words about other files."""

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from character_factory import give_statistics, picture_of

from modeling_mfdn import MFDNModel, commands
from modeling_mfdn.paper.readme_tables import render
from modeling_mfdn.training.run_folder import save_artifacts
from modeling_mfdn.training.tag_tokenizer import build_processor

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = (ROOT / "model_cards/results/README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(
    r"^(?:accelerate launch|python) (?:-m )?"
    r"(train_mfdn|evaluate_mfdn|dataset_scripts\.\w+|modeling_mfdn\.paper\.\w+)(?:\.py)?(.*)$",
    (README + RESULTS).replace("\\\n", " "),
    re.MULTILINE,
)
MFDN_COMMANDS = re.findall(r"^mfdn (\w+) (.*)$", README, re.MULTILINE)


@pytest.mark.parametrize("page", [README, RESULTS], ids=["README.md", "results/README.md"])
def test_figures_are_those_of_the_files_they_come_from(page):
    assert render(page) == page


@pytest.mark.parametrize("module, flags", COMMANDS, ids=[" ".join(command)[:60] for command in COMMANDS])
def test_command_parses(module, flags):
    if (ROOT / module.replace(".", "/") / "__main__.py").exists():
        module = f"{module}.__main__"
    importlib.import_module(module).build_parser().parse_args(shlex.split(flags, comments=True))


@pytest.mark.parametrize(("command", "flags"), MFDN_COMMANDS, ids=[" ".join(found)[:60] for found in MFDN_COMMANDS])
def test_mfdn_command_parses(command, flags):
    group = typer.main.get_command(commands.app)
    given = commands.with_repeated_options(shlex.split(flags, comments=True))
    group.commands[command].make_context(command, given)


def test_it_is_short_and_says_what_it_is_not():
    assert len(README.encode()) <= 12_000
    assert "no weights for real characters" in README and {command for command, _ in MFDN_COMMANDS} >= {"tag", "push"}


def test_the_two_commands_stand_there_literally():
    assert "pip install -e . && accelerate launch train_mfdn.py" in README
    assert "pip install -e '.[test]' && pytest" in README


def test_pictures_exist():
    for folder, page in ((ROOT, README), (ROOT / "model_cards/results", RESULTS)):
        for target in re.findall(r"!?\[[^\]]*\]\(([^):]+)\)", page):
            assert (folder / target).exists(), target


def test_python_blocks_run_on_a_saved_model(tmp_path, tiny_config, picture):
    (block,) = re.findall(r"^```python\n(.*?)^```", README.split("## Use a model")[1].split("\n## ")[0], re.M | re.S)
    processor = build_processor(tiny_config, ["blue_hair", "maid", *[f"tag_{i}" for i in range(9)]])
    model = MFDNModel(tiny_config).eval()
    give_statistics(model, processor)
    save_artifacts(model, processor, str(tmp_path / "mfdn"), training={}, vocabulary={})
    picture.save(tmp_path / "picture.png")
    for number in range(1, 6):
        picture_of(9, number).save(tmp_path / f"{number}.png")
    program = block + "\nprint(processor.post_process(outputs, top_k=5)[0]['characters'][0]['label'])"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] in tiny_config.id2label.values()
