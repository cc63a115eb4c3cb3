# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A container whose Python runs no module and answers what it likes, as that of a tenant with root can."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from docker_in_docker import CONTAINER_IMAGE, build_images, docker, within

# Several hosts of an inventory lead to one container: the environment of their tasks names the answers of each. A
# module without pipelining is an argument, otherwise it comes by standard input.
PROGRAM = """#!/bin/sh
[ $# -gt 0 ] || cat >/dev/null
here=/answers/${ATTACK:-first}
number=$(cat "$here/count")
[ -e "$here/$((number + 1))" ] && echo $((number + 1)) >"$here/count"
cat "$here/$number"
"""

INSTALL = """
rm -f /usr/bin/python3*
cat >/usr/bin/python3
chmod 755 /usr/bin/python3
"""


@contextmanager
def hostile_python(name: str, answers: Mapping[str, Sequence[Mapping[str, object]]]) -> Iterator[None]:
    """Run a container whose Python gives the answers of each attack one after the other, and then the last one again.

    The first attack is that of a task whose environment names none.
    """
    build_images(CONTAINER_IMAGE)
    docker("rm", "-f", name, check=False)
    try:
        docker("run", "-d", "--init", "--name", name, CONTAINER_IMAGE)
        within(name, "sh", "-ec", INSTALL, data=PROGRAM)
        for number, (attack, sequence) in enumerate(answers.items()):
            here = f"/answers/{attack}"
            within(name, "sh", "-ec", f"mkdir -p {here}; echo 0 >{here}/count")
            if number == 0:
                within(name, "ln", "-s", attack, "/answers/first")
            for index, answer in enumerate(sequence):
                within(name, "sh", "-ec", f"cat >{here}/{index}", data=json.dumps(answer))
        yield
    finally:
        docker("rm", "-f", name, check=False)
