"""The report in a real Chromium: downloads under the page's own security policy, widths, contrast.

    apt-get install chromium chromium-driver && pip install selenium       (else these tests are skipped)

Other binaries, and a folder for pictures: see tests/browser.py.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rlhf_lab.report import write_report
from tests.browser import Look, needs_browser, open_browser
from tests.report_page.made_run import make_run

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
def test_the_report_fits_and_can_be_read(browser: Any, tmp_path: Path, width: int, dark: bool) -> None:
    """No sideways scrolling; text against its background at 4.5 to 1 or more (WCAG 2.1, AA)."""
    set_screen(browser, width, dark=dark)
    look = Look(browser, f"{'dark' if dark else 'light'}-{width}")
    try:
        browser.get(write_report(make_run(tmp_path / "run")).as_uri())
        look("report")
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def set_screen(browser: Any, width: int, *, dark: bool) -> None:
    size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
