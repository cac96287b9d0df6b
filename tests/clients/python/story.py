"""One story told to a Mattermost server through its REST API: what is asked, and what shape the answers have.

`recorded.py` tells it to a real server and keeps the shapes, and to a node and compares. Nothing here knows which of the
two it talks to. Times, ids and texts differ between two servers; statuses, error ids, fields, types, null and empty do not.
"""

import json as json_module
import random
import time
from dataclasses import dataclass, field

import httpx

import pictures
from description import ID

PNG = pictures.png(64)
PASSWORD = "Correct-Horse-7"


@dataclass
class Step:
    """One request and its answer."""

    name: str
    method: str
    template: str
    status: int
    error_id: str
    shape: dict = field(default_factory=dict)
    body: object = None


class Site:
    """A server and what was asked of it."""

    def __init__(self, url):
        self.url = url
        self.client = httpx.Client(base_url=url, timeout=60)
        self.steps = []
        self.names = set()

    def ask(self, method, template, who=None, json=None, label="", params=None, files=None, data=None, content=None,
            headers=None, **ids):
        """Asks, keeps the answer's shape under a name, and returns the body. `ids` fill the template."""
        path = template.format(**ids)
        headers = dict(headers or {})
        if who:
            headers["Authorization"] = f"Bearer {who.token}"
        answer = self.client.request(
            method, path, json=json, params=params, files=files, data=data, content=content, headers=headers)
        name = f"{method} {template}" + (f" ({label})" if label else "")
        if name in self.names:
            raise AssertionError(f"two steps are called {name}; give one of them a label")
        self.names.add(name)
        body = None
        if answer.headers.get("content-type", "").startswith("application/json"):
            body = answer.json()
        elif answer.headers.get("content-type", "") == "application/x-ndjson":
            body = [json_module.loads(line) for line in answer.text.splitlines()]
        elif answer.headers.get("content-type", "").startswith("text/plain"):
            body = answer.text
        failed = answer.status_code >= 400 and isinstance(body, dict)
        shape = {"$": "error"} if failed else shape_of(body)
        self.steps.append(Step(name, method, template, answer.status_code, body.get("id", "") if failed else "", shape, body))
        return body if body is not None else answer


@dataclass
class Person:
    id: str
    name: str
    token: str


def shape_of(value):
    """Every place in a JSON value, with the types seen there. Keys that are ids, and list elements, are one place."""
    seen = {}

    def walk(value, place):
        kind = {type(None): "null", bool: "bool", int: "number", float: "number", str: "string", list: "list",
                dict: "object"}[type(value)]
        seen.setdefault(place, set()).add(kind)
        if isinstance(value, list):
            for element in value:
                walk(element, f"{place}[]")
        elif isinstance(value, dict):
            for key, inner in value.items():
                walk(inner, f"{place}{{}}" if ID.fullmatch(key) else f"{place}.{key}")

    walk(value, "$")
    return {place: "|".join(sorted(kinds)) for place, kinds in sorted(seen.items())}


def sign_in(site, login, password, label):
    answer = site.client.post("/api/v4/users/login", json={"login_id": login, "password": password})
    body = answer.json()
    assert answer.status_code == 200, f"{label}: {body}"
    return Person(body["id"], body["username"], answer.headers["Token"])


def tell(url, admin_login, admin_password):
    """Tells the story and returns its steps."""
    site = Site(url)
    mark = f"{random.randrange(16**8):08x}"
    public(site)
    admin = sign_in(site, admin_login, admin_password, "admin")
    site.ask("POST", "/api/v4/users/login", json={"login_id": admin_login, "password": "no"}, label="wrong password")
    site.ask("POST", "/api/v4/users/login", json={"login_id": admin_login, "password": ""}, label="no password")
    site.ask("POST", "/api/v4/users/login", json={"login_id": admin_login, "password": admin_password})
    cast = people(site, admin, mark)
    team, channel = places(site, admin, cast, mark)
    posts(site, admin, cast, team, channel)
    threads(site, admin, cast, team, channel)
    drafts(site, cast, team, channel)
    files(site, cast, team, channel)
    searches(site, cast, team, channel)
    emoji(site, admin, cast, mark)
    accounts(site, admin, cast, team, mark)
    integrations(site, admin, cast, team, channel, mark)
    administration(site, admin, cast)
    goodbyes(site, admin, cast, team, channel)
    return site.steps


def public(site):
    site.ask("GET", "/api/v4/system/ping")
    site.ask("GET", "/api/v4/system/ping", params={"get_server_status": "true"}, label="with status")
    site.ask("GET", "/api/v4/config/client", params={"format": "old"})
    site.ask("GET", "/api/v4/license/client", params={"format": "old"})
    site.ask("GET", "/api/v4/users/me", label="signed out")
    site.ask("GET", "/api/v4/plugins/webapp")
    site.ask("GET", "/api/v4/nothing/here")


