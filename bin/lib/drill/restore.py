"""The database of the log is restored from a backup; what stood beside it is ahead, or lost."""

import os
import secrets
import shutil
import time
from contextlib import ExitStack
from datetime import datetime, timezone

from load import Account, InLog, Load
from mending import PHASE_S, Mending, check, finish, go_on
from parts import ROOT, Postgres, Stack, own_folder, until

BACKREST = ROOT / "deploy/pgbackrest"
RPO_S_MAX = 300
HEAD = "select position from event_store.head"


def to_a_time(report, scratch):
    """back to a time T by pgBackRest, with Kafka, Redis and the read models left ahead"""
    back_to_a_time(report, scratch, PgBackRest(scratch))


def by_pg_basebackup(report, scratch):
    """the same by pg_basebackup and a folder of segments"""
    back_to_a_time(report, scratch, BaseBackup(scratch))


def onto_an_empty_machine(report, scratch):
    """the machine is lost with all that ran on it, shortly before a segment would be archived; back by pgBackRest"""
    tool = PgBackRest(scratch)
    with ExitStack() as cleaning:
        postgres, stack = start(scratch, tool, cleaning)
        # few writes, which would else fill the segment before its time
        load = Load(Account(stack.url), writers=1)
        time.sleep(PHASE_S)
        tool.back_up(postgres)
        later = Account(stack.url, load.account.email)
        archived = "select last_archived_wal from pg_stat_archiver"
        last = postgres.sql(archived)
        until("another segment is archived", 90, lambda: postgres.sql(archived) != last)
        time.sleep(50)
        report.seen(tool.metrics(postgres))
        lost_at = time.time()
        postgres.kill()
        stack.down()
        load.stop()
        shutil.rmtree(postgres.folder)
        shutil.rmtree(stack.folder)

        mending = Mending()
        empty = tool.postgres(scratch / "postgres-restored", cleaning)
        tool.restore(empty, None)
        empty.start()
        mending.lap("restore")
        new = Stack(scratch / "stack-new", {**stack.variables, "PRIMETRADE_DATABASE_URL": empty.url})
        cleaning.callback(new.down)
        finish(report, new, mending)
        lost = InLog(empty, load).lost()
        age = lost_at - min((write.answered for write in lost), default=lost_at)
        report.promise(f"RPO below {RPO_S_MAX} s", age < RPO_S_MAX, f"{age:.1f} s, {len(lost)} of {len(load.writes)} writes")
        check(report, new, empty, go_on(report, new, [load.account, later], mending))


def back_to_a_time(report, scratch, tool):
    with ExitStack() as cleaning:
        postgres, stack = start(scratch, tool, cleaning, read_models_elsewhere=True)
        load = Load(Account(stack.url))
        time.sleep(PHASE_S)
        tool.back_up(postgres)
        time.sleep(PHASE_S)
        target = time.time()
        # a session that the restored database has never had
        later = Account(stack.url, load.account.email)
        time.sleep(PHASE_S)
        load.stop()
        # all of it is in Kafka, Redis and the read models
        load.account.listed(load.consistency_token)
        report.seen(tool.metrics(postgres))
        head = int(postgres.sql(HEAD))

        mending = Mending()
        stack.stop_services()
        postgres.stop()
        mending.lap("stop")
        tool.restore(postgres, target)
        postgres.start()
        mending.lap("restore")
        report.seen(f"the log ended at {head}, and ends at {postgres.sql(HEAD)}")
        finish(report, stack, mending)
        missing = InLog(postgres, load).lost()
        before = [write for write in load.writes if write.answered < target]
        after = [write for write in load.writes if write.sent > target]
        lost = [write for write in before if write in missing]
        kept = [write for write in after if write not in missing]
        report.promise("nothing from before T is lost", not lost, f"{len(lost)} of {len(before)} writes")
        report.promise("nothing from after T is left", not kept, f"{len(kept)} of {len(after)} writes")
        load = go_on(report, stack, [load.account, later], mending)
        until("the positions from after T are used again", 60, lambda: int(postgres.sql(HEAD)) > head)
        check(report, stack, postgres, load)


