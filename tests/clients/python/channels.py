"""Channels, who is in them, and the sidebar."""

from mattermostautodriver.exceptions import InvalidOrMissingParameters, NotEnoughPermissions

from cast import Ears, refused, same


def run(scene):
    kinds(scene)
    membership(scene)
    lists(scene)
    sidebar(scene)


def kinds(scene):
    root, ann, ben = scene.root, scene.ann, scene.ben
    ids = [driver.client.userid for driver in (ann, ben, root)]
    same("get_channel", ben.channels.get_channel(scene.channel)["purpose"], "what is done")
    refused("a name that is taken", InvalidOrMissingParameters, lambda: ann.channels.create_channel(
        team_id=scene.team, name=f"ops-{scene.mark}", display_name="x", type="O"))
    private = ann.channels.create_channel(team_id=scene.team, name=f"plan-{scene.mark}", display_name="Plan", type="P")
    same("its maker is its administrator",
         "channel_admin" in ann.channels.get_channel_member(private["id"], "me")["roles"])
    refused("get_channel of a private one", NotEnoughPermissions, lambda: ben.channels.get_channel(private["id"]))
    direct = ann.channels.create_direct_channel(ids[:2])
    same("create_direct_channel", (direct["type"], direct["name"]), ("D", "__".join(sorted(ids[:2]))))
    same("create_direct_channel again is the same", ben.channels.create_direct_channel(ids[1::-1])["id"], direct["id"])
    group = ann.channels.create_group_channel(ids)
    same("create_group_channel", (group["type"], len(group["name"])), ("G", 40))
    refused("create_group_channel of two", InvalidOrMissingParameters, lambda: ann.channels.create_group_channel(ids[:1]))
    ears = Ears(ben)
    patched = ann.channels.patch_channel(scene.channel, header="Read **first**")
    same("patch_channel", (patched["header"], patched["purpose"]), ("Read **first**", "what is done"))
    same("its event", ears.hear("channel_updated")["channel"]["header"], "Read **first**")
    ears.close()


def membership(scene):
    root, ann, ben = scene.root, scene.ann, scene.ben
    channel = ann.channels.create_channel(team_id=scene.team, name=f"open-{scene.mark}", display_name="Open", type="O")["id"]
    ears = Ears(ben)
    joined = ben.channels.add_channel_member(channel, user_id=ben.client.userid)
    same("joining", (joined["channel_id"], joined["user_id"], joined["msg_count"]), (channel, ben.client.userid, 0))
    same("its event", ears.hear("user_added")["user_id"], ben.client.userid)
    members = ann.channels.get_channel_members(channel)
    same("get_channel_members", {m["user_id"] for m in members}, {ann.client.userid, ben.client.userid})
    same("get_channel_members by pages", len(ann.channels.get_channel_members(channel, page=1, per_page=1)), 1)
    me = ben.channels.get_channel_member(channel, "me")
    same("get_channel_member me", (me["user_id"], me["roles"]), (ben.client.userid, "channel_user"))
    stats = ben.channels.get_channel_stats(channel)
    same("get_channel_stats", (stats["member_count"], stats["pinnedpost_count"], stats["files_count"]), (2, 0, 0))
    ben.channels.update_channel_notify_props(channel, "me", {"desktop": "mention", "mark_unread": "all"})
    same("update_channel_notify_props", ben.channels.get_channel_member(channel, "me")["notify_props"]["desktop"], "mention")
    refused("update_channel_notify_props of another", NotEnoughPermissions,
            lambda: ben.channels.update_channel_notify_props(channel, ann.client.userid, {"desktop": "none"}))

    ann.posts.create_post(channel, f"For @{ben.client.username}")
    same("what is unread", ben.channels.get_channel_member(channel, "me")["mention_count"], 1)
    viewed = ben.channels.view_channel("me", channel)
    same("view_channel", (viewed["status"], viewed["last_viewed_at_times"][channel] > 0), ("OK", True))
    ears.hear("multiple_channels_viewed", lambda data: channel in data["channel_times"])
    same("and it is read", ben.channels.get_channel_member(channel, "me")["mention_count"], 0)
    ann.channels.remove_user_from_channel(channel, ben.client.userid)
    same("whoever is removed hears it", ears.hear("user_removed")["channel_id"], channel)
    ears.close()


