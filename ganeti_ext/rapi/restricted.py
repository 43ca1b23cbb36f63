# SPDX-License-Identifier: BSD-2-Clause
"""Who may ask for restricted commands through the remote API, and how often."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ganeti import constants, pathutils

from ganeti_ext.errors import ExtError
from ganeti_ext.rapi import jobs, quota
from ganeti_ext.rapi.access import read_policy_file
from ganeti_ext.rapi.passwords import costliest

#: Names and passwords for restricted commands alone; the endpoint is there as long as the file is.
USERS_FILE = pathutils.RAPI_DATA_DIR + "/restricted-users"

#: The realm of those passwords; it goes into their {HA1}.
REALM = "Ganeti Restricted Commands"

#: Only the daemon's user can write there.
LOCK_FILE = pathutils.RAPI_DATA_DIR + "/restricted.lock"

#: For so many seconds nobody asks again after a command of his has failed: for the node daemon
#: every user is the master, whose lock a wrong name takes.
PAUSE = 60

#: Seconds after which to ask again while a command has not ended.
ASK_AGAIN = 10

#: Bytes of the users file at most.
_MAX_SIZE = 1 << 20


class RestrictedUsers:
    """The users file of restricted commands, as it is now: without a right one there are none.

    Unlike a policy, a bad file does not leave the one before it in force: whoever spoils it closes
    the endpoint.
    """

    def __init__(
        self,
        path: str = USERS_FILE,
        offer: Callable[[bool], None] = lambda wanted: None,
        owners: tuple[int, ...] = (0,),
    ) -> None:
        """`offer` is told whether there is to be an endpoint; `owners` (user ids) may own the file beside us."""
        self._path = path
        self._offer = offer
        self._owners = owners
        self._passwords: Mapping[str, str] = {}
        self._said: tuple[str, ...] = ()
        self._open = False
        #: What takes as long to check as the slowest of the passwords.
        self.costliest_password = costliest(())

    def password_of(self, name: str) -> str | None:
        """A user's entry, in one of the forms of `passwords`; None if he has none."""
        return self._passwords.get(name)

    def load(self) -> None:
        """Takes the file as it is now. Never raises: it is called from the main loop."""
        passwords: Mapping[str, str] = {}
        problems: list[str] = []
        wanted = False
        try:
            data = read_policy_file(self._path, (*self._owners, os.geteuid()), private=True)
            if len(data) > _MAX_SIZE:
                raise ExtError(f"{self._path} has more than {_MAX_SIZE} bytes")
            passwords, lines = _parse(data.decode())
            problems += [f"{self._path}: {problem}" for problem in lines]
            wanted = True
        except FileNotFoundError:
            pass
        except OSError as err:
            problems.append(f"{self._path} cannot be read by this daemon: {err.strerror}")
        except ExtError as err:
            problems.append(str(err))
        except UnicodeDecodeError as err:
            problems.append(f"{self._path} is no UTF-8, from byte {err.start} on")
        except Exception as err:
            logging.exception("Reading %s", self._path)
            problems.append(f"{self._path}: unexpected {type(err).__name__}")
        self._passwords = passwords
        self.costliest_password = costliest(passwords.values())
        self._offer(wanted)
        self._tell(wanted, tuple(problems))

    def _tell(self, wanted: bool, problems: tuple[str, ...]) -> None:
        """Says what has changed: a file that is saved raises several events."""
        if problems != self._said:
            for problem in problems:
                logging.error("%s%s", problem, "" if wanted else "; restricted commands are off")
        if wanted != self._open:
            logging.info("Restricted commands through the remote API are %s", "on" if wanted else "off")
        self._said, self._open = problems, wanted


def _parse(text: str) -> tuple[dict[str, str], list[str]]:
    """The passwords by names, and what is wrong with the lines that grant nothing.

    What the lines hold is not told: it may be a password in the wrong place.
    """
    passwords: dict[str, str] = {}
    problems, twice = [], set()
    for number, line in enumerate(text.split("\n"), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 2:
            problems.append(f"line {number} grants nothing: it must hold a name and a password, and nothing else")
        if words[0] in passwords or words[0] in twice:
            problems.append(f"line {number} has a name that was there before: neither grants anything")
        if len(words) != 2 or words[0] in passwords or words[0] in twice:
            twice.add(words[0])
            passwords.pop(words[0], None)
        else:
            passwords[words[0]] = words[1]
    return passwords, problems


class NotYet(ExtError):
    """A user has to wait for `seconds` before he may ask again; the text says why."""

    def __init__(self, reason: str, seconds: int) -> None:
        super().__init__(f"{reason}: wait {seconds} s")
        self.seconds = seconds


@contextlib.contextmanager
def turn(luxi: Any, user: str, _clock: Callable[[], float] = time.time) -> Iterator[None]:
    """Keeps all other requests for restricted commands out, while one is looked at and submitted.

    A user has one unfinished command at a time, and a pause after a failed one. Ganeti's jobs
    say so, whichever process or daemon asks; those that were archived meanwhile are forgotten.

    Raises NotYet, quota.QuotaBusy, or what luxid says.
    """
    with quota.locked(LOCK_FILE):
        _check_turn(luxi, user, _clock())
        yield


def _check_turn(luxi: Any, user: str, now: float) -> None:
    fields = ["id", "status", "received_ts", "start_ts", "end_ts"]
    recent = [row[0] for row in luxi.QueryJobs(None, fields) if row and _left(row[1:], now) > 0]
    for row in luxi.QueryJobs(recent, [*fields, "ops", "opresult"]) if recent else []:
        if not row or not jobs.is_own(row[5], user) or not any(map(jobs.is_command, row[5])):
            continue
        job_id, status, *_ = row
        if status not in constants.JOBS_FINALIZED:
            raise NotYet(f"Your restricted command of job {job_id} has not ended", ASK_AGAIN)
        left = math.ceil(_left(row[1:5], now))
        if left > 0 and _failed(status, row[6]):
            raise NotYet(f"Your restricted command of job {job_id} has failed", left)


def _left(row: Sequence[Any], now: float) -> float:
    """For how many seconds a job matters, by its status and times: it runs, or could have failed just now."""
    status, *times = row
    if status not in constants.JOBS_FINALIZED:
        return PAUSE
    ended = max((seconds + fraction / 1e6 for seconds, fraction in filter(None, times)), default=now)
    return min(ended + PAUSE - now, PAUSE)  # a clock that was put back makes it longer, never shorter


def _failed(status: str, results: Any) -> bool:
    """Whether the command of a job that has ended did not run, or failed; one that was cancelled did neither.

    The result of each opcode is a list with a pair for each node: whether it ran and got 0, and the output.
    """
    if status == constants.JOB_STATUS_CANCELED:
        return False
    return status != constants.JOB_STATUS_SUCCESS or not all(pair[0] for result in results for pair in result)
