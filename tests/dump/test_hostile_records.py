"""Metadata of strangers: nothing whole is lost or mixed, nothing ends in a traceback or never."""

import pytest
from hostile_records import campaign


def test_hundreds_of_damaged_dumps(capsys):
    outcomes = campaign(400, seed=1)
    assert set(outcomes) == {"read", "refused"}, capsys.readouterr().out
    assert min(outcomes.values()) > 50


@pytest.mark.long
def test_thousands_of_damaged_dumps(capsys):
    outcomes = campaign(5_000, seed=2, seconds=120)
    assert set(outcomes) == {"read", "refused"}, capsys.readouterr().out
