# SPDX-License-Identifier: BSD-2-Clause
"""Property tests that find the same on every machine, however slow it is."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "ganeti-ext",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("ganeti-ext")
