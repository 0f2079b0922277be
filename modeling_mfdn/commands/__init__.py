"""The `mfdn` command, one thin file a sub-command. Nothing heavy is imported before it is needed. Stays home."""

import sys
from collections.abc import Sequence
from importlib.metadata import version

import typer
from typer.core import TyperCommand

from .export import export_command
from .group import group
from .import_tagger import import_tagger
from .page import page
from .push import push
from .review import review
from .serve import serve
from .tag import tag
from .teach import teach

SEVERAL_VALUES = ("--exclude", "--replace", "--first", "--last", "--forget")  # --exclude solo 1girl


class GroupedCommand(TyperCommand):
    """Its --help lists options in the groups that they name."""

    def format_options(self, ctx, formatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            if (row := parameter.get_help_record(ctx)) is not None:
                default = "Arguments" if parameter.param_type_name == "argument" else "Options"
                groups.setdefault(getattr(parameter, "rich_help_panel", None) or default, []).append(row)
        for title in sorted(groups, key=lambda title: title == "Options"):
            if groups[title]:
                with formatter.section(title):
                    formatter.write_dl(groups[title])


app = typer.Typer(
    help="Names characters and tags in anime illustrations: tag pictures, teach new characters, export, publish.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for command in (tag, review, serve, teach, group, page, push):
    app.command(cls=GroupedCommand)(command)
app.command("export", cls=GroupedCommand)(export_command)
app.command("import", cls=GroupedCommand)(import_tagger)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `mfdn`.

    Returns its exit code: 0, 1 where some pictures could not be done, 2 after an error of the input, 130 after Ctrl-C.
    """
    arguments = with_repeated_options(sys.argv[1:] if argv is None else argv)
    if "--version" in arguments:
        print(f"mfdn {version('mfdn')}")
        return 0
    try:
        app(args=arguments, prog_name="mfdn")
    except SystemExit as exit:
        return exit.code or 0
    return 0


def tag_alias(argv: Sequence[str] | None = None) -> int:
    """`mfdn-tag PICTURES` is `mfdn tag PICTURES`."""
    return main(["tag", *(sys.argv[1:] if argv is None else argv)])


def with_repeated_options(arguments: Sequence[str]) -> list[str]:
    """`--exclude a b` as `--exclude a --exclude b`, and a bare `--serve` with the port 8000."""
    found, option = [], None
    for i, argument in enumerate(arguments):
        following = arguments[i + 1] if i + 1 < len(arguments) else "-"
        if argument.startswith("--"):
            option = argument if argument in SEVERAL_VALUES else None
            found += [argument, "8000"] if argument == "--serve" and not following.isdigit() else [argument]
            continue
        if option is not None and found[-1] != option:
            found.append(option)
        found.append(argument)
    return found
