# SPDX-License-Identifier: BSD-2-Clause
"""Loading an administrator's own request handler, if only root could have written it."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import stat
import sys
from types import ModuleType

from ganeti_ext.errors import StartupError

#: The class that a middleware module must hold.
CLASS_NAME = "RemoteApiHandler"


def load_middleware(name: str, base: type) -> type:
    """Loads the handler class of the middleware `name`.

    `name` is a module's dotted name, or the absolute path of a `.py` file.

    Raises StartupError with the reason for a module that is missing, unsafe or broken, or
    whose class is not derived from `base`.
    """
    if not name:
        raise StartupError("--middleware needs the name of a module, or the path of a file")
    try:
        module = _load_file(name) if os.path.isabs(name) else _load_module(name)
    except StartupError:
        raise
    except BaseException as err:
        # Whatever the module does, even exit: the daemon must go on, and refuse.
        raise StartupError(f"middleware {name} fails to load: {type(err).__name__}: {err}") from err
    handler = getattr(module, CLASS_NAME, None)
    if not (isinstance(handler, type) and issubclass(handler, base)):
        raise StartupError(f"middleware {name} has no class {CLASS_NAME} derived from that of ganeti_ext.middleware")
    return handler


def _load_module(name: str) -> ModuleType:
    """Imports a module and the packages it is in, each only after a look at its file."""
    parts = name.split(".")
    for length in range(1, len(parts) + 1):
        prefix = ".".join(parts[:length])
        spec = importlib.util.find_spec(prefix)
        if spec is None:
            raise StartupError(f"middleware {name} is not found: there is no module {prefix}")
        module = sys.modules.get(prefix) or _execute(spec)
    return module


def _load_file(path: str) -> ModuleType:
    # A name that no other module has, whatever the file is called.
    name = "ganeti_ext_middleware_" + os.path.splitext(os.path.basename(path))[0]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or not os.path.isfile(path):
        raise StartupError(f"middleware {path} is not found, or is no .py file")
    return _execute(spec)


def _execute(spec: importlib.machinery.ModuleSpec) -> ModuleType:
    """Runs a module's source, which is what was checked: no byte code from a cache."""
    if spec.origin is None or not isinstance(spec.loader, importlib.machinery.SourceFileLoader):
        raise StartupError(f"middleware {spec.name} has no Python file that could be checked")
    check_only_root_writes(spec.origin)
    code = compile(spec.loader.get_data(spec.origin), spec.origin, "exec")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    exec(code, module.__dict__)
    return module


def check_only_root_writes(path: str, *, owner: int = 0) -> None:
    """Checks that only `owner` (a user id) could have written a file, or put it there.

    The file and each directory up to `/` are looked at, and none may be a link, which could
    lead through anybody's directory. A sticky directory that others may write, such as `/tmp`,
    is not good enough: a name in it is anybody's to take when it is not there.

    Raises StartupError.
    """
    if os.path.realpath(path) != path:
        raise StartupError(f"{path} is reached by a link: name the file itself, {os.path.realpath(path)}")
    while True:
        status = os.stat(path)
        if status.st_uid != owner:
            raise StartupError(f"{path} does not belong to root: middleware must be root's alone")
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise StartupError(f"{path} may be written by others than root: middleware must be root's alone")
        if path == "/":
            return
        path = os.path.dirname(path)
