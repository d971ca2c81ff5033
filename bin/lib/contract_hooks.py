"""For bin/lib/contract: bodies of commands, one a line; and accounts to throw away for what would end the run's own."""

import itertools
import json
import os
import threading
import urllib.request
import uuid

import schemathesis

BASE = os.environ["CONTRACT_BASE"]
# the one of the document's example, so that a change of it may succeed
PASSWORD = "correct horse battery"
# a stream ends with its session: nothing else would end it
STREAM_S = 0.2

numbers = itertools.count()


@schemathesis.serializer("application/x-ndjson")
def ndjson(ctx, value):
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")


def post(path, body=None, token=None):
    headers = {"Authorization": f"Bearer {token}"} if token else {"Content-Type": "application/json"}
    data = b"" if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(BASE + path, data, headers, method="POST"), timeout=30) as answer:
        return json.loads(answer.read() or b"null")


def account():
    """A new account's id and access token."""
    email = f"throwaway-{next(numbers)}@example.com"
    made = post("/api/v1/auth/register", {"email": email, "password": PASSWORD, "name": "Throwaway"})
    tokens = post("/api/v1/auth/login", {"email": email, "password": PASSWORD})
    return made["id"], tokens["access_token"]


def is_uuid(value):
    try:
        return bool(uuid.UUID(str(value)))
    except ValueError:
        return False


def instead(token):
    """Puts the token into the place of the run's own, where that is sent at all."""

    def put(request):
        if "Authorization" in request.headers:
            request.headers["Authorization"] = f"Bearer {token}"
        return request

    return put


@schemathesis.hook
def before_call(ctx, case, kwargs):
    operation = case.operation.definition.raw.get("operationId")
    if operation in ("logout", "changePassword", "followTasks"):
        _, token = account()
        kwargs["auth"] = instead(token)
        if operation == "followTasks":
            threading.Timer(STREAM_S, post, ("/api/v1/auth/logout", None, token)).start()
    elif operation == "changeUser" and is_uuid(case.path_parameters.get("id")):
        case.path_parameters["id"] = account()[0]
