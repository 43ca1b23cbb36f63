# SPDX-License-Identifier: BSD-2-Clause
"""The main job, live: what each kind of user may do on a cluster that runs ganeti-ext.

Run by `make demo`, after it has installed the package. Exit status 1 if anything is not as
it says.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from tests.cluster import vcluster

NAME = "demo"
POLICY = """\
version: 1
roles:
  test-operator:
    description: Makes, reads, runs and removes the instances below test.example.com
    permissions: ["@readonly", instances.create, instances.remove, instances.reboot, instances.modify, tags.set]
    scope:
      instances: {name: "*.test.example.com"}
    parameters: {os_type: [noop]}
"""
USERS = """\
admin  secret  write
noc    secret  @operator
test1  secret  @test-operator
"""
COMMANDS = {
    "last-kernel-messages": "#!/bin/sh\necho '[    0.000000] Linux version, as this node says it'\n",
}
NEW_INSTANCE = {
    "__version__": 1,
    "mode": "create",
    "disk_template": "diskless",
    "os_type": "noop",
    "disks": [],
    "nics": [],
    "beparams": {"memory": 128},
}
# What an unchanged Python program does; its `ganeti` is that of python3-ganeti-rapi.
CLIENT = """\
from ganeti_rapi_client import GanetiRapiClient, GanetiApiError
client = GanetiRapiClient("node1", username="test1", password="secret")
try:
    print("job", client.{call})
except GanetiApiError as err:
    print("refused:", err)
"""

T = TypeVar("T")


class Paint:
    """Colours on a terminal, nothing in a pipe."""

    def __init__(self, on: bool) -> None:
        self._on = on

    def __call__(self, code: str, text: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self._on else text


class Demo:
    """Shows commands with their answers, and counts what is not as it should be."""

    def __init__(self, cluster: vcluster.Cluster) -> None:
        self.cluster = cluster
        self.paint = Paint(sys.stdout.isatty())
        self.wrong = 0

    def title(self, text: str) -> None:
        """A heading."""
        print(f"\n{self.paint('1;34', text)}", flush=True)

    def busy(self, what: str, work: Callable[[], T]) -> T:
        """Runs `work`; says that it is at work if that takes longer than a second."""
        done = threading.Event()

        def tell() -> None:
            seconds = 1
            while not done.wait(1):
                if sys.stdout.isatty():
                    print(f"\r  … {what}, {seconds} s ", end="", flush=True)
                elif seconds in (1, 10, 30, 60, 120):
                    print(f"  … {what}, {seconds} s", flush=True)
                seconds += 1

        teller = threading.Thread(target=tell)
        teller.start()
        try:
            return work()
        finally:
            done.set()
            teller.join()
            if sys.stdout.isatty():
                print("\r\033[K", end="", flush=True)

    def show(self, command: str, answer: str, right: bool) -> None:
        """One command, the end of its answer, and whether it is what it should be."""
        self.wrong += not right
        mark = self.paint("32", "ok") if right else self.paint("1;31", "WRONG")
        print(f"{self.paint('1', '$ ' + command)}\n  {answer.strip()[:400]}  [{mark}]", flush=True)

    def curl(self, user: str, method: str, path: str, expect: int, body: Any = None) -> Any:
        """One request by curl; returns what the JSON of the answer means."""
        request = ["curl", "-sk", "-u", f"{user}:secret", "-X", method]
        if body is not None:
            request += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
        request.append(f"https://node1:5080{path}")
        done = self.busy("waiting", lambda: self.cluster.gnt(*request, "-w", "\n%{http_code}", check=False))
        answer, _, status = done.stdout.rpartition("\n")
        shown = shlex.join(request).replace(" -sk ", " -k ")
        self.show(shown, f"{status} {answer.strip()}", status == str(expect))
        try:
            return json.loads(answer)
        except ValueError:
            return None

    def python(self, call: str, expect: str) -> None:
        """One call of the client library of python3-ganeti-rapi."""
        program = CLIENT.format(call=call).replace("ganeti_rapi_client", "ganeti.rapi.client")
        done = self.busy("waiting", lambda: self.cluster.gnt("/usr/bin/python3", "-c", program, check=False))
        answer = done.stdout or done.stderr
        self.show(f'python3 -c \'GanetiRapiClient("node1", username="test1", …).{call}\'', answer, expect in answer)

    def gnt(self, *argv: str, expect: str) -> None:
        """One of Ganeti's own commands on the master."""
        done = self.busy("waiting", lambda: self.cluster.gnt(*argv, check=False))
        answer = " ".join((done.stdout + done.stderr).split())
        self.show(shlex.join(argv), answer, expect in answer)

    def job(self, job_id: Any) -> None:
        """Waits for a job and shows its end."""
        if not isinstance(job_id, int):
            return  # that it is none was shown already
        status, _ = self.busy(f"job {job_id}", lambda: self.cluster.job(job_id))
        self.show(f"# job {job_id}", status, status == "success")


def bring_up() -> vcluster.Cluster:
    """A new cluster of three nodes with the policy, the users and a restricted command."""
    vcluster.stop(NAME)
    began = time.monotonic()

    def progress(step: str) -> None:
        print(f"  … {step} ({time.monotonic() - began:.0f} s)", flush=True)

    cluster = vcluster.Cluster(
        instances=["web1.test.example.com", "db1.prod.example.com"],
        rapi_users=USERS,
        name=NAME,
        keep=True,
        progress=progress,
    ).up()
    for node in cluster.nodes:
        directory = cluster.node_path(node, "etc/ganeti/restricted-commands")
        os.makedirs(directory, mode=0o755, exist_ok=True)
        for name, script in COMMANDS.items():
            path = os.path.join(directory, name)
            with open(path, "w", encoding="utf-8") as file:
                file.write(script)
            os.chmod(path, 0o755)
    cluster.set_policy(POLICY)
    return cluster


