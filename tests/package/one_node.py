# SPDX-License-Identifier: BSD-2-Clause
"""A real cluster of one node, at the paths that every node has, in a throw-away system.

It is made once, on the system as it comes, and kept as an archive of what it changed;
each test starts from there. Nothing is virtual but the hypervisor.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.package.debian_chroot import ENVIRONMENT, Chroot

IPOLICY = (
    "min:disk-size=0,cpu-count=1,disk-count=0,memory-size=1,nic-count=0,spindle-use=0/"
    "max:disk-size=1048576,cpu-count=8,disk-count=16,memory-size=32768,nic-count=8,spindle-use=12"
)
INSTANCES = ("web1.test.example.com", "db.prod.example.com")

MAKE = f"""
# Ganeti asks for its nodes by the RSA key.
ssh-keygen -q -t rsa -b 2048 -N '' -f /root/.ssh/id_rsa
cp /root/.ssh/id_rsa.pub /root/.ssh/authorized_keys
cp /root/.ssh/id_rsa /etc/ssh/ssh_host_rsa_key
cp /root/.ssh/id_rsa.pub /etc/ssh/ssh_host_rsa_key.pub
/usr/sbin/sshd
echo 'NODED_ARGS="--no-mlock"' > /etc/default/ganeti
echo 'RAPI_ARGS="--require-authentication"' >> /etc/default/ganeti
gnt-cluster init --no-etc-hosts --no-ssh-init --master-netdev=br0 \
    --enabled-hypervisors=fake --enabled-disk-templates=diskless \
    --nic-parameters=mode=bridged,link=br0 --ipolicy-bounds-specs={IPOLICY} cluster.example.com
cd /srv/ganeti/os/noop
echo 10 > ganeti_api_version
for name in create export import rename; do ln -s /bin/true $name; done
for instance in {" ".join(INSTANCES)}; do
    gnt-instance add -t diskless -o noop --no-name-check --no-ip-check --no-nics \
        -n node1.example.com -B memory=128 $instance
done
/usr/lib/ganeti/daemon-util stop-all
rm -r /run/ganeti/socket
"""

USERS = """\
root secret write
tenant secret @test-operator
deputy secret write,-instances.remove
"""
POLICY = """\
version: 1
roles:
  test-operator:
    permissions: ["@operator"]
    scope:
      instances: {name: "*.test.example.com"}
"""

START = """
mkdir -p /run/sshd
/usr/sbin/sshd
/usr/lib/ganeti/ensure-dirs --full-run
/usr/lib/ganeti/daemon-util start-all
"""

# An account that the stock daemon would let do it: it knows none of these tokens, and who has a
# password may read everything; "write" is "write".
ASK = """
import base64, http.client, select, ssl, sys

tls = ssl._create_unverified_context()
REQUESTS = {
    "tenant reads": ("tenant", "GET", "/2/instances/db.prod.example.com"),
    "deputy removes": ("deputy", "DELETE", "/2/instances/db.prod.example.com?dry-run=1"),
}

def ask(user, method, path):
    connection = http.client.HTTPSConnection("127.0.0.1", 5080, timeout=20, context=tls)
    word = base64.b64encode(f"{user}:secret".encode()).decode()
    try:
        connection.request(method, path, headers={"Authorization": f"Basic {word}"})
        answer = connection.getresponse()
        answer.read()
        return str(answer.status)
    except ConnectionRefusedError:
        return "refused"
    except (OSError, http.client.HTTPException) as err:
        return type(err).__name__
    finally:
        connection.close()

while True:
    for what, request in REQUESTS.items():
        print(what, ask(*request), sep="\\t", flush=True)
    if select.select([sys.stdin], [], [], 0.01)[0]:
        break
"""


def make_cluster(base: Path, state: Path) -> None:
    """Make the cluster on this system, and leave what that changed in the archive `state`."""
    with Chroot(base) as chroot:
        chroot.sh("mkdir -p /root/.ssh /run/sshd /srv/ganeti/os/noop")
        chroot.sh(MAKE)
        chroot.write("/var/lib/ganeti/rapi/users", USERS)
        chroot.write("/etc/ganeti/rapi-access.yaml", POLICY)
        chroot.save(state)


class OneNode(Chroot):
    """A throw-away system that is a cluster of one node."""

    def start(self) -> None:
        """Let its daemons run, and let the machine's policy allow restarts."""
        self.write("/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 104\n", 0o755)
        # invoke-rc.d refuses restarts where it cannot find a runlevel
        self.write("/sbin/runlevel", "#!/bin/sh\necho N 2\n", 0o755)
        self.sh(START)

    def ask(self, user: str, method: str, path: str) -> tuple[int, str]:
        """A request of the remote API: status and text of the answer; 0 if there is none."""
        done = subprocess.run(
            [*self.enter(), "curl", "--silent", "--insecure", "--max-time", "30", "--user", f"{user}:secret"]
            + ["--request", method, "--write-out", "\n%{http_code}", f"https://127.0.0.1:5080{path}"],
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
        )
        text, _, status = done.stdout.rpartition("\n")
        return int(status), text


class Asking:
    """Asks the remote API for what our checks refuse, all the time, from outside."""

    def __init__(self, node: OneNode) -> None:
        #: What it was told, to each of the requests, in turn: a status, or what went wrong.
        self.answers: dict[str, list[str]] = {}
        self._output = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed at the end of the with statement
        # With the Python of the machine: that in there may be in the midst of an upgrade.
        self._process = subprocess.Popen(
            [*node.enter(), "/usr/bin/python3", "-c", ASK],
            env=ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=self._output,
            text=True,
        )

    def __enter__(self) -> Asking:
        while os.fstat(self._output.fileno()).st_size == 0:
            time.sleep(0.05)
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.communicate()
        self._output.seek(0)
        for line in self._output:
            what, answer = line.rstrip("\n").split("\t")
            self.answers.setdefault(what, []).append(answer)
        self._output.close()

    def assert_refused(self) -> None:
        """It was never let through, and those that answered at both ends were our checks."""
        assert set(self.answers) == {"tenant reads", "deputy removes"}
        for what, status in (("tenant reads", "404"), ("deputy removes", "403")):
            seen = Counter(self.answers[what])
            statuses = {answer for answer in seen if answer.isdigit()}  # else the daemon was just away
            assert statuses <= {status, "502", "503"}, (what, seen)
            assert self.answers[what][0] == self.answers[what][-1] == status, (what, seen)
