"""transformers' own common tests, which its source distribution carries, on our models and processors."""

import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import pytest
import transformers

# What the common tests import and the source distribution leaves out; no test that applies here uses it.
STAND_INS = {
    "tests/__init__.py": "",
    "tests/exporters/test_export.py": "class ExportTesterMixin: pass",
    "tests/generation/test_utils.py": "class GenerationTesterMixin: pass",
    "tests/utils/test_configuration_utils.py": "config_common_kwargs = {}",
    "utils/fetch_hub_objects_for_ci.py": "def url_to_local_path(url, *args, **kwargs): return url",
}


def common_tests() -> Path:
    """The folder of transformers' tests of the installed version, downloaded once for all runs on this machine."""
    name = f"transformers-{transformers.__version__}"
    folder = Path(tempfile.gettempdir(), f"mfdn-{name}-{os.getuid()}")
    if not (folder / name / "tests" / "test_modeling_common.py").is_file():
        options = ["--quiet", "--no-deps", "--no-binary", "transformers", "--dest", str(folder)]
        wanted = f"transformers=={transformers.__version__}"
        done = subprocess.run(
            [sys.executable, "-m", "pip", "download", *options, wanted], capture_output=True, text=True
        )
        if done.returncode:
            pytest.skip(f"the package index has no source of {wanted} for us: {done.stderr.strip()[-200:]}")
        with tarfile.open(folder / f"{name}.tar.gz") as archive:
            archive.extractall(folder, [m for m in archive if "/tests/" in m.name], filter="data")
        for file, content in STAND_INS.items():
            path = folder / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content + "\n")
    return folder / name


@pytest.mark.slow
def test_every_common_test_of_transformers_that_applies_passes():
    file = Path(__file__).with_name("transformers_common.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, "--noconftest"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [*command, "-rfE", "--import-mode=importlib", str(file)],
        cwd=common_tests(),
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-6000:]
