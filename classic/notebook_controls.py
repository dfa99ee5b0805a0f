"""Controls for the notebooks: sliders that answer at once, and buttons that start what takes longer and draw live.

A `Panel` is ipywidgets above an image, and all it knows of a lesson is a function from the controls' values to an
`Answer` (a picture and a line of text). Images travel as PNG, so a panel looks the same in Jupyter, VS Code, Colab and
Kaggle, and needs no matplotlib backend. Where widgets are dead (GitHub, a page, an unexecuted notebook) its place is
taken by a still picture.

The environment variable CLASSIC_NOTEBOOK says who is there. Empty: a person, so buttons wait to be pressed. `record`:
nobody, so each panel presses its buttons once, that the stored notebook shows what they do. `test`: the same with a
small part of the training.

Left out: a stop button. Training runs in the kernel itself, so the kernel's own stop (interrupt) ends it.

    python -m classic.notebook_record 01_what_is_rl
"""

import io
import math
import os
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple

from PIL import Image, ImageDraw

from classic.errors import LessonError
from classic.pictures import FONT, INK

MODES = ("", "record", "test")
TEST_FRACTION = 0.05  # of a training, in mode `test`
LINE = 17  # pixels


class Answer(NamedTuple):
    """What a panel shows."""

    picture: Image.Image
    text: str = ""


Show = Callable[[Answer], None]


def mode() -> str:
    """Who is there: "" (a person), "record" or "test".

    Raises:
        LessonError: CLASSIC_NOTEBOOK is something else.
    """
    found = os.environ.get("CLASSIC_NOTEBOOK", "")
    if found not in MODES:
        raise LessonError(f"got CLASSIC_NOTEBOOK={found!r}; it is record, test, or not set at all: type unset it")
    return found


def budget(steps: int, least: int = 1) -> int:
    """The steps of a training, or a twentieth of them in mode `test`, but at least `least`."""
    return max(least, round(steps * TEST_FRACTION)) if mode() == "test" else steps


def draw_every(num_points: int, num_pictures: int = 12) -> Callable[[int], bool]:
    """Whether to draw at the k-th of so many points, so that drawing takes less time than training; always the last."""
    every = math.ceil(num_points / num_pictures)
    return lambda number: number % every == 0 or number == num_points


class Panel:
    """Controls above a picture.

    Args:
        answer: called with the controls' values, at first and whenever one moves; None where only buttons answer.
        controls: name of an argument to its widget, as `slider` and the others make them.
        buttons: label to a function of `show` and the controls' values; `show` draws an `Answer` at once, as often as
            the function likes.
        pressed: the labels that are pressed where nobody is there; None for all of them.
    """

    def __init__(
        self,
        answer: Callable[..., Answer] | None,
        controls: Mapping[str, Any],
        buttons: Mapping[str, Callable[..., None]] | None = None,
        *,
        pressed: Sequence[str] | None = None,
    ) -> None:
        widgets = _widgets()
        self._answer, self.controls = answer, dict(controls)
        self._actions = dict(buttons or {})
        self.answer = Answer(Image.new("RGB", (1, 1), "white"))
        self.image = widgets.Image(format="png")
        self.text = widgets.HTML()
        self.buttons = {label: widgets.Button(description=label, layout={"width": "auto"}) for label in self._actions}
        for label, button in self.buttons.items():
            button.on_click(lambda _, label=label: self.press(label))
        for control in self.controls.values():
            control.observe(lambda _: self.refresh(), names="value")
        row = widgets.HBox(list(self.buttons.values()))
        knobs = widgets.HBox(list(self.controls.values()), layout={"flex_flow": "row wrap"})
        self.box = widgets.VBox([knobs, row, self.text, self.image])
        self.refresh()
        for label in (self._actions if pressed is None else pressed) if mode() else ():
            self.press(label)

    def values(self) -> dict[str, Any]:
        """Name to value of every control."""
        return {name: control.value for name, control in self.controls.items()}

    def refresh(self) -> None:
        """Answer to the controls as they stand."""
        if self._answer is not None:
            self.show(self._answer(**self.values()))
        elif self.buttons:
            labels = " or ".join(f"“{label}”" for label in self.buttons)
            self.text.value = f"press {labels}"

    def press(self, label: str) -> None:
        """What a click on the button does; while it runs, no button takes another click."""
        for button in self.buttons.values():
            button.disabled = True
        try:
            self._actions[label](self.show, **self.values())
        finally:
            for button in self.buttons.values():
                button.disabled = False

    def show(self, answer: Answer) -> None:
        """Draw this, now."""
        self.answer = answer
        self.image.value = png(answer.picture)
        self.text.value = answer.text.replace("\n", "<br>")

    def still(self) -> Image.Image:
        """The picture with the controls' settings written under it, for where widgets are dead."""
        settings = [f"{control.description} {_shown(control.value)}" for control in self.controls.values()]
        knobs = [*settings, *(f"[{label}]" for label in self.buttons)]
        return with_lines(self.answer.picture, [*self.answer.text.split("\n"), *_wrapped(knobs)])

    def _repr_mimebundle_(self, **options: Any) -> dict[str, Any]:
        """The live widget; beside it the still picture, which viewers without widgets fall back to."""
        bundle = dict(self.box._repr_mimebundle_(**options) or {})
        bundle["text/plain"] = "a panel with controls; run the cell to use it"
        return {**bundle, "image/png": png(self.still())}


