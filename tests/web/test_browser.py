"""The labelling screen in a real browser: by keyboard alone, frame by frame, and through everything that goes wrong."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect, sync_playwright

from densedpo.core.media import write_pair_mp4
from densedpo.core.workspace import Project
from densedpo.judge.pairset import PairSet
from densedpo.judge.store import LabelStore
from studio_example import FPS, NUM_FRAMES, SIDE, Room, coded_clip
from studio_live import CHROMIUM, Live, Process, listening, require

pytestmark = pytest.mark.browser
expect.set_options(timeout=60_000)

# reads the number that is burnt into a pane, from the middles of its blocks
READ_CODES = """
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


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    require(CHROMIUM, "chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=str(CHROMIUM),
            args=["--no-sandbox", "--disable-background-networking", "--disable-gpu"],
        )
        yield started
        started.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    opened = browser.new_context(viewport={"width": 1360, "height": 860})
    opened.set_default_timeout(60_000)
    yield opened
    opened.close()


@pytest.fixture
def live(new_room: Callable[..., Room]) -> Iterator[Live]:
    with listening(new_room(must_watch=False)) as running:
        yield running


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


def test_twenty_items_by_keyboard_alone(live: Live, context: BrowserContext) -> None:
    page = context.new_page()
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    sign_in(page, live)
    page.evaluate(READ_CODES)
    wanted = []
    for _ in range(20):
        ready(page)
        left, right = page.evaluate("colours()")
        caption = page.locator("#caption").inner_text()
        wanted.append((caption, [left, "tie", right]))
        submit(page, "1", "0", "2")
    saved(page)
    rows = live.room.labels()
    captions = {pair.id: pair.caption for pair in live.room.pairs}
    given: dict[str, list[str]] = {}
    for row in rows:
        given.setdefault(captions[row.pair_id], []).append(row.answer)
    assert given == dict(wanted)
    assert len({left for _, (left, _, _) in wanted}) == 2
    others = [url for url in requests if not url.startswith((live.url, f"blob:{live.url}"))]
    assert others == []


def test_both_panes_show_the_same_frame_at_200_seeks_and_while_playing(live: Live, context: BrowserContext) -> None:
    page = context.new_page()
    sign_in(page, live)
    page.evaluate(READ_CODES)
    wrong = page.evaluate(
        """async () => {
          const wrong = [];
          let seed = 7;
          for (let i = 0; i < 200; i++) {
            seed = (seed * 48271) % 2147483647;
            const frame = seed % studio.item.num_frames;
            await studio.player.seek(frame);
            const [left, right] = codes();
            if (left !== frame || right !== frame) wrong.push([frame, left, right]);
          }
          return wrong;
        }"""
    )
    assert wrong == []
    played = page.evaluate(
        """() => new Promise((resolve) => {
          const seen = [];
          studio.player.addEventListener("frame", () => seen.push(codes()));
          studio.player.play();
          setTimeout(() => resolve(seen), 7000);
        })"""
    )
    assert [pair for pair in played if pair[0] != pair[1]] == []
    assert len({left for left, _ in played}) > NUM_FRAMES / 2


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


def test_offline_work_waits_and_is_stored_once(live: Live, context: BrowserContext) -> None:
    page = context.new_page()
    sign_in(page, live)
    until(page, "studio.player.ready")
    context.set_offline(True)
    submit(page, "1", "1", "1")  # the next item was loaded ahead
    ready(page)
    page.keyboard.press("2")
    expect(page.locator("#saved")).to_have_attribute("data-state", "unsaved")
    assert live.room.labels() == ()
    context.set_offline(False)
    saved(page)
    assert Counter(row.segment for row in live.room.labels()) == {0: 1, 1: 1, 2: 1}
    page.reload()
    ready(page)
    assert page.evaluate("studio.choice.answers.overall") == ["right", None, None]


def test_a_lost_reply_stores_nothing_twice(live: Live, context: BrowserContext) -> None:
    page = context.new_page()
    sign_in(page, live)
    lost = []

    def lose(route: Route) -> None:
        route.fetch()
        lost.append(route.request.url)
        route.abort()

    page.route("**/api/saves", lose, times=2)
    submit(page, "1", "2", "0")
    saved(page)
    assert len(lost) == 2
    assert len(live.room.labels()) == 3


