"""The way into a lesson from the command line. Ctrl-C is heard from the first moment, also while torch is being loaded.

It imports hardly anything itself: what takes long is imported inside, where Ctrl-C is looked after.

Left out: how a lesson ends once it is loaded (`classic.command_line.run_lesson`).

    python -m classic.dqn
"""

import os
import signal
from collections.abc import Sequence
from importlib import import_module


def run_command(module: str) -> None:
    """Import the module of a command, and run its `main` as `classic.command_line.run_lesson` does."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # in the background of a shell it is ignored, and stays so
        signal.signal(signal.SIGINT, _stop_loading)
    run_lesson = import_module("classic.command_line").run_lesson
    command = import_module(module).main

    def main(arguments: Sequence[str] | None) -> None:
        signal.signal(signal.SIGINT, before)
        command(arguments)

    run_lesson(main)


def _stop_loading(*_: object) -> None:
    """End the process here and now: nothing is open yet that could be lost.

    The trap: a KeyboardInterrupt is no sure way out of an import. Where a class is being made Python turns it into a
    RuntimeError, in the middle of an extension module it becomes an ImportError, and some modules go on without what
    they could not import.
    """
    os.write(2, b"stopped by Ctrl-C\n")
    os._exit(130)  # as shells have it: 128 + the number of SIGINT