def people(site, admin, mark):
    cast = {}
    for name in ("ann", "ben"):
        user = site.ask("POST", "/api/v4/users", admin, label=name, json={
            "email": f"{name}-{mark}@example.mil", "username": f"{name}-{mark}", "password": PASSWORD,
            "first_name": name.title(), "last_name": "Doe"})
        cast[name] = sign_in(site, user["username"], PASSWORD, name)
    ann, ben = cast["ann"], cast["ben"]
    site.ask("POST", "/api/v4/users", admin, label="name taken", json={
        "email": f"x-{mark}@example.mil", "username": ann.name, "password": PASSWORD})
    site.ask("POST", "/api/v4/users", admin, label="short password", json={
        "email": f"y-{mark}@example.mil", "username": f"y-{mark}", "password": "x"})
    site.ask("GET", "/api/v4/users/me", ann)
    site.ask("GET", "/api/v4/users/{id}", ann, id=ben.id)
    site.ask("GET", "/api/v4/users/{id}", ann, id="x" * 26, label="unknown")
    site.ask("GET", "/api/v4/users/{id}", ann, id="short", label="no id")
    site.ask("GET", "/api/v4/users/username/{name}", ann, name=ben.name)
    site.ask("GET", "/api/v4/users/email/{email}", ann, email=f"{ben.name}@example.mil")
    site.ask("GET", "/api/v4/users", ann, params={"per_page": 2})
    site.ask("GET", "/api/v4/users/stats", ann)
    site.ask("GET", "/api/v4/users/known", ann)
    site.ask("POST", "/api/v4/users/ids", ann, json=[ann.id, ben.id])
    site.ask("POST", "/api/v4/users/ids", ann, json=[], label="empty")
    site.ask("POST", "/api/v4/users/usernames", ann, json=[ben.name])
    site.ask("POST", "/api/v4/users/search", ann, json={"term": ben.name})
    site.ask("POST", "/api/v4/users/search", ann, json={"term": ""}, label="empty")
    site.ask("GET", "/api/v4/users/autocomplete", ann, params={"name": "be"})
    site.ask("PUT", "/api/v4/users/me/patch", ann, json={"nickname": "Annie", "position": "Lead"})
    site.ask("PUT", "/api/v4/users/{id}/patch", ann, id=ben.id, json={"nickname": "x"}, label="of another")
    site.ask("GET", "/api/v4/users/me/preferences", ann)
    site.ask("PUT", "/api/v4/users/me/preferences", ann,
             json=[{"user_id": ann.id, "category": "display_settings", "name": "use_military_time", "value": "true"}])
    site.ask("GET", "/api/v4/users/me/preferences/{category}", ann, category="display_settings")
    site.ask("GET", "/api/v4/users/me/preferences/{category}", ann, category="nothing", label="none")
    site.ask("GET", "/api/v4/users/me/preferences/{category}/name/{name}", ann, category="display_settings", name="use_military_time")
    site.ask("POST", "/api/v4/users/me/preferences/delete", ann,
             json=[{"user_id": ann.id, "category": "display_settings", "name": "use_military_time", "value": "true"}])
    site.ask("GET", "/api/v4/users/{id}/status", ann, id=ben.id)
    site.ask("POST", "/api/v4/users/status/ids", ann, json=[ann.id, ben.id])
    site.ask("PUT", "/api/v4/users/me/status", ann, json={"user_id": ann.id, "status": "dnd"})
    site.ask("PUT", "/api/v4/users/me/status", ann, json={"user_id": ann.id, "status": "busy"}, label="unknown status")
    site.ask("PUT", "/api/v4/users/me/status/custom", ann,
             json={"emoji": "calendar", "text": "In a meeting", "duration": "", "expires_at": "0001-01-01T00:00:00Z"})
    site.ask("DELETE", "/api/v4/users/me/status/custom", ann)
    site.ask("GET", "/api/v4/users/{id}/image", ann, id=ben.id)
    site.ask("GET", "/api/v4/users/{id}/image/default", ann, id=ben.id)
    site.ask("POST", "/api/v4/users/{id}/image", ann, id=ann.id, files={"image": ("a.png", PNG, "image/png")})
    site.ask("DELETE", "/api/v4/users/{id}/image", ann, id=ann.id)
    site.ask("POST", "/api/v4/roles/names", ann, json=["system_user", "channel_user"])
    site.ask("GET", "/api/v4/roles/name/{name}", ann, name="team_user")
    site.ask("GET", "/api/v4/limits/server", ann)
    site.ask("GET", "/api/v4/custom_profile_attributes/fields", ann)
    site.ask("GET", "/api/v4/terms_of_service", ann)
    site.ask("GET", "/api/v4/users/me/sessions", ann)
    return cast


