# SPDX-License-Identifier: BSD-2-Clause
"""The way in: patches Ganeti as it starts. Every patch is listed here."""

from __future__ import annotations

import functools
import importlib
import inspect
import logging
import os
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from ganeti_ext import compat, switches
from ganeti_ext.errors import ExtError, StartupError

MIDDLEWARE_OPTION = "--middleware"
MIDDLEWARE_VARIABLE = "GANETI_RAPI_MIDDLEWARE"

#: The signature of the server of Ganeti's next release.
_THREADED_SERVER = (
    "(local_address, port, ganeti_handler, ssl_params=None, ssl_verify_peer=False, ssl_verify_callback=None,"
    " max_clients=20)"
)


class Patch(NamedTuple):
    """One place in Ganeti that is relied on, and what is put there, if anything.

    `expects` is the signature that Ganeti's side must have, as `inspect` prints it, or the
    name of its type. `make` gets what is there and returns what is to be there.

    One with a `switch` only makes Ganeti faster: an administrator can switch it off, and it is left out
    where Ganeti's side is another. `needs` are names and constants that its code must have.
    """

    module: str
    name: str
    expects: str
    why: str
    make: Callable[[Any], Any] | None = None
    switch: str | None = None
    needs: tuple[Any, ...] = ()


class Place(NamedTuple):
    """Where a patch goes, and what is there."""

    patch: Patch
    holder: Any
    name: str
    target: Any


def noded_patches() -> list[Patch]:
    """What is changed in the node daemon."""
    from ganeti_ext.noded.handler import NodeRequestHandler

    return [
        Patch("ganeti.backend", "RPCFail", "type", "answers go out as Ganeti's own"),
        Patch("ganeti.server.noded", "NodeRequestHandler.HandleRequest", "(self, req)", "shows us the peer"),
        Patch(
            "ganeti.server.noded",
            "NodeRequestHandler.perspective_restricted_command",
            "(params)",
            "the RPC whose handling is replaced",
        ),
        Patch(
            "ganeti.server.noded",
            "NodeRequestHandler",
            "()",
            "serves restricted commands with our checks",
            make=lambda _: NodeRequestHandler,
        ),
        *(_threaded_noded_patches() if compat.serves_in_threads() else _forked_noded_patches()),
    ]


def _threaded_noded_patches() -> list[Patch]:
    """The same where each request has a thread (Ganeti's next release)."""
    from ganeti_ext.noded import threaded

    return [
        Patch("ganeti.http.server", "_ChildProcessReaper._reaper_loop", "(self)", "overridden"),
        Patch(
            "ganeti.http.server",
            "_ChildProcessReaper",
            "(check_interval=1.0)",
            "would take the exit status of a restricted command before we have it",
            make=lambda _: threaded.Reaper,
        ),
        Patch(
            "ganeti.http.server",
            "HttpServer.process_request",
            "(self, request, client_address)",
            "overridden",
            switch="NODED_FAIR_QUEUE",
        ),
        Patch(
            "ganeti.http.server",
            "HttpServer._process_request_thread",
            "(self, request, client_address)",
            "called",
            switch="NODED_FAIR_QUEUE",
        ),
        Patch(
            "ganeti.http.server",
            "HttpServer",
            _THREADED_SERVER,
            "a flood from one address keeps no other from being served",
            make=lambda _: threaded.Server,
            switch="NODED_FAIR_QUEUE",
        ),
    ]


def _forked_noded_patches() -> list[Patch]:
    """The same where each request has a process (3.0, 3.1)."""
    from ganeti_ext.noded import fair, memory

    return [
        Patch(
            "ganeti.server.noded",
            "MlockallRequestExecutor",
            "(*args, **kwargs)",
            "locks a child's memory as it is touched: 4 MB for each instead of 28, an RPC in half the time",
            make=lambda _: memory.RequestExecutor,
            switch="NODED_LOCK_ON_FAULT",
        ),
        Patch("ganeti.http.server", "HttpServer.Start", "(self)", "extended", switch="NODED_FAIR_QUEUE"),
        Patch(
            "ganeti.http.server", "HttpServer._IncomingConnection", "(self)", "overridden", switch="NODED_FAIR_QUEUE"
        ),
        Patch(
            "ganeti.http.server",
            "HttpServer._CollectChildren",
            "(self, quick)",
            "overridden",
            switch="NODED_FAIR_QUEUE",
        ),
        Patch(
            "ganeti.http.server",
            "HttpServer",
            "(mainloop, local_address, port, max_clients, handler, ssl_params=None, ssl_verify_peer=False,"
            " request_executor_class=None, ssl_verify_callback=None)",
            "a flood from one address keeps no other from being served: 0.2 s instead of 19 s",
            make=lambda _: fair.Server,
            switch="NODED_FAIR_QUEUE",
        ),
    ]


