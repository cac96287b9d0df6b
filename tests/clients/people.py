"""mattermostautodriver, unchanged, over people, bots, teams and what administrators do, against a running edge.

tests/system/clients.rs starts the node and calls this with its address and administrator:
HOLDFAST_EDGE_URL, HOLDFAST_EDGE_ADMIN, HOLDFAST_EDGE_PASSWORD.
"""

import base64
import hashlib
import hmac
import os
import struct
import time
import zlib
from urllib.parse import urlsplit

from mattermostautodriver import TypedDriver
from mattermostautodriver.exceptions import FeatureDisabled, NoAccessTokenProvided, NotEnoughPermissions

PASSWORD = "correct horse battery 9"


def driver(login=None, password=PASSWORD, **more):
    url = urlsplit(os.environ["HOLDFAST_EDGE_URL"])
    options = {"scheme": url.scheme, "url": url.hostname, "port": url.port, "request_timeout": 60, "max_retries": 0}
    signed_in = TypedDriver({**options, "login_id": login, "password": password, **more})
    signed_in.login()
    return signed_in


def same(what, seen, expected=True):
    assert seen == expected, f"{what}: {seen!r}, not {expected!r}"
    print(f"ok - people: {what}", flush=True)


def refused(what, error, call):
    try:
        answer = call()
    except error:
        print(f"ok - people: {what} is refused", flush=True)
        return
    raise AssertionError(f"{what} is not refused: {answer!r}")


