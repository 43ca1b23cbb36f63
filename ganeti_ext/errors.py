# SPDX-License-Identifier: BSD-2-Clause
"""The errors that are ours: each becomes one line for a person."""


class ExtError(Exception):
    """Base of all errors of ganeti-ext; its text is one clear line."""


class GanetiMissing(ExtError):
    """Ganeti is not installed where its Debian package puts it."""


class StartupError(ExtError):
    """The extension cannot do its work with what it found at start-up."""


class UnsafeFile(ExtError):
    """A file that somebody else could have written or read; its text says how to mend it."""