def rapi_patches(middleware: str | None) -> list[Patch]:
    """What is changed in the remote API daemon; `middleware` is as `load_middleware` takes it."""
    from ganeti.rapi import connector, rlib2

    from ganeti_ext.rapi import access, handler, permissions, quiet, resources, restricted, transport, users
    from ganeti_ext.rapi.throttle import Throttle

    threads = compat.serves_in_threads()
    serving = importlib.import_module("ganeti_ext.rapi." + ("threaded" if threads else "forked"))
    control = access.AccessControl()
    handler.RemoteApiHandler.access = control
    users.RapiUsers.access = control
    serving.RequestReader.access = control

    features = rlib2.ALL_FEATURES

    def offer_restricted_commands(wanted: bool) -> None:
        control.has_restricted_users = wanted
        rlib2.ALL_FEATURES = features | {resources.FEATURE} if wanted else features

    handler.RemoteApiHandler.restricted = restricted.RestrictedUsers(offer=offer_restricted_commands)

    def use_handler(_: Any) -> type:
        if middleware is None:
            return handler.RemoteApiHandler
        from ganeti_ext.rapi.middleware import load_middleware

        control.has_middleware = True
        return load_middleware(middleware, handler.RemoteApiHandler)

    def separate_lists(connections: Any) -> Any:
        permissions.own_access_lists(connections)
        return connections

    files = {access.POLICY_FILE: control.load_policy, restricted.USERS_FILE: handler.RemoteApiHandler.restricted.load}

    def load_files() -> None:
        """Once the users are loaded, and before anybody is served."""
        control.start()
        handler.RemoteApiHandler.restricted.load()

    def prepare_with_policy(prepare: Callable[..., Any]) -> Callable[..., Any]:
        def prep_rapi(options: Any, args: Any) -> Any:
            unknown = permissions.unknown_endpoints(connector.CONNECTOR)
            if unknown:
                logging.warning("Not known to this ganeti-ext, so they need write: %s", ", ".join(unknown))
            handler.RemoteApiHandler.mappers = resources.mappers(connector.CONNECTOR)
            # Only now: on its way to become a daemon Ganeti closes all files.
            handler.RemoteApiHandler.throttle = _make(Throttle, "Wrong passwords are not slowed down")
            return serving.prepare(functools.partial(prepare, options, args), load_files, files)

        return prep_rapi

    return [
        Patch("ganeti.http.auth", "HttpServerRequestAuthentication.PreHandleRequest", "(self, req)", "asks for us"),
        Patch("ganeti.server.rapi", "RemoteApiHandler.AuthenticationRequired", "(self, req)", "overridden"),
        Patch("ganeti.server.rapi", "RemoteApiHandler.Authenticate", "(self, req, username, password)", "overridden"),
        Patch("ganeti.server.rapi", "RemoteApiHandler._GetRequestContext", "(self, req)", "gives us the handler"),
        Patch("ganeti.http.auth", "HttpServerRequestAuthentication.GetAuthRealm", "(self, req)", "overridden"),
        Patch(
            "ganeti.http.auth",
            "HttpServerRequestAuthentication.VerifyBasicAuthPassword",
            "(self, req, username, password, expected)",
            "overridden: more schemes, in constant time",
        ),
        Patch("ganeti.rapi.baserlib", "ResourceBase", "(items, queryargs, req, _client_cls=None)", "takes our client"),
        Patch("ganeti.rapi.baserlib", "ResourceBase.GetClient", "(self)", "makes our client"),
        Patch("ganeti.rapi.baserlib", "GetHandlerAccess", "(handler, method)", "reads the access lists"),
        Patch("ganeti.luxi", "Client.SubmitJob", "(self, ops)", "mediated"),
        Patch("ganeti.luxi", "Client.Query", "(self, what, fields, qfilter)", "asked for the exact name"),
        Patch("ganeti.luxi", "Client.QueryJobs", "(self, job_ids, fields)", "mediated"),
        Patch("ganeti.luxi", "Client.CancelJob", "(self, job_id, kill=False)", "mediated"),
        Patch(
            "ganeti.rapi.connector",
            "CONNECTOR",
            "dict",
            "each class gets access lists of its own",
            make=separate_lists,
        ),
        Patch("ganeti.rapi.rlib2", "ALL_FEATURES", "frozenset", "names restricted commands while they are there"),
        Patch("ganeti.rapi.rlib2", "R_2_features.GET", "()", "lists those"),
        Patch("ganeti.rapi.baserlib", "OpcodeResource", "type", "is what our own resource is made of"),
        Patch("ganeti.opcodes", "OpRestrictedCommand", "type", "is what it submits"),
        Patch("ganeti.http.server", "HttpServerHandler.HandleRequest", "(self, req)", "follows PreHandleRequest"),
        Patch(
            "ganeti.opcodes_base", "BaseOpCode.Validate", "(self, set_defaults)", "logs opcode, name, type and value"
        ),
        Patch(
            "ganeti.opcodes_base",
            "logging",
            "module",
            "would log the value of a parameter that has a wrong type",
            make=lambda _: quiet.QuietLogging(lambda: control.active),
        ),
        Patch("ganeti.server.rapi", "RapiUsers.Load", "(self, filename)", "overridden"),
        Patch("ganeti.server.rapi", "RapiUsers.Get", "(self, username)", "overridden"),
        Patch(
            "ganeti.server.rapi",
            "RapiUsers",
            "()",
            "works out what each user's tokens grant",
            make=lambda _: users.RapiUsers,
        ),
        Patch(
            "ganeti.server.rapi",
            "RemoteApiHandler",
            "(user_fn, reqauth, _client_cls=None)",
            "checks user, endpoint, request and object",
            make=use_handler,
        ),
        Patch(
            "ganeti.server.rapi",
            "PrepRapi",
            "(options, _)",
            "loads the policy before the users, and watches it",
            make=prepare_with_policy,
        ),
        Patch(
            "ganeti.http.server",
            "HttpServer.Start",
            "(self)",
            "sends a reply at once: 40 of the 48 ms of a small request were a wait",
            make=transport.without_delay,
            switch="RAPI_NO_DELAY",
        ),
        Patch(
            "ganeti.rpc.transport",
            "Transport.Recv",
            "(self)",
            "reads luxid's answers in large steps: 4 of 73 ms of CPU less for a list of 1,000 instances",
            make=lambda _: transport.receive,
            switch="RAPI_LARGE_READS",
            needs=("recv", 4096),
        ),
        Patch(
            "ganeti.serializer",
            "DumpJson",
            "(data, private_encoder=None)",
            "uses the next",
            switch="RAPI_NO_LINE_ENDS",
            needs=("_RE_EOLSP", "sub"),
        ),
        Patch(
            "ganeti.serializer",
            "_RE_EOLSP",
            "Pattern",
            "does not search an answer for spaces that it has not: 10 of 70 ms of CPU for a list of 1,000 instances",
            make=transport.LineEnds,
            switch="RAPI_NO_LINE_ENDS",
        ),
        Patch(
            "ganeti.server.rapi",
            "ExecRapi",
            "(options, args, prep_data)",
            "makes no log records that no handler would write",
            make=transport.without_unheard_records,
            switch="RAPI_QUIET_LOG",
        ),
        *(_threaded_patches(serving) if threads else _forked_patches(serving, control)),
        *(_permission_patches() if compat.has_permissions() else []),
    ]


