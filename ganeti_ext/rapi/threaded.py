# SPDX-License-Identifier: BSD-2-Clause
"""Where each request has a thread (Ganeti's next release): what a process of its own gave it before.

What a process has is its own, and is gone with it: the users and the policy as they were when it began, and
whatever the handler or a middleware keeps in itself. Here each request gets a copy of the handler, and users and
policy are replaced as a whole, by one other thread.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import queue
import socket
import threading
from collections.abc import Callable, Mapping
from typing import Any

import ganeti.http.server
from ganeti import http, pathutils

from ganeti_ext.rapi.access import AccessControl
from ganeti_ext.rapi.body import UnreadBody, linger
from ganeti_ext.rapi.signin import SignIn

#: Seconds between two looks at whether a file is another.
LOOK_AGAIN = 1.0

#: Ganeti's own classes: their names are ours once the patches are applied.
_GanetiServer = ganeti.http.server.HttpServer
_GanetiRequestHandler = ganeti.http.server.GanetiRequestHandler


class Server(_GanetiServer):  # type: ignore[misc, valid-type]
    """Ganeti's server, whose threads find all that they go by, and a handler for each request."""

    #: Set by `prepare`; what is served otherwise is not our handler.
    before_start: Callable[[], None] = staticmethod(lambda: None)
    ganeti_handler: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if isinstance(self.ganeti_handler, SignIn):
            self.ganeti_handler = Front(self.ganeti_handler)

    def Start(self) -> None:
        """Loads what is to be enforced, and serves."""
        type(self).before_start()
        super().Start()


class Front(ganeti.http.server.HttpServerHandler):  # type: ignore[misc]
    """In the place of the handler: gives each request one of its own, with what is in force at that moment."""

    def __init__(self, handler: Any) -> None:
        super().__init__()
        self._handler = handler
        self.FormatErrorMessage = handler.FormatErrorMessage

    def PreHandleRequest(self, req: Any) -> None:
        """The first step of a request: who asks."""
        handler = copy.copy(self._handler)
        handler.access = copy.copy(handler.access)
        handler.audit = copy.copy(handler.audit)
        handler.restricted = copy.copy(handler.restricted)
        handler._user_fn = handler.access.user
        req.handler = handler
        # Left by our `RequestReader` with the headers, of all that it gives to Ganeti's.
        req.request_body = getattr(req.request_headers, "unread_body", req.request_body)
        _answered(handler, handler.PreHandleRequest, req)

    def HandleRequest(self, req: Any) -> Any:
        """The second: the request itself."""
        return _answered(req.handler, req.handler.HandleRequest, req)


def _answered(handler: Any, step: Callable[[Any], Any], req: Any) -> Any:
    """A step of a request, of whose unexpected errors the client is not told the text, as before."""
    try:
        return step(req)
    except http.HttpException:
        raise
    except Exception as err:
        if not handler.access.active:
            raise
        logging.exception("Handling a request")
        raise http.HttpInternalServerError(message="Unknown error") from err


class Body(UnreadBody):
    """A request's body, as long as nobody has read it from its connection."""

    def __init__(self, headers: Any, stream: Any, more: bool) -> None:
        """`stream` is the connection, of which the headers were read, `more` whether something has come after them."""
        self.headers = copy.copy(headers)  # Ganeti gets them without the length
        self._stream = stream
        self.unread = more or self.announced()

    def receive(self, size: int) -> bytes:
        """What comes next; see `UnreadBody`."""
        data: bytes = self._stream.read1(min(size, 1 << 16))
        return data


class RequestReader(_GanetiRequestHandler):  # type: ignore[misc, valid-type]
    """Ganeti's way through one connection, which leaves the body to ours once there is something to protect."""

    #: Set by the entry point.
    access = AccessControl()
    _body: Body | None = None

    def handle_request_inner(self) -> None:
        """Answers one request, as Ganeti's does."""
        if self.access.active:
            self._body = Body(self.headers, self.rfile, self._has_more())
            self.headers.unread_body = self._body if self._body.unread else ""
            del self.headers[http.HTTP_CONTENT_LENGTH]
        super().handle_request_inner()

    def _has_more(self) -> bool:
        """Whether something has come after the headers already, whatever they say."""
        self.connection.settimeout(0)
        try:
            return bool(self.rfile.peek(1))
        except OSError:  # nothing yet, which TLS says in a way of its own
            return False
        finally:
            self.connection.settimeout(self.timeout)

    def finish(self) -> None:
        """Ends the connection as Ganeti's does; that of a client who is still sending is kept for `linger`."""
        line = None
        if self._body is not None and self._body.unread:
            with contextlib.suppress(OSError):  # the client has gone
                line = socket.socket(fileno=os.dup(self.connection.fileno()))
        super().finish()
        if line is not None:
            with line:
                linger(line)


class Reloader:
    """Takes files as they are now: when it is asked to (SIGHUP), and when it sees that one is another.

    In one thread, one after the other: what is read last is what is in force.
    """

    def __init__(self, *paths: str) -> None:
        """To be made before the files are taken for the first time: what is written later is seen."""
        self._seen = {path: _look(path) for path in paths}
        self._loads: Mapping[str, Callable[[], Any]] = {}
        # The one thing that a signal handler may use while the same thread is using it.
        self._asked: queue.SimpleQueue[None] = queue.SimpleQueue()

    def start(self, loads: Mapping[str, Callable[[], Any]]) -> None:
        """Begins to watch; `loads` has for each path the function that takes the file."""
        self._loads = loads
        threading.Thread(target=self._run, name="Reloader", daemon=True).start()

    def ask(self) -> None:
        """Has all files taken, by and by; for a signal handler."""
        self._asked.put(None)

    def _run(self) -> None:
        while True:
            try:
                self._asked.get(timeout=LOOK_AGAIN)
                asked = True
            except queue.Empty:
                asked = False
            self.look(asked)

    def look(self, asked: bool) -> None:
        """Takes the files that are others than before, or all of them."""
        for path, load in self._loads.items():
            now = _look(path)  # before it is read: what is written meanwhile is seen next time
            if asked or now != self._seen[path]:
                self._seen[path] = now
                try:
                    load()
                except Exception:
                    logging.exception("Taking %s", path)


def _look(path: str) -> tuple[int, ...]:
    """What is another when a file is, or its owner or mode; nothing if it is not there."""
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def prepare(stock: Callable[[], Any], load_files: Callable[[], None], files: Mapping[str, Callable[[], None]]) -> Any:
    """Prepares the daemon: users, then our files, then the threads; all are taken again by SIGHUP, or as they change.

    `stock` is Ganeti's part, which starts the threads; `files` are the functions that take the file of a path.
    """
    reloader = Reloader(pathutils.RAPI_USERS_FILE, *files)
    Server.before_start = load_files
    mainloop, *others = stock()
    # Of Ganeti, which would reload the users in the middle of the main thread.
    (load_users,) = mainloop.sighup_callbacks
    mainloop.sighup_callbacks[:] = []
    mainloop.RegisterSighupCallback(reloader.ask)
    reloader.start({pathutils.RAPI_USERS_FILE: load_users, **files})
    return (mainloop, *others)
