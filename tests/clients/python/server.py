"""What the server says about itself, and its WebSocket."""

from mattermostautodriver import TypedDriver
from mattermostautodriver.exceptions import FeatureDisabled, NoAccessTokenProvided, ResourceNotFound

from cast import TRAFFIC, Ears, options, refused, same, signed_in


def run(scene):
    stranger = TypedDriver(options())
    stranger.client.client.event_hooks["response"].append(TRAFFIC.answered)
    same("get_ping", stranger.system.get_ping()["status"], "OK")
    same("get_ping with the server's status", stranger.system.get_ping(get_server_status=True)["database_status"], "OK")
    few, all_of_it = stranger.system.get_client_config(), scene.ann.system.get_client_config()
    same("get_client_config is texts only", {type(value) for value in all_of_it.values()}, {str})
    same("strangers get less of it", len(few) < len(all_of_it) and few["DiagnosticId"] == all_of_it["DiagnosticId"])
    same("get_client_license", stranger.system.get_client_license(format="old"), {"IsLicensed": "false"})
    same("get_webapp_plugins", stranger.plugins.get_webapp_plugins(), [])
    same("get_server_limits", scene.root.users.get_server_limits()["activeUserCount"] >= 3)
    same("get_server_limits tells users nothing", scene.ann.users.get_server_limits()["activeUserCount"], 0)
    roles = scene.ann.roles.get_roles_by_names(["system_user", "channel_user", "no_such_role"])
    same("get_roles_by_names", sorted(role["name"] for role in roles), ["channel_user", "system_user"])
    same("a role has permissions", all("permissions" in role for role in roles))
    refused("a stranger", NoAccessTokenProvided, lambda: stranger.users.get_user("me"),
            "api.context.session_expired.app_error")

    ears = Ears(scene.ann)
    scene.ben.users.publish_user_typing("me", channel_id=scene.channel)
    same("who types", ears.hear("typing")["user_id"], scene.ben.client.userid)
    ears.close()

    refused("get_groups", FeatureDisabled, scene.ann.groups.get_groups)
    refused("get_groups_by_user_id", FeatureDisabled, lambda: scene.ann.groups.get_groups_by_user_id(scene.ann.client.userid))
    refused("get_groups_by_team", FeatureDisabled, lambda: scene.ann.groups.get_groups_by_team(scene.team))
    refused("get_groups_by_channel", FeatureDisabled, lambda: scene.ann.groups.get_groups_by_channel(scene.channel))
    refused("get_terms_of_service", ResourceNotFound, scene.ann.terms_of_service.get_terms_of_service)
    refused("get_user_terms_of_service", ResourceNotFound,
            lambda: scene.ann.terms_of_service.get_user_terms_of_service("me"))
    refused("register_terms_of_service_action", ResourceNotFound,
            lambda: scene.ann.terms_of_service.register_terms_of_service_action("me", "x" * 26, "true"))

    short = signed_in(scene.ben.client.username)
    same("logout", short.logout()["status"], "OK")
    refused("a session after its logout", NoAccessTokenProvided, lambda: short.users.get_user("me"))