def _forked_patches(forked: Any, control: Any) -> list[Patch]:
    """The same where each request has a process (3.0, 3.1); `forked` is the module of that name."""
    from ganeti_ext.rapi import quiet, transport

    return [
        Patch("ganeti.http", "SocketOperation", "(sock, op, arg1, timeout)", "reads the body for us"),
        Patch(
            "ganeti.http.server",
            "_HttpClientToServerMessageReader",
            "(sock, msg, read_timeout)",
            "its parser reads the headers for us",
        ),
        Patch("ganeti.http.server", "_HttpClientToServerMessageReader._ContinueParsing", "(self, buf, eof)", "called"),
        Patch(
            "ganeti.http.server",
            "_HttpClientToServerMessageReader.ParseStartLine",
            "(self, start_line)",
            "overridden",
        ),
        Patch("ganeti.http.server", "HttpServerRequestExecutor._ReadRequest", "(sock, timeout)", "overridden"),
        Patch(
            "ganeti.http.server",
            "HttpServerRequestExecutor._SendResponse",
            "(sock, req_msg, msg, timeout)",
            "overridden",
        ),
        Patch(
            "ganeti.http.server",
            "HttpServerRequestExecutor",
            "(server, handler, sock, client_addr)",
            "reads a body only when it is known whose it is, and no more than he may send",
            make=lambda _: forked.RequestReader,
        ),
        Patch(
            "ganeti.http.server",
            "_HttpServerRequest.__repr__",
            "(self)",
            "would log the password and the body, at debug level",
            make=lambda stock: quiet.short_repr(stock, lambda: control.active),
        ),
        Patch(
            "ganeti.http",
            "ShutdownConnection",
            "(sock, close_timeout, write_timeout, msgreader, force)",
            "does not wait for the client to close: one that leaves it to us held a child for 1 s",
            make=transport.without_waiting,
            switch="RAPI_NO_CLOSE_WAIT",
        ),
        Patch(
            "ganeti.http.server",
            "HttpServer._IncomingConnection",
            "(self)",
            "forks without a collector: up to a third of the CPU of a list of 1,000 instances",
            make=transport.without_garbage,
            switch="RAPI_NO_COLLECTOR",
            needs=("fork",),
        ),
    ]


