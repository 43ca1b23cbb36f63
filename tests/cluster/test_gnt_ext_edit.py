# SPDX-License-Identifier: BSD-2-Clause
"""gnt-ext edit: the policy is the old or the new one, whole, and what is not right never gets there."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from tests.cluster import gnt_ext
from tests.cluster.vcluster import POLICY_FILE, Cluster

POLICY = """\
# kept
version: 1
roles:
  tester: {permissions: [instances.reboot, instances.query], scope: {instances: {name: "*.test.example.com"}}}
"""
USERS = "admin secret write\njoe x @tester\n"


def run(cluster: Cluster, editor: str, answers: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """One edit; the editor is a line of shell that changes `$1`, called as often as there is to edit."""
    script = Path(cluster.node_path("node1", "editor"))
    script.write_text(f"#!/bin/sh\n{editor}\n", encoding="utf-8")
    script.chmod(0o755)
    done = gnt_ext.run(cluster, "edit", env={"EDITOR": f"{script} ''", "VISUAL": ""}, input=answers, **options)
    assert "Traceback" not in done.stderr, done
    return done


def sed(*commands: str) -> str:
    """An editor that does so, with the file as its last argument."""
    return f"""sed -i {" ".join(f"-e '{command}'" for command in commands)} "$2" """


def test_edit(fresh: Cluster) -> None:
    fresh.set_rapi_users(USERS)
    with fresh.rapi_logs("rapi-access.yaml loaded"):
        fresh.set_policy(POLICY)
    live = Path(fresh.node_path("node1", POLICY_FILE))
    draft = live.with_name(live.name + ".draft")
    os.chmod(live, 0o640)
    os.chown(live, 0, live.parent.stat().st_gid)
    before = live.stat()

    def unchanged() -> bool:
        return live.read_text(encoding="utf-8") == POLICY and not draft.exists()

    assert run(fresh, "true", "").returncode == 1 and unchanged()
    # One that is wrong is never saved, whatever is answered.
    done = run(fresh, sed("s/reboot/rebot/"), "s\nsave\nx\n")
    assert done.returncode == 1 and unchanged()
    assert "did you mean 'instances.reboot'?" in done.stderr and "(s)ave" not in done.stderr
    assert run(fresh, sed("s/reboot/rebot/"), "").returncode == 1 and unchanged()
    # Nor one that nobody has agreed to.
    assert run(fresh, sed("s/reboot/shutdown/"), "").returncode == 1 and unchanged()
    done = run(fresh, "exit 3", "s\n")
    assert done.returncode == 1 and live.read_text(encoding="utf-8") == POLICY and "failed (3)" in done.stderr
    done = run(fresh, "true", "")
    assert done.returncode == 1 and draft.exists() and "the draft stays" in done.stderr
    assert run(fresh, "true", "b\n").returncode == 1 and unchanged()

    # The second time it is right.
    os.chmod(live, 0o644)
    before = live.stat()
    fix = f"if grep -q rebot, $2; then {sed('s/rebot,/reboot, instances.shutdown,/', 's/query/info/')}; else "
    with fresh.rapi_logs("rapi-access.yaml loaded"):
        done = run(fresh, fix + sed("s/reboot,/rebot,/") + "; fi", "e\ns\ny\n")
    assert done.returncode == 0, done
    assert done.stdout.startswith(
        "user joe\n"
        "  gains instances.info, instances.shutdown  (instances: name *.test.example.com)\n"
        "  loses instances.query  (instances: name *.test.example.com)\n"
    )
    text = live.read_text(encoding="utf-8")
    assert text.startswith("# kept\n") and "instances.info" in text and not draft.exists()
    after = live.stat()
    assert (after.st_uid, after.st_gid, after.st_mode) == (before.st_uid, before.st_gid, before.st_mode)
    assert fresh.rapi("GET", "/2/instances/web1.test.example.com", user="joe")[0] == 403
    for node in ("node2", "node3"):
        assert Path(fresh.node_path(node, POLICY_FILE)).read_text(encoding="utf-8") == text

    # A first policy, of nothing.
    fresh.remove_policy()
    done = run(fresh, sed("$a \\  new: {permissions: [jobs.list]}"), "s\nn\n")
    assert done.returncode == 0 and "role new\n  is new\n" in done.stdout, done
    assert live.stat().st_mode & 0o777 == 0o640
    assert not Path(fresh.node_path("node2", POLICY_FILE)).exists()


def test_two_at_once_and_others_changes(fresh: Cluster) -> None:
    fresh.set_policy(POLICY)
    live = Path(fresh.node_path("node1", POLICY_FILE))
    other = f"echo again | {gnt_ext.PROGRAM} edit >$0.out 2>&1; "
    done = run(fresh, other + sed("s/reboot/shutdown/"), "s\nn\n")
    assert done.returncode == 0 and "instances.shutdown" in live.read_text(encoding="utf-8")
    said = Path(fresh.node_path("node1", "editor.out")).read_text(encoding="utf-8")
    assert "somebody else is changing the policy" in said

    done = run(fresh, f"echo '# other' >>{live}; " + sed("s/shutdown/startup/"), "s\n")
    assert done.returncode == 1 and "changed by somebody else" in done.stderr
    assert live.read_text(encoding="utf-8").endswith("# other\n")
    # His own is not lost.
    done = run(fresh, "true", "g\ns\nn\n")
    assert done.returncode == 0 and "instances.startup" in live.read_text(encoding="utf-8")
    live.rename(live.with_suffix(".real"))
    live.symlink_to(live.with_suffix(".real"))
    assert "is a link" in run(fresh, "true", "").stderr
    live.unlink()


def test_killed_at_every_step(fresh: Cluster) -> None:
    """Each step that changes a file, before and after it: old or new, whole, and the next edit works."""
    live = Path(fresh.node_path("node1", POLICY_FILE))
    draft = live.with_name(live.name + ".draft")
    start = (
        "import os, signal, sys\nsys.path.insert(0, '/usr/share/ganeti/default')\n"
        "def dying(real, count, before):\n"
        "    seen = []\n"
        "    def call(*args, **kwargs):\n"
        "        seen.append(0)\n"
        "        if len(seen) == count and before: os.kill(os.getpid(), signal.SIGKILL)\n"
        "        result = real(*args, **kwargs)\n"
        "        if len(seen) == count: os.kill(os.getpid(), signal.SIGKILL)\n"
        "        return result\n"
        "    return call\n"
        "name, count, before = sys.argv[1], int(sys.argv[2]), sys.argv[3] == 'before'\n"
        "setattr(os, name, dying(getattr(os, name), count, before))\n"
        "sys.argv[1:] = ['edit']\n"
        "from ganeti_ext.cli.main import main\nsys.exit(main())\n"
    )
    script = Path(fresh.node_path("node1", "editor"))
    script.write_text("#!/bin/sh\n" + sed("s/reboot/shutdown/").replace("$2", "$1"), encoding="utf-8")
    new = POLICY.replace("reboot", "shutdown")
    for name, count, before, outcome in (
        ("fsync", 1, "before", POLICY),  # the draft is made
        ("rename", 1, "after", POLICY),
        ("fchmod", 2, "after", POLICY),  # the policy is replaced
        ("fsync", 2, "after", POLICY),
        ("rename", 2, "before", POLICY),
        ("rename", 2, "after", new),
    ):
        fresh.set_policy(POLICY)
        for path in live.parent.glob("rapi-access.yaml?*"):
            path.unlink()
        done = fresh.run(
            "node1", "/usr/bin/python3", "-c", start, name, str(count), before,
            check=False, input="s\nn\n", env={"EDITOR": str(script)},
        )  # fmt: skip
        assert done.returncode == -9, (name, count, done)
        assert live.read_text(encoding="utf-8") == outcome, (name, count)
        choice = "b\ns\nn\n" if draft.exists() else "s\nn\n"
        again = gnt_ext.run(fresh, "edit", input=choice, env={"EDITOR": str(script)})
        assert again.returncode == (0 if outcome == POLICY else 1), (name, count, again)
        assert live.read_text(encoding="utf-8") == new
