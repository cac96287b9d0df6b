//! `config/client`: what clients read to decide what to offer. All values are text.
//!
//! A feature that this core does not have is off here, so that clients do not ask for it. Licensed
//! features never appear: the core says that it has no licence.

use std::collections::BTreeMap;

use super::{BUILD_NUMBER, HttpSettings, VERSION};
use crate::Core;
use crate::push::sign::Signer;

/// Both views of the configuration, made once: it does not change while the process runs.
#[derive(Debug)]
pub(crate) struct ClientConfig {
    anonymous: String,
    full: String,
    version_id: String,
}

impl ClientConfig {
    /// Derives what clients see from the settings.
    pub(crate) fn new(core: &Core, settings: &HttpSettings) -> Self {
        let mut map = anonymous(core, settings);
        let anonymous = to_json(&map);
        map.extend(SIGNED_IN.iter().map(|(k, v)| (*k, (*v).to_owned())));
        map.insert("MaxFileSize", core.settings().max_file_bytes.to_string());
        map.insert("MaxPostSize", core.settings().max_post_runes.to_string());
        let integrations = &core.settings().integrations;
        map.insert("EnablePostUsernameOverride", integrations.username_override.to_string());
        map.insert("EnablePostIconOverride", integrations.icon_override.to_string());
        map.insert("EnableUserAccessTokens", core.settings().users_may_create_tokens.to_string());
        if core.settings().push.proxy.is_some() {
            map.insert("SendPushNotifications", "true".to_owned());
            // Devices show only what this key has signed.
            let key = Signer::of(core).map(|signer| signer.public_key()).unwrap_or_else(|error| {
                tracing::error!(%error, "there is no key for notifications; devices will show none");
                String::new()
            });
            map.insert("AsymmetricSigningPublicKey", key);
        }
        let full = to_json(&map);
        let hash = blake3::hash(full.as_bytes()).to_hex();
        // Clients fetch the configuration again when the hash differs from the one they know.
        let version_id = format!("{VERSION}.{BUILD_NUMBER}.{}.false", &hash.as_str()[..32]);
        Self { anonymous, full, version_id }
    }

    /// The map as JSON.
    pub(crate) fn json(&self, signed_in: bool) -> &str {
        if signed_in { &self.full } else { &self.anonymous }
    }

    /// `<version>.<build>.<hash of the configuration>.<licensed>`.
    pub(crate) fn version_id(&self) -> &str {
        &self.version_id
    }
}

fn to_json(map: &BTreeMap<&'static str, String>) -> String {
    serde_json::to_string(map).expect("a map of texts serialises")
}

fn anonymous(core: &Core, settings: &HttpSettings) -> BTreeMap<&'static str, String> {
    let mut map: BTreeMap<_, _> = EVERYBODY.iter().map(|(k, v)| (*k, (*v).to_owned())).collect();
    let own = core.settings();
    let id = core.diagnostic_id().to_string();
    map.insert("Version", VERSION.to_owned());
    map.insert("BuildNumber", BUILD_NUMBER.to_owned());
    map.insert("BuildHash", concat!("holdfast-", env!("CARGO_PKG_VERSION")).to_owned());
    map.insert("DiagnosticId", id.clone());
    map.insert("TelemetryId", id);
    map.insert("SiteURL", settings.site_url.as_deref().unwrap_or("").trim_end_matches('/').to_owned());
    map.insert("SiteName", own.site_name.clone());
    map.insert("EnableUserCreation", own.open_registration.to_string());
    map.insert("EnableOpenServer", own.open_registration.to_string());
    map.insert("EnableSignUpWithEmail", own.open_registration.to_string());
    map.insert("EnableMultifactorAuthentication", own.multifactor.to_string());
    map.insert("PasswordMinimumLength", own.password_min_chars.to_string());
    map
}

