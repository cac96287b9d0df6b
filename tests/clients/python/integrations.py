"""Slash commands, webhooks, buttons, dialogs, and what is fetched from elsewhere."""

from mattermostautodriver.exceptions import (FeatureDisabled, InvalidOrMissingParameters, NotEnoughPermissions,
                                             ResourceNotFound)

from cast import Ears, program, refused, same


def run(scene):
    with program(answer) as (url, calls):
        commands(scene, url, calls)
        incoming(scene)
        outgoing(scene, url, calls)
        buttons_and_dialogs(scene, url, calls)
    elsewhere(scene)


def answer(path, _body):
    return {"/command": {"response_type": "in_channel", "text": "Sunny"},
            "/outgoing": {"text": "Heard you"},
            "/button": {"ephemeral_text": "Pressed"}}.get(path, {})


def commands(scene, url, calls):
    root, ann, team, channel = scene.root, scene.ann, scene.team, scene.channel
    refused("create_command by a user", NotEnoughPermissions, lambda: ann.commands.create_command(team, "P", "w", url))
    made = root.commands.create_command(team, "P", "weather", f"{url}/command")
    same("create_command", (made["trigger"], len(made["token"])), ("weather", 26))
    same("list_commands", [c["id"] for c in root.commands.list_commands(team_id=team, custom_only=True)], [made["id"]])
    names = [c["trigger"] for c in ann.commands.list_autocomplete_commands(team)]
    same("list_autocomplete_commands", "shrug" in names)
    offered = ann.commands.list_command_autocomplete_suggestions(team, user_input="/shru")
    same("list_command_autocomplete_suggestions", [s["Complete"] for s in offered], ["shrug"])
    ears = Ears(ann)
    ann.commands.execute_command(channel, "/weather tomorrow")
    _, headers, asked = calls.get(timeout=30)
    same("execute_command asks the program", ("text=tomorrow" in asked, headers["Authorization"]), (True, f"Token {made['token']}"))
    ears.hear("posted", lambda data: data["post"]["message"] == "Sunny")
    ann.commands.execute_command(channel, "/shrug so")
    ears.hear("posted", lambda data: data["post"]["message"].startswith("so"))
    ears.close()
    refused("execute_command of none", ResourceNotFound, lambda: ann.commands.execute_command(channel, "/nosuchcommand"))
    root.commands.delete_command(made["id"])


def incoming(scene):
    root, ann, channel = scene.root, scene.ann, scene.channel
    api = root.webhooks
    refused("create_incoming_webhook by a user", NotEnoughPermissions, lambda: ann.webhooks.create_incoming_webhook(channel))
    made = api.create_incoming_webhook(channel, display_name="In", description="from outside")
    same("create_incoming_webhook", (made["display_name"], made["channel_id"]), ("In", channel))
    same("get_incoming_webhooks", [h["id"] for h in api.get_incoming_webhooks(team_id=scene.team)], [made["id"]])
    same("get_incoming_webhook", api.get_incoming_webhook(made["id"])["description"], "from outside")
    changed = api.update_incoming_webhook(made["id"], made["id"], channel, "In 2", "changed")
    same("update_incoming_webhook", (changed["display_name"], changed["description"]), ("In 2", "changed"))
    ears = Ears(ann)
    same("a hook is called", root.client.call_webhook(made["id"], {"text": "Gate is open"}).text, "ok")
    post = ears.hear("posted", lambda data: data["post"]["message"] == "Gate is open")["post"]
    same("its post says so", post["props"]["from_webhook"], "true")
    ears.close()
    same("delete_incoming_webhook", api.delete_incoming_webhook(made["id"])["status"], "OK")
    refused("get_incoming_webhook of none", ResourceNotFound, lambda: api.get_incoming_webhook(made["id"]))


