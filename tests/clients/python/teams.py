"""Teams, who is in them, and how people get there."""

from mattermostautodriver.exceptions import FeatureDisabled, InvalidOrMissingParameters, NotEnoughPermissions, ResourceNotFound

from cast import Ears, refused, same
from pictures import png


def run(scene):
    membership(scene)
    invitations(scene)
    icon_and_settings(scene)


def membership(scene):
    root, ann = scene.root, scene.ann
    same("get_team", ann.teams.get_team(scene.team)["display_name"], "Python Team")
    same("get_team_by_name", ann.teams.get_team_by_name(f"py-{scene.mark}")["id"], scene.team)
    refused("get_team_by_name of none", ResourceNotFound, lambda: ann.teams.get_team_by_name("no-such-team"))
    same("get_teams_for_user", [team["id"] for team in ann.teams.get_teams_for_user("me")], [scene.team])
    member, = ann.teams.get_team_members_for_user("me")
    same("get_team_members_for_user", (member["team_id"], member["roles"]), (scene.team, "team_user"))
    unread, = ann.teams.get_teams_unread_for_user("me", exclude_team="")
    same("get_teams_unread_for_user", (unread["team_id"], unread["mention_count"]), (scene.team, 0))
    same("get_teams_unread_for_user without one", ann.teams.get_teams_unread_for_user("me", exclude_team=scene.team), [])
    closed = root.teams.create_team(name=f"closed-{scene.mark}", display_name="Closed", type="I")["id"]
    refused("get_team of a closed one", NotEnoughPermissions, lambda: ann.teams.get_team(closed))
    ears = Ears(ann)
    root.teams.add_team_member(closed, user_id=ann.client.userid)
    same("whoever is added hears it", ears.hear("added_to_team")["team_id"], closed)
    same("and gets in", ann.teams.get_team(closed)["type"], "I")
    root.teams.remove_team_member(closed, ann.client.userid)
    ears.hear("leave_team", lambda data: data["team_id"] == closed)
    ears.close()
    refused("get_team after leaving", NotEnoughPermissions, lambda: ann.teams.get_team(closed))


def invitations(scene):
    root, ann = scene.root, scene.ann
    guest = scene.someone("gus")
    invite = root.teams.get_team(scene.team)["invite_id"]
    same("get_team_invite_info", guest.teams.get_team_invite_info(invite)["name"], f"py-{scene.mark}")
    refused("add_team_member_from_invite with a word that nobody gave out", InvalidOrMissingParameters,
            lambda: guest.teams.add_team_member_from_invite("no such token"))
    # The method has no parameter for the id of a link.
    joined = guest.client.make_request("post", "/api/v4/teams/members/invite", params={"invite_id": invite}).json()
    same("joining by a link", (joined["team_id"], joined["user_id"]), (scene.team, guest.client.userid))
    refused("regenerate_team_invite_id", NotEnoughPermissions, lambda: ann.teams.regenerate_team_invite_id(scene.team))
    same("regenerate_team_invite_id", root.teams.regenerate_team_invite_id(scene.team)["invite_id"] != invite)
    refused("get_team_invite_info of an old link", ResourceNotFound, lambda: guest.teams.get_team_invite_info(invite))
    # No mail leaves the box, and it says so.
    refused("invite_users_to_team", FeatureDisabled,
            lambda: root.teams.invite_users_to_team(scene.team, ["someone@people.example"]))


def icon_and_settings(scene):
    root, ann = scene.root, scene.ann
    team = root.teams.create_team(name=f"side-{scene.mark}", display_name="Side", type="O")["id"]
    root.teams.set_team_icon(team, image=("a.png", png(64)))
    same("get_team_icon", root.teams.get_team_icon(team).content[:4], b"\x89PNG")
    same("remove_team_icon", root.teams.remove_team_icon(team)["status"], "OK")
    same("update_team_privacy", root.teams.update_team_privacy(team, privacy="O")["allow_open_invite"])
    same("search_teams", [found["id"] for found in ann.teams.search_teams(term=f"side-{scene.mark}")], [team])
    root.teams.add_team_member(team, user_id=ann.client.userid)
    root.teams.update_team_member_scheme_roles(team, ann.client.userid, scheme_admin=True, scheme_user=True)
    same("get_private_channels_for_team", ann.channels.get_private_channels_for_team(team), [])
    root.teams.soft_delete_team(team)
    same("restore_team", root.teams.restore_team(team)["delete_at"], 0)
    root.teams.soft_delete_team(team)
