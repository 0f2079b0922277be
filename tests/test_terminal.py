"""What commands say, and to whom."""

import os
import subprocess
import sys

import pytest

from modeling_mfdn.training.terminal import check_model_name, command_line, printable


def test_text_of_others_cannot_steer_a_terminal():
    assert printable("a\x1b[2Jb\x07\n\udc80 長い_髪") == "a\\x1b[2Jb\\x07\\n\\udc80 長い_髪"


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ValueError("expected\n  a \x1b[31mnumber"), 2, "error: expected a \\x1b[31mnumber\n"),
        (FileNotFoundError(2, "No such file", "x"), 2, "error: [Errno 2] No such file: 'x'\n"),
        (ModuleNotFoundError("No module named 'onnx'"), 2, "error: No module named 'onnx'\n"),
        (KeyboardInterrupt(), 130, "\nInterrupted.\n"),
    ],
    ids=["value", "file", "module", "ctrl-c"],
)
def test_errors_of_the_input_are_one_sentence_and_a_code(capsys, error, code, said):
    @command_line
    def main(argv=None):
        raise error

    assert main([]) == code and capsys.readouterr().err == said


def test_errors_of_our_own_keep_their_traceback():
    @command_line
    def main(argv=None):
        return [][1]

    with pytest.raises(IndexError):
        main([])


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_no_encoding_of_the_output_ends_a_command(encoding):
    code = "from modeling_mfdn.training.terminal import command_line\n@command_line\ndef main(argv=None):\n"
    code += "    print('written \u2192 there'); return 0\nraise SystemExit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env=os.environ | {"PYTHONIOENCODING": encoding}
    )
    assert done.returncode == 0 and done.stdout.strip() == b"written \\u2192 there"


def test_a_model_is_a_folder_of_one_or_an_id_and_else_a_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("mfdn", "runs/mfdn", "runs/vit", "old/checkpoint-7"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.json").write_text("{}")
    (tmp_path / "mfdn" / "model.safetensors").touch()
    for name in ("mfdn", "mfdn/", "runs/mfdn", str(tmp_path / "runs" / "vit"), "someone/mfdn", "no-folder/x.y_z"):
        assert check_model_name(name) == name
    for name, said in {
        "nonsuch": r"no model 'nonsuch': there is no such folder here, and an id on the Hub is OWNER/NAME\. "
        "Models are in mfdn",
        "mfdm": "Models are in mfdn",
        "runs/mfdm": "Models are in runs/mfdn, runs/vit",  # looks like an id, but runs/ holds models
        "old": "holds no config.json. Models are in old/checkpoint-7, mfdn",
        "mfdn/model.safetensors": "is a file; expected the folder",
        "a/b/c": "no such folder",
        "someone/na me": "no such folder",
        "": "no such folder",
        "/": "holds no config.json",
    }.items():
        with pytest.raises(FileNotFoundError, match=said):
            check_model_name(name)