def outgoing(scene, url, calls):
    root, ann, channel = scene.root, scene.ann, scene.channel
    api = root.webhooks
    made = api.create_outgoing_webhook(scene.team, "Out", ["hark"], [f"{url}/outgoing"], channel_id=channel,
                                       content_type="application/json")
    same("create_outgoing_webhook", (made["trigger_words"], len(made["token"])), (["hark"], 26))
    same("get_outgoing_webhooks", [h["id"] for h in api.get_outgoing_webhooks(team_id=scene.team)], [made["id"]])
    same("get_outgoing_webhook", api.get_outgoing_webhook(made["id"])["callback_urls"], [f"{url}/outgoing"])
    refused("get_outgoing_webhook by a user", NotEnoughPermissions, lambda: ann.webhooks.get_outgoing_webhook(made["id"]))
    # The method has no parameter for the addresses, and a hook without one is none.
    refused("update_outgoing_webhook", InvalidOrMissingParameters,
            lambda: api.update_outgoing_webhook(made["id"], made["id"], channel, "Out 2", "changed"))
    changed = root.client.put(f"/api/v4/hooks/outgoing/{made['id']}", {**made, "description": "changed"})
    same("a changed hook", (changed["description"], changed["trigger_words"]), ("changed", ["hark"]))
    token = api.regen_outgoing_hook_token(made["id"])["token"]
    same("regen_outgoing_hook_token", token != made["token"])
    ears = Ears(ann)
    ann.posts.create_post(channel, "hark who is there")
    _, _, asked = calls.get(timeout=30)
    same("the program is called", (asked["token"], asked["trigger_word"], asked["text"]), (token, "hark", "hark who is there"))
    ears.hear("posted", lambda data: data["post"]["message"] == "Heard you")
    ears.close()
    same("delete_outgoing_webhook", api.delete_outgoing_webhook(made["id"])["status"], "OK")


def buttons_and_dialogs(scene, url, calls):
    ann, channel = scene.ann, scene.channel
    robot = scene.root
    action = {"id": "press", "name": "Press", "type": "button", "integration": {"url": f"{url}/button", "context": {"n": 7}}}
    post = robot.posts.create_post(channel, "", props={"attachments": [{"text": "A button", "actions": [action]}]})
    shown = ann.posts.get_post(post["id"])["props"]["attachments"][0]["actions"][0]
    same("a button keeps its address to itself", "integration" not in shown)
    ears = Ears(ann)
    pressed = ann.posts.do_post_action(post["id"], shown["id"])
    _, _, asked = calls.get(timeout=30)
    same("do_post_action asks the program", (asked["user_id"], asked["context"]), (ann.client.userid, {"n": 7}))
    ears.hear("ephemeral_message", lambda data: data["post"]["message"] == "Pressed")
    refused("do_post_action of none", ResourceNotFound, lambda: ann.posts.do_post_action(post["id"], "nosuch"))
    dialog = {"callback_id": "why", "title": "Why?", "elements": [{"display_name": "Why", "name": "why", "type": "text"}]}
    opened = robot.integration_actions.open_interactive_dialog(pressed["trigger_id"], f"{url}/dialog", dialog)
    same("open_interactive_dialog", opened["status"], "OK")
    same("the dialog is shown", ears.hear("open_dialog")["dialog"]["dialog"]["title"], "Why?")
    ears.close()
    refused("open_interactive_dialog with an old word", InvalidOrMissingParameters,
            lambda: robot.integration_actions.open_interactive_dialog("nonsense", f"{url}/dialog", dialog))
    ann.integration_actions.submit_interactive_dialog(
        f"{url}/dialog", channel, {"why": "because"}, team_id=scene.team, callback_id="why")
    _, _, asked = calls.get(timeout=30)
    same("submit_interactive_dialog", (asked["type"], asked["submission"]), ("dialog_submission", {"why": "because"}))


def elsewhere(scene):
    # The method has no parameter for the address; pictures of other servers are not fetched anyway.
    refused("get_image_by_url", FeatureDisabled, scene.ann.system.get_image_by_url)
