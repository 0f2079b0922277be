"""Who may import whom, read from the source: what travels to the Hub must run there without the rest."""

import ast
import re
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SHIPPED = sorted((ROOT / "modeling_mfdn").glob("*_mfdn.py"))
HOME = sorted(path for path in (ROOT / "modeling_mfdn").rglob("*.py") if path not in SHIPPED)
SCRIPTS = sorted((ROOT / "dataset_scripts").rglob("*.py"))
PROGRAMS = [ROOT / "train_mfdn.py", ROOT / "evaluate_mfdn.py"]
MAY_TRAVEL = {"torch", "transformers", "numpy", "PIL", "huggingface_hub", "safetensors", *sys.stdlib_module_names}
OURS = {"modeling_mfdn", "dataset_scripts", "train_mfdn", "evaluate_mfdn", "tests"}


def imported_modules(path: Path, for_types: bool = False) -> set[str]:
    """Absolute names of the modules that a file imports when it runs; our own ones down to the file."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    modules = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    only_for_types = {
        node
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if node in only_for_types and not for_types:
            continue
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            modules.add(module)
            if module.split(".")[0] in OURS:  # `from package import file` names a file, too
                inside = ROOT.joinpath(*module.split("."))
                modules |= {f"{module}.{a.name}" for a in node.names if (inside / f"{a.name}.py").exists()}
    return modules


def names(paths):
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.relative_to(ROOT).as_posix())


@names(SHIPPED)
def test_shipped_files_import_only_what_may_travel(path):
    source = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            foreign = {alias.name.split(".")[0] for alias in node.names} - MAY_TRAVEL
            assert not foreign, f"line {node.lineno}"
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            assert node.module.split(".")[0] in MAY_TRAVEL, f"line {node.lineno}"
        elif isinstance(node, ast.ImportFrom):
            # transformers copies the files of `from .name import ...` and follows no other form.
            assert node.level == 1 and node.module and "." not in node.module, f"line {node.lineno}"
            assert path.with_name(f"{node.module}.py") in SHIPPED, f"line {node.lineno}: {node.module} stays home"


@names(SHIPPED)
def test_no_text_of_a_shipped_file_is_taken_for_an_import(path):
    """transformers finds relative imports by a regular expression over the text, docstrings included."""
    source = path.read_text(encoding="utf-8")
    found = re.findall(r"^\s*import\s+\.(\S+)\s*$", source, flags=re.M)
    found += re.findall(r"^\s*from\s+\.(\S+)\s+import", source, flags=re.M)
    tree = ast.walk(ast.parse(source))
    assert sorted(set(found)) == sorted(
        {node.module for node in tree if isinstance(node, ast.ImportFrom) and node.level}
    )


def test_the_package_itself_needs_only_what_ships():
    found = {
        name for name in imported_modules(ROOT / "modeling_mfdn/__init__.py") if name.startswith("modeling_mfdn.")
    }
    assert found <= {f"modeling_mfdn.{path.stem}" for path in SHIPPED}


@names([*SHIPPED, *HOME])
def test_the_package_imports_no_script(path):
    roots = {module.split(".")[0] for module in imported_modules(path)}
    assert not roots & (OURS - {"modeling_mfdn"})


@names(SCRIPTS)
def test_dataset_scripts_meet_the_package_in_files_alone(path):
    roots = {module.split(".")[0] for module in imported_modules(path)}
    assert not roots & (OURS - {"dataset_scripts"})


@names([path for path in (ROOT / "dataset_scripts").glob("*.py") if path.name not in ("__init__.py", "danmul.py")])
def test_a_file_at_the_top_is_a_command_that_no_other_imports(path):
    assert re.search(r"^if __name__ == ", path.read_text(encoding="utf-8"), re.M)
    module = f"dataset_scripts.{path.stem}"
    builder = ROOT / "dataset_scripts/danmul.py"  # the `datasets` builder, which is a second door to build_danmul
    assert not [other.name for other in SCRIPTS if other not in (path, builder) and module in imported_modules(other)]


def room_of(path: Path) -> str:
    """The folder of its package in which a file stands; "" for a flat one."""
    parts = path.relative_to(ROOT).parts
    return parts[1] if len(parts) > 2 else ""


# Arrows run from a later room to an earlier one.
ROOMS = {
    "modeling_mfdn": ["", "data", "training", "evaluation", "publishing", "tagging", "paper", "commands"],
    "dataset_scripts": ["rules", "dump", "folder", "mini_booru", ""],
}


@names([*SHIPPED, *HOME, *SCRIPTS])
def test_arrows_run_one_way(path):
    """Also behind TYPE_CHECKING, and within functions."""
    package = path.relative_to(ROOT).parts[0]
    if path == ROOT / package / "__init__.py":
        return
    rooms, here = ROOMS[package], room_of(path)
    assert here in rooms, f"{here}/ is no room of this house"
    for module in imported_modules(path, for_types=True):
        parts = module.split(".")
        if parts[0] == package and len(parts) > 1:
            there = parts[1] if (ROOT / package / parts[1]).is_dir() else ""
            assert rooms.index(there) <= rooms.index(here), f"{path.name} of {here or 'the top'} imports {module}"


def test_no_files_import_each_other_in_a_circle():
    """Also behind TYPE_CHECKING, but for what ships, where such a line makes a file travel along."""
    files = [*HOME, *SCRIPTS]
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in files}
    TopologicalSorter(
        {name: imported_modules(path, for_types=True) & set(modules) for name, path in modules.items()}
    ).prepare()  # raises CycleError


@names([path for path in PROGRAMS if path.exists()])
def test_programs_do_not_import_each_other(path):
    assert not {module.split(".")[0] for module in imported_modules(path)} & {"train_mfdn", "evaluate_mfdn", "tests"}


def test_the_tree_in_the_readme_is_the_real_one():
    """Folders with a line each, and what lies flat."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = re.search(r"^## Files\b.*?^```[^\n]*\n(.*?)^```", readme, re.M | re.S)
    assert tree, "README.md needs a fenced tree below '## Files'."
    top, named = "", set()
    for line in tree[1].splitlines():
        names = re.match(r" *[\w./]+(?: [\w./]+\.py)*", line)[0]
        top = top if line.startswith(" ") else names
        named |= {name if name == top else top + name for name in names.split()}
    real = {
        f"{path.relative_to(ROOT).as_posix()}/"
        for folder in ("modeling_mfdn", "dataset_scripts")
        for path in (ROOT / folder).rglob("*")
        if (path / "__init__.py").exists()
    }
    real |= {
        path.relative_to(ROOT).as_posix()
        for folder in (".", "modeling_mfdn", "dataset_scripts")
        for path in (ROOT / folder).glob("*.py")
        if path.name != "__init__.py"
    }
    assert {name for name in named if name.startswith(("modeling", "dataset")) or name.endswith(".py")} >= real


@names([*SHIPPED, *HOME, *SCRIPTS, *PROGRAMS])
def test_pictures_are_opened_with_the_formats_that_are_allowed(path):
    """Pillow goes by content, and hands an EPS, whatever it is called, to Ghostscript."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and re.fullmatch(r"(PIL\.?)?(Image|PILImage)\.open", ast.unparse(node.func)):
            assert "formats" in {keyword.arg for keyword in node.keywords}, f"line {node.lineno}"
