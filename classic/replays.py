"""An episode as a GIF, or as an HTML page with a slider; neither needs a display, a window or a network.

Left out: drawing the frames (`classic.pictures`) and sound.

    python -m classic.q_learning --env Taxi-v4 --out runs/taxi
"""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from classic.errors import LessonError
from classic.records import write_whole

_PAGE = """<!doctype html>
<meta charset="utf-8">
<title>{title}</title>
<style>body{{font-family:sans-serif;margin:1.5em}}img{{border:1px solid #999;image-rendering:auto}}
input{{width:20em;vertical-align:middle}}</style>
<p><img id="frame" alt="{title}"></p>
<p><button id="play">pause</button> <input id="at" type="range" min="0" max="{last}" value="0">
<span id="text"></span></p>
<script>
const frames = [{frames}];
const image = document.getElementById("frame"), slider = document.getElementById("at");
const text = document.getElementById("text"), button = document.getElementById("play");
let at = 0, playing = true;
function show(index) {{
  at = index; image.src = frames[at]; slider.value = at; text.textContent = "frame " + at + " of {last}";
}}
slider.oninput = () => {{ playing = false; button.textContent = "play"; show(Number(slider.value)); }};
button.onclick = () => {{ playing = !playing; button.textContent = playing ? "pause" : "play"; }};
setInterval(() => {{ if (playing) show((at + 1) % frames.length); }}, {milliseconds});
show(0);
</script>
"""


def write_replay(path: Path, frames: Sequence[Image.Image], *, frames_per_second: float) -> None:
    """Write the frames to a .gif or a .html file; its folder is made.

    Raises:
        LessonError: another ending, or no frames.
    """
    if not frames:
        raise LessonError(f"got no frames for {path}; an episode has at least its first state")
    milliseconds = round(1000 / frames_per_second)
    if path.suffix == ".gif":
        write_whole(path, gif_bytes(frames, milliseconds))
    elif path.suffix == ".html":
        write_whole(path, replay_page(frames, milliseconds, title=path.stem).encode())
    else:
        raise LessonError(f"got the replay {path}; its name must end in .gif or .html")


def gif_bytes(frames: Sequence[Image.Image], milliseconds: int) -> bytes:
    """An endless loop that rests on the last frame for a second."""
    # One palette for all frames, from some of them: a palette of its own for each would make colours flicker.
    some = frames[:: max(1, len(frames) // 8)]
    width, height = frames[0].size
    sheet = Image.new("RGB", (width, height * len(some)))
    for index, frame in enumerate(some):
        sheet.paste(frame, (0, height * index))
    palette = sheet.quantize(128)
    # The mean of all that is nearly white would be a grey box on a white page.
    palette.putpalette([255 if level > 247 else level for level in palette.getpalette() or []])
    pages = [frame.convert("RGB").quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    # Pillow joins equal frames in a row and adds up their times.
    durations = [milliseconds] * (len(pages) - 1) + [max(1000, milliseconds)]
    buffer = io.BytesIO()
    pages[0].save(
        buffer, format="GIF", save_all=True, append_images=pages[1:], duration=durations, loop=0, optimize=False
    )
    return buffer.getvalue()


def replay_page(frames: Sequence[Image.Image], milliseconds: int, *, title: str = "replay") -> str:
    """One self-contained page: the frames as embedded PNG, a slider and a button."""
    sources = ",".join(f'"{_data_address(frame)}"' for frame in frames)
    return _PAGE.format(title=title, last=len(frames) - 1, frames=sources, milliseconds=milliseconds)


def _data_address(frame: Image.Image) -> str:
    buffer = io.BytesIO()
    frame.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