/// Before login.
const EVERYBODY: &[(&str, &str)] = &[
    ("AboutLink", ""),
    ("AllowDownloadLogs", "true"),
    ("AndroidAppDownloadLink", ""),
    ("AndroidLatestVersion", ""),
    ("AndroidMinVersion", ""),
    ("AppDownloadLink", ""),
    ("AppsPluginEnabled", "false"),
    ("AsymmetricSigningPublicKey", ""),
    ("BuildDate", ""),
    ("BuildEnterpriseReady", "false"),
    ("BuildHashEnterprise", "none"),
    ("CWSURL", ""),
    ("CustomBrandText", ""),
    ("CustomDescriptionText", ""),
    ("DefaultClientLocale", "en"),
    ("DiagnosticsEnabled", "false"),
    ("EmailLoginButtonBorderColor", ""),
    ("EmailLoginButtonColor", ""),
    ("EmailLoginButtonTextColor", ""),
    ("EnableAskCommunityLink", "false"),
    ("EnableBotAccountCreation", "true"),
    ("EnableClientMetrics", "false"),
    ("EnableComplianceExport", "false"),
    ("EnableCustomBrand", "false"),
    ("EnableCustomEmoji", "true"),
    ("EnableDesktopLandingPage", "false"),
    ("EnableDiagnostics", "false"),
    ("EnableFile", "false"),
    ("EnableGuestAccounts", "false"),
    ("EnableGuestMagicLink", "false"),
    ("EnableJoinLeaveMessageByDefault", "true"),
    ("EnableLdap", "false"),
    ("EnableSaml", "false"),
    ("EnableSignInWithEmail", "true"),
    ("EnableSignInWithUsername", "true"),
    ("EnableSignUpWithGitLab", "false"),
    ("EnableSignUpWithGoogle", "false"),
    ("EnableSignUpWithOffice365", "false"),
    ("EnableSignUpWithOpenId", "false"),
    ("EnableUserStatuses", "true"),
    ("EnforceMultifactorAuthentication", "false"),
    ("FileLevel", "INFO"),
    ("ForgotPasswordLink", ""),
    ("GuestAccountsEnforceMultifactorAuthentication", "false"),
    ("HasImageProxy", "false"),
    ("HelpLink", ""),
    ("HideGuestTags", "false"),
    ("IosAppDownloadLink", ""),
    ("IosLatestVersion", ""),
    ("IosMinVersion", ""),
    ("IsFipsEnabled", "false"),
    ("LdapLoginButtonBorderColor", ""),
    ("LdapLoginButtonColor", ""),
    ("LdapLoginButtonTextColor", ""),
    ("LdapLoginFieldName", ""),
    ("MobileExternalBrowser", "false"),
    ("NoAccounts", "false"),
    ("OpenIdButtonColor", ""),
    ("OpenIdButtonText", ""),
    ("PasswordEnableForgotLink", "false"),
    ("PasswordRequireLowercase", "false"),
    ("PasswordRequireNumber", "false"),
    ("PasswordRequireSymbol", "false"),
    ("PasswordRequireUppercase", "false"),
    ("PluginsEnabled", "false"),
    ("PrivacyPolicyLink", ""),
    ("ReportAProblemLink", ""),
    ("ReportAProblemMail", ""),
    ("ReportAProblemType", "hidden"),
    ("SamlLoginButtonBorderColor", ""),
    ("SamlLoginButtonColor", ""),
    ("SamlLoginButtonText", ""),
    ("SamlLoginButtonTextColor", ""),
    ("ServiceEnvironment", "production"),
    ("SupportEmail", ""),
    ("TermsOfServiceLink", ""),
    ("WebsocketPort", "80"),
    ("WebsocketSecurePort", "443"),
    ("WebsocketURL", ""),
];

