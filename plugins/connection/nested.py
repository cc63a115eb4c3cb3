# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: nested
short_description: Run tasks in a container in a container in a machine
version_added: 0.1.0
author: "The nested.kata founders (@nested-kata)"
description:
  - Reaches a container that runs in a Docker daemon that itself runs in a container, any number of levels deep.
    Each level is one C(docker exec -i).
  - Another connection plugin, the parent, brings the command to the machine where the outermost container runs. It is
    P(ansible.builtin.local#connection) unless O(parent) names another one, or O(via) a host of the inventory whose own
    connection is used, which may be a nested one again.
  - Files of any size are copied through the same way in pieces, without a temporary file on any level between.
  - When a command fails because of a hop, the error names the hop and what is wrong with it.
  - No host chooses how it is reached. Facts that have the name of an option of this plugin, of the parent, of the shell
    or of become are an error, whatever C(inject_facts_as_vars) is, and so is an option whose template needs a fact.
    Inventory, plays, C(set_fact) without C(cacheable), C(add_host) and the command line set options as usual.
requirements:
  - The client C(docker) on the machine and in every container on the way, except the innermost one.
  - A POSIX shell and C(head) (coreutils or busybox) on the machine; C(stdbuf) (coreutils) where C(become) asks for a
    password.
  - A POSIX shell, C(dd) and C(stat) (coreutils or busybox) in the innermost container.
options:
  hops:
    description:
      - Names of the containers on the way, outermost first. The last one is the container where tasks run.
      - Required.
    type: list
    elements: str
    vars:
      - name: ansible_nested_hops
  remote_user:
    description:
      - User in the innermost container, as C(docker exec --user) takes it. An empty string leaves the choice to the
        image.
      - The keyword C(remote_user) of a play or task does not change it. That is the user who logs in to the machine,
        and goes to the parent.
    type: str
    default: root
    vars:
      - name: ansible_nested_user
    env:
      - name: ANSIBLE_NESTED_USER
    ini:
      - section: nested_connection
        key: user
  docker_command:
    description:
      - How the docker client is called on the machine, with arguments, for example V(sudo -n docker).
      - In the containers on the way it is always V(docker).
    type: str
    default: docker
    vars:
      - name: ansible_nested_docker_command
    env:
      - name: ANSIBLE_NESTED_DOCKER_COMMAND
    ini:
      - section: nested_connection
        key: docker_command
  parent:
    description:
      - Name of the connection plugin that brings the command to the machine.
      - It takes its options from its own variables of the same host, for example C(ansible_host), C(ansible_user) and
        C(ansible_ssh_private_key_file) for V(ssh).
      - Cannot be set together with O(via).
    type: str
    default: local
    vars:
      - name: ansible_nested_parent
    env:
      - name: ANSIBLE_NESTED_PARENT
    ini:
      - section: nested_connection
        key: parent
  via:
    description:
      - Name of the inventory host on which the outermost container runs. The parent is then that host's own connection,
        with that host's own variables from the inventory, from facts and from the command line (not from the play).
      - That host may be reached by P(nested.kata.nested#connection) itself.
      - Cannot be set together with O(parent).
    type: str
    vars:
      - name: ansible_nested_via
extends_documentation_fragment:
  - connection_pipelining
notes:
  - What a module returns as facts becomes facts of the host of the play. A task with C(delegate_to) a host that is not
    trusted needs C(delegate_facts) too, so that they do not override variables of another host.
  - Passwords that C(become) asks for in the container are answered by the parent. There is no terminal in the
    container, so become plugins that need one are refused.
  - A command that writes more than 64 MiB to stdout or to stderr is ended, and its host counts as unreachable, so that
    no container fills the memory of the control node. The keyword C(timeout) of a task limits how long it may run.
  - With a parent that cannot send data to a command (it does not support pipelining), pipelining is off, files are sent
    in small pieces, which is slow, and become cannot use a password.
"""

EXAMPLES = r"""
# An inventory with a machine, a container on it, and a container in that container
all:
  hosts:
    machine:
      ansible_host: 192.0.2.7
      ansible_user: admin
    proxy:
      ansible_connection: nested.kata.nested
      ansible_nested_via: machine
      ansible_nested_docker_command: sudo -n docker
      ansible_nested_hops: [kata-in-docker]
    instance:
      ansible_connection: nested.kata.nested
      ansible_nested_via: proxy
      ansible_nested_hops: [kata]

    # The same container in one go, without hosts for the levels between
    direct:
      ansible_connection: nested.kata.nested
      ansible_nested_parent: ssh
      ansible_host: 192.0.2.7
      ansible_user: admin
      ansible_nested_docker_command: sudo -n docker
      ansible_nested_hops: [kata-in-docker, kata]

    # On this machine
    here:
      ansible_connection: nested.kata.nested
      ansible_nested_hops: [kata-in-docker, kata]
"""

import base64
import os
import re
import secrets
import shlex
import typing as t
from collections.abc import Iterator
from contextlib import contextmanager

from ansible import constants as C
from ansible import context
from ansible.errors import AnsibleConnectionFailure, AnsibleError, AnsibleFileNotFound, AnsibleUndefinedVariable
from ansible.module_utils.common.text.converters import to_bytes, to_text
from ansible.plugins.connection import ConnectionBase
from ansible.plugins.loader import connection_loader
from ansible.utils.display import Display
from ansible_collections.nested.kata.plugins.module_utils._common.limits import limited
from ansible_collections.nested.kata.plugins.module_utils._docker import hops

display = Display()

# Commands run without a terminal: it would merge stderr into stdout and echo passwords. Plugins without such an option
# ignore it.
PARENT_OPTIONS = {"use_tty": False, "pty": False, "pipelining": True}

# Variables that facts override like any other of the inventory, beside the options of plugins. Ansible cleans facts of
# some names (ansible.vars.clean), but not of these, nor of the options of plugins in collections.
IDENTITY = {"inventory_hostname", "inventory_hostname_short", "group_names"}

# Variables that hold facts, or other variables that facts override.
HOLDING_FACTS = {"ansible_facts", "ansible_local", "vars"}

# Sizes of the pieces of files, multiples of dd's block size. A command line holds less than 128 KiB, base64
# takes a third more.
BLOCK = 64 * 1024
# Larger pieces save little time; ssh holds several copies of a fetched piece.
PUT_PIECE = 256 * BLOCK
FETCH_PIECE = 128 * BLOCK
LARGEST_WITHOUT_SIZE = 1 << 30  # bytes of a file that reports no size
PIECE_WITHOUT_STDIN = BLOCK

LARGEST_OUTPUT = 64 << 20  # bytes that a command may write to stdout, and to stderr

# The exit status of the script for fetching when there is no such file (EX_NOINPUT of sysexits.h).
NO_FILE = 66


class Connection(ConnectionBase):
    """A connection through a parent connection and a row of `docker exec -i`."""

    transport = "nested.kata.nested"
    has_pipelining = True
    has_tty = False

    def __init__(self, play_context: t.Any, *args: t.Any, **kwargs: t.Any) -> None:
        super().__init__(play_context, *args, **kwargs)
        self._arguments = (args, {key: value for key, value in kwargs.items() if key != "shell"})
        self._route: tuple[str, ...] = ()
        self._parent: t.Any = None  # a ConnectionBase, whose functions have hardly any types
        self._parent_of: tuple[tuple[str, ...], str] = ((), "")
        self._parent_options: dict[str, t.Any] = {}
        self._way = hops.Way("", (), ())

    # Options: those of this plugin are set as for any plugin; the parent's come from the variables of the right host

    def _resolve_option_variables(self, variables: t.Any, templar: t.Any) -> dict[str, t.Any]:
        host = self._play_context.remote_addr
        try:
            return self._resolve_without_facts(host, variables, templar)
        except AnsibleUndefinedVariable as ex:
            raise AnsibleError(
                f"the connection of {host} has an option that needs a variable which is not defined, or only by facts,"
                " which do not choose how a host is reached: define it in the inventory"
            ) from ex

    def _resolve_without_facts(self, host: str, variables: t.Any, templar: t.Any) -> dict[str, t.Any]:
        _refuse_facts(host, variables, self)
        with _without_facts(templar, variables):
            options: dict[str, t.Any] = super()._resolve_option_variables(variables, templar)
        via, via_origin = self._look_up("via", options)
        name, name_origin = self._look_up("parent", options)
        if via and name_origin != "default":
            raise AnsibleError(
                f"via ({via}, from {via_origin}) and parent ({name}, from {name_origin}) exclude each other: leave one"
                " of them out"
            )
        route = self._route
        play_context = self._play_context.copy()
        if via:
            route += (via,)
            host = via
            variables = self._variables_of(via, variables)
        elif self.matches_name([name]):
            raise AnsibleError(
                f"parent: {name} cannot be its own parent; to go through a host that is nested itself, set via"
                " (ansible_nested_via)"
            )
        with _without_facts(templar, variables):
            if via:
                default = context.CLIARGS.get("connection") or C.DEFAULT_TRANSPORT
                own = variables.get("ansible_connection")
                name = templar.template(own) if own else default
                _address(play_context, via, variables, templar)
            play_context.connection = name
            self._load_parent(name, play_context, route)
            _refuse_facts(host, variables, self._parent)
            self._parent_options = self._parent._resolve_option_variables(variables, templar)
        return options

    def _look_up(self, option: str, variables: dict[str, t.Any]) -> tuple[t.Any, str]:
        found: tuple[t.Any, str] = C.config.get_config_value_and_origin(
            option, plugin_type="connection", plugin_name=self._load_name, variables=variables
        )
        return found

    def _variables_of(self, via: str, variables: t.Any) -> dict[str, t.Any]:
        """Return another host's variables, untemplated, as Ansible gives them to that host."""
        if via in self._route:
            raise AnsibleError(f"via (ansible_nested_via) goes in a circle: {' -> '.join((*self._route, via))}")
        hostvars = variables.get("hostvars", {})
        if via not in hostvars:
            raise AnsibleError(f"via (ansible_nested_via) names {via!r}, which is not a host of the inventory")
        return {**hostvars.raw_get(via), "hostvars": hostvars}

    def _load_parent(self, name: str, play_context: t.Any, route: tuple[str, ...]) -> None:
        """Make the parent, or keep the existing one while a loop uses the same connection, as Ansible does."""
        there = self._parent
        if there is not None:
            if there.connected and there.matches_name([name]) and (route, play_context.remote_addr) == self._parent_of:
                there._play_context = play_context
                return
            there.close()
        args, kwargs = self._arguments
        self._parent = connection_loader.get(name, play_context, *args, **kwargs)
        if self._parent is None:
            raise AnsibleError(
                f"there is no connection plugin {name!r}: correct parent (ansible_nested_parent), or ansible_connection"
                " of the host in via"
            )
        self._parent_of = (route, play_context.remote_addr)
        if isinstance(self._parent, Connection):
            self._parent._route = route
        self.has_pipelining = self._parent.has_pipelining

    def set_options(self, task_keys: t.Any = None, var_options: t.Any = None, direct: t.Any = None) -> None:
        # Ansible would use the keyword remote_user as this plugin's option of that name
        keys = {key: value for key, value in (task_keys or {}).items() if key != "remote_user"}
        super().set_options(task_keys=keys, var_options=var_options, direct=direct)
        if self._parent is None:
            raise AnsibleError(
                f"{self.transport} got its options without its variables: it needs ansible-core 2.19 or newer"
            )
        self._parent.set_options(task_keys=task_keys, var_options=self._parent_options, direct=PARENT_OPTIONS)
        host = self._play_context.remote_addr
        names: list[str] = self.get_option("hops") or []
        if wrong := hops.refused(names):
            raise AnsibleError(f"hops (ansible_nested_hops) of {host} {wrong}")
        docker = shlex.split(self.get_option("docker_command"))
        if not docker:
            raise AnsibleError(
                f"docker_command (ansible_nested_docker_command) of {host} is empty: leave it out or name the docker"
                " client"
            )
        user: str = self.get_option("remote_user") or ""
        self._way = hops.Way(self._machine(), tuple(docker), tuple(names), user)

    def _machine(self) -> str:
        route, address = self._parent_of
        if route != self._route:
            return route[-1]
        return "this machine" if self._parent.transport == "local" else address

    # Commands

    @property
    def connected(self) -> bool:
        return self._connected and self._parent is not None and self._parent.connected

    def _connect(self) -> Connection:
        if not self._connected:
            display.vvv(
                f"ESTABLISH NESTED CONNECTION FOR USER: {self._way.user or '?'} IN {' > '.join(self._way.hops)}",
                host=self._play_context.remote_addr,
            )
            self._connected = True
        return self

    def exec_command(self, cmd: str, in_data: bytes | None = None, sudoable: bool = True) -> tuple[int, bytes, bytes]:
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)  # type: ignore[safe-super]  # abstract, with a body
        if sudoable and self.become and self.become.expect_prompt() and not self.has_pipelining:
            # such a parent looks for the prompt on a terminal of its own, which is not the container's, and would wait
            # for ever
            raise AnsibleError(
                f"the connection plugin {self._parent.transport} cannot answer {self.become.name} in a container: "
                "let become do without a password, or choose another parent, such as ssh"
            )
        script = to_text(cmd, errors="surrogate_or_strict")
        return self._execute(script, in_data, sudoable)

    def _execute(self, script: str, in_data: bytes | None = None, sudoable: bool = False) -> tuple[int, bytes, bytes]:
        """Run a script in the innermost container; when a hop is at fault, raise an error that names it."""
        argv = self._way.command([self._executable, "-c", script])
        display.vvv(f"EXEC {shlex.join(argv)}", host=self._play_context.remote_addr)
        try:
            rc, out, err = self._on_machine(argv, in_data, sudoable)
        except AnsibleConnectionFailure:
            raise
        except AnsibleError:
            # the parent raises this when the command ended before become could ask for a password
            self._raise_fault()
            raise
        if hops.doubtful(_answer(rc, b"", err)):
            self._raise_fault()
        return rc, out, err

    @property
    def _executable(self) -> str:
        executable: str = self._play_context.executable or C.DEFAULT_EXECUTABLE
        return executable

    def _on_machine(
        self, argv: list[str], in_data: bytes | None = None, sudoable: bool = False
    ) -> tuple[int, bytes, bytes]:
        become = self.become if sudoable else None
        self._parent.set_become_plugin(become)
        # docker exec passes the arguments on unchanged: only the machine's own shell needs quotes
        asks = bool(become and become.expect_prompt())
        # one byte more than is allowed shows that there was more
        command = shlex.join(limited(argv, LARGEST_OUTPUT + 1, LARGEST_OUTPUT + 1, at_once=asks))
        if not in_data and not become:
            # some parents leave stdin open, and a command that reads it would wait for ever
            command += " </dev/null"
        answer: tuple[int, bytes, bytes] = self._parent.exec_command(command, in_data=in_data, sudoable=sudoable)
        if max(map(len, answer[1:])) > LARGEST_OUTPUT:
            raise AnsibleConnectionFailure(
                f"a command in {' > '.join(self._way.hops)} wrote more than {LARGEST_OUTPUT >> 20} MiB and was ended:"
                " have it write less, or to a file that is fetched"
            )
        return answer

    def _raise_fault(self) -> None:
        """Check every hop, outermost first, and raise if one cannot be passed."""
        way = self._way
        for number in range(1, len(way.hops) + 1):
            state = _answer(*self._on_machine(way.state(number)))
            running: list[str] = []
            if hops.missing(state):
                running = to_text(self._on_machine(way.neighbours(number))[1]).split()
            if fault := hops.fault(way, number, state, running):
                raise AnsibleConnectionFailure(fault)
        entry = _answer(*self._on_machine(way.command([self._executable, "-c", ":"])))
        if fault := hops.entry_fault(way, self._executable, entry):
            raise AnsibleConnectionFailure(fault)

    # Files

    def put_file(self, in_path: str, out_path: str) -> None:
        super().put_file(in_path, out_path)  # type: ignore[safe-super]  # abstract, with a body
        display.vvv(f"PUT {in_path} TO {out_path}", host=self._play_context.remote_addr)
        path = _absolute(out_path)
        size = PUT_PIECE if self.has_pipelining else PIECE_WITHOUT_STDIN
        with _opened(in_path) as source:
            total = os.fstat(source.fileno()).st_size
            sent = 0
            while True:
                piece = source.read(size)
                if piece or not sent:
                    arrived, why = self._write(path, sent, piece)
                    sent += len(piece)
                    if arrived != sent:
                        raise AnsibleError(
                            f"failed to put {in_path} to {out_path}: {arrived} of {max(total, sent)} bytes arrived{why}"
                        )
                if len(piece) < size:
                    break

    def _write(self, path: str, offset: int, piece: bytes) -> tuple[int, str]:
        """Write a piece of a file at its offset; return the length of the file then, and why it is too short.

        A piece is written at its own place and not appended, since a parent may send it twice (the retries of ssh).
        """
        target = shlex.quote(path)
        script = f"dd of={target} bs={BLOCK} seek={offset // BLOCK} && stat -L -c %s {target}"
        if not piece:
            script = f"dd of={target} bs={BLOCK} count=0 </dev/null && stat -L -c %s {target}"
        elif not self.has_pipelining:
            text = to_text(base64.b64encode(piece))
            script = f"printf %s {text} | base64 -d | {script}"
        rc, out, err = self._execute(script, piece if piece and self.has_pipelining else None)
        if rc == 0 and out.strip().isdigit():
            return int(out), ""
        rest, size, _err = self._execute(f"stat -L -c %s {target}")
        return int(size) if rest == 0 and size.strip().isdigit() else 0, f": {_first_line(err, rc)}"

    def fetch_file(self, in_path: str, out_path: str) -> None:
        super().fetch_file(in_path, out_path)  # type: ignore[safe-super]  # abstract, with a body
        display.vvv(f"FETCH {in_path} TO {out_path}", host=self._play_context.remote_addr)
        path = _absolute(in_path)
        with _replacing(out_path) as target:
            got, size = 0, None
            while True:
                piece, reported = self._read(path, got)
                # Of a file that grows meanwhile, what it held at the beginning. Files in /proc hold more than they
                # report, which is nothing, and those in /sys less.
                size = reported if size is None else size
                target.write(piece[: size - got] if size else piece)
                got += len(piece)
                if len(piece) < FETCH_PIECE or (size and got >= size):
                    break
                if got >= LARGEST_WITHOUT_SIZE and not size:
                    raise AnsibleError(
                        f"failed to fetch {in_path}: it reports no size, and has no end within {got} bytes: fetch a"
                        " part of it, for example with head"
                    )

    def _read(self, path: str, offset: int) -> tuple[bytes, int]:
        """Return the piece of a file that begins at an offset, and the reported size of the file."""
        source = shlex.quote(path)
        # The parent's own messages are on stderr too, such as ssh's that another process has its control socket.
        script = f"[ -e {source} ] || exit {NO_FILE}; stat -L -c 'size %s' {source} >&2 && "
        script += (
            f"LC_ALL=C dd if={source} bs={BLOCK} skip={offset // BLOCK} count={FETCH_PIECE // BLOCK} iflag=fullblock"
        )
        rc, out, err = self._execute(script)
        if rc == NO_FILE:
            message = f"there is no file {path} in {self._way.hops[-1]}"
            raise AnsibleFileNotFound(message)
        found = re.search(rb"^size (\d{1,18})\s*$", err, re.MULTILINE)
        if len(out) > FETCH_PIECE:
            raise AnsibleError(f"failed to fetch {path}: {len(out)} bytes arrived where {FETCH_PIECE} were asked for")
        read = re.search(rb"^(\d{1,18}) bytes", err, re.MULTILINE)
        if rc == 0 and read and int(read[1]) != len(out):
            raise AnsibleError(f"failed to fetch {path}: {len(out)} of {int(read[1])} bytes arrived")
        if rc != 0 or not found:
            messages = err[found.end() :] if found else err
            raise AnsibleError(f"failed to fetch {path}: {offset} bytes arrived: {_first_line(messages or err, rc)}")
        return out, int(found[1])

    # The end

    def reset(self) -> None:
        if self._parent is not None:
            self._parent.reset()
        self._connected = False

    def close(self) -> None:
        if self._parent is not None:
            self._parent.close()
        self._connected = False


def _refuse_facts(host: str, variables: t.Any, connection: t.Any) -> None:
    """Raise if a host has facts of the names that choose how a connection reaches it, and how commands run there."""
    names = {*IDENTITY, *C.COMMON_CONNECTION_VARS, *C.config.get_plugin_vars(None, None)}
    names.update(name for several in C.MAGIC_VARIABLE_MAPPING.values() for name in several)
    for kind, plugin in (("connection", connection), ("shell", connection._shell), ("become", connection.become)):
        if plugin is not None:
            names.update(C.config.get_plugin_vars(kind, plugin._load_name))
    if found := sorted(names & _names_of_facts(variables)):
        raise AnsibleError(
            f"the facts of {host} have {', '.join(found)}, and no host chooses how it is reached: distrust what answers"
            " there, set this in the inventory, a play or set_fact without cacheable, and clear cached facts with"
            " --flush-cache"
        )


def _names_of_facts(variables: t.Any) -> set[str]:
    """Return the names of variables that a host's facts can have set: they are kept without a prefix."""
    return {name for key in variables.get("ansible_facts") or {} for name in (key, f"ansible_{key}")}


@contextmanager
def _without_facts(templar: t.Any, variables: t.Any) -> Iterator[None]:
    """Have templates see the variables, but for the facts among them."""
    hidden = HOLDING_FACTS | (_names_of_facts(variables) if C.INJECT_FACTS_AS_VARS else set())
    before = templar.available_variables
    templar.available_variables = {name: value for name, value in variables.items() if name not in hidden}
    try:
        yield
    finally:
        templar.available_variables = before


def _address(play_context: t.Any, via: str, variables: dict[str, t.Any], templar: t.Any) -> None:
    """Set the address of the host in via in a play context, in place of that of the nested host."""
    for attribute, names in C.MAGIC_VARIABLE_MAPPING.items():
        if attribute.startswith("become"):
            continue
        found = [name for name in names if variables.get(name) is not None]
        if found:
            setattr(play_context, attribute, templar.template(variables[found[0]]))
        elif attribute == "remote_addr":
            play_context.remote_addr = via
        elif attribute == "port":
            play_context.port = C.DEFAULT_REMOTE_PORT


def _answer(rc: int, out: bytes, err: bytes) -> hops.Answer:
    # the relevant messages are at the end; a command may have written megabytes before
    return hops.Answer(rc, to_text(out[-4096:]), to_text(err[-4096:]))


def _first_line(err: bytes, rc: int) -> str:
    """Return the first line: dd reports an error before it counts blocks."""
    lines: list[str] = to_text(err).strip().splitlines()
    return lines[0] if lines else f"exit status {rc}"


def _absolute(path: str) -> str:
    """Return an absolute path: a relative one begins at the root, as with Ansible's other plugins for containers."""
    return path if path.startswith("/") else f"/{path}"


def _opened(path: str) -> t.BinaryIO:
    """Open a file to be sent."""
    try:
        name: bytes = to_bytes(path, errors="surrogate_or_strict")
        return open(name, "rb")
    except FileNotFoundError as ex:
        message = f"file or module does not exist: {path}"
        raise AnsibleFileNotFound(message) from ex
    except OSError as ex:
        raise AnsibleError(f"cannot read {path}: {ex.strerror}") from ex


@contextmanager
def _replacing(path: str) -> Iterator[t.BinaryIO]:
    """Yield a file beside path that replaces it when no error occurred."""
    target: bytes = os.path.realpath(to_bytes(path, errors="surrogate_or_strict"))
    if os.path.exists(target) and not os.path.isfile(target):
        raise AnsibleError(f"cannot fetch to {path}: it is not a regular file")
    mark: bytes = to_bytes(f".{secrets.token_hex(4)}")
    beside = os.path.join(os.path.dirname(target), b"." + os.path.basename(target)[:200] + mark)
    try:
        with open(beside, "xb") as file:
            yield file
        if os.path.exists(target):
            os.chmod(beside, os.stat(target).st_mode & 0o7777)
        os.rename(beside, target)
    except OSError as ex:
        raise AnsibleError(f"cannot fetch to {path}: {ex.strerror}") from ex
    finally:
        if os.path.exists(beside):
            os.unlink(beside)
