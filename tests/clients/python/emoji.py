"""Custom emoji."""

import json

from mattermostautodriver.exceptions import InvalidOrMissingParameters, NotEnoughPermissions, ResourceNotFound

from cast import Ears, refused, same
from pictures import png


def run(scene):
    ann, ben = scene.ann, scene.ben
    name = f"e{scene.mark}"
    ears = Ears(ben)
    create = lambda: ann.emoji.create_emoji(
        image=("e.png", png(32)), emoji=json.dumps({"name": name, "creator_id": ann.client.userid}))
    made = create()
    same("create_emoji", (made["name"], made["creator_id"], made["delete_at"]), (name, ann.client.userid, 0))
    same("its event", ears.hear("emoji_added")["emoji"]["id"], made["id"])
    ears.close()
    refused("create_emoji with a name that is taken", InvalidOrMissingParameters, create)
    same("get_emoji", ben.emoji.get_emoji(made["id"])["name"], name)
    same("get_emoji_by_name", ben.emoji.get_emoji_by_name(name)["id"], made["id"])
    same("get_emoji_image", ben.emoji.get_emoji_image(made["id"]).headers["content-type"].split("/")[0], "image")
    same("get_emoji_list", made["id"] in [e["id"] for e in ben.emoji.get_emoji_list(per_page=200)])
    same("get_emojis_by_names", [e["id"] for e in ben.emoji.get_emojis_by_names([name, "no_such_emoji"])], [made["id"]])
    same("autocomplete_emoji", [e["id"] for e in ben.emoji.autocomplete_emoji(name=name[:6])], [made["id"]])
    same("search_emoji", [e["id"] for e in ben.emoji.search_emoji(term=scene.mark)], [made["id"]])
    refused("delete_emoji of another", NotEnoughPermissions, lambda: ben.emoji.delete_emoji(made["id"]))
    same("delete_emoji", ann.emoji.delete_emoji(made["id"])["status"], "OK")
    refused("get_emoji of a deleted one", ResourceNotFound, lambda: ben.emoji.get_emoji(made["id"]))