/// After login, added to the above.
const SIGNED_IN: &[(&str, &str)] = &[
    ("AllowBannerDismissal", "false"),
    ("AllowCustomThemes", "true"),
    ("AllowPersistentNotifications", "false"),
    ("AllowPersistentNotificationsForGuests", "false"),
    ("AllowSyncedDrafts", "true"),
    ("AllowedThemes", ""),
    ("AvailableLocales", ""),
    ("BannerColor", ""),
    ("BannerText", ""),
    ("BannerTextColor", ""),
    ("BurnOnReadDurationSeconds", "600"),
    ("BurnOnReadMaximumTimeToLiveSeconds", "604800"),
    ("CollapsedThreads", "always_on"),
    ("CustomUrlSchemes", ""),
    ("DataRetentionEnableFileDeletion", "false"),
    ("DataRetentionEnableMessageDeletion", "false"),
    ("DataRetentionFileRetentionHours", "0"),
    ("DataRetentionMessageRetentionHours", "0"),
    ("DefaultTheme", ""),
    ("DelayChannelAutocomplete", "false"),
    ("DeleteAccountLink", ""),
    ("DisableAppBar", "true"),
    ("DisableRefetchingOnBrowserFocus", "false"),
    ("DisableWakeUpReconnectHandler", "false"),
    ("EmailNotificationContentsType", "full"),
    ("EnableAttributeBasedAccessControl", "false"),
    ("EnableBanner", "false"),
    ("EnableBurnOnRead", "false"),
    ("EnableChannelViewedMessages", "true"),
    ("EnableClientPerformanceDebugging", "false"),
    ("EnableCluster", "false"),
    ("EnableCommands", "true"),
    ("EnableCompliance", "false"),
    ("EnableConfirmNotificationsToChannel", "true"),
    ("EnableCrossTeamSearch", "false"),
    ("EnableCustomGroups", "false"),
    ("EnableCustomUserStatuses", "true"),
    ("EnableDeveloper", "false"),
    ("EnableEmailBatching", "false"),
    ("EnableEmailInvitations", "false"),
    ("EnableEmojiPicker", "true"),
    ("EnableExperimentalLocales", "false"),
    ("EnableFileAttachments", "true"),
    ("EnableGifPicker", "false"),
    ("EnableIncomingWebhooks", "true"),
    ("EnableInlineLatex", "false"),
    ("EnableLastActiveTime", "true"),
    ("EnableLatex", "false"),
    ("EnableLinkPreviews", "false"),
    ("EnableMarketplace", "false"),
    ("EnableMetrics", "false"),
    ("EnableMobileFileDownload", "true"),
    ("EnableMobileFileUpload", "true"),
    ("EnableOAuthServiceProvider", "false"),
    ("EnableOnboardingFlow", "false"),
    ("EnableOutgoingOAuthConnections", "false"),
    ("EnableOutgoingWebhooks", "true"),
    ("EnablePermalinkPreviews", "false"),
    ("EnablePreviewModeBanner", "false"),
    ("EnablePublicLink", "false"),
    ("EnableSVGs", "false"),
    ("EnableTesting", "false"),
    ("EnableThemeSelection", "true"),
    ("EnableTutorial", "false"),
    ("EnableUserDeactivation", "false"),
    ("EnableUserManagedAttributes", "false"),
    ("EnableUserTypingMessages", "true"),
    ("ExperimentalChannelCategorySorting", "false"),
    ("ExperimentalEnableAuthenticationTransfer", "false"),
    ("ExperimentalEnableAutomaticReplies", "false"),
    ("ExperimentalEnableDefaultChannelLeaveJoinMessages", "true"),
    ("ExperimentalEnablePostMetadata", "true"),
    ("ExperimentalGroupUnreadChannels", "default_off"),
    ("ExperimentalPrimaryTeam", ""),
    ("ExperimentalSharedChannels", "false"),
    ("ExperimentalTimezone", "true"),
    ("ExtendSessionLengthWithActivity", "false"),
    ("FeatureFlagExperimentalCrossTeamSearch", "false"),
    ("FeatureFlagWebSocketEventScope", "true"),
    ("GiphySdkKey", ""),
    ("GoogleDeveloperKey", ""),
    ("InstallationDate", "0"),
    ("IsDefaultMarketplace", "true"),
    ("LdapFirstNameAttributeSet", "false"),
    ("LdapLastNameAttributeSet", "false"),
    ("LdapNicknameAttributeSet", "false"),
    ("LdapPictureAttributeSet", "false"),
    ("LdapPositionAttributeSet", "false"),
    ("LockTeammateNameDisplay", "false"),
    ("ManagedResourcePaths", ""),
    ("MaxMarkdownNodes", "0"),
    ("MaxNotificationsPerChannel", "1000"),
    ("MinimumHashtagLength", "3"),
    ("PersistentNotificationIntervalMinutes", "5"),
    ("PersistentNotificationMaxCount", "6"),
    ("PersistentNotificationMaxRecipients", "5"),
    ("PostAcknowledgements", "true"),
    ("PostEditTimeLimit", "-1"),
    ("PostPriority", "true"),
    ("RequireEmailVerification", "false"),
    ("RestrictDirectMessage", "any"),
    ("RunJobs", "false"),
    ("SQLDriverName", "sqlite3"),
    ("SamlFirstNameAttributeSet", "false"),
    ("SamlLastNameAttributeSet", "false"),
    ("SamlNicknameAttributeSet", "false"),
    ("SamlPositionAttributeSet", "false"),
    ("ScheduledPosts", "true"),
    ("SchemaVersion", "0"),
    ("SendEmailNotifications", "false"),
    ("SendPushNotifications", "false"),
    ("ShowEmailAddress", "true"),
    ("ShowFullName", "true"),
    ("TeammateNameDisplay", "full_name"),
    ("TimeBetweenUserTypingUpdatesMilliseconds", "5000"),
    ("UniqueEmojiReactionLimitPerPost", "50"),
    ("UpgradedFromTE", "false"),
    ("UseAnonymousURLs", "false"),
    ("UsersStatusAndProfileFetchingPollIntervalMilliseconds", "3000"),
    ("YoutubeReferrerPolicy", "false"),
];