def start(scratch, tool, cleaning, read_models_elsewhere=False):
    """A PostgreSQL that is archived, and the services on it."""
    postgres = tool.postgres(scratch / "postgres", cleaning)
    postgres.make(tool.SETTINGS)
    tool.begin(postgres)
    variables = {
        "PRIMETRADE_DATABASE_URL": postgres.url,
        "PRIMETRADE_SECRET": secrets.token_hex(32),
        "PRIMETRADE_SECURITY_LEDGER": str(scratch / "ledger.ndjson"),
        "PRIMETRADE_RATE_LIMITS": "off",
    }
    stack = Stack(scratch / "stack", variables)
    if read_models_elsewhere:
        variables["PRIMETRADE_READ_DATABASE_URL"] = stack.postgres_url
    cleaning.callback(stack.down)
    stack.up()
    return postgres, stack


class PgBackRest:
    """With the files of deploy/pgbackrest as they are; folders and the password are the drill's."""

    SETTINGS = (BACKREST / "postgresql.conf").read_text()

    def __init__(self, scratch):
        self.folder = own_folder(scratch / "backrest")
        self.configuration = scratch / "configuration"
        (self.configuration / "conf.d").mkdir(parents=True)
        # the checkout may be where PostgreSQL's user cannot read
        for file in ("pgbackrest.conf", "primetrade-backup-metrics"):
            shutil.copy(BACKREST / file, self.configuration)
        (self.configuration / "conf.d/password.conf").write_text(f"[global]\nrepo1-cipher-pass={secrets.token_hex(32)}\n")

    def postgres(self, folder, cleaning):
        postgres = Postgres(folder)
        cleaning.callback(postgres.end)
        postgres.variables = {
            "PGBACKREST_CONFIG_PATH": str(self.configuration),
            "PGBACKREST_REPO1_PATH": f"{self.folder}/repository",
            "PGBACKREST_LOG_PATH": f"{self.folder}/log",
            "PGBACKREST_LOCK_PATH": f"{self.folder}/lock",
            "PGBACKREST_PG1_PATH": str(postgres.data),
            "PGBACKREST_PG1_PORT": str(postgres.port),
            "PGBACKREST_PG1_SOCKET_PATH": str(postgres.folder),
            "PGBACKREST_PG1_USER": "primetrade",
        }
        return postgres

    def backrest(self, postgres, *words):
        return postgres.run("pgbackrest", "--stanza=primetrade", *words)

    def begin(self, postgres):
        self.backrest(postgres, "stanza-create")
        self.backrest(postgres, "check")

    def back_up(self, postgres):
        self.backrest(postgres, "--type=full", "backup")
        self.backrest(postgres, "--type=incr", "backup")

    def restore(self, postgres, target):
        to = ["--type=time", f"--target={written(target)}", "--target-action=promote"] if target else []
        # into the folder that is there, what differs
        self.backrest(postgres, *to, *(["--delta"] if postgres.data.exists() else []), "restore")

    def metrics(self, postgres):
        file = self.folder / "backup.prom"
        postgres.run(self.configuration / "primetrade-backup-metrics", file)
        lines = [line.split() for line in file.read_text().splitlines() if not line.startswith("#")]
        return "metrics: " + ", ".join(f"{name} {time.time() - float(at):.0f} s ago" for name, at in lines)


class BaseBackup:
    """What PostgreSQL itself has: a copy of the cluster, and a folder to which segments are copied."""

    def __init__(self, scratch):
        self.segments, self.copy = own_folder(scratch / "segments"), scratch / "segments" / "base"
        self.SETTINGS = f"archive_mode = on\narchive_timeout = 60\narchive_command = 'cp %p {self.segments}/%f'\n"

    def postgres(self, folder, cleaning):
        postgres = Postgres(folder)
        cleaning.callback(postgres.end)
        return postgres

    def begin(self, postgres):
        pass

    def back_up(self, postgres):
        postgres.run("pg_basebackup", "--checkpoint=fast", "-D", self.copy)

    def restore(self, postgres, target):
        shutil.rmtree(postgres.data)
        postgres.run("cp", "-a", self.copy, postgres.data)
        settings = {"restore_command": f"cp {self.segments}/%f %p", "recovery_target_time": written(target), "recovery_target_action": "promote"}
        with open(postgres.data / "postgresql.auto.conf", "a") as conf:
            conf.writelines(f"{name} = '{value}'\n" for name, value in settings.items())
        postgres.run("touch", postgres.data / "recovery.signal")

    def metrics(self, postgres):
        return f"{len(os.listdir(self.segments)) - 1} segments are archived"


def written(moment):
    return datetime.fromtimestamp(moment, timezone.utc).strftime("%Y-%m-%d %H:%M:%S.%f+00")
