"""The leader of three PostgreSQL is killed; Patroni promotes another."""

import json
import os
import secrets
import shutil
import subprocess
import time
import urllib.request
from base64 import b64encode
from contextlib import ExitStack

from load import Account, InLog, Load
from mending import PHASE_S, Mending, check, finish, go_on
from parts import DIRECTLY, ROOT, Stack, end_postgres, free_port, kill_group, kill_postgres, own_folder, run, unprivileged, until

WRITES_AGAIN_S_MAX = 30
KILLS = 3
HEAD = "select position from event_store.head"
LOG_ID = "select log_id from event_store.log"


def of_the_leader(report, scratch):
    """the leader's machine is killed three times while people write; quorum commit, by Patroni"""
    with ExitStack() as cleaning:
        nodes = Nodes(scratch, cleaning)
        stack = start(scratch, nodes, cleaning)
        log_id = nodes.sql(LOG_ID)
        load = Load(Account(stack.url))
        time.sleep(PHASE_S)
        for number in range(1, KILLS + 1):
            killed_at = time.time()
            killed = nodes.leader()
            killed.kill()
            leader = until("another node leads", 60, lambda: nodes.leader(but=killed))
            time_of_lead = time.time()
            until("writes are answered again", 90, lambda: load.first_after(time_of_lead))
            paused = load.longest_pause(since=killed_at - 1)
            report.promise(f"kill {number}: writes are back within {WRITES_AGAIN_S_MAX} s", paused < WRITES_AGAIN_S_MAX,
                           f"{paused:.1f} s without an answer; {leader.name} leads after {time_of_lead - killed_at:.1f} s in place of {killed.name}")
            killed.start()
            began = time.monotonic()
            until("all nodes follow", 120, nodes.are_whole)
            report.seen(f"{killed.name} follows again after {time.monotonic() - began:.1f} s")
        load.stop()
        in_log = InLog(nodes, load)
        lost, doubled = in_log.lost(), in_log.doubled()
        report.promise("no acknowledged write is lost, none is doubled", not lost and not doubled,
                       f"{len(lost)} and {len(doubled)} of {len(load.writes)} writes")
        report.promise("no write is refused", not load.refused, load.refused[:3])
        report.promise("the log keeps its id, with no hand", nodes.sql(LOG_ID) == log_id, nodes.sql(LOG_ID))
        report.promise("reads come from a replica", stack.metric("query-api-1", "read_replica_up") == 1, "read_replica_up 1")
        check(report, stack, nodes, load)


def to_a_standby_that_is_behind(report, scratch):
    """without quorum commit: a standby that is behind is promoted, and the log notices"""
    with ExitStack() as cleaning:
        nodes = Nodes(scratch, cleaning)
        stack = start(scratch, nodes, cleaning, read_models_elsewhere=True)
        nodes.configure({"synchronous_mode": "off"})
        until("commits wait for no standby", 30, lambda: nodes.sql("show synchronous_standby_names") == "")
        log_id = nodes.sql(LOG_ID)
        load = Load(Account(stack.url))
        time.sleep(PHASE_S)
        load.stop()
        leader = nodes.leader()
        kept = int(nodes.sql(HEAD))
        until("the standbys have everything", 30, lambda: nodes.are_whole("replica"))
        nodes.cut_standbys_off()
        # a session that no standby has
        later = Account(stack.url, load.account.email)
        future = Load(load.account)
        time.sleep(PHASE_S)
        future.stop()
        load.account.listed(future.consistency_token)

        mending = Mending()
        leader.kill()
        until("another node leads", 60, lambda: nodes.leader(but=leader))
        mending.lap("promotion")
        until("both copies of command-api end", 60, lambda: stack.has_ended("command-api-1") and stack.has_ended("command-api-2"))
        noticed = any(stack.has_logged(part, "events are missing that others have seen") for part in ("command-api-1", "command-api-2"))
        report.promise("the services find out by themselves, and give the log another id", noticed and nodes.sql(LOG_ID) != log_id,
                       "their log says that events are missing")
        appended = int(nodes.sql(HEAD)) - kept
        report.promise("nothing was appended where others have seen another event", appended == 0, f"{appended} events")
        mending.lap("found out")
        stack.stop_services()
        finish(report, stack, mending)
        lost = InLog(nodes, future).lost()
        report.seen(f"{len(lost)} of {len(future.writes)} writes of the former leader are lost; before these "
                    f"{len(InLog(nodes, load).lost())} of {len(load.writes)}")
        after = go_on(report, stack, [load.account, later], mending)
        check(report, stack, nodes, after)


def start(scratch, nodes, cleaning, read_models_elsewhere=False):
    variables = {
        "PRIMETRADE_DATABASE_URL": nodes.url("read-write"),
        "PRIMETRADE_SECRET": secrets.token_hex(32),
        "PRIMETRADE_RATE_LIMITS": "off",
    }
    stack = Stack(scratch / "stack", variables)
    if read_models_elsewhere:
        variables["PRIMETRADE_READ_DATABASE_URL"] = stack.postgres_url
    else:
        variables["PRIMETRADE_READ_REPLICA_URL"] = nodes.url("standby")
    cleaning.callback(stack.down)
    stack.up()
    return stack


