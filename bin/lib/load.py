"""What bin/load runs: people at a server, by locust."""

import gevent.monkey

gevent.monkey.patch_all()

import argparse
import json
import random
import re
import statistics
import sys
import time
import urllib.request
import uuid

import gevent
import psutil
from locust import FastHttpUser, between, events, task
from locust.env import Environment

API = "/api/v1"
PASSWORD = "a password of somebody"
TAGS = ["home", "work", "garden", "urgent", "later"]
WORDS = "call buy write read mend plan send clean paint move ask book order pay check".split()
# People who come in a second: each has a password hashed.
COME_EACH_SECOND = 20
# For how long somebody tries to come in; a step in which one did not is a bad one.
COME_S_MAX = 300
SLOW_MS = 500
FAILED_MAX = 0.01
# As the people ask: whatever http_proxy says.
DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Person(FastHttpUser):
    """Somebody with a dashboard open, who does something every three seconds."""

    settled = 0
    wait_time = between(1, 5)
    connection_timeout = network_timeout = 30.0

    def on_start(self):
        self.email = f"{uuid.uuid4().hex}@example.com"
        self.known, self.etags, self.listening = [], {}, None
        account = {"email": self.email, "password": PASSWORD, "name": "Somebody"}
        self.insist(lambda: self.call("POST", "/auth/register", account).status_code in (201, 409))
        self.insist(self.log_in)
        for _ in range(10):
            self.create()
        self.listening = gevent.spawn(self.listen)
        Person.settled += 1

    def insist(self, attempt):
        """Until it succeeds. Who cannot come in goes away again."""
        end = time.monotonic() + COME_S_MAX
        while not attempt():
            if time.monotonic() > end:
                raise gevent.GreenletExit
            gevent.sleep(1)

    def on_stop(self):
        if self.listening:
            self.listening.kill()

    def call(self, method, path, body=None, name=None, **headers):
        if getattr(self, "token", None):
            headers["Authorization"] = f"Bearer {self.token}"
        if method in ("POST", "PATCH") and not path.startswith("/auth"):
            headers["Idempotency-Key"] = str(uuid.uuid4())
        name = f"{method} {name or path}"
        return self.client.request(method, API + path, name=name, json=body, headers=headers)

    @task(1)
    def log_in(self):
        answer = self.call("POST", "/auth/login", {"email": self.email, "password": PASSWORD})
        if answer.status_code == 200:
            self.token = answer.json()["access_token"]
        return answer.status_code == 200

    def listen(self):
        while True:
            headers = {"Authorization": f"Bearer {self.token}"}
            path = f"{API}/stream"
            with self.client.request("GET", path, name="GET /stream", headers=headers, stream=True) as answer:
                if answer.status_code == 200:
                    while answer.stream.read(1):
                        pass
            gevent.sleep(1)

    def read(self, path, name):
        seen = {"If-None-Match": self.etags[path]} if path in self.etags else {}
        answer = self.call("GET", path, name=name, **seen)
        if answer.status_code == 200 and "etag" in answer.headers:
            self.etags[path] = answer.headers["etag"]
        return answer

    @task(30)
    def list(self):
        self.read("/tasks?limit=50", "/tasks")

    @task(6)
    def filter(self):
        query = random.choice(["status=pending", "status=completed", f"tag={random.choice(TAGS)}", "sort=due_at"])
        self.read(f"/tasks?{query}", "/tasks?…")

    @task(3)
    def search(self):
        self.read(f"/tasks?q={random.choice(WORDS)[:3]}", "/tasks?q=")

    @task(3)
    def facets(self):
        self.read("/tasks/facets", "/tasks/facets")

    @task(2)
    def statistics(self):
        self.read("/stats", "/stats")

    @task(10)
    def show(self):
        if self.known:
            self.read(f"/tasks/{random.choice(self.known)}", "/tasks/{id}")

    @task(2)
    def history(self):
        if self.known:
            self.read(f"/tasks/{random.choice(self.known)}/history", "/tasks/{id}/history")

    @task(8)
    def create(self):
        title = " ".join(random.sample(WORDS, 4))
        answer = self.call("POST", "/tasks", {"title": title, "tags": random.sample(TAGS, 1)})
        if answer.status_code == 201:
            self.known.append(answer.json()["id"])

    @task(6)
    def change(self):
        if self.known:
            change = {"title": " ".join(random.sample(WORDS, 5))}
            self.call("PATCH", f"/tasks/{random.choice(self.known)}", change, name="/tasks/{id}")

    @task(5)
    def complete(self):
        if self.known:
            done = self.known.pop(random.randrange(len(self.known)))
            self.call("POST", f"/tasks/{done}/complete", name="/tasks/{id}/complete")

    @task(1)
    def delete(self):
        if self.known:
            gone = self.known.pop(random.randrange(len(self.known)))
            self.call("DELETE", f"/tasks/{gone}", name="/tasks/{id}")


class Step:
    """What happened while there were so many people."""

    def __init__(self):
        self.began, self.times, self.failed, self.routes = time.monotonic(), [], 0, {}

    def take(self, name, response_time, exception, **_):
        self.failed += exception is not None
        if name == "GET /stream":
            return  # it lasts
        self.times.append(response_time)
        self.routes.setdefault(name, []).append(response_time)

    def row(self, people):
        seconds = time.monotonic() - self.began
        p50, p95, p99 = (percentile(self.times, share) for share in (50, 95, 99))
        failed = self.failed / max(1, len(self.times))
        return {"people": people, "a second": len(self.times) / seconds, "p50": p50, "p95": p95, "p99": p99, "failed": failed}


