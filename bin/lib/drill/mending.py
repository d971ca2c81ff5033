"""What follows on a restore or a lossy promotion, and how it is told whether all is well again."""

import json
import time

from load import Account, InLog, Load
from parts import until

RTO_S_MAX = 3600
# how long people write at a time
PHASE_S = 4


class Mending:
    """How long each part of it took."""

    def __init__(self):
        self.began = self.last = time.monotonic()
        self.laps = []

    def lap(self, what):
        now = time.monotonic()
        self.laps.append(f"{what} {now - self.last:.1f}")
        self.last = now

    def seconds(self):
        return self.last - self.began

    def __str__(self):
        return f"{self.seconds():.1f} s ({', '.join(self.laps)})"


def finish(report, stack, mending):
    """After PostgreSQL is there again: the command of docs/backup.md, then the services."""
    said = json.loads(stack.primetrade("--json", "restore-finish").splitlines()[-1])
    mending.lap("restore-finish")
    lost = said["lost"]
    report.promise("restore-finish finds nothing wrong", said["doctor"]["ok"], f"it says that {lost['events']} events are lost")
    stack.up()
    mending.lap("services")


def go_on(report, stack, sessions, mending):
    """Who had tokens, of one session or of several, logs in again and goes on to write."""
    asked = []
    for session in sessions:
        session.moves_to(stack.url)
        asked.append({
            "access": session.ask("GET", "/tasks")[0],
            "refresh": session.ask("POST", "/auth/refresh", {"refresh_token": session.tokens["refresh_token"]})[0],
        })
    refused = all(status == 401 for session in asked for status in session.values())
    report.promise("tokens of before are refused at once, of whichever session", refused, asked)
    load = Load(Account(stack.url, sessions[0].email))
    until("somebody writes again", 60, lambda: load.writes)
    mending.lap("first write")
    report.promise(f"RTO below {RTO_S_MAX} s", mending.seconds() < RTO_S_MAX, mending)
    time.sleep(PHASE_S)
    return load


def check(report, stack, postgres, load):
    load.stop()
    in_log = InLog(postgres, load)
    lost, doubled = in_log.lost(), in_log.doubled()
    report.promise("since then nothing is lost or doubled", not lost and not doubled, f"{len(lost)} and {len(doubled)} of {len(load.writes)} writes")
    listed = load.account.listed(load.consistency_token)
    report.promise("all tasks of the log are listed", sorted(listed) == sorted(in_log.events), f"{len(listed)} of {len(in_log.events)}")
    doctor = json.loads(stack.primetrade("--json", "doctor").splitlines()[-1])
    report.promise("every invariant holds", doctor["ok"], "doctor finds nothing" if doctor["ok"] else doctor)
    stack.run("status")
    report.seen("bin/stack status: all parts are well")
