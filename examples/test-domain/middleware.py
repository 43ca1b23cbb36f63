# SPDX-License-Identifier: BSD-2-Clause
"""The same as the policy beside it, as code: for rules that no policy can say.

The line of the users file is `test1 PASSWORD test`; the daemon is started with
`--middleware /etc/ganeti/test_domain.py`, in RAPI_ARGS of /etc/default/ganeti.
"""

from ganeti_ext import middleware
from ganeti_ext.middleware import rlib2

ROLE = "test"
SUFFIX = ".test.example.com"

middleware.register_role(
    ROLE,
    [
        (rlib2.R_2_jobs_id_wait, "GET"),
        (rlib2.R_2_instances, "POST"),
        (rlib2.R_2_instances_name, "DELETE"),
        (rlib2.R_2_instances_name_tags, "PUT"),
        (rlib2.R_2_instances_name_tags, "DELETE"),
        (rlib2.R_2_instances_name_reboot, "POST"),
        (rlib2.R_2_instances_name_startup, "PUT"),
        (rlib2.R_2_instances_name_shutdown, "PUT"),
    ],
)


class RemoteApiHandler(middleware.RemoteApiHandler):
    """Limits the users of one role to the instances of one domain."""

    def authorize(self, request):
        if ROLE in request.user.options:
            self.limit_instances(request, lambda name: name.endswith(SUFFIX))
