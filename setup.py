# SPDX-License-Identifier: BSD-2-Clause
"""Tell setuptools which modules to install; debian/ does all the rest."""

from setuptools import find_packages, setup

setup(
    name="ganeti-ext",
    version="0.1.0",
    description="Access control for Ganeti's remote API, and restricted commands",
    license="BSD-2-Clause",
    python_requires=">=3.9",
    packages=find_packages(include=["ganeti_ext*"]),
)
