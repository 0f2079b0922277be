"""The README's blocks: filled from files, silent where nothing was measured."""

import pytest

from modeling_mfdn.paper import cost_tables
from modeling_mfdn.paper import readme_tables as tables


def test_what_was_not_measured_says_so_and_unknown_blocks_are_refused(tmp_path, monkeypatch):
    for module in (tables, cost_tables):
        monkeypatch.setattr(module, "RESULTS", tmp_path)
    for block in ("stages", "accuracy", "ingredients", "hints"):
        text = f"a <!-- begin: {block} -->old<!-- end: {block} --> b"
        assert tables.render(text) == f"a <!-- begin: {block} -->\n*Not measured yet.*\n<!-- end: {block} --> b"
    with pytest.raises(ValueError, match="'nonsense' is unknown"):
        tables.render("<!-- begin: nonsense --><!-- end: nonsense -->")
