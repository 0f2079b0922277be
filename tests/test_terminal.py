"""What commands say, and to whom."""

import io
import os
import shutil
import subprocess
import sys

import pytest
from dump_factory import Post, write_dump
from safetensors.torch import save_file

from dataset_scripts import browse, build_danmul, build_danshare, describe
from dataset_scripts.mini_booru import __main__ as mini_booru
from modeling_mfdn import commands
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
    save_file({}, tmp_path / "mfdn" / "model.safetensors")
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


NAMES = [Post(1000 + i, ["初音ミク"], ["1girl", "帽子", "été", f"pair_{i // 2}"]) for i in range(24)]


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    """A dump and two built folders whose names, and all names in which, are in no old encoding."""
    folder = tmp_path_factory.mktemp("→")
    write_dump(folder / "掲示板", NAMES, extra_lines=("{broken 初音",))
    for name in ("danmul[→]", "dafre"):
        flags = ["--max_bad_share", "0.5", "--workers", "1", "--min_posts", "2", "--tfidf_threshold", "0"]
        assert build_danmul.main(["--source", str(folder / "掲示板"), "--output", str(folder / name), *flags]) == 0
    return folder


COMMANDS = {
    "build_danmul": lambda at: build_danmul.main(
        ["--source", f"{at}/掲示板", "--output", f"{at}/x", "--dry_run", "--max_bad_share", "1", "--min_posts", "2"]
    ),
    "build_danmul refused": lambda at: build_danmul.main(["--source", f"{at}/掲示板", "--output", f"{at}/帽子"]),
    "build_danshare": lambda at: build_danshare.main(
        ["--danmul", f"{at}/danmul[→]", "--dafre", f"{at}/dafre", "--overwrite"]
    ),
    "describe": lambda at: describe.main(["--dataset", f"{at}/danmul[→]", "--dafre", f"{at}/dafre"]),
    "browse": lambda at: browse.main(["--dataset", f"{at}/danmul[→]", "--source", f"{at}/掲示板", "--overwrite"]),
    "mini_booru refused": lambda at: mini_booru.main(["--output", f"{at}/掲示板", "--posts", "120"]),
    "publish": lambda at: commands.main(["push", "dataset", f"{at}/danmul[→]", "a/b", "--dry_run"]),
    "mfdn-tag refused": lambda at: commands.main(["tag", f"{at}/掲示板/帽子", "--model", "初音"]),
}


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_what_it_says_in_any_encoding(board, command, encoding, monkeypatch):
    streams = [io.TextIOWrapper(io.BytesIO(), encoding, errors="strict") for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    code = COMMANDS[command](board)
    said = b"".join(stream.detach().getvalue() for stream in streams if not stream.flush())
    assert code == (2 if "refused" in command else 0), said
    assert said and b"Traceback" not in said


READERS = {
    "describe": lambda folder, at: describe.main(["--dataset", str(folder)]),
    "browse": lambda folder, at: browse.main(["--dataset", str(folder), "--output", str(at / "pages")]),
    "build_danshare": lambda folder, at: build_danshare.main(["--danmul", str(folder), "--dafre", str(folder)]),
    "publish": lambda folder, at: commands.main(["push", "dataset", str(folder), "a/b", "--dry_run"]),
    "--like": lambda folder, at: build_danmul.main(
        f"--source {at}/掲示板 --output {at}/more --like {folder} --workers 1 --max_bad_share 1".split()
    ),
}


def cut_build(folder):
    (folder / "build.json").write_text((folder / "build.json").read_text()[:200])


def cut_shards(folder):
    for shard in (folder / "data").iterdir():
        shard.write_bytes(shard.read_bytes()[:500])


DAMAGES = {
    "no build.json": lambda folder: (folder / "build.json").unlink(),
    "build.json cut": cut_build,
    "build.json of another kind": lambda folder: (folder / "build.json").write_text("[1]"),
    "shards cut": cut_shards,
    "no shards": lambda folder: shutil.rmtree(folder / "data"),
    "no folder": shutil.rmtree,
    "a file in its place": lambda folder: (shutil.rmtree(folder), folder.write_text("x")),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("reader", READERS)
def test_a_damaged_data_set_is_a_sentence(board, tmp_path, reader, damage, capsys):
    shutil.copytree(board / "掲示板", tmp_path / "掲示板")
    folder = tmp_path / "danmul"
    shutil.copytree(board / "danmul[→]", folder)
    DAMAGES[damage](folder)
    assert READERS[reader](folder, tmp_path) == 2
    said = capsys.readouterr().err
    assert said.splitlines()[-1].startswith("error: ") and "danmul" in said and "Traceback" not in said


@pytest.mark.parametrize("module", [build_danmul, build_danshare, browse, describe, mini_booru])
def test_ctrl_c_is_a_word_and_130(module, monkeypatch, capsys):
    monkeypatch.setattr(module, "build_parser", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    assert module.main([]) == 130 and capsys.readouterr().err == "\nInterrupted.\n"
