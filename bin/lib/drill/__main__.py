"""What bin/drill runs."""

import shutil
import signal
import sys
import tempfile
import traceback
from pathlib import Path

import failover
import restore
from load import Load
from parts import BrokenOff
from report import Report

DRILLS = {
    "restore": restore.to_a_time,
    "restore-empty": restore.onto_an_empty_machine,
    "restore-basebackup": restore.by_pg_basebackup,
    "failover": failover.of_the_leader,
    "failover-behind": failover.to_a_standby_that_is_behind,
}


def main():
    names = sys.argv[1:]
    if names == ["--list"]:
        for name, drill in DRILLS.items():
            print(f"{name:<20} {drill.__doc__}")
        return
    for name in names:
        if name not in DRILLS:
            sys.exit(f"error: there is no drill {name}: {' '.join(DRILLS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    missed = broken_off = 0
    for name in names:
        report = Report(name)
        scratch = Path(tempfile.mkdtemp(prefix="drill-"))
        scratch.chmod(0o755)
        try:
            DRILLS[name](report, scratch)
        except Exception as error:
            # the others are made all the same
            why = str(error) if isinstance(error, BrokenOff) else traceback.format_exc()
            report.seen(f"broken off; its logs are in {scratch}: {why}")
            broken_off += 1
        except BaseException:
            report.seen(f"broken off; its logs are in {scratch}")
            raise
        else:
            shutil.rmtree(scratch)
        finally:
            Load.end_all()
        missed += report.missed
    sys.exit(1 if missed or broken_off else 0)


main()
