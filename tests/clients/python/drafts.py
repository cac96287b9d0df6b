"""What is not posted yet: drafts and scheduled posts."""

import time

from mattermostautodriver.exceptions import InvalidOrMissingParameters, NotEnoughPermissions

from cast import Ears, refused, same


def run(scene):
    ann, ben, channel = scene.ann, scene.ben, scene.channel
    ann_id = ann.client.userid
    root = ann.posts.create_post(channel, "A draft hangs on this")["id"]
    listed = lambda: {(d["channel_id"], d["root_id"]): d["message"] for d in ann.drafts.get_drafts("me", scene.team)}
    same("get_drafts of none is null", ann.drafts.get_drafts("me", scene.team), None)
    ears = Ears(ann)
    for root_id, message in (("", "To be continued"), (root, "In the thread")):
        made = ann.drafts.upsert_draft({"user_id": ann_id, "channel_id": channel, "root_id": root_id, "message": message})
        same("upsert_draft", (made["message"], made["delete_at"]), (message, 0))
    same("its event", ears.hear("draft_created")["draft"]["message"], "To be continued")
    same("get_drafts", listed(), {(channel, ""): "To be continued", (channel, root): "In the thread"})
    refused("get_drafts of another", NotEnoughPermissions, lambda: ben.drafts.get_drafts(ann_id, scene.team))
    same("delete_draft", ann.drafts.delete_draft("me", channel)["status"], "OK")
    ears.hear("draft_deleted")
    same("delete_draft_for_thread", ann.drafts.delete_draft_for_thread("me", channel, root)["status"], "OK")
    same("and they are gone", ann.drafts.get_drafts("me", scene.team), None)
    ears.close()
    scheduled(scene)


def scheduled(scene):
    ann, ben, channel = scene.ann, scene.ben, scene.channel
    api = ann.scheduled_post
    later = int(time.time() * 1000) + 3_600_000
    refused("create_scheduled_post in the past", InvalidOrMissingParameters,
            lambda: api.create_scheduled_post(1, channel, "too late"))
    ears = Ears(ann)
    made = api.create_scheduled_post(later, channel, "At dawn")
    same("create_scheduled_post", (made["message"], made["scheduled_at"], made["error_code"]), ("At dawn", later, ""))
    ears.hear("scheduled_post_created")
    changed = api.update_scheduled_post(made["id"], made["id"], channel, ann.client.userid, later + 1000, "At noon")
    same("update_scheduled_post", (changed["message"], changed["scheduled_at"]), ("At noon", later + 1000))
    ears.hear("scheduled_post_updated")
    refused("delete_scheduled_post of another", NotEnoughPermissions,
            lambda: ben.scheduled_post.delete_scheduled_post(made["id"]))
    same("delete_scheduled_post", api.delete_scheduled_post(made["id"])["id"], made["id"])
    ears.hear("scheduled_post_deleted")

    soon = api.create_scheduled_post(int(time.time() * 1000) + 1500, channel, "Now it goes")
    ears.hear("posted", lambda data: data["post"]["message"] == "Now it goes")
    same("a scheduled post goes out", soon["user_id"], ann.client.userid)
    ears.close()
