//! What the original refuses without a licence, or with a feature switched off: the same status and id to the same callers.
//!
//! Clients ask for these and know the answers, which a 404 would not be. Recorded from a real server without a licence (11.6).

use http::Method;

use super::routes::Who::{Anyone, SignedIn, SystemAdmin};
use super::routes::{Route, Run, Who};
use crate::error::AppError;

/// One answer to whoever may ask.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    id: &'static str,
    message: &'static str,
}

impl Refusal {
    pub(crate) fn error(self) -> AppError {
        AppError::new("http", self.id, self.message, self.status)
    }
}

const fn unlicensed(status: u16, id: &'static str) -> Refusal {
    Refusal { status, id, message: "This needs a licence, which this server does not have." }
}

const fn off(status: u16, id: &'static str) -> Refusal {
    Refusal { status, id, message: "This is not enabled on this server." }
}

const fn row(method: Method, path: &'static str, who: Who, refusal: Refusal) -> Route {
    Route {
        method,
        path,
        who,
        checks_csrf: true,
        can_wait: false,
        is_noted: false,
        is_guessed: false,
        run: Run::Refuse(refusal),
    }
}

const EXPRESSIONS: Refusal = unlicensed(501, "app.pap.check_expression.app_error");
const CLOUD: Refusal = unlicensed(400, "api.server.cws.needs_enterprise_edition");
const COMPLIANCE: Refusal = unlicensed(501, "ent.compliance.licence_disable.app_error");
const FLAGGING: Refusal = unlicensed(501, "api.data_spillage.error.license");
const ATTRIBUTES: Refusal = unlicensed(403, "api.custom_profile_attributes.license_error");
const GROUPS: Refusal = unlicensed(501, "api.license_error");
const LDAP: Refusal = unlicensed(501, "api.ldap_groups.license_error");
const PLUGINS: Refusal = off(501, "app.plugin.disabled.app_error");
const RECAPS: Refusal = off(501, "api.recap.disabled.app_error");
const SAML: Refusal = off(501, "api.admin.saml.not_available.app_error");
const REMOTE_CLUSTERS: Refusal = off(501, "api.remote_cluster.service_not_enabled.app_error");
const TRIAL: Refusal = unlicensed(403, "api.license.upgrade_needed.app_error");
const RETENTION: Refusal = unlicensed(501, "ent.data_retention.generic.license.error");

const ADDRESSES: Refusal = unlicensed(501, "api.context.ip_filtering.not_available.app_error");
const OUTGOING: Refusal = off(501, "api.context.outgoing_oauth_connection.not_available.configuration_disabled");
const SCHEME: Refusal = unlicensed(404, "app.scheme.get.app_error");