def slider(label: str, value: float, low: float, high: float, step: float) -> Any:
    """A slider over numbers; whole ones where all that is given is whole."""
    numbers = (value, low, high, step)
    kind = _widgets().IntSlider if all(isinstance(number, int) for number in numbers) else _widgets().FloatSlider
    return kind(value=value, min=low, max=high, step=step, description=label, style={"description_width": "initial"})


def log_slider(label: str, value: float, low: float, high: float, steps_per_decade: int = 20) -> Any:
    """A slider whose equal ways are equal factors; `low` and `high` are powers of ten, -2 for 0.01."""
    return _widgets().FloatLogSlider(
        value=value,
        min=low,
        max=high,
        step=1 / steps_per_decade,
        description=label,
        style={"description_width": "initial"},
    )


def choice(label: str, options: Sequence[Any]) -> Any:
    """One of several; the first at first."""
    return _widgets().Dropdown(options=list(options), description=label, style={"description_width": "initial"})


def switch(label: str, value: bool) -> Any:
    """On or off."""
    return _widgets().Checkbox(value=value, description=label, indent=False)


def replay(frames: Sequence[Image.Image], milliseconds: int = 250) -> Any:
    """An episode as a moving picture: a GIF.

    It travels as image/png, which is a white lie: browsers look at the bytes and play it, whereas GitHub and nbconvert
    know no image/gif and would show the name of a Python class instead.
    """
    from classic.replays import gif_bytes

    display: Any = import_module("IPython.display")
    return display.Image(data=gif_bytes(frames, milliseconds), format="png")


def png(image: Image.Image) -> bytes:
    """The image as a small PNG; charts and boards need few colours."""
    buffer = io.BytesIO()
    image.quantize(128, dither=Image.Dither.NONE).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def with_lines(image: Image.Image, lines: Sequence[str]) -> Image.Image:
    """The image with lines of text below it."""
    shown = [line for line in lines if line]
    width = max([image.width, *(round(FONT.getlength(line)) + 12 for line in shown)])
    framed = Image.new("RGB", (width, image.height + LINE * len(shown) + (8 if shown else 0)), "white")
    framed.paste(image, (0, 0))
    pen = ImageDraw.Draw(framed)
    for number, line in enumerate(shown):
        pen.text((6, image.height + 4 + LINE * number), line, fill=INK, font=FONT)
    return framed


def _wrapped(knobs: Sequence[str], width: int = 90) -> list[str]:
    lines = [""]
    for knob in knobs:
        fits = len(lines[-1]) + len(knob) < width
        lines = [*lines[:-1], f"{lines[-1]}  ·  {knob}".removeprefix("  ·  ")] if fits else [*lines, knob]
    return lines


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _widgets() -> Any:
    try:
        return import_module("ipywidgets")
    except ImportError:
        raise LessonError(
            'the notebooks need ipywidgets, which is not installed: type pip install "rlhf-lab[notebooks]"'
        ) from None
