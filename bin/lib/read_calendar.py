"""What system-tests/src/calendar.rs runs: reads a calendar from standard input as Python's icalendar does, and says in JSON what
it has: a list of components, each with its properties. A calendar that it does not take, in whole or in part, is an error."""

import datetime
import json
import sys

from icalendar import Calendar

TEXTS = ["UID", "SUMMARY", "DESCRIPTION", "STATUS"]
TIMES = ["DTSTAMP", "CREATED", "LAST-MODIFIED", "DUE", "DTSTART", "COMPLETED"]


def read(component):
    assert not component.errors, component.errors
    found = {"name": component.name}
    found.update((name, str(component[name])) for name in TEXTS if name in component)
    for name in TIMES:
        if name in component:
            time = component.decoded(name)
            assert time.utcoffset() == datetime.timedelta(), f"{name} is not in UTC: {time}"
            found[name] = time.strftime("%Y-%m-%dT%H:%M:%SZ")
    if "CATEGORIES" in component:
        found["CATEGORIES"] = [str(category) for category in component["CATEGORIES"].cats]
    if "PRIORITY" in component:
        found["PRIORITY"] = int(component["PRIORITY"])
    return found


calendar = Calendar.from_ical(sys.stdin.buffer.read())
assert not calendar.errors, calendar.errors
assert {"VERSION", "PRODID"} <= set(calendar), "no calendar that others take"
json.dump([read(component) for component in calendar.subcomponents], sys.stdout)
