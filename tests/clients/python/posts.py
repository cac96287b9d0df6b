"""Posts of a channel in every way that they are read, and reactions."""

from mattermostautodriver.exceptions import InvalidOrMissingParameters, NotEnoughPermissions, ResourceNotFound

from cast import Ears, refused, same


def run(scene):
    writing(scene)
    reading(scene)
    reactions(scene)


def writing(scene):
    ann, ben = scene.ann, scene.ben
    ears = Ears(ben)
    post = ann.posts.create_post(scene.channel, "Convoy **leaves** at six")
    same("create_post", (post["message"], post["user_id"], post["edit_at"]), ("Convoy **leaves** at six", ann.client.userid, 0))
    heard = ears.hear("posted")
    same("its event", (heard["post"]["id"], heard["sender_name"]), (post["id"], f"@{ann.client.username}"))
    same("get_post", ben.posts.get_post(post["id"])["message"], post["message"])
    edited = ann.posts.patch_post(post["id"], message="Convoy leaves at seven")
    same("patch_post", (edited["message"], edited["edit_at"] > 0), ("Convoy leaves at seven", True))
    same("its event", ears.hear("post_edited")["post"]["message"], "Convoy leaves at seven")
    refused("patch_post of another", NotEnoughPermissions, lambda: ben.posts.patch_post(post["id"], message="x"),
            "api.context.permissions.app_error")
    same("pin_post", ben.posts.pin_post(post["id"])["status"], "OK")
    same("get_pinned_posts", ann.channels.get_pinned_posts(scene.channel)["order"], [post["id"]])
    same("unpin_post", ben.posts.unpin_post(post["id"])["status"], "OK")
    same("get_pinned_posts of none", ann.channels.get_pinned_posts(scene.channel)["posts"], {})
    gone = ann.posts.create_post(scene.channel, "wrong channel")
    refused("delete_post of another", NotEnoughPermissions, lambda: ben.posts.delete_post(gone["id"]))
    same("delete_post", ann.posts.delete_post(gone["id"])["status"], "OK")
    same("its event", ears.hear("post_deleted")["post"]["id"], gone["id"])
    refused("get_post of a deleted one", ResourceNotFound, lambda: ann.posts.get_post(gone["id"]))
    left, = ben.posts.get_posts_by_ids([gone["id"]])
    same("get_posts_by_ids of a deleted one has no text", (left["delete_at"] > 0, left["message"]), (True, ""))
    refused("create_post in no channel", NotEnoughPermissions, lambda: ann.posts.create_post("x" * 26, "m"))
    refused("create_post that is too long", InvalidOrMissingParameters,
            lambda: ann.posts.create_post(scene.channel, "x" * 17000))
    urgent = ann.posts.create_post(scene.channel, "Now", metadata={"priority": {"priority": "urgent"}})
    same("a priority", ben.posts.get_post(urgent["id"])["metadata"]["priority"]["priority"], "urgent")
    ears.close()


def reading(scene):
    ann, ben = scene.ann, scene.ben
    channel = ann.channels.create_channel(team_id=scene.team, name=f"log-{scene.mark}", display_name="Log", type="O")["id"]
    ann.channels.add_channel_member(channel, user_id=ben.client.userid)
    ids = [ann.posts.create_post(channel, f"Entry {n}")["id"] for n in range(6)]
    page = lambda **how: ben.posts.get_posts_for_channel(channel, **how)["order"]
    newest_first = ids[::-1]
    same("get_posts_for_channel", page()[:6], newest_first)
    same("get_posts_for_channel by pages", page(page=1, per_page=2), newest_first[2:4])
    same("get_posts_for_channel before", page(before=ids[3], per_page=2), [ids[2], ids[1]])
    same("get_posts_for_channel after", page(after=ids[3]), [ids[5], ids[4]])
    list_of_one = ben.posts.get_posts_for_channel(channel, per_page=1)
    same("the list leads on", (list_of_one["prev_post_id"], list_of_one["next_post_id"]), (ids[4], ""))
    since = ben.posts.get_post(ids[4])["update_at"]
    same("get_posts_for_channel since", set(page(since=since - 1)) >= {ids[4], ids[5]} and ids[0] not in page(since=since))
    changed = ann.posts.patch_post(ids[0], message="Entry 0, corrected")
    same("get_posts_for_channel since tells of an edit", ids[0] in page(since=changed["update_at"] - 1))
    refused("get_posts_for_channel of a stranger", NotEnoughPermissions,
            lambda: scene.someone("eve").posts.get_posts_for_channel(channel))
    same("get_posts_by_ids", {p["id"] for p in ben.posts.get_posts_by_ids(ids[:2])}, set(ids[:2]))
    refused("get_posts_by_ids of none", ResourceNotFound, lambda: ben.posts.get_posts_by_ids(["x" * 26]))

    ben.channels.view_channel("me", channel)
    new = ann.posts.create_post(channel, "Entry 6")["id"]
    unread = ben.posts.get_posts_around_last_unread("me", channel, limit_before=2, limit_after=5)
    same("get_posts_around_last_unread", unread["order"], [new, ids[5], ids[4]])


def reactions(scene):
    ann, ben = scene.ann, scene.ben
    post = ann.posts.create_post(scene.channel, "Who is there?")["id"]
    same("get_reactions of none is null", ben.reactions.get_reactions(post), None)
    ears = Ears(ann)
    made = ben.reactions.save_reaction({"user_id": ben.client.userid, "post_id": post, "emoji_name": "wave"})
    same("save_reaction", (made["emoji_name"], made["create_at"] > 0), ("wave", True))
    same("its event", ears.hear("reaction_added")["reaction"]["user_id"], ben.client.userid)
    same("get_reactions", [r["emoji_name"] for r in ann.reactions.get_reactions(post)], ["wave"])
    refused("save_reaction for another", NotEnoughPermissions, lambda: ben.reactions.save_reaction(
        {"user_id": ann.client.userid, "post_id": post, "emoji_name": "wave"}))
    refused("delete_reaction of another", NotEnoughPermissions,
            lambda: ann.reactions.delete_reaction(ben.client.userid, post, "wave"))
    same("delete_reaction", ben.reactions.delete_reaction("me", post, "wave")["status"], "OK")
    ears.hear("reaction_removed")
    ears.close()