def places(site, admin, cast, mark):
    ann, ben = cast["ann"], cast["ben"]
    team = site.ask("POST", "/api/v4/teams", admin, json={"name": f"t-{mark}", "display_name": "Team", "type": "O"})
    site.ask("POST", "/api/v4/teams", admin, label="name taken",
             json={"name": f"t-{mark}", "display_name": "Team", "type": "O"})
    site.ask("POST", "/api/v4/teams", admin, label="bad name", json={"name": "A B", "display_name": "x", "type": "O"})
    t = team["id"]
    site.ask("POST", "/api/v4/teams/{t}/members", admin, t=t, json={"team_id": t, "user_id": ann.id})
    site.ask("POST", "/api/v4/teams/{t}/members/batch", admin, t=t, json=[{"team_id": t, "user_id": ben.id}])
    site.ask("GET", "/api/v4/teams/{t}", ann, t=t)
    site.ask("GET", "/api/v4/teams/name/{name}", ann, name=f"t-{mark}")
    site.ask("GET", "/api/v4/teams/name/{name}/exists", ann, name=f"t-{mark}")
    site.ask("GET", "/api/v4/teams/name/{name}", ann, name="nothing-there", label="unknown")
    site.ask("GET", "/api/v4/teams/{t}/stats", ann, t=t)
    site.ask("GET", "/api/v4/teams/{t}/members", ann, t=t)
    site.ask("GET", "/api/v4/teams/{t}/members/{u}", ann, t=t, u=ben.id)
    site.ask("POST", "/api/v4/teams/{t}/members/ids", ann, t=t, json=[ben.id])
    site.ask("PUT", "/api/v4/teams/{t}/patch", admin, t=t, json={"description": "What for"})
    site.ask("PUT", "/api/v4/teams/{t}/patch", ann, t=t, json={"description": "No"}, label="not allowed")
    site.ask("POST", "/api/v4/teams/{t}/regenerate_invite_id", admin, t=t)
    site.ask("GET", "/api/v4/teams", admin, params={"per_page": 3})
    site.ask("POST", "/api/v4/teams/search", admin, json={"term": f"t-{mark}"})
    site.ask("GET", "/api/v4/users/me/teams", ann)
    site.ask("GET", "/api/v4/users/me/teams/members", ann)
    site.ask("GET", "/api/v4/users/me/teams/unread", ann)
    site.ask("GET", "/api/v4/users/me/teams/{t}/unread", ann, t=t)
    channel = site.ask("POST", "/api/v4/channels", ann,
                       json={"team_id": t, "name": f"c-{mark}", "display_name": "Ops", "type": "O", "purpose": "p"})
    c = channel["id"]
    site.ask("POST", "/api/v4/channels", ann, label="name taken",
             json={"team_id": t, "name": f"c-{mark}", "display_name": "Ops", "type": "O"})
    site.ask("POST", "/api/v4/channels/{c}/members", ann, c=c, json={"user_id": ben.id})
    private = site.ask("POST", "/api/v4/channels", ann, label="private",
                       json={"team_id": t, "name": f"p-{mark}", "display_name": "Private", "type": "P"})
    site.ask("GET", "/api/v4/channels/{c}", ben, c=private["id"], label="not a member")
    site.ask("GET", "/api/v4/channels/{c}", ann, c=c)
    site.ask("GET", "/api/v4/channels/{c}/stats", ann, c=c)
    site.ask("GET", "/api/v4/channels/{c}/timezones", ann, c=c)
    site.ask("GET", "/api/v4/channels/{c}/members", ann, c=c)
    site.ask("GET", "/api/v4/channels/{c}/members/me", ann, c=c)
    site.ask("POST", "/api/v4/channels/{c}/members/ids", ann, c=c, json=[ben.id])
    site.ask("PUT", "/api/v4/channels/{c}/patch", ann, c=c, json={"header": "h"})
    site.ask("PUT", "/api/v4/channels/{c}/members/me/notify_props", ann, c=c,
             json={"channel_id": c, "user_id": ann.id, "desktop": "all"})
    site.ask("POST", "/api/v4/channels/direct", ann, json=[ann.id, ben.id])
    site.ask("POST", "/api/v4/channels/group", ann, json=[ann.id, ben.id, admin.id])
    site.ask("POST", "/api/v4/channels/direct", ann, json=[ann.id], label="one id")
    site.ask("GET", "/api/v4/teams/{t}/channels", ann, t=t)
    site.ask("GET", "/api/v4/teams/{t}/channels/deleted", ann, t=t)
    site.ask("GET", "/api/v4/teams/{t}/channels/name/{name}", ann, t=t, name=f"c-{mark}")
    site.ask("GET", "/api/v4/teams/name/{team}/channels/name/{name}", ann, team=f"t-{mark}", name=f"c-{mark}")
    site.ask("GET", "/api/v4/teams/{t}/channels/name/{name}", ann, t=t, name="no-such", label="unknown")
    site.ask("POST", "/api/v4/teams/{t}/channels/ids", ann, t=t, json=[c])
    site.ask("POST", "/api/v4/teams/{t}/channels/search", ann, t=t, json={"term": "op"})
    site.ask("GET", "/api/v4/teams/{t}/channels/autocomplete", ann, t=t, params={"name": "op"})
    site.ask("GET", "/api/v4/teams/{t}/channels/search_autocomplete", ann, t=t, params={"name": "op"})
    site.ask("GET", "/api/v4/users/me/channels", ann)
    site.ask("GET", "/api/v4/users/me/teams/{t}/channels", ann, t=t)
    site.ask("GET", "/api/v4/users/me/teams/{t}/channels/members", ann, t=t)
    site.ask("GET", "/api/v4/users/me/channel_members", ann, params={"page": -1})
    site.ask("GET", "/api/v4/users/me/channels/{c}/unread", ann, c=c)
    site.ask("POST", "/api/v4/channels/members/me/view", ann, json={"channel_id": c})
    site.ask("GET", "/api/v4/users/me/teams/{t}/channels/categories", ann, t=t)
    site.ask("GET", "/api/v4/users/me/teams/{t}/channels/categories/order", ann, t=t)
    made = site.ask("POST", "/api/v4/users/me/teams/{t}/channels/categories", ann, t=t,
                    json={"user_id": ann.id, "team_id": t, "display_name": "Mine", "type": "custom", "channel_ids": [c]})
    site.ask("GET", "/api/v4/users/me/teams/{t}/channels/categories/{k}", ann, t=t, k=made["id"])
    site.ask("PUT", "/api/v4/users/me/teams/{t}/channels/categories/{k}", ann, t=t, k=made["id"],
             json={**made, "display_name": "Ours"})
    site.ask("DELETE", "/api/v4/users/me/teams/{t}/channels/categories/{k}", ann, t=t, k=made["id"])
    return team, channel


