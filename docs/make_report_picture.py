"""Makes docs/report.png from the report of the long demo.

    densedpo demo --long
    PYTHONPATH=tests python docs/make_report_picture.py long_demo_project/reports/demo/index.html

Needs Chromium and Playwright.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from playwright.sync_api import sync_playwright

from studio_live import CHROMIUM

WIDTH, HEIGHT = 1000, 1470


def main() -> None:
    """Opens the report, halts its clips in the middle and takes the top of the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path)
    given = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.goto(given.report.resolve().as_uri(), timeout=120_000)
        page.wait_for_timeout(2000)
        page.screenshot(path=Path(__file__).with_name("report.png"))
        browser.close()


if __name__ == "__main__":
    main()
