"""The studio for tests: a project that is copied, a study that is open, and a client that is signed in."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest
from playwright.sync_api import Browser, BrowserContext, sync_playwright
from starlette.testclient import TestClient

from densedpo.core.workspace import Project
from densedpo.judge.studies.invitations import invite
from densedpo.judge.web.app import create_app
from studio_example import PORT, Room, make_project
from studio_live import CHROMIUM, Live, Process, listening, require

NUM_PAIRS = 24


@pytest.fixture(scope="session")
def pairs_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("studio") / "project", num_pairs=NUM_PAIRS).root


@pytest.fixture
def fresh_project(tmp_path: Path, pairs_template: Path) -> Project:
    return Project(root=Path(shutil.copytree(pairs_template, tmp_path / "project")))


@pytest.fixture
def new_room(fresh_project: Project) -> Iterator[Callable[..., Room]]:
    opened: list[Room] = []

    def open_(**settings: object) -> Room:
        opened.append(Room.open(fresh_project, **settings))
        return opened[-1]

    yield open_
    for room in opened:
        room.close()


@pytest.fixture
def room(new_room: Callable[..., Room], request: pytest.FixtureRequest) -> Room:
    """A study with the settings that an indirect parameter names."""
    return new_room(**getattr(request, "param", {}))


@pytest.fixture
def sign_in(room: Room) -> Iterator[Callable[..., httpx2.Client]]:
    """A client of the room's app for a person; a browser's headers are the test's business."""
    app = create_app(room.studio())
    clients: list[TestClient] = []

    def enter(name: str | None = None, *, is_admin: bool = False) -> httpx2.Client:
        client = TestClient(app, base_url=f"http://127.0.0.1:{PORT}")
        clients.append(client)
        if name is not None:
            token = invite(room.store.database, name, is_admin=is_admin)
            assert client.post("/api/enter", json={"token": token}).status_code == 200
        return client

    yield enter
    for client in clients:
        client.close()


@pytest.fixture
def serve_room() -> Iterator[Callable[[Room, str], httpx2.Client]]:
    """A client of any room's app, signed in."""
    clients: list[TestClient] = []

    def enter(room: Room, name: str) -> httpx2.Client:
        client = TestClient(create_app(room.studio()), base_url=f"http://127.0.0.1:{PORT}")
        clients.append(client)
        token = invite(room.store.database, name, is_admin=False)
        assert client.post("/api/enter", json={"token": token}).status_code == 200
        return client

    yield enter
    for client in clients:
        client.close()


@pytest.fixture
def start(fresh_project: Project) -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def start_(port: int = 0) -> Process:
        started.append(Process(fresh_project.root, port))
        return started[-1]

    yield start_
    for each in started:
        if each.process.poll() is None:
            each.kill()


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
