"""What comes between a person and their work: a tab out of sight, a slow line, a broken video, another keyboard."""

from __future__ import annotations

import pytest
from playwright.sync_api import BrowserContext, Route, expect

from studio_browser import ready, sign_in
from studio_live import Live

pytestmark = pytest.mark.browser

# presses a key as a keyboard of any layout would
PRESS = """
(key, more = {}) => document.body.dispatchEvent(
  new KeyboardEvent("keydown", { key, code: `Digit${key}`, bubbles: true, cancelable: true, ...more }))
"""


def test_time_out_of_sight_does_not_count(live: Live, context: BrowserContext) -> None:
    """Two seconds in a hidden tab: playback stops, and less than one is added to the time of the item."""
    page = context.new_page()
    sign_in(page, live)
    playing, counted_ms = page.evaluate(
        f"""async () => {{
          const press = {PRESS};
          const hide = (hidden) => {{
            Object.defineProperty(document, "hidden", {{ configurable: true, get: () => hidden }});
            document.dispatchEvent(new Event("visibilitychange"));
          }};
          studio.player.play();
          press("1");
          const before = studio.choice.active_ms;
          hide(true);
          const playing = studio.player.playing;
          await new Promise((resolve) => setTimeout(resolve, 2000));
          hide(false);
          press("2");
          return [playing, studio.choice.active_ms - before];
        }}"""
    )
    assert playing is False
    assert counted_ms < 1000


def test_a_slow_line_and_a_broken_video_are_told(live: Live, context: BrowserContext) -> None:
    page = context.new_page()
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route("**/media/*", hold)
    page.goto(live.entrance("ann"))
    expect(page.locator("#media-state")).to_contain_text("still loading")
    expect(page.locator("#submit")).to_be_disabled()
    for route in held:
        route.fulfill(status=200, content_type="video/mp4", body=b"no video")
    expect(page.locator("#media-state")).to_contain_text("This browser cannot play the video.")
    expect(page.locator("#submit")).to_be_disabled()
    page.unroute("**/media/*")
    page.reload()
    ready(page)


def test_digits_count_on_every_layout_and_not_while_text_is_composed(live: Live, context: BrowserContext) -> None:
    """On a French keyboard the key of 2 writes another character; an input method sends keys that are not meant."""
    page = context.new_page()
    sign_in(page, live)
    answers = "studio.choice.answers.overall"
    page.evaluate(f"({PRESS})('1', {{ isComposing: true }})")
    page.evaluate(f"({PRESS})('1', {{ ctrlKey: true }})")
    assert page.evaluate(answers) == [None, None, None]
    page.evaluate(f"({PRESS})('\\u00e9', {{ code: 'Digit2' }})")
    assert page.evaluate(answers) == ["right", None, None]