def percentile(times, share):
    return statistics.quantiles(times, n=100, method="inclusive")[share - 1] if len(times) > 1 else sum(times)


class Metrics:
    """What is used up, by /metrics of the server and by this machine."""

    def __init__(self, urls):
        self.urls, self.process = urls, psutil.Process()
        self.shed = self.read().get("requests_shed_total", 0)
        psutil.cpu_percent(), self.process.cpu_percent()

    def read(self):
        sums = {}
        for url in self.urls:
            try:
                text = DIRECTLY.open(url, timeout=5).read().decode()
            except OSError as error:
                print(f"{url}: {error}", file=sys.stderr)
                continue
            for name, labels, value in re.findall(r"^(\w+)(?:\{(.*)\})? (\S+)$", text, re.M):
                labels = dict(re.findall(r'(\w+)="([^"]*)"', labels))
                key = name + "".join(f" {labels[label]}" for label in ("pool", "state") if label in labels)
                sums[key] = sums.get(key, 0) + float(value)
        return sums

    def used(self):
        """Shares of what there is, 1 at most, the fullest first."""
        now = self.read()
        shares = {
            "this machine's processors": psutil.cpu_percent() / 100,
            "the processor of the people themselves": self.process.cpu_percent() / 100,
            "requests worked upon at once": now.get("requests_at_once", 0) / max(1, now.get("requests_at_once_max", 0)),
        }
        for key, value in now.items():
            if key.startswith("database_connections_max "):
                pool = key.split(" ")[1]
                shares[f"connections of the pool {pool}"] = now.get(f"database_connections {pool} used", 0) / max(1, value)
        shed, self.shed = now.get("requests_shed_total", 0) - self.shed, now.get("requests_shed_total", 0)
        notes = [f"{shed:.0f} requests were turned away"] if shed else []
        if now.get("projector_lag_seconds", 0) > 1:
            notes.append(f"read models are {now['projector_lag_seconds']:.1f} s behind")
        return sorted(shares.items(), key=lambda item: -item[1]), notes


def run(arguments):
    environment = Environment(user_classes=[Person], events=events, host=arguments.url)
    runner = environment.create_local_runner()
    metrics = Metrics(arguments.metrics or [f"{arguments.url}/metrics"])
    people = arguments.people
    steps = [people] if not arguments.knee else [people * 2**doubling for doubling in range(12)]
    print(f"{'people':>7} {'a second':>9} {'p50':>7} {'p95':>7} {'p99':>7} {'failed':>7}  nearly used up")
    last = None
    for people in steps:
        runner.start(people, spawn_rate=COME_EACH_SECOND)
        end = time.monotonic() + people / COME_EACH_SECOND + COME_S_MAX
        while Person.settled < people and time.monotonic() < end:
            gevent.sleep(0.2)
        outside = people - Person.settled
        metrics.used()
        step = Step()
        events.request.add_listener(step.take)
        gevent.sleep(arguments.seconds)
        events.request.remove_listener(step.take)
        row, (shares, notes) = step.row(people), metrics.used()
        if outside:
            notes.append(f"{outside} people could not come in")
        full = [f"{what} ({share:.0%})" for what, share in shares if share > 0.8] + notes
        print(
            f"{people:>7} {row['a second']:>9.0f} {row['p50']:>7.1f} {row['p95']:>7.1f} {row['p99']:>7.1f}"
            f" {row['failed']:>7.2%}  {', '.join(full) or 'nothing'}",
            flush=True,
        )
        bad = outside > 0 or row["p95"] > SLOW_MS or row["failed"] > FAILED_MAX
        if arguments.knee and bad:
            print(f"The knee is beyond {last or 'fewer than ' + str(people)} people. First used up: {shares[0][0]}.")
            break
        last = people
    print(f"\n{'milliseconds':<28} {'requests':>8} {'p50':>7} {'p95':>7} {'p99':>7}")
    for name, times in sorted(step.routes.items(), key=lambda item: -len(item[1])):
        print(f"{name:<28} {len(times):>8} " + " ".join(f"{percentile(times, share):>7.1f}" for share in (50, 95, 99)))
    runner.quit()
    if arguments.json:
        json.dump(row, open(arguments.json, "w"))
    sys.exit(1 if bad and not arguments.knee else 0)


def main():
    parser = argparse.ArgumentParser(prog="bin/load", description="Load as people make it.")
    parser.add_argument("--url", required=True, help="the server or its gateway; without it bin/load starts one")
    parser.add_argument("--people", type=int, default=0, help="how many (default 200; 25 to begin with for --knee)")
    parser.add_argument("--seconds", type=int, default=60, help="for how long, or how long each step of --knee")
    parser.add_argument("--knee", action="store_true", help="twice as many at each step, until it is slow or fails")
    parser.add_argument("--metrics", action="append", metavar="URL", help="where metrics are, if not at URL/metrics; repeat")
    parser.add_argument("--json", metavar="FILE", help="the last step as JSON")
    arguments = parser.parse_args()
    arguments.people = arguments.people or (25 if arguments.knee else 200)
    run(arguments)


main()