def code(secret, at):
    """What an authenticator app shows (RFC 6238)."""
    counter = struct.pack(">Q", int(at // 30))
    digest = hmac.new(base64.b32decode(secret), counter, hashlib.sha1).digest()
    start = digest[-1] & 15
    return f"{(struct.unpack('>I', digest[start:start + 4])[0] & 0x7FFFFFFF) % 10**6:06}"


def png():
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    rows = zlib.compress((b"\0" + b"\xff\0\0" * 64) * 64)
    head = struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def bots_and_tokens(root, ann, ann_id):
    bot = root.bots.create_bot(username="weather", display_name="Weather", description="says the weather")["user_id"]
    same("patch_bot", root.bots.patch_bot(bot_user_id=bot, username="sky")["username"], "sky")
    same("get_bots", [b["user_id"] for b in root.bots.get_bots()], [bot])
    same("disable_bot", root.bots.disable_bot(bot)["delete_at"] > 0)
    same("enable_bot", root.bots.enable_bot(bot)["delete_at"], 0)
    same("assign_bot", root.bots.assign_bot(bot, ann_id)["owner_id"], ann_id)
    refused("create_bot by a user", NotEnoughPermissions, lambda: ann.bots.create_bot(username="no"))
    token = root.users.create_user_access_token(bot, description="script")
    robot = driver(token=token["token"])
    same("a bot signs in with its token", robot.users.get_user("me")["is_bot"])
    same("get_user_access_tokens", [t["id"] for t in root.users.get_user_access_tokens()], [token["id"]])
    same("search_user_access_tokens", root.users.search_user_access_tokens(term="sky")[0]["id"], token["id"])
    root.users.disable_user_access_token(token_id=token["id"])
    refused("a disabled token", NoAccessTokenProvided, lambda: robot.users.get_user("me"))
    root.users.enable_user_access_token(token_id=token["id"])
    same("an enabled token works again", robot.users.get_user("me")["username"], "sky")
    root.users.revoke_user_access_token(token_id=token["id"])
    refused("a revoked token", NoAccessTokenProvided, lambda: robot.users.get_user("me"))


def second_factor(ben):
    made = ben.users.generate_mfa_secret("me")
    same("generate_mfa_secret draws a code", base64.b64decode(made["qr_code"])[:8], b"\x89PNG\r\n\x1a\n")
    ben.users.update_user_mfa("me", activate=True, code=code(made["secret"], time.time()))
    refused("a login without a code", NoAccessTokenProvided, lambda: driver("ben"))
    # The code of the next step: that of this one is spent.
    again = driver("ben", mfa_token=code(made["secret"], time.time() + 30))
    same("a login with a code", again.users.get_user("me")["mfa_active"])
    same("update_user_mfa off", ben.users.update_user_mfa("me", activate=False)["status"], "OK")


def pictures_and_statuses(ann, ann_id, ben):
    look = lambda: ben.users.get_profile_image(ann_id).content
    initial = look()
    ann.users.set_profile_image("me", image=("a.png", png()))
    same("set_profile_image", look() != initial)
    ann.users.set_default_profile_image("me")
    same("set_default_profile_image", look(), initial)
    ann.status.update_user_custom_status("me", emoji="wave", text="at lunch")
    same("update_user_custom_status", "at lunch" in ben.users.get_user(ann_id)["props"]["customStatus"])
    same("unset_user_custom_status", ann.status.unset_user_custom_status("me")["status"], "OK")


def teams(root, ann, ann_id, ben):
    team = root.teams.create_team(name="people", display_name="People", type="O")
    invite = team["invite_id"]
    same("get_team_invite_info", root.teams.get_team_invite_info(invite)["name"], "people")
    joined = ann.client.make_request("post", f"/api/v4/teams/members/invite?invite_id={invite}").json()
    same("joining by invitation", joined["team_id"], team["id"])
    same("regenerate_team_invite_id", root.teams.regenerate_team_invite_id(team["id"])["invite_id"] != invite)
    same("update_team_privacy", root.teams.update_team_privacy(team["id"], privacy="O")["allow_open_invite"])
    same("search_teams", ben.teams.search_teams(term="peo")[0]["id"], team["id"])
    root.teams.set_team_icon(team["id"], image=("a.png", png()))
    same("get_team_icon", root.teams.get_team_icon(team["id"]).content[:4], b"\x89PNG")
    same("remove_team_icon", root.teams.remove_team_icon(team["id"])["status"], "OK")
    root.teams.update_team_member_scheme_roles(team["id"], ann_id, scheme_admin=True, scheme_user=True)
    same("get_private_channels_for_team", ann.channels.get_private_channels_for_team(team["id"]), [])
    root.teams.soft_delete_team(team["id"])
    same("restore_team", root.teams.restore_team(team["id"])["delete_at"], 0)


def administration(root, ann, ben, ben_id):
    same("get_total_users_stats_filtered", root.users.get_total_users_stats_filtered()["total_users_count"] >= 3)
    same("get_user_audits", ann.users.get_user_audits("me")[-1]["action"], "/api/v4/users/login")
    root.users.update_user_active(ben_id, active=False)
    refused("a deactivated user", NoAccessTokenProvided, lambda: ben.users.get_user("me"))
    config = root.system.get_config()
    same("patch_config with what it is", root.system.patch_config(options=config), config)
    refused("patch_config", FeatureDisabled, lambda: root.system.patch_config({"TeamSettings": {"SiteName": "x"}}))
    same("get_audits", len(root.system.get_audits()) > 3)
    same("get_analytics_old", "post_count" in [row["name"] for row in root.system.get_analytics_old()])
    same("get_supported_timezone", "Europe/Berlin" in root.system.get_supported_timezone())
    same("invalidate_caches", root.system.invalidate_caches()["status"], "OK")
    same("database_recycle", root.system.database_recycle()["status"], "OK")
    root.system.set_server_busy(seconds="60")
    root.system.clear_server_busy()
    same("get_server_busy_expires", root.system.get_server_busy_expires()["busy"], False)
    same("get_all_roles", len(root.roles.get_all_roles()) > 20)
    same("lists that are empty", [root.jobs.get_jobs(), root.schemes.get_schemes(), root.cluster.get_cluster_status()], [[]] * 3)
    refused("get_groups", FeatureDisabled, root.groups.get_groups)
    refused("sync_ldap", FeatureDisabled, root.ldap.sync_ldap)
    refused("get_data_retention_policy", FeatureDisabled, root.data_retention.get_data_retention_policy)


def main():
    root = driver(os.environ["HOLDFAST_EDGE_ADMIN"], os.environ["HOLDFAST_EDGE_PASSWORD"])
    made = {name: root.users.create_user(email=f"{name}@people.example", username=name, password=PASSWORD)["id"]
            for name in ("ann", "ben")}
    ann, ben = driver("ann"), driver("ben")
    bots_and_tokens(root, ann, made["ann"])
    second_factor(ben)
    pictures_and_statuses(ann, made["ann"], ben)
    teams(root, ann, made["ann"], ben)
    administration(root, ann, ben, made["ben"])


if __name__ == "__main__":
    main()
