"""What administrators ask for beyond both sets."""

from mattermostautodriver.exceptions import FeatureDisabled, NoAccessTokenProvided

from cast import refused, same


def run(scene):
    root = scene.root
    leaver = scene.someone("lee")
    same("get_user_audits", leaver.users.get_user_audits("me")[-1]["action"], "/api/v4/users/login")
    root.users.update_user_active(leaver.client.userid, active=False)
    refused("a deactivated user", NoAccessTokenProvided, lambda: leaver.users.get_user("me"))
    config = root.system.get_config()
    same("patch_config with what it is", root.system.patch_config(options=config), config)
    refused("patch_config", FeatureDisabled, lambda: root.system.patch_config({"TeamSettings": {"SiteName": "x"}}))
    same("get_audits", len(root.system.get_audits()) > 3)
    same("get_analytics_old", "post_count" in [row["name"] for row in root.system.get_analytics_old()])
    same("get_supported_timezone", "Europe/Berlin" in root.system.get_supported_timezone())
    same("invalidate_caches", root.system.invalidate_caches()["status"], "OK")
    same("database_recycle", root.system.database_recycle()["status"], "OK")
    root.system.set_server_busy(seconds="60")
    root.system.clear_server_busy()
    same("get_server_busy_expires", root.system.get_server_busy_expires()["busy"], False)
    same("get_all_roles", len(root.roles.get_all_roles()) > 20)
    same("lists that are empty", [root.jobs.get_jobs(), root.schemes.get_schemes(), root.cluster.get_cluster_status()], [[]] * 3)
    same("list_all_cpa_fields", root.custom_profile_attributes.list_all_cpa_fields(), [])
    refused("list_cpa_values", Exception, lambda: root.custom_profile_attributes.list_cpa_values(root.client.userid))
    refused("sync_ldap", FeatureDisabled, root.ldap.sync_ldap)
    refused("get_data_retention_policy", FeatureDisabled, root.data_retention.get_data_retention_policy)
