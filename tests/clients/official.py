"""mattermostautodriver, unchanged, against a running edge and hub.

tests/system/clients.rs starts the two nodes and calls this with their addresses and administrators:
HOLDFAST_{EDGE,HUB}_URL, HOLDFAST_{EDGE,HUB}_ADMIN, HOLDFAST_{EDGE,HUB}_PASSWORD.
"""

import asyncio
import hashlib
import json
import os
import random
import time
from urllib.parse import urlsplit

from mattermostautodriver import AsyncTypedDriver, TypedDriver
from mattermostautodriver.exceptions import NoAccessTokenProvided, ResourceNotFound

PATIENCE_S = 90
POST_FIELDS = ("id", "create_at", "update_at", "edit_at", "delete_at", "user_id", "channel_id", "root_id", "message",
               "type", "is_pinned", "file_ids")


def options(side, login=None, password=None):
    url = urlsplit(os.environ[f"HOLDFAST_{side}_URL"])
    return {
        "scheme": url.scheme,
        "url": url.hostname,
        "port": url.port,
        "login_id": login or os.environ[f"HOLDFAST_{side}_ADMIN"],
        "password": password or os.environ[f"HOLDFAST_{side}_PASSWORD"],
        "request_timeout": 60,
        "max_retries": 0,
    }


def signed_in(side, login=None, password=None):
    driver = TypedDriver(options(side, login, password))
    driver.login()
    return driver


