"""Compares two Mattermost servers after one was moved to the other: python moved.py URL_A URL_B [TEAM...]

Signs in at both as HOLDFAST_ADMIN with HOLDFAST_PASSWORD (at B with HOLDFAST_PASSWORD_B where that is set), reads users, teams,
channels, members, posts with threads, reactions and files, and read marks over the API, and prints what differs. Names stand for
ids. Ends with 1 where something differs. docs/moving.md says which differences there are and why.
"""

import hashlib
import os
import sys

import httpx


class Server:
    def __init__(self, url, password):
        self.client = httpx.Client(base_url=url + "/api/v4", timeout=120)
        answer = self.client.post("/users/login", json={"login_id": os.environ["HOLDFAST_ADMIN"], "password": password})
        answer.raise_for_status()
        self.client.headers["Authorization"] = "Bearer " + answer.headers["Token"]

    def get(self, path, **params):
        answer = self.client.get(path, params=params)
        # The original knows no channels of somebody who is in none.
        if answer.status_code == 404 and path.endswith("/channels"):
            return []
        answer.raise_for_status()
        return answer.json()

    def pages(self, path, **params):
        page = 0
        while rows := self.get(path, page=page, per_page=200, **params):
            yield from rows
            page += 1

    def picture(self, teams):
        """Everything that can be compared, as a flat mapping."""
        seen = {}
        users = {user["id"]: user for user in self.pages("/users")}
        name = {key: user["username"] for key, user in users.items()}
        for user in users.values():
            fields = ("first_name", "last_name", "nickname", "position", "locale", "email")
            seen["user", user["username"]] = {
                **{field: user[field] for field in fields if not user.get("is_bot")}, "is_bot": user.get("is_bot", False),
                "deactivated": user["delete_at"] > 0, "roles": sorted(user["roles"].split())}
        channels = {}
        for team in self.pages("/teams"):
            if teams and team["name"] not in teams:
                continue
            seen["team", team["name"]] = {field: team[field] for field in ("display_name", "description", "type", "allow_open_invite")}
            for member in self.pages(f"/teams/{team['id']}/members"):
                seen["team member", team["name"], name[member["user_id"]]] = member["scheme_admin"]
            for kind in ("channels", "channels/private"):
                for channel in self.pages(f"/teams/{team['id']}/{kind}"):
                    channels[channel["id"]] = (f"{team['name']}/{channel['name']}", channel)
        for user in users.values():
            if user["delete_at"] or user.get("is_bot"):
                continue
            for channel in self.get(f"/users/{user['id']}/channels"):
                if channel["type"] in "DG":
                    members = sorted(name[m["user_id"]] for m in self.pages(f"/channels/{channel['id']}/members"))
                    channels[channel["id"]] = (" + ".join(members), channel)
        for key, (label, channel) in channels.items():
            fields = ("type", "header", "purpose") if channel["type"] in "DG" else ("type", "header", "purpose", "display_name")
            posts = self.posts(key)
            if channel["type"] in "DG" and not posts:
                continue
            seen["channel", label] = {field: channel[field] for field in fields}
            for member in self.pages(f"/channels/{key}/members"):
                who = name[member["user_id"]]
                unread = channel["total_msg_count"] - member["msg_count"]
                seen["member", label, who] = {
                    "admin": member["scheme_admin"], "unread": max(unread, 0), "mentions": member["mention_count"],
                    "desktop": member["notify_props"].get("desktop")}
            for post in posts.values():
                root = posts.get(post["root_id"])
                metadata = post.get("metadata") or {}
                files = sorted((f["name"], f["size"], self.digest(f["id"])) for f in metadata.get("files") or [])
                reactions = sorted((name[r["user_id"]], r["emoji_name"], r["create_at"]) for r in metadata.get("reactions") or [])
                key_of = ("post", label, post["create_at"], name.get(post["user_id"], "?"), post["message"][:60])
                seen[key_of] = {
                    "message": post["message"], "type": post["type"], "pinned": post["is_pinned"], "edited": post["edit_at"] > 0,
                    "root": root and (root["create_at"], root["message"][:60]), "files": files,
                    "reactions": reactions, "props": {k: v for k, v in (post["props"] or {}).items() if k != "holdfast"}}
        for emoji in self.pages("/emoji"):
            image = self.client.get(f"/emoji/{emoji['id']}/image")
            seen["emoji", emoji["name"]] = hashlib.sha256(image.content).hexdigest()
        return seen

    def posts(self, channel):
        posts, page = {}, 0
        while (answer := self.get(f"/channels/{channel}/posts", page=page, per_page=200))["order"]:
            posts.update(answer["posts"])
            page += 1
        return posts

    def digest(self, file):
        answer = self.client.get(f"/files/{file}")
        answer.raise_for_status()
        return hashlib.sha256(answer.content).hexdigest()


def main():
    here, there, *teams = sys.argv[1:]
    password = os.environ["HOLDFAST_PASSWORD"]
    before = Server(here, password).picture(teams)
    after = Server(there, os.environ.get("HOLDFAST_PASSWORD_B", password)).picture(teams)
    kinds, differing = {}, 0
    for key in sorted(before.keys() | after.keys(), key=str):
        kinds[key[0]] = kinds.get(key[0], 0) + 1
        if before.get(key) == after.get(key):
            continue
        differing += 1
        if key not in before or key not in after:
            print("only in", "B" if key not in before else "A", *key)
            continue
        a, b = before[key], after[key]
        if isinstance(a, dict):
            a, b = ({k: v for k, v in x.items() if v != y.get(k)} for x, y in ((a, b), (b, a)))
        print("differs:", *key, a, "->", b)
    print(f"{sum(kinds.values())} things compared ({', '.join(f'{n} of {kind}' for kind, n in sorted(kinds.items()))}); {differing} differ")
    sys.exit(1 if differing else 0)


if __name__ == "__main__":
    main()