def posts(site, admin, cast, team, channel):
    ann, ben = cast["ann"], cast["ben"]
    c = channel["id"]
    post = site.ask("POST", "/api/v4/posts", ann, json={"channel_id": c, "message": f"Hello @{ben.name} #tag"})
    p = post["id"]
    site.ask("POST", "/api/v4/posts", ann, json={"channel_id": c, "message": ""}, label="empty")
    site.ask("POST", "/api/v4/posts", ann, json={"channel_id": "x" * 26, "message": "m"}, label="unknown channel")
    site.ask("POST", "/api/v4/posts", ann, json={"channel_id": c, "message": "x" * 17000}, label="too long")
    site.ask("POST", "/api/v4/posts", ann, label="urgent", json={
        "channel_id": c, "message": "Urgent", "metadata": {"priority": {"priority": "urgent", "requested_ack": True}}})
    site.ask("GET", "/api/v4/posts/{p}", ben, p=p)
    site.ask("GET", "/api/v4/posts/{p}", ben, p="x" * 26, label="unknown")
    site.ask("PUT", "/api/v4/posts/{p}/patch", ann, p=p, json={"message": "Hello again #tag"})
    site.ask("PUT", "/api/v4/posts/{p}/patch", ben, p=p, json={"message": "No"}, label="of another")
    site.ask("PUT", "/api/v4/posts/{p}", ann, p=p, json={"id": p, "message": "Hello once more"})
    site.ask("GET", "/api/v4/posts/{p}/edit_history", ann, p=p)
    site.ask("POST", "/api/v4/posts/ids", ben, json=[p])
    site.ask("POST", "/api/v4/posts/{p}/pin", ann, p=p)
    site.ask("GET", "/api/v4/channels/{c}/pinned", ann, c=c)
    site.ask("POST", "/api/v4/posts/{p}/unpin", ann, p=p)
    site.ask("POST", "/api/v4/reactions", ben, json={"user_id": ben.id, "post_id": p, "emoji_name": "eyes"})
    site.ask("POST", "/api/v4/reactions", ben, label="no emoji",
             json={"user_id": ben.id, "post_id": p, "emoji_name": "no such"})
    site.ask("GET", "/api/v4/posts/{p}/reactions", ann, p=p)
    site.ask("POST", "/api/v4/posts/ids/reactions", ann, json=[p])
    site.ask("GET", "/api/v4/channels/{c}/posts", ben, c=c)
    site.ask("GET", "/api/v4/channels/{c}/posts", ben, c=c, params={"per_page": 1}, label="one a page")
    site.ask("GET", "/api/v4/channels/{c}/posts", ben, c=c, params={"since": 1}, label="since")
    site.ask("GET", "/api/v4/channels/{c}/posts", ben, c=c, params={"before": p}, label="before")
    site.ask("GET", "/api/v4/channels/{c}/posts", ben, c=c, params={"after": p}, label="after")
    site.ask("GET", "/api/v4/channels/{c}/posts", ben, c=c, params={"since": "x"}, label="bad since")
    site.ask("GET", "/api/v4/users/me/channels/{c}/posts/unread", ben, c=c)
    site.ask("DELETE", "/api/v4/users/me/posts/{p}/reactions/{e}", ben, p=p, e="eyes")
    site.ask("POST", "/api/v4/users/{u}/posts/{p}/set_unread", ben, u=ben.id, p=p)
    site.ask("POST", "/api/v4/users/{u}/posts/{p}/ack", ben, u=ben.id, p=p)
    site.ask("DELETE", "/api/v4/users/{u}/posts/{p}/ack", ben, u=ben.id, p=p)
    site.ask("PUT", "/api/v4/users/me/preferences", ben, label="save a post",
             json=[{"user_id": ben.id, "category": "flagged_post", "name": p, "value": "true"}])
    site.ask("GET", "/api/v4/users/{u}/posts/flagged", ben, u=ben.id)
    site.ask("POST", "/api/v4/users/{u}/posts/{p}/reminder", ben, u=ben.id, p=p,
             json={"target_time": int(time.time()) + 3600})
    site.ask("POST", "/api/v4/posts/ephemeral", admin,
             json={"user_id": ben.id, "post": {"channel_id": c, "message": "Only you"}})
    bookmark = site.ask("POST", "/api/v4/channels/{c}/bookmarks", ann, c=c,
                        json={"display_name": "Map", "link_url": "https://example.mil", "type": "link"})
    site.ask("GET", "/api/v4/channels/{c}/bookmarks", ann, c=c)
    if isinstance(bookmark, dict) and "display_name" in bookmark:
        site.ask("PATCH", "/api/v4/channels/{c}/bookmarks/{b}", ann, c=c, b=bookmark["id"], json={"display_name": "M"})
        site.ask("DELETE", "/api/v4/channels/{c}/bookmarks/{b}", ann, c=c, b=bookmark["id"])
    gone = site.ask("POST", "/api/v4/posts", ann, label="to delete", json={"channel_id": c, "message": "gone"})
    site.ask("DELETE", "/api/v4/posts/{p}", ben, p=gone["id"], label="of another")
    site.ask("DELETE", "/api/v4/posts/{p}", ann, p=gone["id"])
    site.ask("GET", "/api/v4/posts/{p}", ann, p=gone["id"], label="deleted")


