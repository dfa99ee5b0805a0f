"""Frames of an episode, drawn with Pillow: no pygame, no window, no display.

Left out: writing them to a file (`classic.replays`), and environments of which we have no drawing (they get the number
of the state as text).

    python -m classic.q_learning --env CliffWalking-v1 --out runs/cliff
"""

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from classic.table_streams import TableStreams
from classic.tabular_model import Floats, TabularModel

CELL = 48  # pixels
CAPTION, CAPTION_WIDTH = 24, 216  # pixels below the board, and at least so many across
FINE = 3  # slanting lines are drawn so much larger and then reduced: Pillow's own have stairs
TILES = {"S": "#dceeff", "F": "#eef6ff", "H": "#2f4858", "G": "#ffd166", "C": "#8d5b4c"}
INK, AGENT, PASSENGER = "#1b2a34", "#d1495b", "#2a7de1"
# Pillow's own font has no arrows, no minus sign and hardly a space between words; the one of matplotlib has all three.
FONT = ImageFont.truetype(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", 12)
# (row, column) of each action. Gymnasium numbers them differently in each environment.
FROZEN_LAKE_MOVES = ((0, -1), (1, 0), (0, 1), (-1, 0))  # left, down, right, up
CLIFF_MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))  # up, right, down, left


def picture_of_table_episode(model: TabularModel, policy: Floats, generator: np.random.Generator) -> list[Image.Image]:
    """One episode under the policy, (S, A) probabilities: a frame for each state, the last one included."""
    streams = TableStreams(model, 1, generator)
    state, total = int(streams.states[0]), 0.0
    frames = [picture_of_state(model, state, "step 0")]
    # Where there is no time limit, a bad policy may walk for ever.
    for step in range(1, (model.max_episode_steps or 200) + 1):
        action = generator.choice(model.num_actions, p=policy[state])
        moves = streams.step(np.array([action]))
        state, total = int(moves.next_states[0]), total + float(moves.rewards[0])
        ending = "  terminated" if moves.terminated[0] else "  truncated" if moves.truncated[0] else ""
        frames.append(picture_of_state(model, state, f"step {step}  return {total:g}{ending}"))
        if ending:
            break
    return frames


def picture_of_state(model: TabularModel, state: int, caption: str) -> Image.Image:
    """The board with the agent on it."""
    if model.env_id.startswith("Taxi"):
        return _taxi(model.board, state, caption)
    if not model.board:
        return _captioned(Image.new("RGB", (5 * CELL, CELL), "white"), f"state {state}  {caption}")
    image = _grid(model.board)
    row, column = divmod(state, len(model.board[0]))
    _disc(ImageDraw.Draw(image), (column + 0.5) * CELL, (row + 0.5) * CELL, CELL * 0.3, AGENT)
    return _captioned(image, caption)


def picture_of_values(model: TabularModel, q: Floats, caption: str = "") -> Image.Image:
    """A grid world coloured by max Q (white low, green high), with an arrow for every greedy action.

    Args:
        model: of FrozenLake or CliffWalking.
        q: (S, A).
        caption: below the board.
    """
    image = _grid(model.board)
    draw = ImageDraw.Draw(image)
    values = q.max(-1)
    low, high = float(values.min()), float(values.max())
    moves = FROZEN_LAKE_MOVES if model.env_id.startswith("FrozenLake") else CLIFF_MOVES
    for state, value in enumerate(values):
        row, column = divmod(state, len(model.board[0]))
        if model.board[row][column] not in "SF":
            continue
        share = (value - low) / (high - low) if high > low else 0.0
        shade = (round(255 - 175 * share), 255 - round(60 * share), round(255 - 175 * share))
        draw.rectangle(_box(row, column), fill=shade, outline="#b8c4cc")
        for action in np.flatnonzero(q[state] == q[state].max()):
            _arrow(draw, row, column, moves[action])
    return _captioned(image, caption)


def picture_of_cart_pole(observation: NDArray[np.float32], caption: str) -> Image.Image:
    """The cart and its pole; `observation` (4,) is position (m), speed, angle (rad) and angular speed."""
    width, height = 420 * FINE, 220 * FINE
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    x = width / 2 + float(observation[0]) * width / 4.8  # the track is 4.8 m between its ends
    top, angle, length = 160.0 * FINE, float(observation[2]), 105.0 * FINE
    draw.line((0, top + 14 * FINE, width, top + 14 * FINE), fill="#b8c4cc", width=2 * FINE)
    draw.rectangle((x - 28 * FINE, top - 12 * FINE, x + 28 * FINE, top + 12 * FINE), fill=INK)
    tip = (x + length * math.sin(angle), top - 12 * FINE - length * math.cos(angle))
    draw.line((x, top - 12 * FINE, *tip), fill=AGENT, width=8 * FINE)
    return _captioned(image.reduce(FINE), caption)


