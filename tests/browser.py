"""A real headless Chromium for tests that need one; without it they are skipped, and say what to install.

RLHF_LAB_CHROMIUM and RLHF_LAB_CHROMEDRIVER name other binaries. RLHF_LAB_SCREENSHOTS names a folder for pictures.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("selenium", reason="to test the page in a browser: pip install selenium")
from selenium import webdriver

CHROMIUM = os.environ.get("RLHF_LAB_CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
DRIVER = os.environ.get("RLHF_LAB_CHROMEDRIVER") or shutil.which("chromedriver") or "/usr/bin/chromedriver"
FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
needs_browser = pytest.mark.skipif(
    not (Path(CHROMIUM).exists() and Path(DRIVER).exists()),
    reason="to test the page in a browser: apt-get install chromium chromium-driver",
)


def open_browser(profile: Path, *flags: str) -> Any:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={profile}", "--window-size=1280,900", *flags):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=DRIVER))


class Look:
    """Check a page's width and contrast, and keep its picture where a folder for pictures is named."""

    def __init__(self, browser: Any, name: str) -> None:
        self.browser, self.name = browser, name

    def __call__(self, page: str) -> None:
        folder = os.environ.get("RLHF_LAB_SCREENSHOTS")
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.browser.save_screenshot(f"{folder}/{page}-{self.name}.png")
        assert self.browser.execute_script(
            "const root = document.documentElement; return root.scrollWidth <= root.clientWidth"
        ), page
        assert self.browser.execute_script(FAINT_TEXT) == [], page


# Texts whose contrast with what is behind them is below 4.5 to 1 (WCAG 2.1, AA).
FAINT_TEXT = """
    const brush = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
    const known = new Map();
    const channels = (color) => {  // however the color is written: rgb(), color(srgb ...), oklab()
        if (!known.has(color)) {
            brush.clearRect(0, 0, 1, 1);
            brush.fillStyle = color;
            brush.fillRect(0, 0, 1, 1);
            known.set(color, [...brush.getImageData(0, 0, 1, 1).data]);
        }
        return known.get(color);
    };
    const luminance = ([r, g, b]) => [r, g, b].map((c) => c / 255)
        .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
    const background = (element) => {
        for (let e = element; e; e = e.parentElement) {
            const color = channels(getComputedStyle(e).backgroundColor);
            if (color[3] > 0) return color;
        }
        return [255, 255, 255];
    };
    const faint = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const element = walker.currentNode.parentElement;
        if (!walker.currentNode.data.trim() || !element.checkVisibility() || element.closest(":disabled")) continue;
        const colors = [channels(getComputedStyle(element).color), background(element)];
        const pair = colors.map(luminance).sort((a, b) => b - a);
        const ratio = (pair[0] + 0.05) / (pair[1] + 0.05);
        if (ratio < 4.5) faint.push(walker.currentNode.data.trim().slice(0, 30) + " " + ratio.toFixed(2));
    }
    return faint;
"""
