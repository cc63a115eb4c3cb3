# Copyright (c) 2026, the nested.kata founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps an instance running: the process of its unit, which lives as long as the container that is the VM.

    instance.py run NAME        start it, and stay until it has ended: the unit
    instance.py supervise NAME  the same in the background, again and again, where there is no systemd
    instance.py stop NAME       stop what supervise started

A container that runs already is taken over as it is. NAME.env below /etc/nested-kata/instances has the settings, which
are read again whenever one is needed. NAME.json below /var/lib/nested-kata/ends keeps when and why it ended.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

FINAL = 3  # exit status: it ended, and is not to be started again
ORDERLY = (0, 130)  # exit statuses of a machine that was powered off from within (reboot(2) in a PID namespace)
ANSWER_SECONDS = 30  # that the daemon and small programs get
DISK_SECONDS = 150  # more than loop.py waits for the lock of a directory
START_SECONDS = 300
EXTENSION = 120  # seconds by which each message extends the time limit of systemd for the start
ASK_EVERY = 60  # seconds between an answer of the guest and the next question
LONGEST_PAUSE = 300  # seconds
WINDOW = 3600  # seconds in which restarts are counted
KEPT_ENDS = 5
KEPT_LINES = 20
LARGEST_OUTPUT = 64 << 10  # bytes
LONGEST_LINE = 300
HEARD = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}


class Refused(Exception):
    """It cannot be done. The message is one line."""


class Gone(Refused):
    """The container does not exist any more."""


class Silent(Exception):
    """A program has not ended in time."""


@dataclass(frozen=True)
class Places:
    """The directories of nested.kata on a target."""

    etc: Path = Path("/etc/nested-kata")
    lib: Path = Path("/var/lib/nested-kata")
    run: Path = Path("/run/nested-kata")


@dataclass(frozen=True)
class Settings:
    """What NAME.env has. An earlier release wrote only `disk` and `disk_uuid`."""

    disk: str
    disk_uuid: str = ""
    disk_size: str = "all"
    restart: str = "always"
    restart_pause: float = 1
    restart_limit: int = 10
    watchdog: float = 300
    stop_timeout: int = 120


# By the types of the settings, as their annotations are written.
READERS: dict[Any, Callable[[str], Any]] = {"str": str, "float": float, "int": int}


@dataclass(frozen=True)
class End:
    """How a VM ended."""

    reason: str
    status: int | None = None
    at: str = ""
    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class Done:
    """What a program did."""

    status: int
    output: str
    errors: str

    @property
    def line(self) -> str:
        """Return the line that has the reason of a failure."""
        lines = [line.strip() for line in f"{self.output}\n{self.errors}".splitlines() if line.strip()]
        of_the_daemon = [line for line in lines if "Error response from daemon" in line]
        return visible([f"exit status {self.status}", *lines, *of_the_daemon][-1])


def visible(line: str) -> str:
    """Return a line from an untrusted source, shortened, with control characters made visible."""
    return ascii(line[:LONGEST_LINE])[1:-1]


def settings_of(path: Path) -> Settings:
    """Read the settings of an instance."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise Refused(f"{path} does not exist: run the role kata_instance") from None
    given = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    found: dict[str, Any] = {}
    for field in fields(Settings):
        name = field.name.upper()
        if name in given:
            try:
                found[field.name] = READERS[field.type](given[name])
            except ValueError:
                raise Refused(f"{path}: {name} is {given[name]!r}, which is not a number") from None
    if "disk" not in found:
        raise Refused(f"{path} has no DISK: run the role kata_instance")
    return Settings(**found)


def pause_before(restarts: int, first: float) -> float:
    """Return for how many seconds to wait before a start, where it ended so many times since somebody started it."""
    return float(min(first * 2.0 ** min(restarts - 1, 20), LONGEST_PAUSE)) if restarts else 0.0


def starts_again(ended: End, policy: str) -> bool:
    """Return whether what has ended is to be started again."""
    return policy == "always" or (policy == "on-failure" and ended.status not in ORDERLY)


def say(message: str) -> None:
    """Write to the journal."""
    print(message, file=sys.stderr, flush=True)


def notify(*news: str) -> None:
    """Tell systemd, where it waits for it."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stream:
            stream.sendto("\n".join(news).encode(), f"\0{address[1:]}" if address.startswith("@") else address)


