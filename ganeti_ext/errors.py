# SPDX-License-Identifier: BSD-2-Clause
"""The errors that are ours: each becomes one line for a person."""


class ExtError(Exception):
    """Base of all errors of ganeti-ext; its text is one clear line."""


class GanetiMissing(ExtError):
    """Ganeti is not installed where its Debian package puts it."""


class StartupError(ExtError):
    """The extension cannot do its work with what it found at start-up."""


class UnsafeFile(ExtError):
    """A settings file that cannot be relied on; its text says why and how to mend it."""
