"""What commands of this package share: errors as one sentence, in any terminal and any encoding.

The like of `modeling_mfdn/training/terminal.py`: the two never import each other.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable

from dataset_scripts.dump.records import printable


def command_line(main: Callable) -> Callable:
    """A `main(argv)` that returns an exit code, for people: what it raises for their input (ValueError, OSError) is
    one sentence and 2, a missing package 2 and its name, Ctrl-C 130. What it cannot show is escaped: it never dies."""

    @functools.wraps(main)
    def run(argv: list[str] | None = None) -> int:
        for stream in (sys.stdout, sys.stderr):  # a log file in cp1252 must not end a night's work at an arrow
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        try:
            return main(argv)
        except KeyboardInterrupt:
            print("\nInterrupted.", file=sys.stderr)
            return 130
        except BrokenPipeError:  # `| head` has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except (ValueError, OSError, ModuleNotFoundError) as error:
            print(f"error: {printable(' '.join(str(error).split()))}", file=sys.stderr)
            return 2

    return run
