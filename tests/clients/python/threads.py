"""Threads, and who follows them."""

from mattermostautodriver.exceptions import InvalidOrMissingParameters, NotEnoughPermissions, ResourceNotFound

from cast import Ears, refused, same


def run(scene):
    ann, ben, team = scene.ann, scene.ben, scene.team
    root = ann.posts.create_post(scene.channel, "Which bridge?")["id"]
    ears = Ears(ann)
    first = ben.posts.create_post(scene.channel, "The northern one", root_id=root)["id"]
    same("whoever asked follows", ears.hear("thread_updated")["thread"]["id"], root)
    second = ben.posts.create_post(scene.channel, f"It holds, @{ann.client.username}", root_id=root)["id"]
    refused("a reply to nothing", InvalidOrMissingParameters,
            lambda: ben.posts.create_post(scene.channel, "x", root_id="x" * 26))
    thread = ann.posts.get_post_thread(root)
    same("get_post_thread", set(thread["posts"]), {root, first, second})
    part = ann.posts.get_post_thread(root, perPage=1, direction="down", fromPost=root,
                                     fromCreateAt=thread["posts"][root]["create_at"])
    same("get_post_thread by pages", (first in part["posts"], second in part["posts"], part["has_next"]), (True, False, True))

    one = lambda: ann.threads.get_user_thread("me", team, root)
    same("get_user_thread", (one()["reply_count"], one()["unread_replies"], one()["unread_mentions"]), (2, 2, 1))
    listed = ann.threads.get_user_threads("me", team)
    same("get_user_threads", (root in [t["id"] for t in listed["threads"]], listed["total_unread_mentions"]), (True, 1))
    totals = ann.threads.get_user_threads("me", team, totalsOnly=True)
    same("get_user_threads with totals only", totals["total_unread_threads"] >= 1 and not totals["threads"])
    at = thread["posts"][second]["create_at"]
    read = ann.threads.update_thread_read_for_user("me", team, root, str(at))
    same("update_thread_read_for_user", (read["unread_replies"], read["unread_mentions"]), (0, 0))
    ears.hear("thread_read_changed")
    again = ann.threads.set_thread_unread_by_post_id("me", team, root, second)
    same("set_thread_unread_by_post_id", (again["unread_replies"], one()["unread_replies"]), (1, 1))
    same("update_threads_read_for_user", ann.threads.update_threads_read_for_user("me", team)["status"], "OK")
    same("and all is read", ann.threads.get_user_threads("me", team)["total_unread_threads"], 0)
    same("stop_following_thread", ann.threads.stop_following_thread("me", team, root)["status"], "OK")
    ears.hear("thread_follow_changed", lambda data: data["state"] is False)
    refused("get_user_thread of one not followed", ResourceNotFound, one)
    same("start_following_thread", ann.threads.start_following_thread("me", team, root)["status"], "OK")
    same("and it is listed again", one()["id"], root)
    refused("get_user_threads of another", NotEnoughPermissions,
            lambda: ben.threads.get_user_threads(ann.client.userid, team))
    ears.close()