def wait_for_policy(cluster: vcluster.Cluster) -> None:
    """The daemon sees the new file by itself; this only waits until it has."""
    for _ in range(100):
        if "rapi-access.yaml loaded" in cluster.rapi_log():
            return
        time.sleep(0.1)
    raise vcluster.ClusterError("the daemon has not loaded the policy")


def main() -> int:
    """Runs the demo; the exit status."""
    print("Bringing up a Ganeti cluster of three nodes in a namespace of its own", flush=True)
    cluster = bring_up()
    wait_for_policy(cluster)
    demo = Demo(cluster)
    paint = demo.paint

    demo.title("The policy, /etc/ganeti/rapi-access.yaml, and the users, /var/lib/ganeti/rapi/users")
    print("\n".join("  " + line for line in [*POLICY.splitlines(), "", *USERS.splitlines()]))

    demo.title("A tenant (@test-operator): the instances below test.example.com are his")
    demo.curl("test1", "POST", "/2/instances/web1.test.example.com/reboot", 200)
    body = {**NEW_INSTANCE, "name": "web2.test.example.com"}
    job = demo.curl("test1", "POST", "/2/instances", 200, body)
    demo.job(job)
    wait = {"fields": ["status"], "previous_job_info": None, "previous_log_serial": None}
    demo.curl("test1", "GET", f"/2/jobs/{job}/wait", 200, wait)
    demo.python('AddInstanceTags("web2.test.example.com", ["owner:test1"])', "job")
    demo.python('DeleteInstance("web2.test.example.com")', "job")

    demo.title("… he sees them, and nothing else")
    demo.curl("test1", "GET", "/2/instances", 200)
    demo.curl("test1", "PUT", "/2/query/instance", 200, {"fields": ["name", "pnode"], "qfilter": ["=~", "name", "^w"]})
    demo.curl("test1", "GET", "/2/instances/web1.test.example.com/tags", 200)
    demo.python("GetInstances()", "web1.test.example.com")
    demo.curl("test1", "GET", "/2/jobs", 200)

    demo.title("… for him nothing else exists")
    demo.curl("test1", "GET", "/2/instances/db1.prod.example.com", 404)
    demo.curl("test1", "POST", "/2/instances/db1.prod.example.com/reboot", 404)
    demo.curl("test1", "POST", "/2/instances/missing.test.example.com/reboot", 404)
    demo.curl("test1", "DELETE", "/2/instances/WEB1.test.example.com", 404)
    demo.python('DeleteInstance("db1.prod.example.com")', "refused")
    demo.curl("test1", "GET", "/2/jobs/1/wait", 404, wait)

    demo.title("… and what his role does not say, he may not do with his own either: he is told what")
    demo.curl("test1", "PUT", "/2/instances/web1.test.example.com/modify", 403, {"hvparams": {"kvm_path": "/x"}})
    body = {**NEW_INSTANCE, "name": "web3.test.example.com", "hvparams": {"kvm_path": "/tmp/x"}}
    demo.curl("test1", "POST", "/2/instances", 403, body)
    demo.curl("test1", "POST", "/2/nodes/node1/evacuate", 403, {"mode": "all"})

    demo.title("An operator (@operator): reads everything, runs the instances, removes none")
    demo.curl("noc", "GET", "/2/instances", 200)
    demo.curl("noc", "POST", "/2/instances/db1.prod.example.com/reboot", 200)
    demo.curl("noc", "DELETE", "/2/instances/db1.prod.example.com", 403)
    demo.curl("noc", "PUT", "/2/redistribute-config", 403)

    demo.title("An account with write is as ever")
    demo.curl("admin", "GET", "/2/nodes", 200)
    demo.curl("admin", "PUT", "/2/instances/DB1/tags?tag=kept", 200)
    demo.curl("admin", "POST", "/2/instances/DB1/reboot", 200)

    demo.title("Every refusal and every change is in the audit trail, /var/log/ganeti/rapi-audit.log")
    audit = cluster.node_path("node1", "var/log/ganeti/rapi-audit.log")
    with open(audit, encoding="ascii") as file:
        records = [json.loads(line) for line in file]
    refused = next(record for record in records if record["user"] == "test1" and record["status"] == 403)
    demo.show("grep '\"status\": 403' rapi-audit.log | head -1", json.dumps(refused), refused["decision"] == "deny")
    changed = next(record for record in records if record["jobs"])
    demo.show("grep '\"jobs\": \\[[0-9]' rapi-audit.log | head -1", json.dumps(changed), changed["decision"] == "allow")

    demo.title("A restricted command, by Ganeti's own gnt-node: one that is there, and one that is not")
    demo.gnt("gnt-node", "restricted-command", "last-kernel-messages", "node2", expect="Linux version")
    demo.gnt("gnt-node", "restricted-command", "no-such-command", "node3", expect="failed")

    demo.title("Go on by hand")
    print(f"  as node1:   sudo {cluster.root}/enter {cluster.root}/node1/cmd gnt-cluster verify")
    print(f"  a request:  sudo {cluster.root}/enter curl -sku test1:secret https://node1:5080/2/instances")
    print(f"  the log:    {cluster.node_path('node1', 'var/log/ganeti/rapi-daemon.log')}")
    print("  stop it:    make demo-stop")
    if demo.wrong:
        print(paint("1;31", f"\n{demo.wrong} answers were not as they should be"))
        return 1
    print(paint("32", "\nEverything was as it should be"))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except vcluster.ClusterError as error:
        sys.exit(f"demo: {error}")