def _threaded_patches(threaded: Any) -> list[Patch]:
    """The same where each request has a thread (Ganeti's next release); `threaded` is the module of that name."""
    return [
        Patch(
            "ganeti.http.server",
            "HttpServer",
            _THREADED_SERVER,
            "serves nobody before the policy is there, and gives each request a handler of its own",
            make=lambda _: threaded.Server,
        ),
        Patch("ganeti.http.server", "_HttpServerRequest", "(method, path, headers, body, sock)", "gets its handler"),
        Patch("ganeti.http.server", "GanetiRequestHandler.handle_request_inner", "(self)", "extended"),
        Patch("ganeti.http.server", "GanetiRequestHandler.finish", "(self)", "extended"),
        Patch(
            "ganeti.http.server",
            "GanetiRequestHandler",
            "(request, client_address, server)",
            "reads a body only when it is known whose it is, and no more than he may send",
            make=lambda _: threaded.RequestReader,
        ),
        Patch("ganeti.daemon", "Mainloop.RegisterSighupCallback", "(self, fn)", "tells us of the signal"),
    ]


def _permission_patches() -> list[Patch]:
    """The same where Ganeti's remote API knows permissions itself (Ganeti's next release)."""
    from ganeti_ext.rapi import users

    return [
        Patch("ganeti.http.auth", "PasswordFileUser", "(name, password, options, _warned=None)", "has permissions"),
        Patch("ganeti.http.auth", "PasswordFileUser.has_permission", "(self, permission)", "asks for ours"),
        Patch(
            "ganeti.rapi",
            "RAPI_ROLES",
            "dict",
            "would call the roles of a policy unknown",
            make=users.Roles,
        ),
    ]


def apply(patches: list[Patch]) -> None:
    """Looks at every target first, then puts all replacements in place.

    Raises StartupError if one target is not as expected; then nothing was changed.
    """
    _put([_look_at(patch) for patch in patches])


def _put(places: list[Place]) -> None:
    """Puts the replacements in place, once all of them are made."""
    made = [(place, place.patch.make(place.target)) for place in places if place.patch.make is not None]
    for place, replacement in made:
        setattr(place.holder, place.name, replacement)


def _look_at(patch: Patch) -> Place:
    """Finds a patch's target. Raises StartupError if it is not as expected."""
    *path, name = patch.name.split(".")
    where = f"{patch.module}.{patch.name}"
    try:
        holder = importlib.import_module(patch.module)
        for step in path:
            holder = getattr(holder, step)
        target = getattr(holder, name)
        if inspect.isclass(target) and patch.expects == "type":
            found = "type"
        else:
            found = str(inspect.signature(target)) if callable(target) else type(target).__name__
    except (ImportError, AttributeError, ValueError, TypeError) as err:
        raise StartupError(f"Ganeti has no {where} as this ganeti-ext knows it: {err}") from err
    if found != patch.expects:
        raise StartupError(f"Ganeti's {where} is {found}, not {patch.expects}: install a newer ganeti-ext")
    if patch.needs:
        code = getattr(target, "__code__", None)
        for need in patch.needs:
            if code is None or (need not in code.co_names and need not in code.co_consts):
                raise StartupError(f"Ganeti's {where} is another now, without {need!r}")
    return Place(patch, holder, name, target)


