# SPDX-License-Identifier: BSD-2-Clause
"""A flood of restricted commands, as whoever holds a candidate's certificate can send it; run inside a cluster.

flood.py CLIENTS SECONDS SOURCE ADDRESS PORT CLIENT.PEM SERVER.PEM NAME: CLIENTS at once, each with one call after the
other for SECONDS (0: one call each), of NAME with a number. Prints "flooding" when all are connected, and at its end a
JSON list of [its moment by the monotonic clock, seconds that it took, answer] of each.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import sys
import threading
import time


def main(argv: list[str]) -> None:
    """See the module."""
    clients, seconds = int(argv[0]), float(argv[1])
    source, address, port, client, server, name = argv[2], argv[3], int(argv[4]), *argv[5:8]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(server)
    context.load_cert_chain(client)
    answers: list[tuple[float, float, object]] = []
    connected = threading.Barrier(clients + 1)
    began = 0.0

    def flood(number: int) -> None:
        plain = socket.create_connection((address, port), 600, (source, 0))
        connected.wait()
        while True:
            sent = time.monotonic()
            answer: object
            try:
                with context.wrap_socket(plain) as secure:
                    connection = http.client.HTTPConnection(address)
                    connection.sock = secure
                    connection.request("POST", "/restricted_command", json.dumps([f"{name}{number}"]))
                    answer = json.loads(connection.getresponse().read())
            except (OSError, http.client.HTTPException, ValueError) as err:
                answer = repr(err)
            answers.append((time.monotonic(), time.monotonic() - sent, answer))
            if time.monotonic() >= began + seconds:
                return
            plain = socket.create_connection((address, port), 600, (source, 0))

    threads = [threading.Thread(target=flood, args=[number]) for number in range(clients)]
    for thread in threads:
        thread.start()
    began = time.monotonic()
    connected.wait()
    print("flooding", flush=True)
    for thread in threads:
        thread.join()
    print(json.dumps(answers))


if __name__ == "__main__":
    main(sys.argv[1:])
