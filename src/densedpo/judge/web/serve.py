"""Starts the studio: looks at everything that can be wrong first, then listens, and only then says where."""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Callable
from typing import Final

import uvicorn

from densedpo.core.errors import BadInput
from densedpo.core.workspace import Project
from densedpo.judge.pairset import PairSet
from densedpo.judge.store import LabelStore
from densedpo.judge.studies import invitations, ledger
from densedpo.judge.studies.config import StudyConfig
from densedpo.judge.studies.desk import Desk
from densedpo.judge.studies.media import MediaFolder
from densedpo.judge.studies.setup import open_study
from densedpo.judge.web.app import create_app
from densedpo.judge.web.door import Studio
from densedpo.judge.web.guard import Address

_MAX_CONNECTIONS: Final = 400


def serve(
    project: Project,
    pairs: PairSet,
    store: LabelStore,
    settings: StudyConfig,
    *,
    host: str,
    port: int,
    public_url: str | None,
    say: Callable[[str], None],
) -> None:
    """Serves a study until it is stopped.

    Args:
        host: the address to listen on; any but this machine's own needs a public URL and invited people.
        public_url: where people reach the studio through a proxy that ends TLS.
        say: takes one line for whoever started it.

    Raises:
        BadInput: an address without the protection that it needs, a port that is taken, or a study that cannot be.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        study = open_study(store, pairs, settings)
        is_local = _is_loopback(host) and public_url is None
        if not is_local:
            _require_protection(store, host, public_url)
        _bind(listener, host, port)
        address = Address.public(public_url) if public_url else Address.local(listener.getsockname()[1])
        desk = Desk.open(store.database, study, pairs)
        media = MediaFolder(project.root / "studio" / study.name, pairs)
        server = server_of(Studio(desk=desk, media=media, address=address))
        if is_local:
            token = invitations.owner_token(store.database)
            say(f"open {address.url}#token={token}")
        else:
            invitations.close_owner(store.database)
            say(f"open {address.url} and sign in with a token from `densedpo judge invite NAME`")
        say(f"study {study.name}: {len(desk.items)} items; stop with Ctrl+C, nothing is lost")
        stop = threading.Event()
        threading.Thread(target=_work_ahead, args=(media, desk, stop), daemon=True).start()
        try:
            server.run(sockets=[listener])
        finally:
            stop.set()


def _work_ahead(media: MediaFolder, desk: Desk, stop: threading.Event) -> None:
    """What the start need not wait for: what the dashboard computes with, and the videos."""
    import densedpo.judge.studies.dashboard  # noqa: F401  # its scipy takes as long to load as all the rest

    media.prepare(desk.items.values(), desk.study.settings.segment_seconds, stop)


def server_of(studio: Studio) -> uvicorn.Server:
    """The web server of a studio, with limits on what any client can hold open."""
    return uvicorn.Server(
        uvicorn.Config(
            create_app(studio),
            log_level="warning",
            access_log=False,  # addresses hold opaque ids only, but who looked at what when is nobody's business
            server_header=False,
            proxy_headers=False,
            limit_concurrency=_MAX_CONNECTIONS,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=5,
            h11_max_incomplete_event_size=16_384,
            http="h11",
            ws="none",
            loop="asyncio",
        )
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _require_protection(store: LabelStore, host: str, public_url: str | None) -> None:
    if public_url is None:
        raise BadInput(
            f"--host {host} can be reached by others: put a proxy with TLS before the studio and give its address by "
            "--public-url (docs/labelling.md has an example), or leave --host out"
        )
    with store.database.reading() as connection:
        if [person for person in ledger.people(connection) if person.name != invitations.OWNER] == []:
            raise BadInput("nobody can sign in yet; make tokens by `densedpo judge invite NAME`, one with --admin")


def _bind(listener: socket.socket, host: str, port: int) -> None:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        raise BadInput(f"cannot listen on {host}, port {port}: {error}; give another --port") from None
    listener.listen(128)
