"""The labelling screen in a real browser: frame by frame, and through everything that can go wrong."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import pytest
from playwright.sync_api import BrowserContext, Route, expect

from densedpo.core.workspace import Project
from densedpo.judge.pairset import PairSet
from densedpo.judge.store import LabelStore
from studio_browser import READ_CODES, ready, saved, sign_in, submit, until
from studio_example import NUM_FRAMES, Room
from studio_live import Live, Process, listening

pytestmark = pytest.mark.browser


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


@pytest.mark.alone
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


@pytest.mark.alone
def test_a_choice_is_on_the_server_within_a_second(live: Live, context: BrowserContext) -> None:
    page = context.new_page()
    sign_in(page, live)
    started = time.monotonic()
    page.keyboard.press("1")
    saved(page)
    assert time.monotonic() - started < 1.0


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
