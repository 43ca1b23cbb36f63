# SPDX-License-Identifier: BSD-2-Clause
"""Asks the handler that the daemon would have, as the daemon's user and without the network: for many requests."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.cluster.vcluster import Cluster

#: User, method, path, body.
Wanted = tuple[str, str, str, Any]

#: Drives the handler that the daemon would have, as the daemon's user, without the network: it
#: reads [users file, [[user, method, path, body], …]] and writes the list of (status, body).
DRIVER = """
import base64, email.message, html, json, logging, os, sys
from http.server import BaseHTTPRequestHandler
from ganeti_ext import compat, entrypoint

compat.put_ganeti_first()
from ganeti import http
from ganeti.server import rapi

entrypoint.apply(entrypoint.rapi_patches(None))
logging.disable()
responses = BaseHTTPRequestHandler.responses
users_file, requests = json.load(sys.stdin)
rapi.RemoteApiHandler.access.load_policy()
users = rapi.RapiUsers()
assert users.Load(users_file)
restricted = rapi.RemoteApiHandler.restricted
restricted._passwords = dict.fromkeys(users._users, "y")
restricted._offer(True)
handler = rapi.RemoteApiHandler(users.Get, True)
answers = []
for user, method, path, body in requests:
    password = "y" if path.endswith("/restricted-command") else "x"
    headers = email.message.Message()
    headers["Authorization"] = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    if body is not None:
        headers["Content-Type"] = "application/json"
        body = json.dumps(body)
    req = http.server._HttpServerRequest(method, path, headers, body, None)
    try:
        handler.PreHandleRequest(req)
        answers.append((200, handler.HandleRequest(req).decode()))
    except http.HttpException as err:
        message, explanation = responses[err.code]
        values = {"code": err.code, "message": html.escape(err.message or message), "explain": explanation}
        answers.append((err.code, handler.FormatErrorMessage(values)[1].decode()))
    except Exception as err:
        answers.append((500, repr(err)))
json.dump(answers, sys.stdout)
"""


def answers(cluster: Cluster, users: str, wanted: Sequence[Wanted]) -> list[tuple[int, bytes]]:
    """The status and body of each request, with the policy as it is.

    In `users` everybody's password is `x`; that for restricted commands is `y`.
    """
    path = cluster.node_path("node1", f"etc/ganeti/users-{secrets.token_hex(4)}")
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(users)
    os.chmod(path, 0o644)

    def some(part: Sequence[Wanted]) -> list[tuple[int, bytes]]:
        done = cluster.gnt(
            "setpriv", "--reuid=gnt-rapi", "--regid=gnt-rapi", "--init-groups",
            "/usr/bin/python3", "-I", "-c", DRIVER, input=json.dumps([path, part]),
        )  # fmt: skip
        return [(status, body.encode()) for status, body in json.loads(done.stdout)]

    try:
        with ThreadPoolExecutor(2) as pool:
            halves = list(pool.map(some, (wanted[::2], wanted[1::2])))
    finally:
        os.unlink(path)
    found = [(0, b"")] * len(wanted)
    found[::2], found[1::2] = halves
    return found