class Nodes:
    """Three PostgreSQL by deploy/patroni/patroni.yml, and an etcd."""

    def __init__(self, scratch, cleaning):
        self.passwords = {name: secrets.token_hex(16) for name in ("superuser", "replicator", "restapi", "primetrade")}
        self.etcd = start_etcd(own_folder(scratch / "etcd"), cleaning)
        configuration = scratch / "patroni.yml"
        shutil.copy(ROOT / "deploy/patroni/patroni.yml", configuration)
        self.nodes = [Node(self, scratch / name, configuration) for name in ("one", "two", "three")]
        for node in self.nodes:
            cleaning.callback(node.end)
            node.start()
        until("a node leads", 60, self.leader)
        self.sql(f"create role primetrade login password '{self.passwords['primetrade']}'", "postgres")
        self.sql("create database primetrade owner primetrade", "postgres")
        until("all nodes follow", 60, self.are_whole)

    def url(self, attributes):
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)
        return f"postgres://primetrade:{self.passwords['primetrade']}@{hosts}/primetrade?target_session_attrs={attributes}"

    def leader(self, but=None):
        return next((node for node in self.nodes if node is not but and node.answers("/primary")), None)

    def are_whole(self, role="quorum_standby"):
        """Whether all the others follow the leader and have all of it."""
        leader = self.leader()
        members = leader.ask("/cluster")["members"] if leader else []
        following = [member for member in members if member["role"] == role and member["state"] == "streaming" and member["lag"] == 0]
        return len(following) == len(self.nodes) - 1

    def configure(self, changes):
        self.leader().ask("/config", changes)

    def cut_standbys_off(self):
        """From now on they get nothing of what the leader writes."""
        hba = self.leader().folder / "data/pg_hba.conf"
        hba.write_text("host replication all all reject\n" + hba.read_text())
        self.sql("select pg_reload_conf()")
        senders = "from pg_stat_replication"
        until("nobody replicates", 30, lambda: self.sql(f"select count(pg_terminate_backend(pid)) {senders}") == "0")

    def sql(self, text, database="primetrade"):
        node = until("a node leads", 60, self.leader)
        environment = {**os.environ, "PGPASSWORD": self.passwords["superuser"]}
        return run(["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", node.port, "-U", "postgres", "-d", database, "-c", text],
                   env=environment)


class Node:
    """A machine: Patroni, and the PostgreSQL that it runs."""

    def __init__(self, nodes, folder, configuration):
        self.name, self.folder, self.configuration = folder.name, own_folder(folder), configuration
        self.port, self.api_port = free_port(), free_port()
        self.variables = {
            "PATRONI_NAME": self.name,
            "PATRONI_ETCD3_HOSTS": nodes.etcd,
            "PATRONI_RESTAPI_LISTEN": f"127.0.0.1:{self.api_port}",
            "PATRONI_RESTAPI_CONNECT_ADDRESS": f"127.0.0.1:{self.api_port}",
            "PATRONI_RESTAPI_USERNAME": "patroni",
            "PATRONI_RESTAPI_PASSWORD": nodes.passwords["restapi"],
            "PATRONI_POSTGRESQL_LISTEN": f"127.0.0.1:{self.port}",
            "PATRONI_POSTGRESQL_CONNECT_ADDRESS": f"127.0.0.1:{self.port}",
            "PATRONI_POSTGRESQL_DATA_DIR": str(folder / "data"),
            "PATRONI_POSTGRESQL_BIN_DIR": os.environ["POSTGRES_BIN"],
            "PATRONI_POSTGRESQL_PGPASS": str(folder / "pgpass"),
            "PATRONI_SUPERUSER_USERNAME": "postgres",
            "PATRONI_SUPERUSER_PASSWORD": nodes.passwords["superuser"],
            "PATRONI_REPLICATION_USERNAME": "replicator",
            "PATRONI_REPLICATION_PASSWORD": nodes.passwords["replicator"],
        }
        self.process = None

    def start(self):
        log = open(self.folder / "log", "ab")
        self.process = subprocess.Popen([os.environ["PATRONI"], str(self.configuration)], stdin=subprocess.DEVNULL, stdout=log,
                                        stderr=log, cwd=self.folder, env={**os.environ, **self.variables}, start_new_session=True, **unprivileged())

    def kill(self):
        """As when the machine loses power."""
        kill_group(self.process)
        kill_postgres(self.folder / "data")

    def end(self):
        if self.process:
            kill_group(self.process)
        end_postgres(self.folder / "data")

    def ask(self, path, changes=None):
        request = urllib.request.Request(f"http://127.0.0.1:{self.api_port}{path}")
        if changes:
            request.method, request.data = "PATCH", json.dumps(changes).encode()
            request.add_header("Authorization", "Basic " + b64encode(f"patroni:{self.variables['PATRONI_RESTAPI_PASSWORD']}".encode()).decode())
        with DIRECTLY.open(request, timeout=5) as answer:
            return json.load(answer)

    def answers(self, path):
        try:
            self.ask(path)
            return True
        except (OSError, ValueError):
            return False


def start_etcd(folder, cleaning):
    client, peer = free_port(), free_port()
    log = open(folder / "log", "ab")
    process = subprocess.Popen(
        ["etcd", "--data-dir", f"{folder}/data", "--listen-client-urls", f"http://127.0.0.1:{client}",
         "--advertise-client-urls", f"http://127.0.0.1:{client}", "--listen-peer-urls", f"http://127.0.0.1:{peer}",
         "--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}", "--initial-cluster", f"default=http://127.0.0.1:{peer}"],
        stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder, start_new_session=True, **unprivileged())
    cleaning.callback(kill_group, process)
    return f"127.0.0.1:{client}"
