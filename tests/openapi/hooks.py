"""What Schemathesis is told about this API beyond its document.

Made-up ids alone would end in 404: `before_call` puts ids, names and tokens of what really exists into half of the
requests, gathered by `after_call` from the answers. What the run itself stands on (its user, project, domain and roles)
is never among them. A session that a request has ended is begun anew. 501 is a refusal that says what is not offered;
any other 5xx is a failure. With PILVI_OPENAPI_SEED the choices made here are repeatable.
"""
import collections
import json
import os
import random
import time
import urllib.request

import schemathesis
from schemathesis.core.failures import Failure

SERVER = os.environ["PILVI_OPENAPI_URL"].rstrip("/")
PASSWORD = os.environ["PILVI_OPENAPI_PASSWORD"]
CHOICE = random.Random(os.environ.get("PILVI_OPENAPI_SEED"))
PATCH = "application/openstack-images-v2.1-json-patch"

schemathesis.serializer.alias(PATCH, "application/json")


class Session:
    """The administrator's token, and what must stay for the run to go on."""

    def __init__(self):
        self.begun = 0
        self.token = None
        self.keep = {"default", "admin", "Default", "service"}
        self.begin()
        roles = self.get("/identity/v3/roles")["roles"]
        self.keep |= {r["id"] for r in roles} | {r["name"] for r in roles}

    def begin(self):
        if time.monotonic() - self.begun < 1:
            return
        admin = {"name": "admin", "domain": {"id": "default"}}
        body = {"auth": {"identity": {"methods": ["password"], "password": {"user": {**admin, "password": PASSWORD}}},
                         "scope": {"project": admin}}}
        request = urllib.request.Request(f"{SERVER}/identity/v3/auth/tokens", json.dumps(body).encode(),
                                         {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            token = json.load(answer)["token"]
            self.token = answer.headers["X-Subject-Token"]
        self.keep |= {token["user"]["id"], token["project"]["id"], token["project"]["domain"]["id"]}
        self.begun = time.monotonic()

    def get(self, path):
        request = urllib.request.Request(SERVER + path, headers={"X-Auth-Token": self.token})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)


SESSION = Session()
# Collection ("users", "resource_providers") -> ids seen lately; names are only for queries.
KNOWN = collections.defaultdict(lambda: collections.deque(maxlen=40))
NAMES = collections.deque(maxlen=40)


def one_of(collection):
    """A known id of a collection, or `None`. Another thread may add one meanwhile."""
    known = KNOWN.get(collection)
    return CHOICE.choice(list(known)) if known else None


def learn(collection, item):
    if isinstance(item, str):
        # Traits, tags.
        item = {"id": item}
    if not isinstance(item, dict):
        return
    ids = [item[key] for key in ("id", "uuid", "namespace") if isinstance(item.get(key), str)]
    name = item.get("name")
    if isinstance(name, str):
        NAMES.append(name)
        # Some are addressed by name.
        ids = ids or [name]
    for one in ids:
        if 0 < len(one) < 300 and one not in SESSION.keep and one not in KNOWN[collection]:
            KNOWN[collection].append(one)


def plural(word):
    return word[:-1] + "ies" if word.endswith("y") else word + ("es" if word.endswith("s") else "s")


@schemathesis.hook
def after_call(context, case, response):
    if response.status_code == 401:
        SESSION.begin()
    if not 200 <= response.status_code < 300:
        return
    if case.method == "DELETE":
        for value in (case.path_parameters or {}).values():
            for known in KNOWN.values():
                if value in known and CHOICE.random() < 0.7:
                    known.remove(value)
        return
    try:
        body = response.json()
    except ValueError:
        return
    if not isinstance(body, dict):
        return
    steps = [s for s in case.path.split("/") if s and not s.startswith("{")]
    if steps and ("id" in body or "uuid" in body or "name" in body):
        learn(steps[-1], body)
    for member, value in body.items():
        if isinstance(value, list):
            for item in value[:10]:
                learn(member, item)
        elif isinstance(value, dict):
            learn(plural(member), value)


def with_known(value, depth=0):
    """A body in which some references lead to what exists."""
    if depth > 8:
        return value
    if isinstance(value, list):
        return [with_known(item, depth + 1) for item in value]
    if not isinstance(value, dict):
        return value
    out = {}
    for key, member in value.items():
        known = None
        if isinstance(member, str) and CHOICE.random() < 0.6:
            stem = key.removesuffix("_id").removesuffix("_uuid")
            known = one_of(plural(stem)) if stem != key else None
        elif isinstance(member, dict) and "id" in member and CHOICE.random() < 0.6:
            # {"user": {"id": ...}}
            known = one_of(plural(key))
            if known:
                out[key] = {**member, "id": known}
                continue
        out[key] = known or with_known(member, depth + 1)
    return out


def image_patch():
    """A patch of an image that comes past the parser."""
    paths = ["/name", "/visibility", "/tags", "/min_disk", "/protected", "/os_hidden", "/locations", "/locations/-",
             "/disk_format", "/container_format", "/a~1b", "/x", "/owner", "/id", "/status", "/metadata", ""]
    values = ["x", "public", "", ["a"], [], 1, -1, 2**40, True, None, {}, "raw", [{"url": "http://127.0.0.1:1/", "metadata": {}}]]
    return [{"op": CHOICE.choice(["add", "replace", "remove"]), "path": CHOICE.choice(paths), "value": CHOICE.choice(values)}
            for _ in range(CHOICE.randint(1, 4))]


@schemathesis.hook
def before_call(context, case, kwargs):
    case.headers["X-Auth-Token"] = SESSION.token
    parameters = case.path_parameters
    if parameters:
        before = None
        for step in case.path.split("/"):
            if step.startswith("{") and step.endswith("}"):
                name = step[1:-1]
                known = one_of(before) or one_of(plural(name.removesuffix("_id")))
                if known and name in parameters and CHOICE.random() < 0.6:
                    parameters[name] = known
            else:
                before = step
    query = case.query
    if query:
        if isinstance(query.get("marker"), str) and CHOICE.random() < 0.5:
            known = one_of(case.path.rstrip("/").split("/")[-1])
            if known:
                query["marker"] = known
        if isinstance(query.get("name"), str) and NAMES and CHOICE.random() < 0.5:
            query["name"] = CHOICE.choice(list(NAMES))
    if case.media_type == PATCH and CHOICE.random() < 0.5:
        case.body = image_patch()
    elif isinstance(case.body, (dict, list)):
        case.body = with_known(case.body)


@schemathesis.check
def no_failure(ctx, response, case):
    if response.status_code >= 500 and response.status_code != 501:
        raise Failure(operation=case.operation.label, title="Server error",
                      message=f"{response.status_code}: {response.text[:500]}")