def threads(site, admin, cast, team, channel):
    ann, ben = cast["ann"], cast["ben"]
    t, c = team["id"], channel["id"]
    root = site.ask("POST", "/api/v4/posts", ann, label="root", json={"channel_id": c, "message": "A question"})
    p = root["id"]
    site.ask("POST", "/api/v4/posts", ben, label="reply", json={"channel_id": c, "message": "An answer", "root_id": p})
    site.ask("POST", "/api/v4/posts", ben, label="unknown root",
             json={"channel_id": c, "message": "x", "root_id": "x" * 26})
    site.ask("GET", "/api/v4/posts/{p}/thread", ann, p=p)
    site.ask("GET", "/api/v4/posts/{p}/thread", ann, p=p, label="collapsed",
             params={"collapsedThreads": "true", "collapsedThreadsExtended": "true", "perPage": 60, "direction": "down"})
    site.ask("GET", "/api/v4/channels/{c}/posts", ann, c=c, label="collapsed",
             params={"collapsedThreads": "true", "collapsedThreadsExtended": "true"})
    site.ask("GET", "/api/v4/users/{u}/teams/{t}/threads", ann, u=ann.id, t=t)
    site.ask("GET", "/api/v4/users/{u}/teams/{t}/threads", ann, u=ann.id, t=t, params={"extended": "true"}, label="extended")
    site.ask("GET", "/api/v4/users/{u}/teams/{t}/threads", ann, u=ann.id, t=t, params={"totalsOnly": "true"},
             label="totals")
    site.ask("GET", "/api/v4/users/{u}/teams/{t}/threads/{p}", ann, u=ann.id, t=t, p=p)
    site.ask("PUT", "/api/v4/users/{u}/teams/{t}/threads/{p}/read/{at}", ann, u=ann.id, t=t, p=p, at=root["create_at"])
    site.ask("PUT", "/api/v4/users/{u}/teams/{t}/threads/{p}/following", ann, u=ann.id, t=t, p=p)
    site.ask("DELETE", "/api/v4/users/{u}/teams/{t}/threads/{p}/following", ann, u=ann.id, t=t, p=p)
    site.ask("PUT", "/api/v4/users/{u}/teams/{t}/threads/read", ann, u=ann.id, t=t)
    site.ask("GET", "/api/v4/users/{u}/teams/{t}/threads/{p}", ann, u=ann.id, t=t, p="x" * 26, label="unknown")


