"""What the tests of the studio's screen ask of a browser."""

from __future__ import annotations

import time
from typing import Final

from playwright.sync_api import Page, expect

from studio_live import Live

expect.set_options(timeout=60_000)

# reads the number that is burnt into a pane, from the middles of its blocks
READ_CODES: Final = """
(() => {
  const read = (canvas) => {
    const block = canvas.width / 8, context = canvas.getContext("2d");
    let n = 0;
    for (let bit = 0; bit < 6; bit++) {
      const [r, g, b] = context.getImageData((bit + 0.5) * block, block / 2, 1, 1).data;
      if (r + g + b > 384) n |= 1 << bit;
    }
    return n;
  };
  window.codes = () => [...document.querySelectorAll(".pane canvas")].map(read);
  window.colours = () => [...document.querySelectorAll(".pane canvas")].map((canvas) => {
    const [r, , b] = canvas.getContext("2d").getImageData(canvas.width / 2, canvas.height / 2, 1, 1).data;
    return r > b ? "a" : "b";
  });
})()
"""


def sign_in(page: Page, live: Live, name: str = "ann", *, is_admin: bool = False) -> None:
    page.goto(live.entrance(name, is_admin=is_admin))
    expect(page.locator("#dialog-instructions")).to_be_visible()
    page.keyboard.press("Enter")
    ready(page)


def until(page: Page, expression: str, arg: object = None, *, timeout_s: float = 60.0) -> None:
    """Waits until an expression is true. (Playwright waits by eval, which our policy refuses.)"""
    deadline = time.monotonic() + timeout_s
    while not page.evaluate(expression, arg):
        assert time.monotonic() < deadline, f"never true: {expression}"
        page.wait_for_timeout(50)


def ready(page: Page) -> None:
    until(page, "Boolean(window.studio?.item && studio.player.ready && !document.querySelector('#submit').disabled)")


def shown(page: Page) -> str:
    return page.evaluate("studio.item.assignment")


def submit(page: Page, *keys: str) -> None:
    """Answers by keys and waits for the next item."""
    before = shown(page)
    for key in keys:
        page.keyboard.press(key)
    page.keyboard.press("Enter")
    until(page, "(before) => Boolean(studio.item) && studio.item.assignment !== before", arg=before)


def saved(page: Page) -> None:
    expect(page.locator("#saved")).to_have_attribute("data-state", "saved")