def test_a_second_tab_waits_and_can_take_over(live: Live, context: BrowserContext) -> None:
    first, second = context.new_page(), context.new_page()
    sign_in(first, live)
    second.goto(live.url)
    expect(second.locator("#elsewhere")).to_be_visible()
    expect(first.locator("#elsewhere")).to_be_hidden()
    second.locator("#take").click()
    expect(second.locator("#elsewhere")).to_be_hidden()
    expect(first.locator("#elsewhere")).to_be_visible()
    second.close()
    expect(first.locator("#elsewhere")).to_be_hidden()


def test_a_tab_that_is_closed_in_the_middle_loses_nothing(live: Live, context: BrowserContext) -> None:
    page = context.new_page()
    sign_in(page, live)
    page.keyboard.press("1")
    page.keyboard.press("2")
    page.close()
    again = context.new_page()
    again.goto(live.url)
    ready(again)
    assert again.evaluate("studio.choice.answers.overall") == ["left", "right", None]


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


def test_a_video_that_cannot_be_shown_says_so_and_cannot_be_judged(
    new_room: Callable[..., Room], context: BrowserContext
) -> None:
    room = new_room(must_watch=False, num_items=1)
    pair = room.pairs.by_id[next(iter(room.desk.items.values())).pair_id]
    (room.pairs.folder / pair.video).write_bytes(b"no video")
    with listening(room) as live:
        page = context.new_page()
        page.goto(live.entrance("ann"))
        page.keyboard.press("Enter")
        expect(page.locator("#media-state")).to_contain_text("cannot be read")
        expect(page.locator("#submit")).to_be_disabled()
        page.locator("#dialog-instructions button").click()
        page.keyboard.press("s")
        page.locator("#skip-form .primary").click()
        expect(page.locator("#caption")).to_contain_text("Nothing is left")


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


def test_a_session_that_ended_keeps_the_draft(live: Live, context: BrowserContext) -> None:
    page = context.new_page()
    sign_in(page, live)
    token = live.entrance("ann").partition("token=")[2]  # a new token ends the session
    page.keyboard.press("1")
    expect(page.locator("#dialog-enter")).to_be_visible()
    page.locator("#again-token").fill(token)
    page.keyboard.press("Enter")
    expect(page.locator("#dialog-enter")).to_be_hidden()
    saved(page)
    page.reload()
    ready(page)
    assert page.evaluate("studio.choice.answers.overall[0]") == "left"


def test_a_choice_is_on_the_server_within_a_second(live: Live, context: BrowserContext) -> None:
    page = context.new_page()
    sign_in(page, live)
    started = time.monotonic()
    page.keyboard.press("1")
    saved(page)
    assert time.monotonic() - started < 1.0


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


@pytest.mark.slow
def test_a_server_that_is_killed_in_mid_study_loses_nothing(
    start: Callable[..., Process], context: BrowserContext, fresh_project: Project
) -> None:
    """Killed, the page goes on with what it has; started again on its port, it gets everything, once."""
    server = start()
    page = context.new_page()
    page.goto(f"{server.url}#token={server.token}")
    expect(page.locator("#dialog-instructions")).to_be_visible()
    page.keyboard.press("Enter")
    ready(page)
    submit(page, "1", "2", "0")
    ready(page)
    saved(page)
    page.keyboard.press("1")
    server.kill()
    for key in ("2", "0", "Enter"):
        page.keyboard.press(key)
    expect(page.locator("#saved")).to_have_attribute("data-state", "unsaved")
    start(server.port)
    saved(page)
    ready(page)  # with the next item, and signed in as before
    pairs = PairSet.read(fresh_project.pairs("demo"))
    with LabelStore.open(fresh_project.labels_db) as store:
        rows = store.judgements(pairs.hashes)
    assert sorted(Counter(row.pair_id for row in rows).values()) == [3, 3]
    assert {row.annotator for row in rows} == {"owner"}