def picture_of_pendulum(observation: NDArray[np.float32], caption: str) -> Image.Image:
    """The rod; `observation` (3,) is cosine and sine of its angle from upright, and its angular speed."""
    size = 220 * FINE
    image = Image.new("RGB", (size, size), "white")
    draw = ImageDraw.Draw(image)
    middle, length = size / 2, 85.0 * FINE
    # The angle grows counter-clockwise, so a positive sine leans to the left of the picture.
    tip = (middle - length * float(observation[1]), middle - length * float(observation[0]))
    draw.line((middle, middle, *tip), fill=AGENT, width=10 * FINE)
    _disc(draw, middle, middle, 6 * FINE, INK)
    return _captioned(image.reduce(FINE), caption)


def _taxi(board: Sequence[str], state: int, caption: str) -> Image.Image:
    """Taxi's board has walls (|) between its five columns and a frame of one letter around it."""
    state, goal = divmod(state, 4)
    state, passenger = divmod(state, 5)
    row, column = divmod(state, 5)
    image = Image.new("RGB", (5 * CELL, 5 * CELL), TILES["F"])
    draw = ImageDraw.Draw(image)
    stands = {}
    for y, x in ((y, x) for y in range(5) for x in range(5)):
        letter = board[y + 1][2 * x + 1]
        draw.rectangle(_box(y, x), outline="#d5dee4")
        if letter != " ":
            stands["RGYB".index(letter)] = (y, x)
            draw.rectangle(_box(y, x), fill=TILES["S"], outline="#d5dee4")
            draw.text((x * CELL + 4, y * CELL + 2), letter, fill=INK, font=FONT)
        if board[y + 1][2 * x + 2] == "|" and x < 4:
            draw.line(((x + 1) * CELL, y * CELL, (x + 1) * CELL, (y + 1) * CELL), fill=INK, width=4)
    y, x = stands[goal]
    draw.rectangle(_box(y, x), outline="#ffb703", width=5)
    draw.rectangle((column * CELL + 9, row * CELL + 14, (column + 1) * CELL - 9, (row + 1) * CELL - 12), fill=AGENT)
    y, x = (row, column) if passenger == 4 else stands[passenger]
    _disc(draw, (x + 0.5) * CELL, (y + 0.5) * CELL, CELL * 0.14, PASSENGER)
    return _captioned(image, caption)


def _grid(board: Sequence[str]) -> Image.Image:
    image = Image.new("RGB", (len(board[0]) * CELL, len(board) * CELL))
    draw = ImageDraw.Draw(image)
    for row, letters in enumerate(board):
        for column, letter in enumerate(letters):
            draw.rectangle(_box(row, column), fill=TILES[letter], outline="#b8c4cc")
            if letter in "SG":
                draw.text((column * CELL + 5, row * CELL + 3), letter, fill=INK, font=FONT)
    return image


def _box(row: int, column: int) -> tuple[int, int, int, int]:
    return column * CELL, row * CELL, (column + 1) * CELL - 1, (row + 1) * CELL - 1


def _disc(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, colour: str) -> None:
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)


def _arrow(draw: ImageDraw.ImageDraw, row: int, column: int, move: tuple[int, int]) -> None:
    x, y = (column + 0.5) * CELL, (row + 0.5) * CELL
    down, right = move
    tip = (x + right * CELL * 0.36, y + down * CELL * 0.36)
    draw.line((x, y, *tip), fill=INK, width=2)
    side = CELL * 0.09
    back = (tip[0] - right * 2 * side, tip[1] - down * 2 * side)
    wings = [(back[0] + sign * down * side, back[1] + sign * right * side) for sign in (1, -1)]
    draw.polygon([tip, *wings], fill=INK)


def _captioned(image: Image.Image, caption: str) -> Image.Image:
    # As wide for a short caption as for a long one: the frames of a replay must have one size.
    framed = Image.new("RGB", (max(image.width, CAPTION_WIDTH), image.height + CAPTION), "white")
    framed.paste(image, (0, 0))
    ImageDraw.Draw(framed).text((6, image.height + 4), caption, fill=INK, font=FONT)
    return framed
