"""What is installed from a wheel works without the checkout: nothing that a command reads was left behind."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OLD = ROOT / "tests" / "old_models"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the files of the wheel alone, in front of everything else on the path of a process elsewhere."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    shutil.copytree(
        ROOT,
        folder / "source",
        ignore=shutil.ignore_patterns(".git", ".venv", "tests", "build", "*.egg-info", "figures"),
    )
    subprocess.run([*pip, "wheel", str(folder / "source"), "--no-deps", "--wheel-dir", str(folder)], check=True)
    shutil.rmtree(folder / "source")
    (wheel,) = folder.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(folder / "site"), str(wheel)], check=True)
    (folder / "elsewhere").mkdir()
    return folder


def run(installed, *arguments) -> str:
    program = "import sys, modeling_mfdn.commands as c; print(c.__file__); sys.exit(c.main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=installed / "elsewhere",
        env=os.environ | {"PYTHONPATH": str(installed / "site")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(installed / "site")), "the checkout answered"
    return done.stdout


@pytest.mark.slow
def test_tag_export_and_push_run_from_the_wheel(installed, tmp_path):
    shutil.copytree(OLD / "mfdn", tmp_path / "mfdn", ignore=shutil.ignore_patterns("expected.json"))
    shutil.copytree(OLD / "code", tmp_path / "mfdn", dirs_exist_ok=True)
    (tmp_path / "pictures").mkdir()
    shutil.copy(OLD / "picture.png", tmp_path / "pictures")
    run(installed, "tag", tmp_path / "pictures", "--model", tmp_path / "mfdn", "--character_threshold", "0")
    assert (tmp_path / "pictures" / "picture.txt").read_text()
    run(installed, "export", "--model", tmp_path / "mfdn", "--output", tmp_path / "onnx")
    assert (tmp_path / "onnx" / "model_with_tags.onnx").exists()
    said = run(installed, "push", "model", tmp_path / "mfdn", "someone/mfdn", "--dry_run")
    assert "README.md" in said and "model.safetensors" in said
