"""The story of story.py, told to a node and held against what a real Mattermost server 11.6 answered.

    recorded.py                       compare the node with recorded.json; what may differ is in differences.json
    recorded.py --record URL          tell the story to a real server and keep what it answers in recorded.json
    recorded.py --list                print the differences as entries for differences.json

The node and the administrator's name and password come from HOLDFAST_EDGE_URL, _ADMIN and _PASSWORD (for --record:
RECORD_ADMIN and RECORD_PASSWORD). With MATTERMOST_OPENAPI (a file) every answer is also validated against that description;
what the real server breaks of it is kept with the recording and allowed.
"""

import json
import os
import re
import sys
from pathlib import Path

import description
import story

HERE = Path(__file__).parent
RECORDED, DIFFERENCES = HERE / "recorded.json", HERE / "differences.json"


def differences(theirs, ours):
    """What differs between the recording of one step and a node's answer, as sentences without values."""
    for what in ("status", "error_id"):
        if theirs[what] != getattr(ours, what):
            yield f"{what}: {theirs[what] or 'none'} there, {getattr(ours, what) or 'none'} here"
    if theirs["status"] != ours.status:
        return
    there, here = theirs["shape"], ours.shape
    for place in sorted(there.keys() | here.keys()):
        if parent(place) and (parent(place) not in there or parent(place) not in here):
            continue
        if place not in here:
            # An empty list or map tells nothing about what would be in it.
            yield f"{place}: {there[place]} there, missing here"
        elif place not in there:
            yield f"{place}: missing there, {here[place]} here"
        elif there[place] != here[place]:
            yield f"{place}: {there[place]} there, {here[place]} here"


def parent(place):
    for mark in ("[]", "{}"):
        if place.endswith(mark):
            return place[:-2]
    return place.rsplit(".", 1)[0] if "." in place else ""


def broken(described, step):
    return described.problems(step.method, step.template, step.status, step.body)


def record(url, described):
    steps = story.tell(url, os.environ["RECORD_ADMIN"], os.environ["RECORD_PASSWORD"])
    kept = {step.name: {
        "status": step.status, "error_id": step.error_id, "shape": step.shape,
        "openapi": broken(described, step) if described else []} for step in steps}
    RECORDED.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    print(f"{len(kept)} steps recorded")


def compare(described, listing):
    recorded = json.loads(RECORDED.read_text())
    allowed = json.loads(DIFFERENCES.read_text()) if DIFFERENCES.exists() else []
    steps = story.tell(os.environ["HOLDFAST_EDGE_URL"], os.environ["HOLDFAST_EDGE_ADMIN"],
                       os.environ["HOLDFAST_EDGE_PASSWORD"])
    found = []
    for step in steps:
        known = recorded.get(step.name)
        if known is None:
            found.append((step.name, "not recorded; record the story anew"))
            continue
        found += [(step.name, what) for what in differences(known, step)]
        if described and known["status"] == step.status:
            found += [(step.name, f"OpenAPI: {problem}")
                      for problem in broken(described, step) if problem not in known["openapi"]]
    found += [(name, "not told") for name in recorded.keys() - {step.name for step in steps}]
    used, surprises = set(), []
    for name, what in found:
        fits = [at for at, entry in enumerate(allowed)
                if re.fullmatch(entry["step"], name) and re.fullmatch(entry["differs"], what)]
        used.update(fits)
        if not fits:
            surprises.append((name, what))
    if listing:
        for name, what in surprises:
            print(json.dumps({"step": re.escape(name), "differs": re.escape(what), "because": ""}))
        return
    stale = [entry for at, entry in enumerate(allowed) if at not in used and not entry["differs"].startswith("OpenAPI")]
    print(f"ok - recorded: {len(steps)} steps, {len(found)} differences, {len(found) - len(surprises)} of them listed with a reason"
          + ("" if described else "; not validated: MATTERMOST_OPENAPI is not set"))
    for name, what in surprises:
        print(f"not listed: {name}: {what}")
    for entry in stale:
        print(f"no longer so, take it off the list: {entry}")
    if surprises or stale:
        sys.exit(1)


def main():
    described = description.at_hand()
    if sys.argv[1:2] == ["--record"]:
        record(sys.argv[2], described)
    else:
        compare(described, sys.argv[1:2] == ["--list"])


if __name__ == "__main__":
    main()
