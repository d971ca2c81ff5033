"""What drills run: PostgreSQL, and the services by bin/stack."""

import os
import pwd
import random
import re
import secrets
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
# What a program may take that a drill runs and waits for.
PROGRAM_S_MAX = 900
# What is on this machine is asked directly, whatever http_proxy says.
DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class BrokenOff(Exception):
    """The drill cannot go on, and why."""


def until(what, seconds_max, check):
    """The first answer that is true."""
    end = time.monotonic() + seconds_max
    while not (answer := check()):
        if time.monotonic() > end:
            raise BrokenOff(f"after {seconds_max} s it is not so that {what}")
        time.sleep(0.1)
    return answer


def free_port(*further):
    """A port that is free, and those that are so much further too."""
    while True:
        port = random.randrange(10000, 28000)
        if all(is_free(port + number) for number in (0, *further)):
            return port


def is_free(port):
    with socket.socket() as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def run(command, **arguments):
    """Runs a program; what it prints is the answer. Where it fails, so does the drill, with what it has said."""
    try:
        done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              timeout=PROGRAM_S_MAX, **arguments)
    except subprocess.TimeoutExpired as error:
        said = error.stdout or ""
        said = said.decode(errors="replace") if isinstance(said, bytes) else said
        raise BrokenOff(f"{command[0]} came to no end in {PROGRAM_S_MAX} s:\n{said}") from None
    if done.returncode:
        raise BrokenOff(f"{command[0]} failed with {done.returncode}:\n{done.stdout}")
    return done.stdout.strip()


def unprivileged():
    """For subprocess: PostgreSQL and its tools refuse root."""
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam(os.environ["UNPRIVILEGED_USER"])
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def own_folder(path):
    """A folder that PostgreSQL may write."""
    path.mkdir(parents=True)
    if os.geteuid() == 0:
        os.chown(path, unprivileged()["user"], unprivileged()["group"])
    return path


def kill_group(process):
    """A process that began a session, and what it has started in it."""
    if process.returncode is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def postmaster_of(data):
    """The process of the PostgreSQL that runs on this folder; None where none does. (The number in its file may be that of
    another process by now.)"""
    try:
        number = int((data / "postmaster.pid").read_text().split()[0])
        return number if os.readlink(f"/proc/{number}/cwd") == str(data.resolve()) else None
    except (OSError, ValueError, IndexError):
        return None


def kill_postgres(data):
    """As when its machine loses power."""
    if number := postmaster_of(data):
        os.kill(number, signal.SIGKILL)


def end_postgres(data):
    """At once, and with nothing left of it."""
    if postmaster_of(data):
        command = [os.environ["POSTGRES_BIN"] + "/pg_ctl", "-s", "-w", "-t", "60", "-m", "immediate", "-D", str(data), "stop"]
        subprocess.run(command, cwd=data.parent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **unprivileged())


class Postgres:
    """A cluster: its data in FOLDER/data, its log in FOLDER/log, a socket in FOLDER. `variables` are for what it starts."""

    def __init__(self, folder, variables=None):
        self.folder, self.variables, self.port = own_folder(folder), variables or {}, free_port()
        self.data = folder / "data"
        self.bin = Path(os.environ["POSTGRES_BIN"])
        self.url = f"postgres://primetrade@127.0.0.1:{self.port}/primetrade"

    def run(self, *command):
        environment = {**os.environ, **self.variables, "PGHOST": str(self.folder), "PGPORT": str(self.port), "PGUSER": "primetrade"}
        return run(command, cwd=self.folder, env=environment, **unprivileged())

    def make(self, settings):
        self.run(self.bin / "initdb", "-U", "primetrade", "-A", "trust", "-E", "UTF8", "--locale=C", "-D", self.data)
        with open(self.data / "postgresql.conf", "a") as conf:
            conf.write(settings)
        self.start()
        self.run("psql", "-Xq", "-d", "postgres", "-c", "create database primetrade")

    def start(self):
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.folder} -c max_connections=200"
        # of a program that lives on the output is not waited for
        self.run("sh", "-c", f'"$0" -s -w -t 60 -D "$1" -l "$2" -o "$3" start >/dev/null 2>&1 || {{ tail -n 20 "$2"; exit 1; }}',
                 self.bin / "pg_ctl", self.data, self.folder / "log", options)
        until("PostgreSQL writes", 120, lambda: self.sql("select not pg_is_in_recovery()", "postgres") == "t")

    def stop(self):
        self.run(self.bin / "pg_ctl", "-s", "-w", "-m", "fast", "-D", self.data, "stop")

    def kill(self):
        kill_postgres(self.data)

    def end(self):
        end_postgres(self.data)

    def sql(self, text, database="primetrade"):
        return self.run("psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", text)


class Stack:
    """bin/stack in a folder of its own; `variables` are the services' settings."""

    SERVICES = [f"{service}-{copy}" for service in ("command-api", "query-api", "projector") for copy in (1, 2)]

    def __init__(self, folder, variables):
        self.folder, self.variables = folder, variables
        folder.mkdir()
        password = secrets.token_hex(32)
        (folder / "postgres.secret").write_text(password)
        (folder / "postgres.secret").chmod(0o600)
        self.port = free_port(1, 2, 3, 11, 12, 13, 101, 102, 103, 111, 112, 113, 1000, 1001, 1002, 1003)
        # of the PostgreSQL that bin/stack starts itself
        self.postgres_url = f"postgres://primetrade:{password}@127.0.0.1:{self.port + 1003}/primetrade"
        self.url = f"http://127.0.0.1:{self.port}"

    def run(self, *words):
        return run([ROOT / "bin/stack", *words], env=self.environment())

    def environment(self):
        return {**os.environ, "STACK_DIR": str(self.folder), "STACK_PORT": str(self.port), **self.variables}

    def up(self):
        self.run("up")

    def stop_services(self):
        self.run("stop", *self.SERVICES)

    def down(self):
        self.run("down")

    def has_ended(self, part):
        status = subprocess.run([ROOT / "bin/stack", "status"], env=self.environment(), stdout=subprocess.PIPE, text=True)
        return re.search(rf"^{part} +stopped ", status.stdout, re.M)

    def has_logged(self, part, text):
        return text in (self.folder / part / "log").read_text()

    def metric(self, part, name):
        """Its value, in sum."""
        service, copy = part.rsplit("-", 1)
        number = ["command-api", "query-api", "projector"].index(service) + 1 + 10 * (int(copy) - 1)
        text = DIRECTLY.open(f"http://127.0.0.1:{self.port + number + 100}/metrics", timeout=5).read().decode()
        return sum(float(line.split()[-1]) for line in text.splitlines() if re.match(rf"{name}[ {{]", line))

    def primetrade(self, *words):
        """The command line with the services' settings; it needs no stack that runs."""
        return run([Path(os.environ["STACK_BIN"]) / "primetrade", *words], cwd=self.folder, env={**os.environ, **self.variables})
