"""What people do on the labelling screen, in a real browser: by key, by mouse, with and without motion."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from playwright.sync_api import Browser, BrowserContext, expect

from densedpo.core.media import write_pair_mp4
from studio_browser import READ_CODES, ready, saved, shown, sign_in, submit, until
from studio_example import FPS, NUM_FRAMES, SIDE, Room, coded_clip
from studio_live import Live, listening

pytestmark = pytest.mark.browser


def test_frames_are_stepped_one_by_one(live: Live, context: BrowserContext) -> None:
    page = context.new_page()
    sign_in(page, live)
    page.evaluate(READ_CODES)
    page.evaluate("studio.player.seek(0)")
    for frame in (1, 2, 3):
        page.keyboard.press("ArrowRight")
        until(page, "(n) => codes().every((code) => code === n)", arg=frame)
    page.keyboard.press("ArrowLeft")
    until(page, "codes().every((code) => code === 2)")
    expect(page.locator("#counter")).to_have_text(f"3 / {NUM_FRAMES} \u00b7 0.25 s")


def test_what_was_not_watched_cannot_be_submitted(new_room: Callable[..., Room], context: BrowserContext) -> None:
    with listening(new_room(must_watch=True)) as live:
        page = context.new_page()
        sign_in(page, live)
        page.evaluate("studio.player.pause()")
        first = shown(page)
        for key in ("1", "1", "1", "Enter"):
            page.keyboard.press(key)
        expect(page.locator("#missing")).to_contain_text("play it once to the end")
        assert shown(page) == first
        page.keyboard.press("Space")
        expect(page.locator("#missing")).to_be_empty()
        page.keyboard.press("Enter")
        until(page, "(before) => studio.item?.assignment !== before", arg=first)


def test_rest_undo_and_going_back(live: Live, context: BrowserContext) -> None:
    page = context.new_page()
    sign_in(page, live)
    first = shown(page)
    page.keyboard.press("1")
    page.keyboard.press("r")
    assert page.evaluate("studio.choice.answers.overall") == ["left", "tie", "tie"]
    page.keyboard.press("Control+z")
    assert page.evaluate("studio.choice.answers.overall") == ["left", None, None]
    page.keyboard.press("u")
    assert page.evaluate("studio.choice.answers.overall") == [None, None, None]
    for _ in range(3):
        page.keyboard.press("y")  # there are two to do again
    assert page.evaluate("studio.choice.answers.overall") == ["left", "tie", "tie"]
    page.keyboard.press("Control+z")
    submit(page, "r")
    ready(page)
    page.keyboard.press("u")
    until(page, "(first) => studio.item?.assignment === first", arg=first)
    ready(page)
    assert page.evaluate("studio.choice.answers.overall") == ["left", "tie", "tie"]
    page.keyboard.press("2")
    submit(page)
    saved(page)
    assert Counter(row.segment for row in live.room.labels()) == {0: 2, 1: 2, 2: 2}


def test_the_last_item_can_be_changed_when_nothing_is_left(
    new_room: Callable[..., Room], context: BrowserContext
) -> None:
    with listening(new_room(must_watch=False, num_items=1)) as live:
        page = context.new_page()
        sign_in(page, live)
        for key in ("1", "1", "1", "Enter"):
            page.keyboard.press(key)
        expect(page.locator("#caption")).to_contain_text("Nothing is left")
        page.keyboard.press("1")  # of no item: nothing happens
        page.keyboard.press("u")
        ready(page)
        assert page.evaluate("studio.choice.answers.overall") == ["left"] * 3
        for key in ("2", "Enter"):
            page.keyboard.press(key)
        expect(page.locator("#caption")).to_contain_text("Nothing is left")
        saved(page)
        assert [row.answer == row.left for row in live.room.labels()] == [True] * 3 + [False, True, True]


def test_work_goes_on_where_it_was_left(live: Live, context: BrowserContext) -> None:
    """In another browser, too: the first part that is open is selected. What keys do is told in words."""
    page = context.new_page()
    sign_in(page, live)
    page.keyboard.press("0")
    expect(page.locator("#said")).to_have_text("tie. overall, part 2 of 3, 1.0 to 2.0 seconds: open")
    page.keyboard.press("Shift+ArrowLeft")
    expect(page.locator("#said")).to_have_text("overall, part 1 of 3, 0.0 to 1.0 seconds: tie")
    saved(page)
    page.close()
    again = context.new_page()
    again.goto(live.url)
    ready(again)
    again.keyboard.press("2")
    assert again.evaluate("studio.choice.answers.overall") == ["tie", "right", None]


def test_both_panes_zoom_and_move_by_keys(live: Live, context: BrowserContext) -> None:
    """At 1.5 times, 2/3 of a pane are seen. A quarter of that to the left and up is as far as it goes; back is 1/6."""
    page = context.new_page()
    sign_in(page, live)
    page.keyboard.press("+")
    for key in ("a", "w"):
        page.keyboard.press(key)
    assert page.evaluate("studio.player.center") == pytest.approx([1 / 3, 1 / 3])
    for key in ("d", "z"):
        page.keyboard.press(key)
    assert page.evaluate("studio.player.center") == pytest.approx([1 / 2, 1 / 2])


def test_a_clip_that_flashes_does_not_play_by_itself(new_room: Callable[..., Room], context: BrowserContext) -> None:
    room = new_room(must_watch=False, num_items=1)
    pair = room.pairs.by_id[next(iter(room.desk.items.values())).pair_id]
    flashing = np.zeros((NUM_FRAMES, SIDE, SIDE, 3), dtype=np.uint8)
    flashing[::2] = 255
    write_pair_mp4(room.pairs.folder / pair.video, coded_clip("a"), flashing, fps=FPS, pixel_scale=2)
    with listening(room) as live:
        page = context.new_page()
        sign_in(page, live)
        page.reload()  # without the instructions before it
        ready(page)
        expect(page.locator("#notice")).to_contain_text("flashes more than three times in a second")
        assert page.evaluate("studio.player.playing") is False
        page.keyboard.press("Space")
        assert page.evaluate("studio.player.playing") is True


def test_a_drag_along_a_lane_paints_and_a_skip_says_why(live: Live, context: BrowserContext) -> None:
    page = context.new_page()
    sign_in(page, live)
    lanes = page.locator("#rows button.right")
    boxes = [lanes.nth(i).bounding_box() for i in range(3)]
    middles = [(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2) for box in boxes]
    page.mouse.move(*middles[0])
    page.mouse.down()
    page.mouse.move(*middles[1], steps=4)
    page.mouse.move(*middles[2], steps=4)
    page.mouse.up()
    assert page.evaluate("studio.choice.answers.overall[2]") == "right"
    assert page.evaluate("studio.choice.answers.overall[1]") == "right"
    first = shown(page)
    page.keyboard.press("s")
    page.get_by_label("cannot tell").check()
    page.locator("#skip-form .primary").click()
    until(page, "(first) => studio.item?.assignment !== first", arg=first)
    saved(page)
    assert {row.answer for row in live.room.labels()} == {"skip"}


def test_keys_can_be_changed_and_are_text_in_text_fields(live: Live, context: BrowserContext) -> None:
    page = context.new_page()
    sign_in(page, live)
    page.keyboard.press("?")
    page.get_by_role("button", name=re.compile("^Left is better")).last.click()
    page.keyboard.press("j")
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    assert page.evaluate("studio.choice.answers.overall[0]") == "left"
    page.keyboard.press("n")
    page.locator("#note").fill("")
    page.keyboard.type("just 2 hands\u00e9 <b>")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("studio.choice.note") == "just 2 hands\u00e9 <b>"
    assert page.evaluate("studio.choice.answers.overall") == ["left", None, None]


def test_a_key_that_is_held_down_answers_once(live: Live, context: BrowserContext) -> None:
    page = context.new_page()
    sign_in(page, live)
    for _ in range(5):
        page.keyboard.down("1")
    page.keyboard.up("1")
    assert page.evaluate("studio.choice.answers.overall") == ["left", None, None]


def test_hostile_texts_are_shown_as_text(new_room: Callable[..., Room], context: BrowserContext) -> None:
    from dataclasses import replace

    from densedpo.core.records import write_jsonl

    text = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script> & \u202e{{7*7}}"
    plain = new_room()
    write_jsonl(plain.pairs.folder / "pairs.jsonl", [replace(pair, caption=text) for pair in plain.pairs])
    with listening(new_room(name="hostile", must_watch=False, instructions=text)) as live:
        page = context.new_page()
        sign_in(page, live)
        assert page.locator("#caption").inner_text() == text
        assert page.title() != "owned"
        assert page.locator("#caption *").count() == 0


def test_reduced_motion_plays_nothing_by_itself(live: Live, context: BrowserContext) -> None:
    page = context.new_page()
    page.emulate_media(reduced_motion="reduce")
    sign_in(page, live)
    submit(page, "1", "1", "1")
    ready(page)
    assert page.evaluate("studio.player.playing") is False


def test_nothing_is_cut_off_at_twice_the_size(live: Live, browser: Browser) -> None:
    """A window of 1280 pixels at 200 % has room for 640."""
    context = browser.new_context(viewport={"width": 640, "height": 480}, device_scale_factor=2)
    page = context.new_page()
    sign_in(page, live)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    context.close()


def test_pages_are_accessible(live: Live, context: BrowserContext) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = context.new_page()
    page.goto(live.url)
    found = {"enter": Axe().run(page).response["violations"]}
    sign_in(page, live, is_admin=True)
    page.evaluate("studio.player.pause()")
    found["label"] = Axe().run(page).response["violations"]
    page.keyboard.press("?")
    found["keys"] = Axe().run(page).response["violations"]
    page.keyboard.press("Escape")
    submit(page, "1", "2", "0")
    saved(page)
    page.goto(f"{live.url}dashboard")
    found["dashboard"] = Axe().run(page).response["violations"]
    told = [
        f"{where}: {each['id']}: {each['nodes'][0]['html'][:120]}" for where, all_ in found.items() for each in all_
    ]
    assert told == []


def test_single_clips_are_scored_by_keyboard(new_room: Callable[..., Room], context: BrowserContext) -> None:
    """Digits are scores and x is ten; two items of one pair become a comparison."""
    with listening(new_room(kind="scores", must_watch=False, num_items=1, name="scores")) as live:
        page = context.new_page()
        sign_in(page, live)
        page.evaluate(READ_CODES)
        shown_clips = []
        for keys in (("7", "8", "x"), ("7", "8", "9")):
            assert page.locator("#pane-right").is_hidden()
            shown_clips.append(page.evaluate("colours()")[0])
            for key in keys:
                page.keyboard.press(key)
            page.keyboard.press("Enter")
            if len(shown_clips) == 1:
                until(page, "Boolean(studio.item) && Object.keys(studio.choice.scores).length === 0")
                ready(page)
        expect(page.locator("#caption")).to_contain_text("Nothing is left")
        rows = live.room.labels()
        assert [(row.segment, row.answer) for row in rows] == [(None, shown_clips[0])]
