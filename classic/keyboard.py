"""One key at a time from a terminal: arrows and letters, without pygame and without a window.

Where the input is not a terminal (a pipe, a notebook), whole lines are read and each letter counts as a key.

Left out: keys held down, the mouse.

    python -m classic.what_is_rl --play
"""

import sys
from collections.abc import Iterator
from typing import TextIO

ARROWS = {"\x1b[A": "up", "\x1b[B": "down", "\x1b[C": "right", "\x1b[D": "left"}
# Terminals in application mode send O in place of [.
ARROWS |= {keys.replace("[", "O"): name for keys, name in ARROWS.items()}
WINDOWS_ARROWS = {"H": "up", "P": "down", "M": "right", "K": "left"}
LETTERS = {"w": "up", "a": "left", "s": "down", "d": "right"}


def read_keys(stream: TextIO | None = None) -> Iterator[str]:
    """Yield "up", "down", "left", "right" or the letter that was typed, until the input ends.

    Args:
        stream: where to read; None for the standard input.
    """
    source = sys.stdin if stream is None else stream
    characters = _raw_characters(source) if source.isatty() else _characters_of_lines(source)
    return named_keys(characters)


def named_keys(characters: Iterator[str]) -> Iterator[str]:
    """Characters to names: an escape and the two that follow it are one arrow, WASD are arrows too."""
    for character in characters:
        if character == "\x1b":
            name = ARROWS.get(character + next(characters, "") + next(characters, ""))
        else:
            name = LETTERS.get(character.lower(), character.lower())
        if name:
            yield name


def _characters_of_lines(stream: TextIO) -> Iterator[str]:
    for line in stream:
        yield from line.strip()


def _raw_characters(stream: TextIO) -> Iterator[str]:
    if sys.platform == "win32":
        yield from _windows_characters()
        return
    import os
    import termios
    import tty

    descriptor = stream.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        # os.read and not stream.read: a buffered reader would swallow the rest of an arrow's three characters.
        while data := os.read(descriptor, 32):
            yield from data.decode(errors="ignore").replace("\x04", "q")
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _windows_characters() -> Iterator[str]:
    import msvcrt

    while True:
        character = msvcrt.getwch()  # type: ignore[attr-defined,unused-ignore]
        if character in "\x00\xe0":
            name = WINDOWS_ARROWS.get(msvcrt.getwch(), "")  # type: ignore[attr-defined,unused-ignore]
            yield from next((keys for keys, arrow in ARROWS.items() if arrow == name), "")
        else:
            yield "q" if character == "\x03" else character
