# SPDX-License-Identifier: BSD-2-Clause
"""Tell setuptools which modules to install; debian/ does all the rest."""

from setuptools import find_packages, setup

from ganeti_ext import __version__

setup(
    name="ganeti-ext",
    version=__version__,
    description="Access control for Ganeti's remote API, and restricted commands",
    license="BSD-2-Clause",
    python_requires=">=3.9",
    packages=find_packages(include=["ganeti_ext*"]),
)