def write(path: Path, content: str) -> None:
    """Replace a file that only root may read."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.part")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(content)
    unfinished.replace(path)


@contextlib.contextmanager
def only_one(path: Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    """Lock a file against another process like this one."""
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused(f"{path} is locked: another process keeps an instance running with it") from None
        yield descriptor
    finally:
        os.close(descriptor)


class Programs:
    """Runs programs, and hears meanwhile when this one is to stop."""

    def __init__(self) -> None:
        """Hear signals only where they are waited for."""
        signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)
        self.stopping = False

    def wait(self, seconds: float) -> None:
        """Wait until something happens, and no longer than that."""
        heard = signal.sigtimedwait(HEARD, max(seconds, 0))
        if heard and heard.si_signo != signal.SIGCHLD:
            self.stopping = True

    def begin(
        self, *command: str, output: Any = subprocess.DEVNULL, errors: Any = subprocess.DEVNULL
    ) -> subprocess.Popen[bytes]:
        """Start a program."""
        environment = {**os.environ, "LC_ALL": "C"}
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, env=environment)

    def run(self, *command: str, seconds: float = ANSWER_SECONDS) -> Done:
        """Run a program to its end, or raise Silent."""
        # In memory: a disk may be full.
        with open(os.memfd_create("output"), "w+b") as output, open(os.memfd_create("errors"), "w+b") as errors:
            process = self.begin(*command, output=output, errors=errors)
            deadline = time.monotonic() + seconds
            while process.poll() is None:
                if time.monotonic() >= deadline:
                    end(process)
                    raise Silent(f"{command[0]} {command[1]} has not ended within {seconds:g} s")
                self.wait(deadline - time.monotonic())
            texts = []
            for file in (output, errors):
                file.seek(0)
                texts.append(file.read(LARGEST_OUTPUT).decode(errors="replace"))
            return Done(process.returncode, *texts)


def end(process: subprocess.Popen[bytes] | None) -> None:
    """Kill a program that has not ended."""
    if process and process.poll() is None:
        process.kill()
        process.wait()


class Instance:
    """An instance, as its unit sees it."""

    def __init__(self, name: str, places: Places, programs: Programs, on_ready: Callable[[], None]) -> None:
        """Take what is known of it."""
        self.name = name
        self.places = places
        self.programs = programs
        self.on_ready = on_ready
        self.daemon_was_away = False
        self.link = str(places.run / "disks" / name)
        self.record = places.lib / "ends" / f"{name}.json"

    def settings(self) -> Settings:
        """Return the settings as they are now."""
        return settings_of(self.places.etc / "instances" / f"{self.name}.env")

    # --- one life ---

    def run(self, again: bool) -> int:
        """Start it and stay until it has ended. Return 0 where it stays ended as it was asked to, 1 where it is to be
        started again, and FINAL where it is not.
        """
        try:
            if not again:
                self.forget_restarts()
            self.pause()
            ended = self.locked_life()
        except Gone as error:
            say(str(error))
            return FINAL
        except (Refused, Silent) as error:
            # One that may still run has not ended: the next process takes it over.
            if self.programs.stopping or isinstance(error, Silent) or self.runs():
                say(f"{self.name}: {error}")
                return 1
            ended = End(str(error))
        return self.close(ended) if ended else 0

    def runs(self) -> bool:
        """Return whether it may run."""
        try:
            return bool(self.state()["Running"])
        except Gone:
            return False
        except Silent:
            return True

    def pause(self) -> None:
        """Wait before it is started again."""
        seconds = pause_before(len(self.kept()["restarts"]), self.settings().restart_pause)
        if seconds and not self.answered()["Running"]:
            say(f"{self.name} is started again in {seconds:g} s")
            limit = int(seconds + START_SECONDS)
            notify(f"STATUS=started again in {seconds:g} s", f"EXTEND_TIMEOUT_USEC={limit * 1000000}")
            until = time.monotonic() + seconds
            while not self.programs.stopping and time.monotonic() < until:
                self.programs.wait(until - time.monotonic())

    def locked_life(self) -> End | None:
        """Let nobody else start anything with its disk for as long as it lives."""
        disk = Path(self.settings().disk)
        if not disk.is_file():
            raise Refused(f"{disk} does not exist")
        with only_one(disk):
            try:
                ended = self.live()
            except Refused:
                self.detach()
                raise
            # Not where Docker may still be starting it with this disk.
            self.detach()
            return ended

    def live(self) -> End | None:
        """Start it unless it runs, and return how it ended, None where it was stopped as this process was asked to."""
        state = self.answered()
        while not self.programs.stopping:
            since = time.time()
            if not state["Running"]:
                self.start()
            self.on_ready()
            notify("READY=1", "STATUS=running")
            daemon, self.daemon_was_away = self.service().get("InvocationID"), False
            hung = self.watch()
            if self.programs.stopping:
                break
            if hung:
                self.cut()
            state = self.answered()
            if state["Running"]:
                self.programs.wait(1)
            elif not hung and (self.daemon_was_away if daemon is None else self.service()["InvocationID"] != daemon):
                say(f"Docker was restarted, and {self.name} is started with it")
            else:
                return self.ended(state, hung, since)
        self.stop()
        return None

    def start(self) -> None:
        """Start it, with its disk attached and its firewall there."""
        settings = self.settings()
        self.checked(sys.executable, str(self.places.lib / "firewall" / "firewall.py"), "check", self.name)
        attach = ["--image", settings.disk, "--link", self.link, "--uuid", settings.disk_uuid, "--unused"]
        program = str(self.places.lib / "bin" / "loop.py")
        self.checked(sys.executable, program, "attach", *attach, seconds=DISK_SECONDS)
        self.limit_file_system(settings.disk_size)
        try:
            self.checked("docker", "start", self.name, seconds=START_SECONDS)
        except Silent as error:
            # Docker goes on, and says what became of it when that is known.
            if not self.answered()["Running"]:
                raise Refused(str(error)) from None

    def limit_file_system(self, size: str) -> None:
        """Let the guest know how many bytes of its disk the file system takes, or that it takes all."""
        try:
            with tempfile.NamedTemporaryFile("w", encoding="utf-8") as note:
                note.write(f"{size}\n")
                note.flush()
                self.checked("docker", "cp", note.name, f"{self.name}:/etc/docker-disk-size")
        except (OSError, Refused, Silent) as error:
            say(f"{self.name} does not hear how large its file system is to be: {error}")

    def checked(self, *command: str, seconds: float = ANSWER_SECONDS) -> None:
        """Run a program that has to succeed."""
        done = self.programs.run(*command, seconds=seconds)
        if done.status:
            raise Refused(done.line)

    def watch(self) -> bool:
        """Return when it has ended, when this process is to stop, or when the guest hangs, and whether it does."""
        waiting = self.programs.begin("docker", "wait", self.name)
        question, due = None, time.monotonic() + self.ask_every()
        try:
            while not self.programs.stopping and waiting.poll() is None:
                now = time.monotonic()
                if question and question.poll() is not None:
                    question, due = None, now + self.ask_every()
                elif question and now >= due:
                    end(question)
                    question, due = None, now + self.ask_every()
                    if self.daemon_answers():
                        return True
                elif now >= due:
                    limit = self.settings().watchdog
                    question = self.programs.begin("docker", "exec", self.name, "true") if limit > 0 else None
                    due = now + (limit if limit > 0 else ASK_EVERY)
                self.programs.wait(due - time.monotonic())
            # It fails where the daemon ends.
            self.daemon_was_away = bool(waiting.poll())
            return False
        finally:
            end(waiting)
            end(question)

    def ask_every(self) -> float:
        """Return the seconds between an answer and the next question."""
        return min(self.settings().watchdog or ASK_EVERY, ASK_EVERY)

    def cut(self) -> None:
        """End a VM that does not answer, the hard way."""
        say(f"{self.name} has not answered within {self.settings().watchdog:g} s, and is killed")
        with contextlib.suppress(Silent):
            self.programs.run("docker", "kill", self.name)
        state = self.answered()
        if state["Running"] and state["Pid"] > 1:
            with contextlib.suppress(ProcessLookupError):
                os.kill(state["Pid"], signal.SIGKILL)

    def stop(self) -> None:
        """Stop it cleanly."""
        seconds = self.settings().stop_timeout
        self.checked("docker", "stop", "--time", str(seconds), self.name, seconds=seconds + ANSWER_SECONDS)

    def detach(self) -> None:
        """Detach its disk, which is refused while anybody has it open."""
        program = str(self.places.lib / "bin" / "loop.py")
        try:
            command = ["detach", "--image", self.settings().disk, "--link", self.link]
            self.checked(sys.executable, program, *command, seconds=DISK_SECONDS)
        except (Refused, Silent) as error:
            say(str(error))

    # --- what the daemon says ---

    def state(self) -> dict[str, Any]:
        """Return the state of the container, or raise Silent where the daemon does not answer."""
        done = self.programs.run("docker", "container", "inspect", "--format", "{{json .State}}", self.name)
        if done.status and "no such container" in done.errors.lower():
            raise Gone(f"there is no container {self.name}")
        try:
            return dict(json.loads(done.output))
        except ValueError:
            raise Silent(done.line) from None

    def answered(self) -> dict[str, Any]:
        """Return the state of the container as soon as the daemon answers and is not about to end."""
        said = False
        while True:
            try:
                self.check_service()
                return self.state()
            except Silent as error:
                if self.programs.stopping:
                    raise
                notify(f"EXTEND_TIMEOUT_USEC={EXTENSION * 1000000}")
                if not said:
                    say(f"waiting for Docker: {error}")
                said = self.daemon_was_away = True
                self.programs.wait(1)

    def daemon_answers(self) -> bool:
        """Return whether the daemon answers, and takes the container for one that runs."""
        try:
            self.check_service()
            # It asks containerd for its version, through which every question to a guest goes too.
            if self.programs.run("docker", "version").status:
                return False
            return bool(self.state()["Running"])
        except (Silent, Gone):
            return False

    def check_service(self) -> None:
        """Raise Silent where Docker's service was stopped: its socket would start it for the next question."""
        service = self.service()
        stopped = service.get("ActiveState") in ("deactivating", "inactive", "failed")
        if service.get("LoadState") == "loaded" and stopped:
            raise Silent(f"docker.service is {service['ActiveState']}")

    def service(self) -> dict[str, str]:
        """Return the properties of Docker's service; nothing without systemd."""
        if not os.path.isdir("/run/systemd/system"):
            return {}
        done = self.programs.run("systemctl", "show", "--property=InvocationID,ActiveState,LoadState", "docker.service")
        return {"InvocationID": "", **dict(line.split("=", 1) for line in done.output.splitlines() if "=" in line)}

    # --- why it ended ---

    def ended(self, state: dict[str, Any], hung: bool, since: float) -> End:
        """Return how it ended, with the last lines of its console."""
        status = int(state["ExitCode"])
        why = "it hung" if hung else "it was out of memory" if state.get("OOMKilled") else "it ended"
        return End(f"{why} (exit status {status})", status, lines=tuple(self.console(since)))

    def console(self, since: float) -> Iterator[str]:
        """Yield the last lines that it, or its hypervisor, wrote."""
        stamp = datetime.datetime.fromtimestamp(since, datetime.timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
        script = """
            docker logs --tail "$3" "$1" 2>&1 | tail -c 16384
            id=$(docker container inspect --format '{{.Id}}' "$1") && command -v journalctl >/dev/null &&
            journalctl --quiet --no-pager --output=cat --since="$2" --grep="$id" |
            grep -v level=info | tail --lines="$3" | tail -c 16384
        """
        with contextlib.suppress(Silent):
            done = self.programs.run("sh", "-c", script, "sh", self.name, stamp, str(KEPT_LINES))
            yield from (visible(line) for line in done.output.splitlines()[-KEPT_LINES:] if line.strip())

    def close(self, ended: End) -> int:
        """Keep why it ended, and return what becomes of it."""
        settings, kept, now = self.settings(), self.kept(), time.time()
        restarts = [one for one in kept["restarts"] if one > now - WINDOW]
        wanted = starts_again(ended, settings.restart)
        again = wanted and len(restarts) < settings.restart_limit
        ended = replace(ended, at=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"))
        ends = [*kept["ends"], asdict(ended)][-KEPT_ENDS:]
        self.keep({"restarts": [*restarts, now] if again else [], "ends": ends})
        say("\n".join([f"{self.name}: {ended.reason}", *(f"  {line}" for line in ended.lines)]))
        if again:
            return 1
        if wanted:
            say(f"{self.name} was started again {len(restarts)} times within an hour, and is not any more")
        return 0 if ended.status in ORDERLY and not wanted else FINAL

    def kept(self) -> dict[str, Any]:
        """Return what was kept of earlier ends."""
        try:
            kept = json.loads(self.record.read_text(encoding="utf-8"))
            return {"restarts": list(kept["restarts"]), "ends": list(kept["ends"])}
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return {"restarts": [], "ends": []}

    def keep(self, kept: dict[str, Any]) -> None:
        """Replace what was kept, as far as there is room for it."""
        try:
            write(self.record, json.dumps(kept, indent=1) + "\n")
        except OSError as error:
            say(f"{self.record} cannot be written: {error.strerror}")

    def forget_restarts(self) -> None:
        """Count from now on: somebody started it."""
        kept = self.kept()
        if kept["restarts"]:
            self.keep({**kept, "restarts": []})


# --- the commands ---


def run(name: str, places: Places) -> int:
    """Be the process of the unit."""
    programs = Programs()
    with locked_name(name, places):
        return Instance(name, places, programs, lambda: None).run(again=restarted_by_systemd(name, programs))


def restarted_by_systemd(name: str, programs: Programs) -> bool:
    """Return whether systemd has started the unit again by itself."""
    if not os.path.isdir("/run/systemd/system"):
        return False
    unit = f"nested-kata-instance@{name}.service"
    return programs.run("systemctl", "show", "--property=NRestarts", "--value", unit).output.strip() not in ("", "0")


def pid_file(name: str, places: Places) -> Path:
    """Return the path of the locked file that has the number of the process that keeps an instance running."""
    return places.run / "instances" / f"{name}.pid"


@contextlib.contextmanager
def locked_name(name: str, places: Places) -> Iterator[None]:
    """Be the process that keeps an instance running."""
    path = pid_file(name, places)
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    with only_one(path, os.O_RDWR | os.O_CREAT) as descriptor:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield


def supervisor(name: str, places: Places) -> int:
    """Return the process that keeps an instance running, 0 where there is none."""
    path = pid_file(name, places)
    try:
        with only_one(path):
            return 0
    except FileNotFoundError:
        return 0
    except Refused:
        return int(path.read_text(encoding="utf-8").strip() or 0)


def supervise(name: str, places: Places) -> int:
    """Keep it running in the background, and return as soon as it runs. Print that where nobody did so before."""
    if supervisor(name, places):
        return 0
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.close(reading)
        keep_running(name, places, writing)
    os.close(writing)
    with open(reading, encoding="utf-8") as news:
        heard = news.read().strip()
    os.wait()
    if heard == "running":
        print(f"{name} runs")
        return 0
    say(heard or f"{name} did not start")
    return 1


def keep_running(name: str, places: Places, news: int) -> None:
    """Be the process in the background. Whoever waits for its news hears the first."""
    if os.fork():
        os._exit(0)
    os.setsid()
    waiting = [news]

    def tell(message: str) -> None:
        # Whoever waits may be gone.
        if waiting:
            with contextlib.suppress(OSError), open(waiting.pop(), "w", encoding="utf-8") as file:
                file.write(message)

    try:
        with open(os.devnull, "r+b") as nothing:
            for descriptor in (0, 1, 2):
                os.dup2(nothing.fileno(), descriptor)
        instance = Instance(name, places, Programs(), lambda: tell("running"))
        with locked_name(name, places):
            again = False
            while instance.run(again) == 1 and not instance.programs.stopping:
                again = True
                tell(last_reason(instance))
        tell(last_reason(instance))
    except Exception as error:  # there is nobody else to report it to
        tell(f"{name}: {error}")
    finally:
        os._exit(0)


def last_reason(instance: Instance) -> str:
    """Return why it ended the last time."""
    ends = instance.kept()["ends"]
    return f"{instance.name}: {ends[-1]['reason']}" if ends else ""


def stop(name: str, places: Places) -> int:
    """Stop what supervise started, and a container that nobody keeps running. Print that where there was one."""
    instance = Instance(name, places, Programs(), lambda: None)
    process = supervisor(name, places)
    if process:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGTERM)
        deadline = time.monotonic() + instance.settings().stop_timeout + ANSWER_SECONDS + DISK_SECONDS
        while supervisor(name, places):
            if time.monotonic() > deadline:
                raise Refused(f"process {process}, which keeps it running, does not end")
            time.sleep(0.05)
    try:
        running = bool(instance.state()["Running"])
    except Gone:
        running = False
    if running:
        instance.stop()
    instance.detach()
    if process or running:
        print(f"{name} was stopped")
    return 0


def main(arguments: list[str]) -> int:
    """Do what the first argument says."""
    commands = {"run": run, "supervise": supervise, "stop": stop}
    parser = argparse.ArgumentParser(prog="instance.py", description="Keep an instance of nested.kata running.")
    parser.add_argument("command", choices=commands)
    parser.add_argument("name", help="its name, which is that of its container")
    for option, default in asdict(Places()).items():
        parser.add_argument(f"--{option}", type=Path, default=default, help=f"in place of {default}")
    asked = parser.parse_args(arguments)
    try:
        return commands[asked.command](asked.name, Places(asked.etc, asked.lib, asked.run))
    except (Refused, Silent, OSError) as error:
        say(f"{asked.name}: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