def lists(scene):
    ann = scene.ann
    same("get_public_channels_for_team", "town-square" in
         {c["name"] for c in ann.channels.get_public_channels_for_team(scene.team)})
    same("none on a page far off", ann.channels.get_public_channels_for_team(scene.team, page=9), [])
    mine = {c["id"]: c for c in ann.channels.get_channels_for_user("me")}
    same("get_channels_for_user", {c["type"] for c in mine.values()}, {"O", "P", "D", "G"})
    same("channels of no team have an empty one", {c["team_id"] for c in mine.values() if c["type"] in "DG"}, {""})
    of_team = {c["id"] for c in ann.channels.get_channels_for_team_for_user("me", scene.team)}
    same("get_channels_for_team_for_user", scene.channel in of_team and of_team <= mine.keys())
    same("get_channel_members_for_user",
         {m["channel_id"] for m in ann.channels.get_channel_members_for_user("me", scene.team)}, of_team)
    rows = ann.users.get_channel_members_with_team_data_for_user("me", page=0, per_page=200)
    same("get_channel_members_with_team_data_for_user", {m["channel_id"] for m in rows}, mine.keys())
    refused("get_channels_for_user of another", NotEnoughPermissions,
            lambda: ann.channels.get_channels_for_user(scene.ben.client.userid))


def sidebar(scene):
    ann, team = scene.ann, scene.team
    api = ann.channels
    initial = api.get_sidebar_categories_for_team_for_user(team, "me")
    same("get_sidebar_categories_for_team_for_user", [c["type"] for c in initial["categories"]],
         ["favorites", "channels", "direct_messages"])
    same("empty is no null", initial["categories"][0]["channel_ids"], [])
    ears = Ears(ann)
    made = api.create_sidebar_category_for_team_for_user(team, "me", {
        "user_id": ann.client.userid, "team_id": team, "display_name": "Watch", "type": "custom",
        "channel_ids": [scene.channel]})
    ears.hear("sidebar_category_created")
    look = lambda: api.get_sidebar_category_for_team_for_user(team, "me", made["id"])
    same("get_sidebar_category_for_team_for_user", look()["channel_ids"], [scene.channel])
    answer = api.update_sidebar_category_for_team_for_user(team, "me", made["id"], {**look(), "display_name": "Guard"})
    same("update_sidebar_category_for_team_for_user", (answer["display_name"], look()["display_name"]), ("Guard",) * 2)
    ears.hear("sidebar_category_updated")
    answer = api.update_sidebar_categories_for_team_for_user(team, "me", [{**look(), "collapsed": True}])
    same("update_sidebar_categories_for_team_for_user", ([c["id"] for c in answer], look()["collapsed"]), ([made["id"]], True))
    order = api.get_sidebar_category_order_for_team_for_user(team, "me")
    same("get_sidebar_category_order_for_team_for_user", made["id"] in order)
    turned = order[::-1]
    same("update_sidebar_category_order_for_team_for_user",
         api.update_sidebar_category_order_for_team_for_user(team, "me", turned), turned)
    same("and it is kept", api.get_sidebar_categories_for_team_for_user(team, "me")["order"], turned)
    ears.hear("sidebar_category_order_updated")
    refused("the sidebar of another", NotEnoughPermissions,
            lambda: api.get_sidebar_categories_for_team_for_user(team, scene.ben.client.userid))
    api.remove_sidebar_category_for_team_for_user(team, "me", made["id"])
    ears.hear("sidebar_category_deleted")
    ears.close()