def drafts(site, cast, team, channel):
    ann = cast["ann"]
    t, c = team["id"], channel["id"]
    site.ask("POST", "/api/v4/drafts", ann,
             json={"user_id": ann.id, "channel_id": c, "root_id": "", "message": "Not yet", "create_at": 1, "update_at": 1})
    site.ask("GET", "/api/v4/users/{u}/teams/{t}/drafts", ann, u=ann.id, t=t)
    site.ask("DELETE", "/api/v4/users/{u}/channels/{c}/drafts", ann, u=ann.id, c=c)
    site.ask("GET", "/api/v4/users/{u}/teams/{t}/drafts", ann, u=ann.id, t=t, label="none")
    site.ask("POST", "/api/v4/posts/schedule", ann, label="scheduled",
             json={"channel_id": c, "message": "Later", "scheduled_at": int(time.time() * 1000) + 3_600_000})
    site.ask("GET", "/api/v4/posts/scheduled/team/{t}", ann, t=t)


def files(site, cast, team, channel):
    ann, ben = cast["ann"], cast["ben"]
    c = channel["id"]
    up = site.ask("POST", "/api/v4/files", ann, files={"files": ("red.png", PNG, "image/png")}, data={"channel_id": c})
    f = up["file_infos"][0]["id"]
    plain = site.ask("POST", "/api/v4/files", ann, label="text", files={"files": ("plan.txt", b"at dawn", "text/plain")},
                     data={"channel_id": c})
    site.ask("POST", "/api/v4/files", ann, label="no channel", files={"files": ("x.txt", b"x", "text/plain")})
    post = site.ask("POST", "/api/v4/posts", ann, label="with files", json={
        "channel_id": c, "message": "The plan", "file_ids": [f, plain["file_infos"][0]["id"]]})
    site.ask("GET", "/api/v4/posts/{p}/files/info", ben, p=post["id"])
    site.ask("GET", "/api/v4/files/{f}/info", ben, f=f)
    site.ask("GET", "/api/v4/files/{f}", ben, f=f)
    site.ask("GET", "/api/v4/files/{f}/thumbnail", ben, f=f)
    site.ask("GET", "/api/v4/files/{f}/preview", ben, f=f)
    site.ask("GET", "/api/v4/files/{f}/preview", ben, f=plain["file_infos"][0]["id"], label="none")
    site.ask("GET", "/api/v4/files/{f}/link", ben, f=f)
    site.ask("GET", "/api/v4/files/{f}", ben, f="x" * 26, label="unknown")
    upload = site.ask("POST", "/api/v4/uploads", ann, json={"channel_id": c, "filename": "part.bin", "file_size": 9})
    site.ask("GET", "/api/v4/uploads/{u}", ann, u=upload["id"])
    site.ask("POST", "/api/v4/uploads/{u}", ann, u=upload["id"], content=b"123456789",
             headers={"Content-Type": "application/octet-stream"})
    site.ask("GET", "/api/v4/users/{u}/uploads", ann, u=ann.id)


def searches(site, cast, team, channel):
    ann = cast["ann"]
    t = team["id"]
    for label, terms in (("word", "question"), ("phrase", '"A question"'), ("from", f"from:{cast['ben'].name}"),
                         ("none", "zzzzzz"), ("hashtag", "#tag"), ("empty", "")):
        site.ask("POST", "/api/v4/teams/{t}/posts/search", ann, t=t, label=label,
                 json={"terms": terms, "is_or_search": False, "time_zone_offset": 0})
    site.ask("POST", "/api/v4/posts/search", ann, json={"terms": "question", "is_or_search": False})
    site.ask("POST", "/api/v4/teams/{t}/files/search", ann, t=t, json={"terms": "plan", "is_or_search": False})


