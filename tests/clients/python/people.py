"""Users: who they are, how they look, where they are, and what they prefer."""

import json

from mattermostautodriver.exceptions import (InvalidOrMissingParameters, NoAccessTokenProvided, NotEnoughPermissions,
                                             ResourceNotFound)

from cast import PASSWORD, Ears, refused, same, signed_in
from pictures import png


def run(scene):
    users(scene)
    pictures_of(scene)
    presence(scene)
    preferences(scene)


def users(scene):
    root, ann, ben = scene.root, scene.ann, scene.ben
    ann_id, ben_id = ann.client.userid, ben.client.userid
    same("login", ann.users.login(login_id=ann.client.username, password=PASSWORD)["id"], ann_id)
    refused("a wrong password", NoAccessTokenProvided, lambda: signed_in(ann.client.username, "wrong"),
            "api.user.login.invalid_credentials_email_username")
    ears = Ears(ben)
    ann.users.patch_user("me", nickname="Annie", position="Lead")
    same("patch_user is told to others", ears.hear("user_updated")["user"]["nickname"], "Annie")
    ears.close()
    me = ann.users.get_user("me")
    same("get_user me", (me["id"], me["nickname"], me["position"]), (ann_id, "Annie", "Lead"))
    same("a user has no password to read", "password" not in me or me["password"] == "")
    seen = ben.users.get_user(ann_id)
    same("get_user of another hides what is private", "notify_props" not in seen and "email_verified" not in seen)
    refused("patch_user of another", NotEnoughPermissions, lambda: ben.users.patch_user(ann_id, nickname="x"),
            "api.context.permissions.app_error")
    refused("get_user of nobody", ResourceNotFound, lambda: ann.users.get_user("x" * 26))
    refused("a name that is taken", InvalidOrMissingParameters, lambda: root.users.create_user(
        email=f"x-{scene.mark}@people.example", username=ann.client.username, password=PASSWORD))
    same("get_users_by_ids", {u["id"] for u in ann.users.get_users_by_ids([ann_id, ben_id])}, {ann_id, ben_id})
    changed = ann.users.get_users_by_ids([ann_id, ben_id], since=me["update_at"] - 1)
    same("get_users_by_ids since", [u["id"] for u in changed], [ann_id])
    refused("get_users_by_ids of none", InvalidOrMissingParameters, lambda: ann.users.get_users_by_ids([]))
    found = ann.users.get_users_by_usernames([ben.client.username, "nobody.at.all"])
    same("get_users_by_usernames", [u["id"] for u in found], [ben_id])
    same("get_user_by_username", ann.users.get_user_by_username(ben.client.username)["id"], ben_id)
    same("search_users", [u["id"] for u in ann.users.search_users(term=ben.client.username)], [ben_id])
    same("search_users finds nobody", ann.users.search_users(term="zzzzzz"), [])
    there = ann.users.search_users(term=scene.mark, in_channel_id=scene.channel)
    same("search_users in a channel", {u["id"] for u in there}, {ann_id, ben_id})
    seen = ann.users.autocomplete_users(name=ben.client.username)
    same("autocomplete_users", [u["id"] for u in seen["users"]], [ben_id])
    same("get_total_users_stats_filtered", root.users.get_total_users_stats_filtered()["total_users_count"] >= 3)


def pictures_of(scene):
    ann, ben = scene.ann, scene.ben
    ann_id = ann.client.userid
    look = lambda: ben.users.get_profile_image(ann_id).content
    initial = look()
    ann.users.set_profile_image("me", image=("a.png", png(64)))
    same("set_profile_image", look() != initial)
    same("get_user says when", ben.users.get_user(ann_id)["last_picture_update"] > 0)
    ann.users.set_default_profile_image("me")
    same("set_default_profile_image", look(), initial)
    refused("set_profile_image of another", NotEnoughPermissions,
            lambda: ben.users.set_profile_image(ann_id, image=("a.png", png(64))))


def presence(scene):
    ann, ben = scene.ann, scene.ben
    ann_id, ben_id = ann.client.userid, ben.client.userid
    ears = Ears(ann)
    answer = ann.status.update_user_status(ann_id, "dnd")
    same("update_user_status", (answer["user_id"], answer["status"], answer["manual"]), (ann_id, "dnd", True))
    ears.hear("status_change", lambda data: data["status"] == "dnd")
    ears.close()
    same("get_user_status", ben.status.get_user_status(ann_id)["status"], "dnd")
    rows = ben.status.get_users_statuses_by_ids([ann_id, ben_id])
    same("get_users_statuses_by_ids", {row["user_id"] for row in rows}, {ann_id, ben_id})
    refused("update_user_status of another", NotEnoughPermissions, lambda: ben.status.update_user_status(ann_id, "away"))
    # The method puts the id into the body as well, where `me` is nobody.
    refused("update_user_status of me", InvalidOrMissingParameters, lambda: ann.status.update_user_status("me", "online"))

    custom = lambda: ben.users.get_user(ann_id)["props"].get("customStatus", "")
    ann.status.update_user_custom_status("me", emoji="wave", text="at lunch")
    same("update_user_custom_status", "at lunch" in custom())
    same("unset_user_custom_status", ann.status.unset_user_custom_status("me")["status"], "OK")
    same("and it is gone", custom(), "")
    recent = lambda: json.loads(ann.preferences.get_preferences_by_category_by_name(
        "me", "custom_status", "recent_custom_statuses")["value"])
    last, = recent()
    same("it is offered again", (last["emoji"], last["text"]), ("wave", "at lunch"))
    answer = ann.status.post_user_recent_custom_status_delete("me", **last)
    same("post_user_recent_custom_status_delete", (answer["status"], recent()), ("OK", []))


def preferences(scene):
    ann, ben = scene.ann, scene.ben
    row = {"user_id": ann.client.userid, "category": "display_settings", "name": "use_military_time", "value": "true"}
    ears = Ears(ann)
    same("update_preferences", ann.preferences.update_preferences("me", [row])["status"], "OK")
    same("its event", row in ears.hear("preferences_changed")["preferences"])
    same("get_preferences", row in ann.preferences.get_preferences("me"))
    same("get_preferences_by_category", ann.preferences.get_preferences_by_category("me", "display_settings"), [row])
    one = ann.preferences.get_preferences_by_category_by_name("me", "display_settings", "use_military_time")
    same("get_preferences_by_category_by_name", one, row)
    refused("update_preferences of another", NotEnoughPermissions,
            lambda: ben.preferences.update_preferences(ann.client.userid, [row]))
    same("delete_preferences", ann.preferences.delete_preferences("me", [row])["status"], "OK")
    ears.hear("preferences_deleted")
    ears.close()
    same("and it is gone", row not in ann.preferences.get_preferences("me"))
