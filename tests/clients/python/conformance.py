"""Holds the traffic of the official clients against the sets of endpoints and against Mattermost's description of its API.

    conformance.py python=FILE javascript=FILE

Each FILE has one JSON line for each answer (cast.py, cast.mjs), and for each endpoint that a method of the client leads to
a line `{"offers": "GET /api/v4/..."}`. Every endpoint of ../sets.txt must have been used by each client, but for those of
../exceptions.json, for which the client must have no method. With MATTERMOST_OPENAPI (a file) every answer is validated
against that description; what the description itself has wrong is in ../upstream.json. An entry that is no longer needed
fails.
"""

import json
import re
import sys
from collections import Counter
from pathlib import Path

import description

HERE = Path(__file__).parent.parent
API = "/api/v4"


class Templates:
    """Paths with `{parameters}`; the one with the fewest parameters fits first."""

    def __init__(self, rows, parameter):
        rows = sorted(set(rows), key=lambda row: row[1].count("{"))
        self.rows = [(method, template, pattern(template, parameter)) for method, template in rows]

    def fit(self, method, path):
        return next((template for m, template, fits in self.rows if m == method and fits.fullmatch(path)), None)


def pattern(template, parameter):
    parts = re.split(r"\{([^}]*)\}", template)
    return re.compile("".join(parameter(part) if at % 2 else re.escape(part) for at, part in enumerate(parts)))


def strict(name):
    """A user's id is not `stats`: that is an endpoint of its own."""
    return "(?:[a-z0-9]{26}|me)" if name.endswith("_id") else "[^/]+"


def loose(_name):
    return "[^/]+"


def sets():
    """Every endpoint of sets.txt with its set's name, and those that are only ever refused."""
    rows = [line.split() for line in (HERE / "sets.txt").read_text().splitlines() if line and not line.startswith("#")]
    endpoints = {(method, API + path): name for name, method, path, *_ in rows}
    assert len(endpoints) == len(rows), "sets.txt has a line twice"
    return endpoints, {(method, API + path) for _, method, path, *refused in rows if refused == ["refused"]}


def read(path):
    """The answers and the offered endpoints of one client."""
    lines = [json.loads(line) for line in Path(path).read_text().splitlines()]
    offers = {tuple(line["offers"].split()) for line in lines if "offers" in line}
    return [line for line in lines if "offers" not in line], offers


def coverage(client, answers, offers, endpoints, refused):
    """What one client did not use with success, or is wrongly excepted from, as sentences."""
    templates = Templates(endpoints, strict)
    used = set()
    for answer in answers:
        endpoint = answer["method"], templates.fit(answer["method"], answer["path"])
        if (answer["status"] >= 400) == (endpoint in refused):
            used.add(endpoint)
    offered = {(method, templates.fit(method, path)) for method, path in offers}
    excepted = {tuple(endpoint.replace(" ", f" {API}").split()): entry["because"]
                for entry in json.loads((HERE / "exceptions.json").read_text()) if entry["client"] == client
                for endpoint in entry["endpoints"]}
    for (method, path), reason in excepted.items():
        if (method, path) not in endpoints:
            yield f"{client}: exceptions.json has {method} {path}, which is in no set"
        elif (method, path) in offered:
            yield f"{client}: {method} {path} is excepted ({reason}), but the client has a method for it"
    for method, path in endpoints:
        if (method, path) not in used and (method, path) not in excepted:
            yield f"{client}: {method} {path} was not " + ("refused" if (method, path) in refused else "used with success")
    for name in sorted(set(endpoints.values())):
        of_set = {endpoint for endpoint, its in endpoints.items() if its == name}
        print(f"ok - coverage: {client}, {name}: {len(of_set & used)} of {len(of_set)} endpoints, "
              f"{len(of_set & excepted.keys() - used)} without a method of the client")


def validation(answers, described, endpoints):
    """What the answers break of the description, but for what upstream.json lists, as sentences."""
    ours = Templates(endpoints, strict)
    theirs = Templates(((method.upper(), template) for template, operations in described.whole["paths"].items()
                        for method in operations), loose)
    known = {(endpoint, entry["answer"]) for entry in json.loads((HERE / "upstream.json").read_text())
             for endpoint in entry["endpoints"]}
    seen, validated, unknown = Counter(), 0, 0
    for answer in answers:
        method, path = answer["method"], answer["path"]
        if not path.startswith(API):
            continue
        template = theirs.fit(method, path)
        if template is None:
            unknown += 1
            seen[f"{method} {ours.fit(method, path) or path}".replace(API, ""), "not described"] += 1
            continue
        validated += 1
        for problem in described.problems(method, template, answer["status"], answer["body"]):
            seen[f"{method} {template.removeprefix(API)}", problem] += 1
    surprises = sorted(seen.keys() - known)
    print(f"ok - description: {validated} answers validated, {unknown} of endpoints that it does not have; "
          f"{len(seen.keys() & known)} upstream errors met, {len(surprises)} surprises")
    yield from (f"not as described, {seen[endpoint, problem]} times: {endpoint}: {problem}" for endpoint, problem in surprises)
    yield from (f"upstream.json has what nothing needs: {endpoint}: {problem}" for endpoint, problem in sorted(known - seen.keys()))


def main():
    (endpoints, refused), described = sets(), description.at_hand()
    problems, everything = [], []
    for argument in sys.argv[1:]:
        client, path = argument.split("=", 1)
        answers, offers = read(path)
        problems += coverage(client, answers, offers, endpoints, refused)
        everything += answers
    if described:
        problems += validation(everything, described, endpoints)
    else:
        print("ok - description: not validated: MATTERMOST_OPENAPI is not set")
    for problem in problems:
        print(problem)
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
