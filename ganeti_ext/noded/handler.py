# SPDX-License-Identifier: BSD-2-Clause
"""The restricted_command RPC: the sequence of its steps and its answer."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from ganeti import backend, constants, errors, pathutils, ssconf
from ganeti.server import noded

from ganeti_ext.noded import DEFAULT_LIMITS, ROOT, Limits, Refused, lock, run, settings, verify

#: Of the locks. On a real node /run, which is root's alone, unlike the directories that Ganeti
#: has for locks and for its daemons.
LOCK_DIR = pathutils.LOCALSTATEDIR + "/run/ganeti-ext"


class NodeRequestHandler(noded.NodeRequestHandler):  # type: ignore[misc]
    """Ganeti's handler, with restricted commands run by us."""

    def __init__(self) -> None:
        super().__init__()
        # Ganeti forks for each request; a later one may use threads.
        self._request = threading.local()

    def HandleRequest(self, req: Any) -> Any:
        """Handle a request as Ganeti does, keeping the caller's address."""
        self._request.peer = peer_address(req)
        try:
            return super().HandleRequest(req)
        finally:
            self._request.peer = None

    def perspective_restricted_command(self, params: list[object]) -> str:
        """Run a restricted command (see ``run_restricted_command``)."""
        (name,) = params
        peer = getattr(self._request, "peer", None)
        return run_restricted_command(name, peer=peer)


def peer_address(req: Any) -> str | None:
    """Return the address of who sent a request, None if it can't be told."""
    try:
        address = req.request_sock.getpeername()[0]
    except (AttributeError, IndexError, OSError, TypeError):
        return None
    return address if isinstance(address, str) else None


def candidate_addresses() -> list[str]:
    """Return the addresses of the master candidates, none if unreadable."""
    try:
        return list(ssconf.SimpleStore().GetMasterCandidatesIPList())
    except (errors.ConfigurationError, RuntimeError, ValueError) as err:
        logging.warning("No addresses of master candidates: %s", err)
        return []


def run_restricted_command(
    name: object,
    *,
    peer: str | None,
    directory: str = pathutils.RESTRICTED_COMMANDS_DIR,
    lock_directory: str = LOCK_DIR,
    settings_file: str = settings.FILE,
    candidates: Callable[[], Iterable[str]] = candidate_addresses,
    owner: tuple[int, int] = ROOT,
    limits: Limits = DEFAULT_LIMITS,
    clock: Callable[[], float] = lock.boot_time,
    sleep: Callable[[float], None] = time.sleep,
    enabled: bool = constants.ENABLE_RESTRICTED_COMMANDS,
) -> str:
    """Run a restricted command for the caller at the address peer.

    What holds for it is limits, as changed by the file of settings (see ``settings.load``).

    Returns its output, decoded and bounded. Raises ``backend.RPCFail`` with Ganeti's own
    messages: the generic one whatever the reason was that nothing ran, after the delay if the
    name was looked at; the one with the output if the command ran and failed. The reason and
    the path are for this node's log only (design, section 4, steps 6 to 8).
    """
    shown = _shown(name)
    call = f"Restricted command {shown} from {peer}"
    logging.info("%s: asked for", call)
    if not enabled:
        raise backend.RPCFail("Restricted commands disabled at configure time")
    # Whatever the name, so that the time of an answer says nothing about it.
    found = settings.load(settings_file, owner=owner[0], limits=limits)
    limits = found.limits

    def refusal(err: Exception) -> Any:
        """Log why nothing ran and return the one error that the caller gets."""
        expected = isinstance(err, (Refused, OSError))
        logging.error("%s: refused: %s", call, err, exc_info=not expected)
        return backend.RPCFail(f"Executing command {shown} failed")

    with contextlib.ExitStack() as running:
        try:
            mine = lock.lock_name(peer, candidates())
            with (
                lock.opened(lock_directory, owner=owner) as locks,
                lock.turn(locks, mine, limits=limits, clock=clock, sleep=sleep),
                contextlib.ExitStack() as attempt,
            ):
                # Before the check: who finds no place free learns nothing.
                attempt.enter_context(lock.place(locks, "running", limits.running))
                try:
                    checked = verify.check_name(name)
                    path = verify.verify(directory, checked, owner=owner)
                    # Still under the lock: what the kernel won't execute is refused, too.
                    process = run.start(path, checked)
                except Exception as err:
                    # Told before the delay, in which we may be killed.
                    raise refusal(err) from None
                running.push(attempt.pop_all())
        except backend.RPCFail:
            raise
        except Exception as err:
            raise refusal(err) from None
        logging.info("%s: runs %r as process %d", call, path, process.pid)
        result = run.collect(process, limits=found.of(checked))
    logging.info("%s: %s", call, result.failure or "exited with exit code 0")
    if result.failure is None:
        return result.output
    raise backend.RPCFail(f"Restricted command '{checked}' failed: {result.failure}; output: {result.output}")


def _shown(name: object) -> str:
    """Return name, quoted, cut, and without control characters.

    For the name of a command that is what Ganeti's "'%s'" makes of it.
    """
    if isinstance(name, str):
        return repr(name[: verify.MAX_NAME])
    return f"<{type(name).__name__}>"
