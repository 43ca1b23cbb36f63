# SPDX-License-Identifier: BSD-2-Clause
"""What attackers do (threats.md), by its rows: parameters that leave the instance."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cluster.test_unconfigured import endpoints
from tests.cluster.world import CREATE, EVES, EVES_INNER, INNER, MALLORYS, World

NEW = "new.test.example.com"
OWN = {"eve": EVES[0], "mallory": MALLORYS[0]}

#: What there is at a creation, by row: (parameter as the refusal calls it, what is sent).
Row = list[tuple[str, dict[str, Any]]]


def hvparams(*names: str) -> Row:
    """Parameters of a hypervisor, each alone."""
    return [(f"hvparams.{name}", {"hvparams": {name: "/tmp/evil"}}) for name in names]


def disks(*keys: str) -> Row:
    """Further keys of a disk, each alone: of a first and of a second one."""
    found: Row = []
    for key in keys:
        name = (
            f"disks.{key}"
            if key in ("adopt", "vg", "metavg", "provider", "access", "name", "dev_type")
            else "disks.other"
        )
        found.append((name, {"disk_template": "file", "disks": [{"size": 8, key: "x"}]}))
        found.append((name, {"disk_template": "file", "disks": [{"size": 8}, {"size": 8, key: "x"}]}))
    return found


def cards(**keys: str) -> Row:
    """Keys of a network card, each alone: of a first and of a second one."""
    found: Row = []
    for key, value in keys.items():
        name = f"nics.{key}"
        found += [(name, {"nics": [{key: value}]}), (name, {"nics": [{}, {key: value}]})]
    return found


def alone(**parameters: Any) -> Row:
    """Parameters, each alone."""
    return [(name, {name: value}) for name, value in parameters.items()]


CARD = {"link": "br0", "mode": "routed", "vlan": "7", "mac": "aa:00:00:be:ef:01", "ip": "198.51.100.77", "name": "x",
        "bridge": "br0"}  # fmt: skip

#: The rows of the table, with more of their kind than it names.
ROWS: dict[str, Row] = {
    "kvm_path: run as root at validation, even with dry-run": hvparams("kvm_path", "kvm_flag", "kvm_pci_reservations"),
    "raw arguments of QEMU": hvparams(
        "kvm_extra", "vga", "cpu_type", "soundhw", "usb_devices", "machine_version", "kernel_args", "usb_mouse",
        "keymap",
    ),
    "any host file": hvparams(
        "kernel_path", "initrd_path", "cdrom_image_path", "cdrom2_image_path", "floppy_image_path", "mem_path",
        "vnc_x509_path", "vnc_password_file", "spice_password_file", "spice_tls_ciphers", "root_path",
    ),
    "sandbox and exposure": hvparams(
        "security_model", "security_domain", "use_chroot", "vnc_bind_address", "spice_bind", "vnc_tls", "user_shutdown",
        "migration_caps", "reboot_behavior",
    ),
    "dom0 and containers": hvparams(
        "bootloader_path", "bootloader_args", "device_model", "vif_script", "pci_pass", "cpuid", "extra_config",
        "devices", "drop_capabilities", "extra_cgroups", "init_script", "lxc_cgroup_use", "no_such_parameter",
    ),
    "other OS scripts, run as root": [
        ("os_type", {"os_type": "debootstrap"}),
        ("os_type", {"os_type": "noop+variant"}),
        ("os_type", {"os_type": "NOOP"}),
        ("os_type", {"os_type": "noop\n"}),
        *alone(hypervisor="kvm", force_variant=True),
        ("hypervisor", {"hypervisor": "fake"}),
        ("osparams.x", {"osparams": {"x": "y"}}),
        ("osparams_private.x", {"osparams_private": {"x": "y"}}),
        ("osparams_secret.x", {"osparams_secret": {"x": "y"}}),
    ],
    "an image from the host, or fetched by it": [
        ("osparams.os-image", {"osparams": {"os-image": value}}) for value in ("/etc/shadow", "http://192.0.2.9/x", "")
    ],
    "any export's disk": [
        ("mode", {"mode": "import"}),
        ("mode", {"mode": "remote-import"}),
        *alone(src_path="/srv/x", source_handshake=["x"], source_instance_name="x", source_x509_ca="x",
               source_shutdown_timeout=9, compress="gzip"),
    ],
    "other disks, volume groups, scripts of storage": [
        *disks("adopt", "vg", "metavg", "provider", "access", "name", "dev_type", "no_such_key"),
        ("disks.provider", {"disk_template": "ext", "disks": [{"size": 8, "provider": "x"}]}),
        ("disks.adopt", {"disk_template": "blockdev", "disks": [{"size": 8, "adopt": "/dev/sda"}]}),
    ],
    "another's directory": alone(file_storage_dir="../x", file_driver="blktap"),
    "placement": alone(iallocator="hail", opportunistic_locking=True),
    "spoofing": [
        *cards(**CARD),
        *alone(conflicts_check=False, instance_communication=True),
    ],
    "exhaustion": [
        ("beparams.spindle_use", {"beparams": {"spindle_use": 100}}),
        ("disks.spindles", {"disk_template": "file", "disks": [{"size": 8, "spindles": 9}]}),
        *alone(ignore_ipolicy=True),
    ],
    "a job slot for as long as she likes": alone(helper_startup_timeout=99999, helper_shutdown_timeout=99999),
    "other jobs": alone(priority=-10, debug_level=9),
    "safety overrides": alone(identify_defaults=True, commit=True, forthcoming=True),
    "tags": [("tags", {"tags": ["tenant:trudy"]}), ("tags", {"tags": ["mine", "keep"]})],
}  # fmt: skip

#: The same after the creation: endpoint -> (parameter as the refusal calls it, body).
LATER: dict[tuple[str, str], Row] = {
    ("PUT", "/modify"): [
        *((name, {key: row["hvparams"]}) for kind in list(ROWS)[:5] for name, row in ROWS[kind]
          for key in ("hvparams", "custom_hvparams")),
        *alone(os_name="debootstrap", force_variant=True, hotplug=True, hotplug_if_possible=True, force=True,
               runtime_mem=1, ignore_ipolicy=True, conflicts_check=False, instance_communication=True,
               file_driver="loop", file_storage_dir="x", priority=-10, debug_level=9),
        *((f"{name}.{key}", {name: {key: "x"}}) for name in ("osparams", "osparams_private")
          for key in ("x", "os-image")),
        ("disk_template", {"disk_template": "ext"}),
        *((name, {"disks": [["add", body["disks"][-1]]]}) for name, body in
          disks("adopt", "vg", "metavg", "provider", "access", "name", "dev_type", "no_such_key")),
        ("disks.action", {"disks": [["attach", {"uuid": "x"}]]}),
        ("disks.action", {"disks": [["attach", 0, {"name": "vault-disk"}]]}),
        ("disks.action", {"disks": [["detach", 0, {}]]}),
        *((name, {"nics": [["add", body["nics"][-1]]]}) for name, body in cards(**CARD)),
        *((name, {"nics": [["modify", 0, body["nics"][-1]]]}) for name, body in cards(link="br0", ip="198.51.100.77")),
        *(("beparams.spindle_use", {name: {"spindle_use": 9}}) for name in ("beparams", "custom_beparams")),
    ],
    ("POST", "/reinstall"): [
        ("os_type", {"os": "debootstrap"}),
        ("osparams.x", {"osparams": {"x": "y"}}),
        ("osparams.os-image", {"os": "noop", "osparams": {"os-image": "/etc/shadow"}}),
    ],
    ("PUT", "/migrate"): alone(
        iallocator="hail", ignore_ipolicy=True, cleanup=True, ignore_hvversions=True, priority=-10
    ),
    ("PUT", "/failover"): alone(
        iallocator="hail", ignore_ipolicy=True, ignore_consistency=True, shutdown_timeout=9, cleanup=True, priority=-10
    ),
    ("PUT", "/export"): [
        *alone(zero_free_space=True, ignore_remove_failures=True, shutdown_timeout=9999, mode="remote",
               zeroing_timeout_fixed=9, long_sleep=True, x509_key_name=["x", "y", "z"], destination_x509_ca="x",
               compress="gzip"),
        ("export_target", {"target_node": [["x", "y", "z"]]}),
    ],
    ("PUT", "/shutdown"): alone(
        timeout=9999, force=True, ignore_offline_nodes=True, admin_state_source="user", priority=-10
    ),
    ("POST", "/reboot"): alone(shutdown_timeout=9999, priority=-10, debug_level=9),
    ("DELETE", ""): alone(shutdown_timeout=9999, priority=-10),
    ("POST", "/replace-disks"): alone(early_release=True, ignore_ipolicy=True, iallocator="hail", priority=-10),
    ("POST", "/recreate-disks"): [
        *alone(iallocator="hail"),
        ("disks.vg", {"disks": [[0, {"vg": "x"}]]}),
        ("disks.adopt", {"disks": [[0, {"size": 8, "adopt": "x"}]]}),
        ("disks.provider", {"disks": [[0, {"provider": "x"}]]}),
    ],
    ("POST", "/disk/0/grow"): alone(ignore_ipolicy=True, priority=-10),
    ("PUT", "/rename"): alone(priority=-10, debug_level=9),
}  # fmt: skip
NEEDED: dict[str, dict[str, Any]] = {
    "/export": {"mode": "local", "shutdown": True, "target_node": "node1"},
    "/replace-disks": {"mode": "replace_on_primary"},
    "/disk/0/grow": {"amount": 1}, "/rename": {"new_name": NEW},
}  # fmt: skip
IN_QUERY = {
    ("PUT", "/startup?force=1"): "force",
    ("PUT", "/deactivate-disks?force=1"): "force",
    ("PUT", "/activate-disks?ignore_size=1"): "ignore_size",
    ("POST", "/reboot?ignore_secondaries=1"): "ignore_secondaries",
    ("POST", "/replace-disks?mode=replace_auto&iallocator=hail"): "iallocator",
    ("POST", "/reinstall?os=debootstrap"): "os_type",
    ("PUT", "/prepare-export?mode=remote"): "mode",
}


def unlike(world: World, user: str, requests: list[tuple[str, str, str, Any]]) -> list[Any]:
    """The requests that are not refused with the name of their parameter: (parameter, method, path, body)."""
    with world.no_job():
        answers = [world.ask(user, method, path, body) for _, method, path, body in requests]
    return [
        (request, answer)
        for request, answer in zip(requests, answers)
        if answer[0] != 403 or f"parameter {request[0]} " not in answer[1]["message"]
    ]


def known(method: str, path: str, body: dict[str, Any]) -> bool:
    """Whether this Ganeti has the parameters of a body at all, and not as their defaults (`hotplug` in 3.1)."""
    resource = endpoints()[method, path]
    defaults = {row[0]: row[1] for row in getattr(resource, f"{method}_OPCODE").GetAllParams()}
    names = {*defaults, *getattr(resource, f"{method}_RENAME", ()), "os", "disks"}
    return set(body) <= names and not all(key in defaults and defaults[key] == value for key, value in body.items())


@pytest.mark.parametrize("user", ["eve", "mallory"])
@pytest.mark.parametrize("row", list(ROWS))
def test_at_a_creation(world: World, row: str, user: str) -> None:
    """Alone, in a multi-alloc as the first and as the last one, and with dry-run: refused by its name."""
    requests: list[tuple[str, str, str, Any]] = []
    rows = [one for one in ROWS[row] if known("POST", "/2/instances", one[1])]
    plain = EVES_INNER if user == "eve" else INNER
    for number, (name, more) in enumerate(rows):
        other = {**plain, "name": "b" + NEW}
        inner = {**plain, "name": NEW, **more}
        instances = [other, inner] if number % 2 else [inner, other]
        where = "/2/instances" + ("?dry-run=1" if number % 2 else "")
        requests.append((name, "POST", where, {**CREATE, "name": NEW, **more}))
        requests.append((name, "POST", "/2/instances-multi-alloc", {"instances": instances}))
    assert unlike(world, user, requests) == []


@pytest.mark.parametrize(("method", "path"), list(LATER), ids=str)
def test_later(world: World, method: str, path: str) -> None:
    """The same for what is there, by each endpoint that takes it: refused by its name."""
    for user, name in OWN.items():
        if path == "/export" and user == "mallory":
            continue  # it needs a node, and he may name none
        requests = [
            (parameter, method, f"/2/instances/{name}{path}", {**NEEDED.get(path, {}), **body})
            for parameter, body in LATER[method, path]
            if known(method, "/2/instances/{instance}" + path.replace("disk/0", "disk/{disk}"), body)
        ]
        assert requests
        assert unlike(world, user, requests) == []


def test_in_the_query(world: World) -> None:
    """The arguments that older clients use."""
    for user, name in OWN.items():
        requests = [(what, method, f"/2/instances/{name}{path}", None) for (method, path), what in IN_QUERY.items()]
        assert unlike(world, user, requests) == []


def test_of_the_whole_multi_alloc(world: World) -> None:
    """What is said once for all of them."""
    parameters = {"iallocator": "hail", "opportunistic_locking": True, "priority": -10, "debug_level": 9}
    for user, inner in (("eve", EVES_INNER), ("mallory", INNER)):
        body = {"instances": [{**inner, "name": NEW}]}
        requests = [(key, "POST", "/2/instances-multi-alloc", {**body, key: one}) for key, one in parameters.items()]
        assert unlike(world, user, requests) == []


def test_the_result_is_limited(world: World) -> None:
    """A limit is about what results: of text, of an old name, of a default, of a growth, of a disk made anew."""
    path = f"/2/instances/{EVES[0]}"
    requests: list[tuple[str, str, str, Any]] = [
        ("beparams.maxmem", "PUT", path + "/modify", {key: {"memory": value}})
        for key in ("beparams", "custom_beparams")
        for value in (1025, "2G", "1025", "0.002T")
    ]
    requests += [("disks.size", "POST", path + "/disk/0/grow", {"amount": 193})]
    requests += [("disks.size", "POST", path + "/disk/0/grow", {"amount": 201, "absolute": True})]
    requests += [("disks.size", "POST", path + "/recreate-disks", {"disks": [[0, {"size": 201}]]})]
    requests += [("disks.size", "PUT", path + "/modify", {"disks": [["add", {"size": "1G"}]]})]
    new = {**CREATE, "name": NEW, "disk_template": "file"}
    requests += [("disks.size", "POST", "/2/instances", {**new, "disks": [{"size": 8}, {"size": 201}]})]
    requests += [("beparams.maxmem", "POST", "/2/instances", {**new, "beparams": {"memory": 8, "maxmem": "2G"}})]
    assert unlike(world, "eve", requests) == []
    default = {"OP_ID": "OP_CLUSTER_SET_PARAMS", "beparams": {"memory": 2048}}
    world.run(default)
    try:
        requests = [("beparams.maxmem", "POST", "/2/instances", {**CREATE, "name": NEW, "beparams": {}})]
        requests += [("beparams.maxmem", "PUT", path + "/modify", {"beparams": {"maxmem": "default"}})]
        assert unlike(world, "eve", requests) == []
    finally:
        world.run({**default, "beparams": {"memory": 128}})
