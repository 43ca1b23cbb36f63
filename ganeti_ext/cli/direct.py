# SPDX-License-Identifier: BSD-2-Clause
"""Restricted commands by RPC to the node daemons: no master daemon, no job, no lock.

All that is asked lies in files of this node: the nodes' addresses in ssconf, which every node has,
and the members of a node group in the configuration, of which every master candidate has a copy.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pycurl
from ganeti import constants, errors, http, netutils, pathutils, serializer, ssconf, utils
from ganeti.http import client as http_client
from ganeti.rpc import node as rpc

PROCEDURE = "restricted_command"

#: The most that is taken from one node, in bytes: far above what a node daemon of ours sends.
MAX_ANSWER = 64 * 1024 * 1024

#: As much of what a node says beside a wrong status is shown.
_MAX_ERROR = 1000

#: Called with a node, whether it was asked at all, and Ganeti's result of the call.
Told = Callable[[str, bool, Any], None]


def addresses() -> dict[str, str]:
    """All nodes, those marked offline included, with their primary addresses.

    Raises errors.OpPrereqError if this machine is no node of a cluster.
    """
    try:
        pairs = [entry.split() for entry in ssconf.SimpleStore().GetNodePrimaryIPList()]
    except errors.ConfigurationError as err:
        raise errors.OpPrereqError(f"This machine is not part of a cluster: {err}", errors.ECODE_ENVIRON) from err
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}


def group_members(group: str) -> list[str]:
    """The names of the nodes of a group, which is named or given by its UUID.

    From this master candidate's copy of the configuration, which may be a moment behind the
    master's. Raises errors.OpPrereqError.
    """
    try:
        config = serializer.LoadJson(utils.ReadFile(pathutils.CLUSTER_CONF_FILE))
        groups = [uuid for uuid, one in config["nodegroups"].items() if group in (uuid, one["name"])]
        names = [str(one["name"]) for one in config["nodes"].values() if one["group"] in groups]
    except OSError as err:
        raise errors.OpPrereqError(
            f"Which nodes are in a group is known to master candidates alone; name the nodes ({err})",
            errors.ECODE_ENVIRON,
        ) from err
    except (KeyError, TypeError, AttributeError, ValueError, errors.GenericError) as err:
        raise errors.OpPrereqError(
            f"{pathutils.CLUSTER_CONF_FILE} cannot be read; name the nodes ({err})", errors.ECODE_ENVIRON
        ) from err
    if not groups:
        raise errors.OpPrereqError(f"There is no node group {group!r}", errors.ECODE_NOENT)
    return names


def is_candidate() -> bool:
    """Whether this node is a master candidate, as far as it knows: node daemons answer no other."""
    try:
        candidates = ssconf.SimpleStore().GetMasterCandidates()
    except errors.ConfigurationError:
        return False
    return netutils.Hostname.GetSysName() in candidates


class _Call:
    """One node's part of a call."""

    def __init__(self, node: str, time_limit: int, told: Told) -> None:
        self.node = node
        self.time_limit = time_limit
        self.told = told
        self.curl: Any = None
        self.answer = bytearray()

    def configure(self, configure: Callable[[Any], None], curl: Any) -> None:
        """What Ganeti sets (certificates), and what a node in need wants.

        Ganeti gives up after 5 s without a connection, which includes the handshake: a node that
        swaps may take longer. Its own buffer for the answer has no bound.
        """
        configure(curl)
        self.curl = curl
        curl.setopt(pycurl.CONNECTTIMEOUT, self.time_limit)
        curl.setopt(pycurl.WRITEFUNCTION, self.take)

    def take(self, chunk: bytes) -> int | None:
        """Takes a part of the answer; ends the call if it is too long."""
        if len(self.answer) + len(chunk) > MAX_ANSWER:
            return 0
        self.answer += chunk
        return None

    def done(self, request: Any) -> None:
        """Reads the answer. One node's nonsense must neither keep those of the others nor get into the log."""
        asked = bool(self.curl.getinfo(pycurl.REQUEST_SIZE))
        failure = request.error
        data = None
        if failure is None and request.resp_status_code != http.HTTP_OK:
            failure = f"status {request.resp_status_code}: {self.answer[:_MAX_ERROR].decode('utf-8', 'replace')}"
        if failure is None:
            try:
                data = serializer.LoadJson(self.answer.decode("utf-8"))
            except (ValueError, RecursionError, errors.GenericError) as err:
                failure = f"not an answer of a node daemon: {err}"
        failed = failure is not None
        self.told(self.node, asked, rpc.RpcResult(failure or data, failed=failed, call=PROCEDURE, node=self.node))


def call(nodes: Mapping[str, str], command: str, time_limit: int, told: Told) -> None:
    """Has all nodes (name -> address) run a command, all at once; tells each result as it comes.

    `time_limit` is for each node, in seconds, from the connection to the last byte. Raises
    errors.OpPrereqError if the key of this node cannot be read: then nothing is asked.
    """
    if not os.access(pathutils.NODED_CERT_FILE, os.R_OK):
        raise errors.OpPrereqError(
            f"{pathutils.NODED_CERT_FILE} cannot be read: run this as root", errors.ECODE_ENVIRON
        )
    hosts: Sequence[tuple[str, str, str]] = [(name, address, name) for name, address in nodes.items()]
    body = dict.fromkeys(nodes, serializer.DumpJson([command]))
    port = netutils.GetDaemonPort(constants.NODED)
    _, requests = rpc._RpcProcessor._PrepareRequests(hosts, port, PROCEDURE, body, time_limit)
    for name, request in requests.items():
        one = _Call(name, time_limit, told)
        request.curl_config_fn = functools.partial(one.configure, request.curl_config_fn)
        request.completion_cb = one.done
    rpc.RunWithRPC(http_client.ProcessRequests)(list(requests.values()))
