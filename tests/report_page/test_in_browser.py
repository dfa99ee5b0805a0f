"""The report in a real Chromium: downloads under the page's own security policy, widths, contrast.

    apt-get install chromium chromium-driver && pip install selenium       (else these tests are skipped)

Other binaries, and a folder for pictures: see tests/browser.py.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rlhf_lab.report import write_comparison, write_report
from tests.browser import Look, needs_browser, open_browser
from tests.report_page.made_run import around, change_policy, make_run, with_votes, write_json

pytest.importorskip("selenium", reason="to test the page in a browser: pip install selenium")
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

pytestmark = needs_browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    driver = open_browser(tmp_path_factory.mktemp("profile"))
    yield driver
    driver.quit()


def test_a_click_saves_the_data_of_a_figure(browser: Any, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    saved = tmp_path / "saved" / "kl_from_sft.csv"
    saved.parent.mkdir()
    browser.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(saved.parent), "eventsEnabled": False}
    )
    browser.get(write_report(folder).as_uri())
    address = browser.current_url
    link = browser.find_element(By.CSS_SELECTOR, "a[download='kl_from_sft.csv']")
    assert link.accessible_name == "data (CSV) of KL from SFT"
    browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", link)
    link.click()
    WebDriverWait(browser, 20, poll_frequency=0.05).until(lambda _: saved.is_file())
    with saved.open(newline="") as file:
        head, *rows = csv.reader(file)
    logged = [json.loads(line) for line in (folder / "ppo" / "metrics.jsonl").read_text().splitlines()]
    assert head == ["PPO update", "rollouts", "held-out"]
    assert [float(row[1]) for row in rows] == [row["objective/kl"] for row in logged]
    assert browser.current_url == address, "the page is still there"
    assert [entry["message"] for entry in browser.get_log("browser")] == [], "the security policy was not in the way"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390], ids=["desk", "phone"])
def test_every_page_fits_and_can_be_read(browser: Any, tmp_path: Path, width: int, dark: bool) -> None:
    """No sideways scrolling; text against its background at 4.5 to 1 or more (WCAG 2.1, AA)."""
    first, second = hard_to_show(tmp_path / "first"), make_run(tmp_path / "with_votes")
    with_votes(second, human=20, warnings=("two votes on one pair agree no more often than by chance",))
    others = [str(make_run(tmp_path / f"run_{i}", seed=i)) for i in range(3, 9)]
    set_screen(browser, width, dark=dark)
    look = Look(browser, f"{'dark' if dark else 'light'}-{width}")
    pages = {
        "report": write_report(second),
        "hard": write_report(first),
        "begun": write_report(make_run(tmp_path / "begun", upto="sft")),
        "comparison": write_comparison([str(make_run(tmp_path / "first_one")), str(second)]),
        "hard_comparison": write_comparison([str(first), str(second)], tmp_path / "hard.html"),
        "eight": write_comparison([str(first), str(second), *others], tmp_path / "eight.html"),
    }
    try:
        for name, page in pages.items():
            browser.get(page.as_uri())
            look(name)
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def hard_to_show(folder: Path) -> Path:
    """Long names, 10 kB without a space, markup as text, numbers that are none."""
    make_run(folder, completion="<script>alert(1)</script> " + "unbroken" * 1250)
    config = (folder / "config.yaml").read_text()
    name = "an-owner-of-models/" + "a-model-with-a-very-long-name-" * 5
    (folder / "config.yaml").write_text(config.replace("name_or_path: assistant", f"name_or_path: {name}"))
    change_policy(folder, honest={"mean": math.nan, "low": None, "high": None}, gold=around(-123456.789, 1e6))
    run = json.loads((folder / "run.json").read_text())
    run |= {"name": "a_run_" * 30, "command": f"rlhf-lab run model.name_or_path={name}"}
    write_json(folder / "run.json", run)
    policy = json.loads((folder / "evaluation" / "policy.json").read_text())
    policy["samples"][0]["prompt"] = "Why? " * 500 + "https:" + "x" * 300
    policy["samples"][1]["kind"] = "kind" * 40
    write_json(folder / "evaluation" / "policy.json", policy)
    return folder


def test_marks_are_read_out_and_not_by_colour_alone(browser: Any, tmp_path: Path) -> None:
    browser.get(write_report(make_run(tmp_path / "run", completion="Bees make wax.")).as_uri())
    for tag in ("del", "ins"):
        mark = browser.find_element(By.CSS_SELECTOR, f"#samples {tag}")
        style = "return getComputedStyle(arguments[0], arguments[1])[arguments[2]]"
        assert "underline" in browser.execute_script(style, mark, None, "textDecorationLine")
        assert "only here" in browser.execute_script(style, mark, "::before", "content")
        assert browser.execute_script(style, mark, "::before", "position") == "absolute", "out of sight"


def test_on_paper_it_is_light_and_whole(browser: Any, tmp_path: Path) -> None:
    """Printed from a dark screen: white, no link to press, and a long answer is not cut where a screen would scroll."""
    folder = make_run(tmp_path / "run", completion="many words " * 500)
    browser.get(write_report(folder).as_uri())
    colours = {}
    try:
        for scheme in ("light", "dark"):
            features = [{"name": "prefers-color-scheme", "value": scheme}]
            browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": features})
            style = "const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]"
            colours[scheme] = browser.execute_script(style)
        assert colours["dark"] == colours["light"]
        assert colours["dark"][0] == "rgb(255, 255, 255)"
        text = browser.find_element(By.CSS_SELECTOR, "#samples .tone-ppo .text")
        assert browser.execute_script("return arguments[0].scrollHeight <= arguments[0].clientHeight", text)
        assert not any(link.is_displayed() for link in browser.find_elements(By.CSS_SELECTOR, "nav a, a[download]"))
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})


def set_screen(browser: Any, width: int, *, dark: bool) -> None:
    size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
