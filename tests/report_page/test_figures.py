"""Every figure has its data as a download: the numbers of the run folder, in full."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

from rlhf_lab.report_page.charts import Series, line_chart
from rlhf_lab.report_page.figures import Table, csv_text, figure
from tests.report_page.made_run import make_run, write_lines
from tests.report_page.read_page import Page, page_of


def test_every_figure_of_the_page_has_a_download(tmp_path: Path) -> None:
    page = page_of(make_run(tmp_path / "run"))
    assert len(page.downloads()) == sum(tag == "figure" for tag, _ in page.tags) >= 16
    labels = [attrs["aria-label"] for tag, attrs in page.tags if "download" in attrs]
    assert "data (CSV) of Gold score and its parts" in labels


def test_the_download_holds_what_was_logged(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    logged = [json.loads(line) for line in (folder / "ppo" / "metrics.jsonl").read_text().splitlines()]
    head, *rows = page_of(folder).downloads()["score.csv"]
    assert head == ["PPO update", "rollouts", "held-out"]
    assert [int(row[0]) for row in rows] == [row["step"] for row in logged]
    assert [float(row[1]) for row in rows] == [row["objective/scores"] for row in logged]
    assert [float(row[2]) for row in rows if row[2]] == [row["eval_scores"] for row in logged if "eval_scores" in row]


def test_the_calibration_bins_are_there(tmp_path: Path) -> None:
    head, *rows = page_of(make_run(tmp_path / "run")).downloads()["calibration.csv"]
    assert head == ["predicted", "observed", "pairs"]
    assert rows[0] == ["0.54", "0.51", "60"]
    assert len(rows) == 5


def test_a_very_long_curve_is_given_as_means_that_say_so(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", upto="sft")
    write_lines(folder / "sft" / "metrics.jsonl", [{"step": i, "loss": float(i % 2)} for i in range(1, 20_001)])
    head, *rows = page_of(folder).downloads()["sft_loss.csv"]
    assert head == ["step", "training, means of 20"]
    assert len(rows) == 1000
    assert rows[0] == ["20", "0.5"]


def test_two_points_at_one_step_are_two_rows() -> None:
    drawn = line_chart("t", "u", [Series("a", ((1, 5.0), (1, 6.0)), "x"), Series("b", ((1, 7.0),), "y")], x_label="x")
    assert Page(drawn).downloads() == {"t.csv": [["x", "a", "b"], ["1", "5", "7"], ["1", "6", ""]]}


def test_names_with_commas_quotes_and_formulas_stay_text() -> None:
    names = ("a,b", 'say "hi"', "=1+1", "two\nlines", "naïve #1 100 %")
    data = Table(names, [(1e-17, None, -2.5, 12345678901234.0, "@x")])
    read = list(csv.reader(io.StringIO(csv_text(data))))
    assert read[0] == ["a,b", 'say "hi"', "'=1+1", "two\nlines", "naïve #1 100 %"]
    assert read[1] == ["1e-17", "", "-2.5", "12345678901234", "'@x"]
    page = Page(figure("<b>&", "", "", data))
    assert page.downloads() == {"b.csv": read}
