"""A page of the report as a test reads it: tags that balance, visible text, charts, downloads."""

from __future__ import annotations

import csv
import io
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

from rlhf_lab.report import write_report

VOID = {"br", "hr", "img", "input", "link", "meta"}
# SVG shapes may close themselves; html.parser reports those as handle_startendtag.


class Page(HTMLParser):
    """Checks that tags balance; collects tags, visible text, and what a browser would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> out of order at {self.getpos()}"

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def downloads(self) -> dict[str, list[list[str]]]:
        """The rows of every figure's data, by file name."""
        links = [attrs for tag, attrs in self.tags if tag == "a" and "download" in attrs]
        texts = {str(a["download"]): str(a["href"]).removeprefix("data:text/csv;charset=utf-8,") for a in links}
        assert len(texts) == len(links), "two figures of one name"
        return {name: list(csv.reader(io.StringIO(unquote(text)))) for name, text in texts.items()}

    def charts(self) -> dict[str, str]:
        """aria-label of every curve, by chart title."""
        labels = [a["aria-label"] or "" for tag, a in self.tags if tag == "svg" and "data-readout" in a]
        return {label.split(" (")[0]: label for label in labels}


def page_of(folder: Path) -> Page:
    return Page(write_report(folder).read_text(encoding="utf-8"))
