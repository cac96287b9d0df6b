"""Bots, access tokens, sessions, passwords and second factors. The last area: it ends with everybody signed out."""

import base64
import hashlib
import hmac
import struct
import time

from mattermostautodriver.exceptions import (FeatureDisabled, InvalidOrMissingParameters, NoAccessTokenProvided,
                                             NotEnoughPermissions)

from cast import PASSWORD, administrator, refused, same, signed_in


def run(scene):
    bots(scene)
    tokens(scene)
    second_factor(scene)
    passwords(scene)
    sessions(scene)


def bots(scene):
    root, ann = scene.root, scene.ann
    name = f"weather-{scene.mark}"
    bot = root.bots.create_bot(username=name, display_name="Weather", description="says the weather")["user_id"]
    same("get_bot", root.bots.get_bot(bot)["description"], "says the weather")
    same("patch_bot", root.bots.patch_bot(bot_user_id=bot, username=f"sky-{scene.mark}")["username"], f"sky-{scene.mark}")
    same("get_bots", bot in [b["user_id"] for b in root.bots.get_bots()])
    same("disable_bot", root.bots.disable_bot(bot)["delete_at"] > 0)
    same("get_bots leaves it out", bot not in [b["user_id"] for b in root.bots.get_bots()])
    same("get_bots with deleted ones", bot in [b["user_id"] for b in root.bots.get_bots(include_deleted=True)])
    same("enable_bot", root.bots.enable_bot(bot)["delete_at"], 0)
    same("assign_bot", root.bots.assign_bot(bot, ann.client.userid)["owner_id"], ann.client.userid)
    refused("create_bot by a user", NotEnoughPermissions, lambda: ann.bots.create_bot(username="no"))
    token = root.users.create_user_access_token(bot, description="script")["token"]
    robot = signed_in(token=token)
    same("a bot signs in with its token", robot.users.get_user("me")["is_bot"])
    user = root.bots.convert_bot_to_user(bot, email=f"{name}@people.example", password=PASSWORD)
    same("convert_bot_to_user", (user["id"], user.get("is_bot", False)), (bot, False))
    same("and it signs in with a password", signed_in(f"sky-{scene.mark}").client.userid, bot)
    same("convert_user_to_bot", root.bots.convert_user_to_bot(bot)["user_id"], bot)
    refused("a bot's password", NoAccessTokenProvided, lambda: signed_in(f"sky-{scene.mark}"))


def tokens(scene):
    root, ann, ben = scene.root, scene.ann, scene.ben
    root.users.update_user_roles(ann.client.userid, "system_user system_user_access_token")
    made = ann.users.create_user_access_token("me", description="laptop")
    same("create_user_access_token", (made["description"], len(made["token"]), made["is_active"]), ("laptop", 26, True))
    by_token = signed_in(token=made["token"])
    same("a token signs in", by_token.client.userid, ann.client.userid)
    mine = ann.users.get_user_access_tokens_for_user("me")
    same("get_user_access_tokens_for_user", [(t["id"], t.get("token", "")) for t in mine], [(made["id"], "")])
    same("get_user_access_token", ann.users.get_user_access_token(made["id"])["description"], "laptop")
    refused("get_user_access_token of another", NotEnoughPermissions, lambda: ben.users.get_user_access_token(made["id"]))
    same("get_user_access_tokens", made["id"] in [t["id"] for t in root.users.get_user_access_tokens(per_page=200)])
    found = root.users.search_user_access_tokens(term=ann.client.username)
    same("search_user_access_tokens", [t["id"] for t in found], [made["id"]])
    refused("search_user_access_tokens by a user", NotEnoughPermissions, lambda: ann.users.search_user_access_tokens(term="x"))
    ann.users.disable_user_access_token(token_id=made["id"])
    refused("a disabled token", NoAccessTokenProvided, lambda: by_token.users.get_user("me"))
    ann.users.enable_user_access_token(token_id=made["id"])
    same("an enabled token works again", by_token.users.get_user("me")["id"], ann.client.userid)
    ann.users.revoke_user_access_token(token_id=made["id"])
    refused("a revoked token", NoAccessTokenProvided, lambda: by_token.users.get_user("me"))


