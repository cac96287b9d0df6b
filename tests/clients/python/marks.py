"""What people mark: unread, saved, to be reminded of, acknowledged, and the bookmarks of a channel."""

import time

from mattermostautodriver.exceptions import NotEnoughPermissions

from cast import Ears, refused, same


def run(scene):
    posts(scene)
    bookmarks(scene)


def posts(scene):
    ann, ben, channel = scene.ann, scene.ben, scene.channel
    first = ann.posts.create_post(channel, "Mark me", metadata={"priority": {"priority": "important", "requested_ack": True}})["id"]
    ann.posts.create_post(channel, "And me")
    ben.channels.view_channel("me", channel)
    ears = Ears(ben)
    unread = ben.posts.set_post_unread("me", first)
    same("set_post_unread", (unread["channel_id"], unread["mention_count"]), (channel, 0))
    ears.hear("post_unread")
    seen = ben.posts.get_posts_around_last_unread("me", channel, limit_before=0, limit_after=9)
    same("and from there it is unread", first in seen["order"])

    same("get_flagged_posts_for_user of none", ben.posts.get_flagged_posts_for_user("me")["order"], [])
    row = {"user_id": ben.client.userid, "category": "flagged_post", "name": first, "value": "true"}
    ben.preferences.update_preferences("me", [row])
    same("get_flagged_posts_for_user", ben.posts.get_flagged_posts_for_user("me")["order"], [first])
    same("get_flagged_posts_for_user in a channel",
         ben.posts.get_flagged_posts_for_user("me", channel_id=channel)["order"], [first])
    refused("get_flagged_posts_for_user of another", NotEnoughPermissions,
            lambda: ann.posts.get_flagged_posts_for_user(ben.client.userid))

    ack = ben.posts.save_acknowledgement_for_post("me", first)
    same("save_acknowledgement_for_post", (ack["post_id"], ack["user_id"]), (first, ben.client.userid))
    same("its event", ears.hear("post_acknowledgement_added")["acknowledgement"]["user_id"], ben.client.userid)
    acks = ann.posts.get_post(first)["metadata"]["acknowledgements"]
    same("and the post shows it", [a["user_id"] for a in acks], [ben.client.userid])
    same("delete_acknowledgement_for_post", ben.posts.delete_acknowledgement_for_post("me", first)["status"], "OK")
    ears.hear("post_acknowledgement_removed")

    same("set_post_reminder", ben.posts.set_post_reminder("me", first, int(time.time()) + 1)["status"], "OK")
    same("the reminder comes", ears.hear(
        "posted", lambda data: data["post"].get("type") == "reminder" or first in data["post"]["message"])["channel_type"], "D")
    ears.close()


def bookmarks(scene):
    ann, ben, channel = scene.ann, scene.ben, scene.channel
    same("list_channel_bookmarks_for_channel of none", ann.bookmarks.list_channel_bookmarks_for_channel(channel), [])
    ears = Ears(ben)
    made = [ann.bookmarks.create_channel_bookmark(channel, name, "link", link_url=f"https://{name.lower()}.example.mil")
            for name in ("Map", "Roster")]
    same("create_channel_bookmark", (made[0]["display_name"], made[0]["owner_id"]), ("Map", ann.client.userid))
    same("its event", ears.hear("channel_bookmark_created")["bookmark"]["id"], made[0]["id"])
    listed = lambda: [b["id"] for b in ben.bookmarks.list_channel_bookmarks_for_channel(channel)]
    same("list_channel_bookmarks_for_channel", listed(), [made[0]["id"], made[1]["id"]])
    ann.bookmarks.update_channel_bookmark_sort_order(channel, made[1]["id"], 0)
    same("update_channel_bookmark_sort_order", listed(), [made[1]["id"], made[0]["id"]])
    refused("delete_channel_bookmark of a stranger", NotEnoughPermissions,
            lambda: scene.someone("kim").bookmarks.delete_channel_bookmark(channel, made[0]["id"]))
    ann.bookmarks.delete_channel_bookmark(channel, made[0]["id"])
    ears.hear("channel_bookmark_deleted")
    same("delete_channel_bookmark", listed(), [made[1]["id"]])
    ears.close()