def _make(what: Callable[[], Any], otherwise: str) -> Any:
    """`what()`, or None with a line in the log: the daemon must start in any case."""
    try:
        return what()
    except OSError as err:
        logging.error("%s: %s", otherwise, err)
        return None


def take_middleware(arguments: list[str], environment: dict[str, str]) -> tuple[str | None, list[str]]:
    """The middleware that is asked for, if any, and the arguments that are Ganeti's.

    The command line wins over the environment; an option without its value asks for a
    middleware without a name, which will not be found.
    """
    name = environment.get(MIDDLEWARE_VARIABLE) or None
    rest: list[str] = []
    words = iter(arguments)
    for word in words:
        option, equals, value = word.partition("=")
        if option != MIDDLEWARE_OPTION:
            rest.append(word)
            continue
        name = value if equals else next(words, "")
    return name, rest


def run_rapi() -> int:
    """Runs `ganeti-rapi` with our checks, or, if they cannot be had, refusing requests."""
    server = _import_server("ganeti.server.rapi")
    if server is None:
        return 1
    middleware, sys.argv[1:] = take_middleware(sys.argv[1:], dict(os.environ))
    try:
        compat.check_release()
        _put_wanted(rapi_patches(middleware), server, "PrepRapi")
    except Exception as err:
        reason = _reason(err)
        print(f"ganeti-rapi: every request is refused: {reason}", file=sys.stderr)
        from ganeti_ext.rapi.refuse import refusing_handler

        server.RemoteApiHandler = refusing_handler(reason)
    return server.Main() or 0


def run_noded() -> int:
    """Runs `ganeti-noded` with our restricted commands, or, if need be, as Ganeti made it."""
    server = _import_server("ganeti.server.noded")
    if server is None:
        return 1
    try:
        compat.check_release()
        _put_wanted(noded_patches(), server, "PrepNoded")
    except Exception as err:
        reason = _reason(err)
        print(f"ganeti-noded: runs without ganeti-ext: {reason}", file=sys.stderr)
        _log_at_start(server, "PrepNoded", f"Runs without ganeti-ext: {reason}")
    return server.Main() or 0


def _import_server(name: str) -> Any:
    """Imports a daemon of the real Ganeti; says in one line why it cannot."""
    try:
        compat.put_ganeti_first()
        return importlib.import_module(name)
    except Exception as err:
        print(f"{os.path.basename(sys.argv[0])}: {_reason(err)}", file=sys.stderr)
        return None


def _reason(err: Exception) -> str:
    return str(err) if isinstance(err, ExtError) else f"{type(err).__name__}: {err}"


def _put_wanted(patches: list[Patch], server: Any, prepare: str) -> None:
    """Puts in place what nobody has switched off (`switches.FILE`), and fits; what is to be said of it is logged.

    Raises StartupError if one does not fit that has no switch; then nothing was changed.
    """
    from ganeti import vcluster

    found = switches.Switches(vcluster.AddNodePrefix(switches.FILE))
    off = {patch.switch for patch in patches if patch.switch and found.switched_off(patch.switch)}
    lines = [*found.problems, *(f"{name} is switched off in {switches.FILE}" for name in sorted(off))]
    places = []
    for patch in patches:
        if patch.switch is None or patch.switch not in off:
            try:
                places.append(_look_at(patch))
            except StartupError as err:
                if patch.switch is None:
                    raise
                off.add(patch.switch)  # with all that goes with it
                lines.append(f"{patch.switch} is left out: {err}")
    for line in lines:
        print(f"{os.path.basename(sys.argv[0])}: {line}", file=sys.stderr)
    _put([place for place in places if place.patch.switch not in off])
    _log_at_start(server, prepare, *lines)


def _log_at_start(server: Any, name: str, *lines: str) -> None:
    """Writes lines into the daemon's own log, which is not open yet: before its function `name` (PrepNoded, …)."""
    prepare = getattr(server, name, None)
    if prepare is None or not lines:
        return

    # The signature stays that of Ganeti's: patches may look at it.
    @functools.wraps(prepare)
    def log_and_prepare(*args: Any) -> Any:
        for line in lines:
            logging.warning("%s", line)
        return prepare(*args)

    setattr(server, name, log_and_prepare)