def second_factor(scene):
    ben = scene.ben
    made = ben.users.generate_mfa_secret("me")
    same("generate_mfa_secret draws a code", base64.b64decode(made["qr_code"])[:8], b"\x89PNG\r\n\x1a\n")
    refused("update_user_mfa with a wrong code", NoAccessTokenProvided,
            lambda: ben.users.update_user_mfa("me", activate=True, code="000000"))
    ben.users.update_user_mfa("me", activate=True, code=code(made["secret"], time.time()))
    refused("a login without a code", NoAccessTokenProvided, lambda: signed_in(ben.client.username),
            "mfa.validate_token.authenticate.app_error")
    # The code of the next step: that of this one is spent.
    again = signed_in(ben.client.username, mfa_token=code(made["secret"], time.time() + 30))
    same("a login with a code", again.users.get_user("me")["mfa_active"])
    same("update_user_mfa off", ben.users.update_user_mfa("me", activate=False)["status"], "OK")
    same("a login without one again", signed_in(ben.client.username).client.userid, ben.client.userid)


def code(secret, at):
    """What an authenticator app shows (RFC 6238)."""
    digest = hmac.new(base64.b32decode(secret), struct.pack(">Q", int(at // 30)), hashlib.sha1).digest()
    start = digest[-1] & 15
    return f"{(struct.unpack('>I', digest[start:start + 4])[0] & 0x7FFFFFFF) % 10**6:06}"


def passwords(scene):
    user = scene.someone("pat")
    new = "a quite different password 4"
    refused("update_user_password without the present one", InvalidOrMissingParameters,
            lambda: user.users.update_user_password("me", new_password=new, current_password="wrong"))
    refused("update_user_password that is too short", InvalidOrMissingParameters,
            lambda: user.users.update_user_password("me", new_password="x", current_password=PASSWORD))
    same("update_user_password", user.users.update_user_password("me", new, current_password=PASSWORD)["status"], "OK")
    same("the new password", signed_in(user.client.username, new).client.userid, user.client.userid)
    refused("the old password", NoAccessTokenProvided, lambda: signed_in(user.client.username))
    # No mail leaves the box, and it says so.
    refused("send_password_reset_email", FeatureDisabled,
            lambda: user.users.send_password_reset_email(f"{user.client.username}@people.example"))
    refused("reset_password with a word that nobody sent", InvalidOrMissingParameters,
            lambda: user.users.reset_password("x" * 64, new))


def sessions(scene):
    root, ann, ben = scene.root, scene.ann, scene.ben
    phone = signed_in(ann.client.username)
    same("attach_device_extra_props", phone.users.attach_device_extra_props(device_id="apple_rn-v2:abc")["status"], "OK")
    listed = ann.users.get_sessions("me")
    session, = [s for s in listed if s["device_id"] == "apple_rn-v2:abc"]
    same("get_sessions has no tokens", {s.get("token", "") for s in listed}, {""})
    refused("get_sessions of another", NotEnoughPermissions, lambda: ben.users.get_sessions(ann.client.userid))
    same("revoke_session", ann.users.revoke_session("me", session["id"])["status"], "OK")
    refused("a revoked session", NoAccessTokenProvided, lambda: phone.users.get_user("me"))
    same("revoke_all_sessions", root.users.revoke_all_sessions(ann.client.userid)["status"], "OK")
    refused("every session of one user", NoAccessTokenProvided, lambda: ann.users.get_user("me"))
    refused("revoke_sessions_from_all_users by a user", NotEnoughPermissions, ben.users.revoke_sessions_from_all_users)
    same("revoke_sessions_from_all_users", root.users.revoke_sessions_from_all_users()["status"], "OK")
    refused("every session", NoAccessTokenProvided, lambda: ben.users.get_user("me"))
    refused("also that of who did it", NoAccessTokenProvided, lambda: root.users.get_user("me"))
    same("administrator signs in anew", administrator().users.get_user("me")["id"], root.client.userid)