def eventually(what, look):
    """Calls `look` until it returns something true; the replica needs a moment."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            seen = look()
            problem = f"last seen: {seen!r}"
        except ResourceNotFound as error:
            seen, problem = None, f"last error: {error}"
        if seen:
            return seen
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {PATIENCE_S} s; {problem}")
        time.sleep(0.2)


def said(step):
    print(f"ok - python: {step}", flush=True)


async def act_and_listen(admin_login, channel_id, act):
    """Runs `act` beside a WebSocket of the library and returns what it returned and the events seen."""
    events = []
    ready = asyncio.Event()

    async def on_event(message):
        event = json.loads(message)
        events.append(event)
        if event.get("event") == "hello":
            ready.set()

    async with AsyncTypedDriver(admin_login) as driver:
        await driver.login()
        listening = asyncio.create_task(driver.init_websocket(on_event))
        await asyncio.wait_for(ready.wait(), 20)
        result = await asyncio.get_running_loop().run_in_executor(None, act)
        wanted = {"posted", "post_edited", "post_deleted", "reaction_added"}
        deadline = time.monotonic() + 20
        while wanted - {e.get("event") for e in events}:
            if time.monotonic() > deadline:
                raise AssertionError(f"events missing: {wanted - {e.get('event') for e in events}}")
            await asyncio.sleep(0.05)
        driver.disconnect()
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
    return result, events


def main():
    try:
        TypedDriver(options("EDGE", password="wrong-Password-1")).login()
        raise AssertionError("a wrong password was accepted")
    except NoAccessTokenProvided as error:
        assert error.error_id == "api.user.login.invalid_credentials_email_username", error.error_id
    said("a wrong password is refused with Mattermost's own error id")

    edge, hub = signed_in("EDGE"), signed_in("HUB")
    assert edge.users.get_user("me")["id"] == edge.client.userid
    said("login at edge and hub")

    mark = f"{random.randrange(16**8):08x}"
    team = edge.teams.create_team(name=f"py-{mark}", display_name="Python Team", type="O")
    channel = edge.channels.create_channel(
        team_id=team["id"], name=f"ops-{mark}", display_name="Ops", type="O", purpose="driver test")
    password = "Correct-Horse-7"
    carla = edge.users.create_user(
        email=f"carla-{mark}@example.mil", username=f"carla-{mark}", password=password, first_name="Carla")
    edge.teams.add_team_member(team["id"], user_id=carla["id"])
    edge.channels.add_channel_member(channel["id"], user_id=carla["id"])
    carla_edge = signed_in("EDGE", carla["username"], password)
    said("team, channel, user and membership")

    content = bytes(random.Random(mark).randbytes(50_000))

    def act():
        root = carla_edge.posts.create_post(channel_id=channel["id"], message="Request **medevac** at grid 123456")
        answer = edge.posts.create_post(channel_id=channel["id"], message="On the way", root_id=root["id"])
        edited = edge.posts.patch_post(answer["id"], message="On the way, 10 minutes")
        assert edited["edit_at"] > 0 and edited["message"] == "On the way, 10 minutes", edited
        edge.reactions.save_reaction(
            {"user_id": edge.client.userid, "post_id": root["id"], "emoji_name": "white_check_mark"})
        carla_edge.reactions.save_reaction(
            {"user_id": carla["id"], "post_id": root["id"], "emoji_name": "eyes"})
        carla_edge.reactions.delete_reaction(carla["id"], root["id"], "eyes")
        gone = carla_edge.posts.create_post(channel_id=channel["id"], message="wrong channel")
        carla_edge.posts.delete_post(gone["id"])
        upload = carla_edge.files.upload_file(
            files=("sketch.bin", content, "application/octet-stream"), channel_id=channel["id"])
        file = upload["file_infos"][0]
        with_file = carla_edge.posts.create_post(
            channel_id=channel["id"], message="sketch", file_ids=[file["id"]])
        edge.posts.pin_post(root["id"])
        return root, answer, gone, with_file, file

    (root, answer, gone, with_file, file), events = asyncio.run(
        act_and_listen(options("EDGE"), channel["id"], act))
    posted = [json.loads(e["data"]["post"])["id"] for e in events if e.get("event") == "posted"]
    assert root["id"] in posted and with_file["id"] in posted, posted
    numbers = [e["seq"] for e in events if "event" in e]
    assert numbers == list(range(len(numbers))), f"the event numbers have a gap: {numbers}"
    said("post, reply, edit, delete, react, pin, upload, each with its WebSocket event")

    assert sum_of(carla_edge.files.get_file(file["id"]).content) == sum_of(content)
    thread = edge.posts.get_post_thread(root["id"])
    assert set(thread["posts"]) == {root["id"], answer["id"]}, thread["order"]
    try:
        carla_edge.posts.get_post(gone["id"])
        raise AssertionError("a deleted post is still shown")
    except ResourceNotFound:
        pass
    said("download, thread and deleted post at the edge")

    for post in (root, answer, with_file):
        at_edge = only(edge.posts.get_post(post["id"]))
        eventually(f"post {post['id']} equal at the hub", lambda: only(hub.posts.get_post(post["id"])) == at_edge)
    reactions = eventually("the reaction at the hub", lambda: hub.reactions.get_reactions(root["id"]))
    assert [(r["emoji_name"], r["user_id"]) for r in reactions] == [("white_check_mark", edge.client.userid)]
    eventually("the deletion at the hub", lambda: is_gone(hub, gone["id"]))
    eventually("the file at the hub", lambda: file_sum(hub, file["id"]) == sum_of(content))
    for field in ("id", "name", "display_name", "type", "create_at"):
        assert hub.channels.get_channel(channel["id"])[field] == channel_field(edge, channel["id"], field), field
    for field in ("id", "username", "first_name", "create_at"):
        assert hub.users.get_user(carla["id"])[field] == carla[field], field
    said("the replica at the hub has the same ids, authors, times, reactions and bytes")

    back = hub.posts.create_post(channel_id=channel["id"], message="Helicopter is airborne", root_id=root["id"])
    at_hub = only(hub.posts.get_post(back["id"]))
    eventually("the answer at the edge", lambda: only(carla_edge.posts.get_post(back["id"])) == at_hub)
    said("an answer written at the hub is read at the edge")

    edge.logout()
    try:
        edge.users.get_user("me")
        raise AssertionError("a signed-out driver was served")
    except NoAccessTokenProvided:
        said("logout")


def only(post):
    return {field: post.get(field) for field in POST_FIELDS}


def channel_field(driver, channel_id, field):
    return driver.channels.get_channel(channel_id)[field]


def is_gone(driver, post_id):
    try:
        return driver.posts.get_post(post_id)["delete_at"] > 0
    except ResourceNotFound:
        return True


def file_sum(driver, file_id):
    answer = driver.files.get_file(file_id)
    return sum_of(answer.content)


def sum_of(content):
    return hashlib.sha256(content).hexdigest()


if __name__ == "__main__":
    main()
