"""The page as a whole: its parts, started and ended together."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

from restore_rwkv.apps.page.access import Access, Guard
from restore_rwkv.apps.page.catalogue import Catalogue, Place
from restore_rwkv.apps.page.events import SCANS, Hub
from restore_rwkv.apps.page.facts import Facts
from restore_rwkv.apps.page.jobs import Jobs
from restore_rwkv.apps.page.runner import Runner, remove_strangers
from restore_rwkv.apps.page.settings import PageSettings
from restore_rwkv.apps.page.state import StateFolder
from restore_rwkv.apps.page.uploads import Uploads
from restore_rwkv.apps.words import Words
from restore_rwkv.errors import ConfigError, InputError, StorageError

if TYPE_CHECKING:
    from starlette.types import ASGIApp

_MOST_CONNECTIONS = 200
_SECONDS_TO_END = 10.0
_SECONDS_TO_START = 30.0
_BACKLOG = 128


class Page:
    """A page that serves from `start` to `stop`, or within a `with` block.

    Args:
        settings: of the page.

    Attributes:
        port: that the page listens at.
        access: who is let in.
        state: folder of the page.
        jobs: the queue.
        uploads: what was dropped.
        catalogue: what can be restored.
        runner: that restores.

    Raises:
        ConfigError: a package of the extra `page` is not installed, the port is in use, or the
            address is not one of this machine.
        InputError: the path does not exist, or the state folder cannot be used.
        OSError: the state folder cannot be written to.

    Example:
        >>> with Page(PageSettings(path=Path("scans"))) as page:  # doctest: +SKIP
        ...     print(page.url)
    """

    def __init__(self, settings: PageSettings) -> None:
        require_packages()
        if settings.path is not None and not settings.path.exists():
            raise InputError(f"{settings.path}: no such file or folder; check the path")
        self._settings = settings
        self._ends = ExitStack()
        try:
            self._socket = listening(settings.host, settings.port)
            self._ends.callback(self._socket.close)
            self.port = int(self._socket.getsockname()[1])
            self.state = StateFolder(settings.state)
            self._ends.callback(self.state.close)
            self.access = Access(settings.host)
            self._make()
        except BaseException:
            self._ends.close()
            raise

    def _make(self) -> None:
        settings, state = self._settings, self.state
        roots = [state.path, *([settings.path.absolute()] if settings.path else [])]
        self._words = Words(roots)
        self._hub = Hub()
        self.jobs = Jobs(state.database)
        self.jobs.recover()
        remove_strangers(self.jobs, state)
        self.uploads = Uploads(state, settings.upload_cap)
        self.catalogue = Catalogue(settings.device, self._words, lambda: self._hub.changed(SCANS))
        self.runner = Runner(
            *(self.jobs, state, settings.device, self._words),
            lambda number: self._hub.changed(str(number)),
        )

    @property
    def address(self) -> str:
        """Address of the page, without a token."""
        host = self._settings.host
        name = "127.0.0.1" if host in ("", "0.0.0.0") else "::1" if host == "::" else host
        return f"http://{f'[{name}]' if ':' in name else name}:{self.port}/"

    @property
    def url(self) -> str:
        """Address that opens the page."""
        return f"{self.address}?token={self.access.token}"

    @property
    def url_for_browser(self) -> str:
        """Address that opens the page once."""
        return f"{self.address}?token={self.access.token_for_browser()}"

    def app(self) -> ASGIApp:
        """Return the page as an ASGI application."""
        from starlette.applications import Starlette

        from restore_rwkv.apps.page.refusals import error_handlers
        from restore_rwkv.apps.page.routes import Answers, Parts

        answers = Answers(
            Parts(
                state=self.state,
                jobs=self.jobs,
                runner=self.runner,
                uploads=self.uploads,
                catalogue=self.catalogue,
                hub=self._hub,
                words=self._words,
                facts=Facts(self._settings),
            )
        )

        @contextlib.asynccontextmanager
        async def lifespan(_: Starlette) -> AsyncIterator[None]:
            self._hub.start()
            yield

        inner = Starlette(
            routes=list(answers.routes()),
            exception_handlers=error_handlers(self._words),
            lifespan=lifespan,
        )
        inner.router.redirect_slashes = False
        return Guard(inner, self.access)

    def start(self) -> None:
        """Serve, look at the scans, and restore what waits."""
        import uvicorn

        config = uvicorn.Config(
            self.app(),
            **{"http": "h11", "loop": "asyncio", "ws": "none", "lifespan": "on"},  # type: ignore[arg-type]
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=_MOST_CONNECTIONS,
            timeout_graceful_shutdown=2,
        )
        self._server = uvicorn.Server(config)
        self._started = threading.Event()
        thread = threading.Thread(
            target=self._server.run, args=([self._socket],), name="page", daemon=True
        )
        thread.start()
        self._ends.callback(self._end_serving, thread)
        self.runner.start()
        self._ends.callback(self.runner.stop, _SECONDS_TO_END)
        self.catalogue.start()
        self._ends.callback(self.catalogue.stop, _SECONDS_TO_END)
        self._look()
        self._await_start(thread)

    def _look(self) -> None:
        from restore_rwkv.apps.page.routes import place_of

        if self._settings.path is not None:
            self.catalogue.look(Place(path=self._settings.path.resolve()))
        elif self._settings.demo:
            self.catalogue.look_at_demo(self.state.path / "demo")
        for upload in self.uploads.all():
            self.catalogue.look(place_of(upload))

    def _await_start(self, thread: threading.Thread) -> None:
        end = _SECONDS_TO_START
        while not self._server.started and thread.is_alive() and end > 0:
            thread.join(0.01)
            end -= 0.01
        if not self._server.started:
            self.stop()
            raise StorageError("page: the server did not start; try again, or another --port")

    def _end_serving(self, thread: threading.Thread) -> None:
        self._hub.close()
        self._server.should_exit = True
        thread.join(_SECONDS_TO_END)

    def stop(self) -> None:
        """Stop the job that runs, and remove the state folder unless it is kept."""
        self._ends.close()

    def __enter__(self) -> Page:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def require_packages() -> None:
    """Raise ConfigError unless the packages of the extra `page` are installed."""
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"the page needs {error.name}; pip install 'restore-rwkv[page]'"
        ) from error


def listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        ConfigError: the port is in use or may not be used, or the address is not of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    server = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # elsewhere it would let two programs listen at one port
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((host, port))
        server.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        server.close()
        number = getattr(error, "errno", None)
        if number == errno.EADDRINUSE:
            raise ConfigError(
                f"port {port}: is in use; give another port=N, or leave port out for a free one"
            ) from error
        if number in (errno.EACCES, errno.EPERM):
            raise ConfigError(f"port {port}: may not be used; give a port above 1023") from error
        if isinstance(error, OverflowError):
            raise ConfigError(f"port {port}: is not a port; give one up to 65535") from error
        raise ConfigError(
            f"host {host}: is not an address of this machine; leave host out for this machine only"
        ) from error
    return server
