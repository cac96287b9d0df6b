"""mattermostautodriver, unchanged, against a running edge and hub: what is done at one is read at the other.

tests/system/clients.rs starts the two nodes and calls this with their addresses and administrators:
HOLDFAST_{EDGE,HUB}_URL, HOLDFAST_{EDGE,HUB}_ADMIN, HOLDFAST_{EDGE,HUB}_PASSWORD.
"""

import hashlib
import random

from mattermostautodriver.exceptions import NoAccessTokenProvided, ResourceNotFound

from cast import PASSWORD, Ears, administrator, eventually, refused, same, signed_in

POST_FIELDS = ("id", "create_at", "update_at", "edit_at", "delete_at", "user_id", "channel_id", "root_id", "message",
               "type", "is_pinned", "file_ids")
# The replica needs a moment.
PATIENCE_S = 90


def main():
    edge, hub = administrator("EDGE"), administrator("HUB")
    mark = f"{random.randrange(16**8):08x}"
    team = edge.teams.create_team(name=f"py-{mark}", display_name="Python Team", type="O")
    channel = edge.channels.create_channel(
        team_id=team["id"], name=f"ops-{mark}", display_name="Ops", type="O", purpose="driver test")
    user = edge.users.create_user(
        email=f"carla-{mark}@example.mil", username=f"carla-{mark}", password=PASSWORD, first_name="Carla")
    edge.teams.add_team_member(team["id"], user_id=user["id"])
    edge.channels.add_channel_member(channel["id"], user_id=user["id"])
    carla = signed_in(user["username"])

    ears = Ears(edge)
    content = random.Random(mark).randbytes(50_000)
    root = carla.posts.create_post(channel_id=channel["id"], message="Request **medevac** at grid 123456")
    answer = edge.posts.create_post(channel_id=channel["id"], message="On the way", root_id=root["id"])
    edge.posts.patch_post(answer["id"], message="On the way, 10 minutes")
    edge.reactions.save_reaction(
        {"user_id": edge.client.userid, "post_id": root["id"], "emoji_name": "white_check_mark"})
    carla.reactions.save_reaction({"user_id": user["id"], "post_id": root["id"], "emoji_name": "eyes"})
    carla.reactions.delete_reaction(user["id"], root["id"], "eyes")
    gone = carla.posts.create_post(channel_id=channel["id"], message="wrong channel")
    carla.posts.delete_post(gone["id"])
    file = carla.files.upload_file(
        files=("sketch.bin", content, "application/octet-stream"), channel_id=channel["id"])["file_infos"][0]
    with_file = carla.posts.create_post(channel_id=channel["id"], message="sketch", file_ids=[file["id"]])
    edge.posts.pin_post(root["id"])
    for kind in ("post_edited", "post_deleted", "reaction_added"):
        ears.hear(kind)
    for post in (root, with_file):
        ears.hear("posted", lambda data: data["post"]["id"] == post["id"])
    ears.close()

    for post in (root, answer, with_file):
        at_edge = only(edge.posts.get_post(post["id"]))
        soon(f"post {post['id']} equal at the hub", lambda: only(hub.posts.get_post(post["id"])) == at_edge)
    reactions = soon("the reaction at the hub", lambda: hub.reactions.get_reactions(root["id"]))
    same("the reaction at the hub", [(r["emoji_name"], r["user_id"]) for r in reactions],
         [("white_check_mark", edge.client.userid)])
    soon("the deletion at the hub", lambda: is_gone(hub, gone["id"]))
    soon("the file at the hub", lambda: sum_of(hub.files.get_file(file["id"]).content) == sum_of(content))
    at_edge, at_hub = edge.channels.get_channel(channel["id"]), hub.channels.get_channel(channel["id"])
    for field in ("id", "name", "display_name", "type", "create_at"):
        same(f"the channel's {field} at the hub", at_hub[field], at_edge[field])
    at_hub = hub.users.get_user(user["id"])
    for field in ("id", "username", "first_name", "create_at"):
        same(f"the user's {field} at the hub", at_hub[field], user[field])

    back = hub.posts.create_post(channel_id=channel["id"], message="Helicopter is airborne", root_id=root["id"])
    at_hub = only(hub.posts.get_post(back["id"]))
    soon("an answer written at the hub is read at the edge", lambda: only(carla.posts.get_post(back["id"])) == at_hub)
    edge.logout()
    refused("a driver that signed out", NoAccessTokenProvided, lambda: edge.users.get_user("me"))


def soon(what, look):
    """Calls `look` until it returns something true; before, there may be nothing to look at."""
    def tried():
        try:
            return look()
        except ResourceNotFound:
            return None
    found = eventually(what, tried, PATIENCE_S)
    print(f"ok - python: {what}", flush=True)
    return found


def only(post):
    return {field: post.get(field) for field in POST_FIELDS}


def is_gone(driver, post_id):
    try:
        return driver.posts.get_post(post_id)["delete_at"] > 0
    except ResourceNotFound:
        return True


def sum_of(content):
    return hashlib.sha256(content).hexdigest()


if __name__ == "__main__":
    main()