def emoji(site, admin, cast, mark):
    ann = cast["ann"]
    made = site.ask("POST", "/api/v4/emoji", ann, files={"image": ("e.png", PNG, "image/png")},
                    data={"emoji": json_module.dumps({"name": f"e{mark}", "creator_id": ann.id})})
    site.ask("GET", "/api/v4/emoji", ann)
    site.ask("GET", "/api/v4/emoji/name/{name}", ann, name=f"e{mark}")
    site.ask("GET", "/api/v4/emoji/name/{name}", ann, name="none_such", label="unknown")
    site.ask("POST", "/api/v4/emoji/search", ann, json={"term": f"e{mark}"})
    site.ask("POST", "/api/v4/emoji/names", ann, json=[f"e{mark}"])
    site.ask("GET", "/api/v4/emoji/autocomplete", ann, params={"name": f"e{mark}"})
    if isinstance(made, dict) and "name" in made:
        site.ask("GET", "/api/v4/emoji/{e}", ann, e=made["id"])
        site.ask("GET", "/api/v4/emoji/{e}/image", ann, e=made["id"])
        site.ask("DELETE", "/api/v4/emoji/{e}", ann, e=made["id"])


def accounts(site, admin, cast, team, mark):
    ann, ben = cast["ann"], cast["ben"]
    bot = site.ask("POST", "/api/v4/bots", admin, json={"username": f"bot-{mark}", "display_name": "Bot", "description": "d"})
    site.ask("GET", "/api/v4/bots", admin)
    site.ask("POST", "/api/v4/bots", ann, json={"username": f"bot2-{mark}"}, label="not allowed")
    if isinstance(bot, dict) and "user_id" in bot:
        b = bot["user_id"]
        site.ask("GET", "/api/v4/bots/{b}", admin, b=b)
        site.ask("PUT", "/api/v4/bots/{b}", admin, b=b, json={"username": f"bot-{mark}", "display_name": "Robot"})
        site.ask("POST", "/api/v4/bots/{b}/disable", admin, b=b)
        site.ask("POST", "/api/v4/bots/{b}/enable", admin, b=b)
        site.ask("POST", "/api/v4/users/{u}/tokens", admin, u=b, json={"description": "of the bot"}, label="of a bot")
    token = site.ask("POST", "/api/v4/users/{u}/tokens", admin, u=admin.id, json={"description": "d"})
    site.ask("GET", "/api/v4/users/{u}/tokens", admin, u=admin.id)
    if isinstance(token, dict) and "token" in token:
        site.ask("GET", "/api/v4/users/tokens/{k}", admin, k=token["id"])
        site.ask("POST", "/api/v4/users/tokens/disable", admin, json={"token_id": token["id"]})
        site.ask("POST", "/api/v4/users/tokens/enable", admin, json={"token_id": token["id"]})
        site.ask("POST", "/api/v4/users/tokens/revoke", admin, json={"token_id": token["id"]})
    site.ask("POST", "/api/v4/users/{u}/mfa/generate", ann, u=ann.id)
    site.ask("PUT", "/api/v4/users/{u}/mfa", ann, u=ann.id, json={"activate": True, "code": "000000"}, label="bad code")
    site.ask("PUT", "/api/v4/users/{u}/password", ann, u=ann.id, label="wrong",
             json={"current_password": "no", "new_password": PASSWORD + "x"})
    site.ask("PUT", "/api/v4/users/{u}/password", ann, u=ann.id,
             json={"current_password": PASSWORD, "new_password": PASSWORD + "x"})
    site.ask("POST", "/api/v4/users/password/reset/send", json={"email": "nobody@example.mil"})
    site.ask("PUT", "/api/v4/users/{u}/roles", admin, u=ben.id, json={"roles": "system_user"})
    site.ask("PUT", "/api/v4/users/{u}/roles", ann, u=ben.id, json={"roles": "system_user system_admin"}, label="not allowed")
    site.ask("GET", "/api/v4/users/{u}/audits", admin, u=ann.id)
    site.ask("PUT", "/api/v4/teams/{t}/members/{u}/roles", admin, t=team["id"], u=ann.id,
             json={"roles": "team_user team_admin"})


