"""Writes as a careful client makes them, and what became of them."""

import http.client
import json
import threading
import time
import uuid
from dataclasses import dataclass
from urllib.parse import urlsplit

from parts import BrokenOff

API = "/api/v1"
PASSWORD = "a password of somebody"
# What each task goes through: one event for each request.
STEPS = [("POST", "/tasks", "TaskCreated"), ("POST", "/tasks/{}/start", "TaskStarted"), ("POST", "/tasks/{}/complete", "TaskCompleted")]
WRITERS = 4
PAUSE_S = 0.02
ANSWER_S_MAX = 20


class Account:
    """Somebody who is logged in at the gateway."""

    def __init__(self, url, email=None):
        self.url, self.email = urlsplit(url), email or f"{uuid.uuid4().hex}@example.com"
        self.tokens = {}
        if email is None:
            self.expect(201, "POST", "/auth/register", {"email": self.email, "password": PASSWORD, "name": "Somebody"})
        self.tokens = json.loads(self.expect(200, "POST", "/auth/login", {"email": self.email, "password": PASSWORD}))

    def moves_to(self, url):
        self.url = urlsplit(url)

    def ask(self, method, path, body=None, **headers):
        """Status, headers and body; an OSError or HTTPException where there is no answer."""
        connection = http.client.HTTPConnection(self.url.hostname, self.url.port, timeout=ANSWER_S_MAX)
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if "access_token" in self.tokens:
            headers["Authorization"] = f"Bearer {self.tokens['access_token']}"
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            connection.request(method, API + path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def expect(self, status, *request, **headers):
        answered, _, body = self.ask(*request, **headers)
        if answered != status:
            raise BrokenOff(f"{request[0]} {request[1]}: {answered} instead of {status}: {body[:500]}")
        return body

    def listed(self, consistency_token):
        """The ids of all tasks, page by page, as of the token at least."""
        ids, cursor = [], ""
        while cursor is not None:
            more = f"&cursor={cursor}" if cursor else ""
            page = json.loads(self.expect(200, "GET", f"/tasks?limit=200{more}", Consistency_Token=consistency_token))
            ids += [task["id"] for task in page["items"]]
            cursor = page["next_cursor"]
        return ids


@dataclass
class Write:
    task: str
    version: int
    sent: float
    answered: float


class Load:
    """Until it is stopped. A write that gets no answer, or a 5xx, is sent again with the same key until it gets one."""

    begun = []

    @classmethod
    def end_all(cls):
        """Those of a drill that was broken off too."""
        while cls.begun:
            cls.begun.pop().ending.set()

    def __init__(self, account, writers=WRITERS):
        Load.begun.append(self)
        self.account, self.writes, self.refused, self.unanswered = account, [], [], {}
        self.consistency_token = None
        self.ending = threading.Event()
        self.threads = [threading.Thread(target=self.write, daemon=True) for _ in range(writers)]
        for thread in self.threads:
            thread.start()

    def write(self):
        while True:
            task = str(uuid.uuid4())
            for version, (method, path, _) in enumerate(STEPS, start=1):
                body = {"title": f"task {task}", "id": task} if version == 1 else {}
                if self.ending.is_set() or not self.is_answered(task, version, method, path.format(task), body):
                    return
                time.sleep(PAUSE_S)

    def is_answered(self, task, version, method, path, body):
        key, sent = str(uuid.uuid4()), time.time()
        self.unanswered[task] = version
        while not self.ending.is_set():
            try:
                status, headers, answer = self.account.ask(method, path, body, Idempotency_Key=key)
            except (OSError, http.client.HTTPException):
                status = None
            if status in (200, 201):
                self.writes.append(Write(task, version, sent, time.time()))
                self.consistency_token = headers["Consistency-Token"]
                del self.unanswered[task]
                return True
            if status is not None and status < 500:
                self.refused.append((path, status, answer))
                return False
            time.sleep(0.1)
        return False

    def stop(self):
        self.ending.set()
        for thread in self.threads:
            thread.join(ANSWER_S_MAX + 5)

    def first_after(self, moment):
        """When the first write that was sent after this moment was answered; None if none was."""
        return min((write.answered for write in self.writes if write.sent > moment), default=None)

    def longest_pause(self, since=0.0):
        """Seconds between two answers, one after the other, at most."""
        answers = sorted(write.answered for write in self.writes if write.answered >= since)
        return max((later - earlier for earlier, later in zip(answers, answers[1:])), default=0.0)


class InLog:
    """The events of these loads' tasks in the log, against what was answered."""

    def __init__(self, postgres, *loads):
        rows = postgres.sql("select task_id, string_agg(type, ' ' order by version) from event_store.event group by task_id")
        self.events = {task: types.split() for task, types in (row.split("|") for row in rows.splitlines())}
        self.writes = [write for load in loads for write in load.writes]
        self.tasks = {write.task for write in self.writes} & set(self.events)

    def lost(self):
        return [write for write in self.writes if len(self.events.get(write.task, [])) < write.version]

    def doubled(self):
        """Tasks with another history than the one that was asked for."""
        asked = [event for _, _, event in STEPS]
        return [task for task in self.tasks if self.events[task] != asked[: len(self.events[task])]]