/// Every such route.
#[rustfmt::skip]
pub(crate) static REFUSED: &[Route] = &[
    row(Method::PUT, "/api/v4/access_control_policies/activate", SignedIn, unlicensed(501, "app.pap.update_access_control_policies_active.app_error")),
    row(Method::POST, "/api/v4/access_control_policies/cel/check", SystemAdmin, EXPRESSIONS),
    row(Method::POST, "/api/v4/access_control_policies/cel/validate_requester", SystemAdmin, EXPRESSIONS),
    row(Method::POST, "/api/v4/access_control_policies/cel/test", SystemAdmin, EXPRESSIONS),
    row(Method::POST, "/api/v4/access_control_policies/cel/visual_ast", SystemAdmin, unlicensed(501, "app.pap.expression_to_visual_ast.app_error")),
    row(Method::POST, "/api/v4/access_control_policies/search", SystemAdmin, unlicensed(501, "app.pap.search_access_control_policies.app_error")),
    row(Method::GET, "/api/v4/access_control_policies/{policy_id}", SystemAdmin, unlicensed(501, "app.pap.get_policy.app_error")),
    row(Method::DELETE, "/api/v4/access_control_policies/{policy_id}", SystemAdmin, unlicensed(501, "app.pap.delete_access_control_policy.app_error")),
    row(Method::GET, "/api/v4/channels/{channel_id}/member_counts_by_group", SignedIn, unlicensed(403, "api.channel.channel_member_counts_by_group.license.error")),
    row(Method::PUT, "/api/v4/channels/{channel_id}/members/{user_id}/autotranslation", SignedIn, unlicensed(403, "api.channel.update_channel_member_autotranslation.feature_not_available.app_error")),
    row(Method::GET, "/api/v4/channels/{channel_id}/moderations", SignedIn, unlicensed(403, "api.channel.get_channel_moderations.license.error")),
    row(Method::PUT, "/api/v4/channels/{channel_id}/moderations/patch", SignedIn, unlicensed(403, "api.channel.patch_channel_moderations.license.error")),
    row(Method::GET, "/api/v4/cloud/limits", SignedIn, CLOUD),
    row(Method::GET, "/api/v4/cloud/products", SignedIn, CLOUD),
    row(Method::GET, "/api/v4/cloud/customer", SignedIn, CLOUD),
    row(Method::PUT, "/api/v4/cloud/customer", SignedIn, CLOUD),
    row(Method::PUT, "/api/v4/cloud/customer/address", SignedIn, CLOUD),
    row(Method::GET, "/api/v4/cloud/subscription", SignedIn, CLOUD),
    row(Method::GET, "/api/v4/cloud/installation", SignedIn, CLOUD),
    row(Method::GET, "/api/v4/cloud/subscription/invoices", SignedIn, CLOUD),
    row(Method::GET, "/api/v4/cloud/subscription/invoices/{invoice_id}/pdf", SignedIn, CLOUD),
    row(Method::GET, "/api/v4/cloud/check-cws-connection", Anyone, CLOUD),
    row(Method::POST, "/api/v4/compliance/reports", SystemAdmin, COMPLIANCE),
    row(Method::GET, "/api/v4/compliance/reports", SystemAdmin, COMPLIANCE),
    row(Method::GET, "/api/v4/compliance/reports/{report_id}", SystemAdmin, COMPLIANCE),
    row(Method::GET, "/api/v4/compliance/reports/{report_id}/download", SystemAdmin, COMPLIANCE),
    row(Method::GET, "/api/v4/content_flagging/flag/config", SignedIn, FLAGGING),
    row(Method::GET, "/api/v4/content_flagging/team/{team_id}/status", SignedIn, FLAGGING),
    row(Method::POST, "/api/v4/content_flagging/post/{post_id}/flag", SignedIn, FLAGGING),
    row(Method::GET, "/api/v4/content_flagging/fields", SignedIn, FLAGGING),
    row(Method::GET, "/api/v4/content_flagging/post/{post_id}/field_values", SignedIn, FLAGGING),
    row(Method::GET, "/api/v4/content_flagging/post/{post_id}", SignedIn, FLAGGING),
    row(Method::PUT, "/api/v4/content_flagging/post/{post_id}/remove", SignedIn, FLAGGING),
    row(Method::PUT, "/api/v4/content_flagging/post/{post_id}/keep", SignedIn, FLAGGING),
    row(Method::GET, "/api/v4/content_flagging/config", SignedIn, FLAGGING),
    row(Method::GET, "/api/v4/content_flagging/team/{team_id}/reviewers/search", SignedIn, FLAGGING),
    row(Method::POST, "/api/v4/content_flagging/post/{post_id}/assign/{content_reviewer_id}", SignedIn, FLAGGING),
    row(Method::POST, "/api/v4/custom_profile_attributes/fields", SystemAdmin, ATTRIBUTES),
    row(Method::PATCH, "/api/v4/custom_profile_attributes/fields/{field_id}", SystemAdmin, ATTRIBUTES),
    row(Method::DELETE, "/api/v4/custom_profile_attributes/fields/{field_id}", SystemAdmin, ATTRIBUTES),
    row(Method::PATCH, "/api/v4/custom_profile_attributes/values", SignedIn, ATTRIBUTES),
    row(Method::GET, "/api/v4/custom_profile_attributes/group", SignedIn, ATTRIBUTES),
    row(Method::GET, "/api/v4/users/{user_id}/custom_profile_attributes", SignedIn, ATTRIBUTES),
    row(Method::PATCH, "/api/v4/users/{user_id}/custom_profile_attributes", SignedIn, ATTRIBUTES),
    row(Method::POST, "/api/v4/elasticsearch/purge_indexes", SystemAdmin, unlicensed(501, "ent.elasticsearch.test_config.license.error")),
    row(Method::GET, "/api/v4/groups", SignedIn, GROUPS),
    row(Method::POST, "/api/v4/groups", SignedIn, GROUPS),
    row(Method::GET, "/api/v4/groups/{group_id}", SignedIn, GROUPS),
    row(Method::DELETE, "/api/v4/groups/{group_id}", SignedIn, GROUPS),
    row(Method::PUT, "/api/v4/groups/{group_id}/patch", SignedIn, GROUPS),
    row(Method::POST, "/api/v4/groups/{group_id}/restore", SignedIn, GROUPS),
    row(Method::POST, "/api/v4/groups/{group_id}/teams/{team_id}/link", SignedIn, GROUPS),
    row(Method::DELETE, "/api/v4/groups/{group_id}/teams/{team_id}/link", SignedIn, GROUPS),
    row(Method::POST, "/api/v4/groups/{group_id}/channels/{channel_id}/link", SignedIn, GROUPS),
    row(Method::DELETE, "/api/v4/groups/{group_id}/channels/{channel_id}/link", SignedIn, GROUPS),
    row(Method::GET, "/api/v4/groups/{group_id}/teams/{team_id}", SignedIn, GROUPS),
    row(Method::GET, "/api/v4/groups/{group_id}/channels/{channel_id}", SignedIn, GROUPS),
    row(Method::GET, "/api/v4/groups/{group_id}/teams", SignedIn, GROUPS),
    row(Method::GET, "/api/v4/groups/{group_id}/channels", SignedIn, GROUPS),
    row(Method::PUT, "/api/v4/groups/{group_id}/teams/{team_id}/patch", SignedIn, GROUPS),
    row(Method::PUT, "/api/v4/groups/{group_id}/channels/{channel_id}/patch", SignedIn, GROUPS),
    row(Method::GET, "/api/v4/groups/{group_id}/members", SignedIn, GROUPS),
    row(Method::DELETE, "/api/v4/groups/{group_id}/members", SignedIn, GROUPS),
    row(Method::POST, "/api/v4/groups/{group_id}/members", SignedIn, GROUPS),
    row(Method::GET, "/api/v4/groups/{group_id}/stats", SignedIn, GROUPS),
    row(Method::GET, "/api/v4/channels/{channel_id}/groups", SignedIn, GROUPS),
    row(Method::GET, "/api/v4/teams/{team_id}/groups", SignedIn, GROUPS),
    row(Method::GET, "/api/v4/teams/{team_id}/groups_by_channels", SignedIn, GROUPS),
    row(Method::GET, "/api/v4/users/{user_id}/groups", SignedIn, GROUPS),
    row(Method::POST, "/api/v4/groups/names", SignedIn, GROUPS),
    row(Method::GET, "/api/v4/jobs/{job_id}/download", SignedIn, off(501, "app.job.download_export_results_not_enabled")),
    row(Method::POST, "/api/v4/ldap/sync", SignedIn, LDAP),
    row(Method::POST, "/api/v4/ldap/test", SignedIn, LDAP),
    row(Method::POST, "/api/v4/ldap/test_connection", SignedIn, LDAP),
    row(Method::POST, "/api/v4/ldap/test_diagnostics", SignedIn, LDAP),
    row(Method::GET, "/api/v4/ldap/groups", SystemAdmin, LDAP),
    row(Method::POST, "/api/v4/ldap/groups/{remote_id}/link", SystemAdmin, LDAP),
    row(Method::DELETE, "/api/v4/ldap/groups/{remote_id}/link", SystemAdmin, LDAP),
    row(Method::GET, "/api/v4/plugins", SignedIn, PLUGINS),
    row(Method::GET, "/api/v4/plugins/statuses", SignedIn, PLUGINS),
    row(Method::GET, "/api/v4/plugins/marketplace", SignedIn, PLUGINS),
    row(Method::POST, "/api/v4/posts/{post_id}/move", SignedIn, off(501, "api.post.move_thread.disabled.app_error")),
    row(Method::POST, "/api/v4/recaps", SignedIn, RECAPS),
    row(Method::GET, "/api/v4/recaps", SignedIn, RECAPS),
    row(Method::GET, "/api/v4/recaps/{recap_id}", SignedIn, RECAPS),
    row(Method::DELETE, "/api/v4/recaps/{recap_id}", SignedIn, RECAPS),
    row(Method::POST, "/api/v4/recaps/{recap_id}/read", SignedIn, RECAPS),
    row(Method::POST, "/api/v4/recaps/{recap_id}/regenerate", SignedIn, RECAPS),
    row(Method::POST, "/api/v4/reports/users/export", SystemAdmin, unlicensed(400, "app.report.start_users_batch_export.license_error")),
    row(Method::GET, "/api/v4/saml/metadata", Anyone, SAML),
    row(Method::POST, "/api/v4/saml/reset_auth_data", SystemAdmin, SAML),
    row(Method::POST, "/api/v4/schemes", SignedIn, unlicensed(501, "api.scheme.create_scheme.license.error")),
    row(Method::DELETE, "/api/v4/schemes/{scheme_id}", SignedIn, unlicensed(501, "api.scheme.delete_scheme.license.error")),
    row(Method::PUT, "/api/v4/schemes/{scheme_id}/patch", SignedIn, unlicensed(501, "api.scheme.patch_scheme.license.error")),
    row(Method::GET, "/api/v4/sharedchannels/{channel_id}/remotes", SignedIn, REMOTE_CLUSTERS),
    row(Method::GET, "/api/v4/remotecluster", SystemAdmin, REMOTE_CLUSTERS),
    row(Method::POST, "/api/v4/remotecluster", SystemAdmin, REMOTE_CLUSTERS),
    row(Method::GET, "/api/v4/remotecluster/{remote_id}", SystemAdmin, REMOTE_CLUSTERS),
    row(Method::PATCH, "/api/v4/remotecluster/{remote_id}", SystemAdmin, REMOTE_CLUSTERS),
    row(Method::DELETE, "/api/v4/remotecluster/{remote_id}", SystemAdmin, REMOTE_CLUSTERS),
    row(Method::POST, "/api/v4/remotecluster/{remote_id}/generate_invite", SystemAdmin, REMOTE_CLUSTERS),
    row(Method::POST, "/api/v4/remotecluster/accept_invite", SystemAdmin, REMOTE_CLUSTERS),
    row(Method::GET, "/api/v4/sharedchannels/{team_id}", SignedIn, REMOTE_CLUSTERS),
    row(Method::GET, "/api/v4/remotecluster/{remote_id}/sharedchannelremotes", SystemAdmin, REMOTE_CLUSTERS),
    row(Method::GET, "/api/v4/sharedchannels/remote_info/{remote_id}", SignedIn, REMOTE_CLUSTERS),
    row(Method::POST, "/api/v4/remotecluster/{remote_id}/channels/{channel_id}/invite", SystemAdmin, REMOTE_CLUSTERS),
    row(Method::POST, "/api/v4/remotecluster/{remote_id}/channels/{channel_id}/uninvite", SystemAdmin, REMOTE_CLUSTERS),
    row(Method::GET, "/api/v4/system/support_packet", SystemAdmin, unlicensed(403, "api.no_license")),
    row(Method::POST, "/api/v4/teams/{team_id}/invite-guests/email", SignedIn, unlicensed(501, "api.team.invite_guests_to_channels.license.error")),
    row(Method::GET, "/api/v4/terms_of_service", SignedIn, off(404, "app.terms_of_service.get.no_rows.app_error")),
    row(Method::POST, "/api/v4/terms_of_service", SystemAdmin, unlicensed(400, "api.create_terms_of_service.custom_terms_of_service_disabled.app_error")),
    row(Method::POST, "/api/v4/trial-license", SystemAdmin, TRIAL),
    row(Method::GET, "/api/v4/trial-license/prev", SignedIn, TRIAL),
    row(Method::POST, "/api/v4/users/login/cws", Anyone, unlicensed(401, "api.user.login_cws.license.error")),
    row(Method::POST, "/api/v4/users/login/sso/code-exchange", Anyone, off(410, "api.user.login_sso_code_exchange.deprecated.app_error")),
    row(Method::GET, "/api/v4/users/{user_id}/data_retention/team_policies", SignedIn, RETENTION),
    row(Method::GET, "/api/v4/users/{user_id}/data_retention/channel_policies", SignedIn, RETENTION),
    row(Method::GET, "/api/v4/data_retention/policy", SignedIn, RETENTION),
    row(Method::GET, "/api/v4/data_retention/policies_count", SystemAdmin, RETENTION),
    row(Method::GET, "/api/v4/data_retention/policies", SystemAdmin, RETENTION),
    row(Method::POST, "/api/v4/data_retention/policies", SystemAdmin, RETENTION),
    row(Method::GET, "/api/v4/data_retention/policies/{policy_id}", SystemAdmin, RETENTION),
    row(Method::PATCH, "/api/v4/data_retention/policies/{policy_id}", SystemAdmin, RETENTION),
    row(Method::DELETE, "/api/v4/data_retention/policies/{policy_id}", SystemAdmin, RETENTION),
    row(Method::GET, "/api/v4/data_retention/policies/{policy_id}/teams", SystemAdmin, RETENTION),
    row(Method::GET, "/api/v4/data_retention/policies/{policy_id}/channels", SystemAdmin, RETENTION),
    row(Method::POST, "/api/v4/users/{user_id}/demote", SignedIn, unlicensed(501, "api.team.demote_user_to_guest.license.error")),
    row(Method::POST, "/api/v4/users/{user_id}/promote", SystemAdmin, off(501, "api.user.promote_guest_to_user.no_guest.app_error")),
    row(Method::GET, "/api/v4/users/{user_id}/terms_of_service", SignedIn, off(404, "app.user_terms_of_service.get_by_user.no_rows.app_error")),
    row(Method::POST, "/api/v4/users/{user_id}/terms_of_service", SignedIn, off(404, "app.terms_of_service.get.no_rows.app_error")),
    row(Method::POST, "/api/v4/users/migrate_auth/ldap", SystemAdmin, unlicensed(501, "api.admin.ldap.not_available.app_error")),
    row(Method::POST, "/api/v4/users/migrate_auth/saml", SystemAdmin, unlicensed(501, "api.admin.saml.not_available.app_error")),
    row(Method::GET, "/api/v4/ip_filtering", SignedIn, ADDRESSES),
    row(Method::POST, "/api/v4/ip_filtering", SignedIn, ADDRESSES),
    row(Method::GET, "/api/v4/ip_filtering/my_ip", SignedIn, ADDRESSES),
    row(Method::GET, "/api/v4/oauth/outgoing_connections", SystemAdmin, OUTGOING),
    row(Method::POST, "/api/v4/oauth/outgoing_connections", SystemAdmin, OUTGOING),
    row(Method::GET, "/api/v4/oauth/outgoing_connections/{connection_id}", SystemAdmin, OUTGOING),
    row(Method::PUT, "/api/v4/oauth/outgoing_connections/{connection_id}", SystemAdmin, OUTGOING),
    row(Method::DELETE, "/api/v4/oauth/outgoing_connections/{connection_id}", SystemAdmin, OUTGOING),
    row(Method::POST, "/api/v4/oauth/outgoing_connections/validate", SystemAdmin, OUTGOING),
    row(Method::GET, "/api/v4/schemes/{scheme_id}", SystemAdmin, SCHEME),
    row(Method::GET, "/api/v4/schemes/{scheme_id}/teams", SystemAdmin, SCHEME),
    row(Method::GET, "/api/v4/schemes/{scheme_id}/channels", SystemAdmin, SCHEME),
    row(Method::PUT, "/api/v4/teams/{team_id}/scheme", SignedIn, unlicensed(501, "api.team.update_team_scheme.license.error")),
    row(Method::PUT, "/api/v4/channels/{channel_id}/scheme", SignedIn, unlicensed(403, "api.channel.update_channel_scheme.license.error")),
    row(Method::POST, "/api/v4/data_retention/policies/{policy_id}/teams", SystemAdmin, RETENTION),
    row(Method::DELETE, "/api/v4/data_retention/policies/{policy_id}/teams", SystemAdmin, RETENTION),
    row(Method::POST, "/api/v4/data_retention/policies/{policy_id}/channels", SystemAdmin, RETENTION),
    row(Method::DELETE, "/api/v4/data_retention/policies/{policy_id}/channels", SystemAdmin, RETENTION),
    row(Method::POST, "/api/v4/plugins/install_from_url", SignedIn, PLUGINS),
    row(Method::DELETE, "/api/v4/plugins/{plugin_id}", SignedIn, PLUGINS),
    row(Method::POST, "/api/v4/plugins/{plugin_id}/enable", SignedIn, PLUGINS),
    row(Method::POST, "/api/v4/plugins/{plugin_id}/disable", SignedIn, PLUGINS),
];