def integrations(site, admin, cast, team, channel, mark):
    ann = cast["ann"]
    t, c = team["id"], channel["id"]
    site.ask("GET", "/api/v4/commands", ann, params={"team_id": t})
    site.ask("GET", "/api/v4/teams/{t}/commands/autocomplete", ann, t=t)
    site.ask("GET", "/api/v4/teams/{t}/commands/autocomplete_suggestions", ann, t=t,
             params={"user_input": "/sh", "channel_id": c})
    site.ask("POST", "/api/v4/commands/execute", ann, json={"channel_id": c, "team_id": t, "command": "/shrug well"})
    site.ask("POST", "/api/v4/commands/execute", ann, label="unknown",
             json={"channel_id": c, "team_id": t, "command": "/nothing"})
    site.ask("POST", "/api/v4/commands/execute", ann, label="no slash",
             json={"channel_id": c, "team_id": t, "command": "nothing"})
    command = site.ask("POST", "/api/v4/commands", admin, json={
        "team_id": t, "trigger": f"cmd{mark}", "method": "P", "url": "https://hooks.example.mil/x", "username": "u"})
    hook = site.ask("POST", "/api/v4/hooks/incoming", admin, json={"channel_id": c, "display_name": "In"})
    site.ask("GET", "/api/v4/hooks/incoming", admin, params={"team_id": t})
    if isinstance(hook, dict) and "channel_id" in hook:
        site.ask("POST", "/hooks/{h}", h=hook["id"], json={"text": "from outside"})
        site.ask("POST", "/hooks/{h}", h=hook["id"], json={}, label="no text")
        site.ask("GET", "/api/v4/hooks/incoming/{h}", admin, h=hook["id"])
        site.ask("PUT", "/api/v4/hooks/incoming/{h}", admin, h=hook["id"], json={
            "id": hook["id"], "channel_id": c, "display_name": "In 2", "description": "d"})
        site.ask("DELETE", "/api/v4/hooks/incoming/{h}", admin, h=hook["id"])
    site.ask("POST", "/hooks/{h}", h="x" * 26, json={"text": "x"}, label="unknown")
    out = site.ask("POST", "/api/v4/hooks/outgoing", admin, json={
        "team_id": t, "channel_id": c, "trigger_words": [f"w{mark}"], "trigger_when": 0, "display_name": "Out",
        "callback_urls": ["https://hooks.example.mil/x"], "content_type": "application/json"})
    site.ask("GET", "/api/v4/hooks/outgoing", admin, params={"team_id": t})
    if isinstance(out, dict) and "callback_urls" in out:
        site.ask("GET", "/api/v4/hooks/outgoing/{h}", admin, h=out["id"])
        site.ask("POST", "/api/v4/hooks/outgoing/{h}/regen_token", admin, h=out["id"])
        site.ask("DELETE", "/api/v4/hooks/outgoing/{h}", admin, h=out["id"])
    if isinstance(command, dict) and "trigger" in command:
        site.ask("DELETE", "/api/v4/commands/{k}", admin, k=command["id"])
    site.ask("POST", "/api/v4/opengraph", ann, json={"url": "http://127.0.0.1:1/"})


def administration(site, admin, cast):
    ann = cast["ann"]
    site.ask("GET", "/api/v4/config", ann, label="not allowed")
    site.ask("GET", "/api/v4/plugins", ann, label="not allowed")
    site.ask("GET", "/api/v4/jobs", admin)
    site.ask("GET", "/api/v4/groups", ann, params={"per_page": 10})
    site.ask("GET", "/api/v4/schemes", admin)
    site.ask("GET", "/api/v4/roles", admin)
    site.ask("GET", "/api/v4/channels", admin, params={"per_page": 2})
    site.ask("GET", "/api/v4/system/timezones", ann)
    site.ask("GET", "/api/v4/system/notices/{t}", ann, t="x" * 26, params={"client": "web", "clientVersion": "11.6.0"})
    site.ask("GET", "/api/v4/data_retention/policy", ann)
    site.ask("GET", "/api/v4/users/stats/filtered", admin)
    site.ask("GET", "/api/v4/usage/posts", ann)
    site.ask("GET", "/api/v4/usage/storage", ann)
    site.ask("GET", "/api/v4/license/load_metric", admin)
    site.ask("POST", "/api/v4/permissions/ancillary", admin, json=["sysconsole_read_about"])


def goodbyes(site, admin, cast, team, channel):
    ann, ben = cast["ann"], cast["ben"]
    t, c = team["id"], channel["id"]
    site.ask("DELETE", "/api/v4/channels/{c}/members/{u}", ann, c=c, u=ben.id)
    site.ask("DELETE", "/api/v4/channels/{c}", ann, c=c)
    site.ask("POST", "/api/v4/channels/{c}/restore", admin, c=c)
    site.ask("DELETE", "/api/v4/teams/{t}/members/{u}", admin, t=t, u=ben.id)
    site.ask("DELETE", "/api/v4/users/{u}", admin, u=ben.id)
    site.ask("GET", "/api/v4/users/me", ben, label="deactivated")
    site.ask("DELETE", "/api/v4/teams/{t}", admin, t=t)
    site.ask("POST", "/api/v4/users/logout", ann)
    site.ask("GET", "/api/v4/users/me", ann, label="after logout")
