//! What Graph knows: each operation with the permissions that open it and the clouds that have it.
//!
//! Taken from the OpenAPI subset, which lives outside this repository, so that the simulator refuses as Graph does where the
//! subset is absent as well. Where it is present, a test holds the two against each other.

type Names = &'static [&'static str];

/// Permissions of which one is enough, by kind of token. An empty list: no token of that kind gets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Scopes of a token that speaks for a user.
    pub delegated: Names,
    /// Roles of a token that speaks for an app alone.
    pub application: Names,
}

/// Clouds that have an operation, by kind of token. An empty list: every cloud.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clouds {
    /// For a token that speaks for a user.
    pub delegated: Names,
    /// For a token that speaks for an app alone.
    pub application: Names,
}

/// One operation of Graph.
#[derive(Debug)]
pub struct Row {
    /// HTTP method.
    pub method: &'static str,
    /// Path below `/v1.0`, with `{}` where something varies.
    pub template: &'static str,
    /// `None`: any valid token.
    pub needs: Option<Needs>,
    /// Where it exists.
    pub clouds: Clouds,
}

const ANY: Option<Needs> = None;
const EVERYWHERE: Clouds = only(&[]);

const fn needs(delegated: Names, application: Names) -> Option<Needs> {
    Some(Needs { delegated, application })
}

const fn only(clouds: Names) -> Clouds {
    each(clouds, clouds)
}

const fn each(delegated: Names, application: Names) -> Clouds {
    Clouds { delegated, application }
}

const fn row(method: &'static str, template: &'static str, needs: Option<Needs>, clouds: Clouds) -> Row {
    Row { method, template, needs, clouds }
}

/// Every operation of the subset.
#[rustfmt::skip] // one line each: a table is read by eye
pub const ROWS: &[Row] = &[
    row("POST", "/$batch", ANY, EVERYWHERE),
    row("GET", "/organization", needs(&["User.Read", "Organization.Read.All"], &["Organization.Read.All"]), EVERYWHERE),
    row("GET", "/me", needs(&["User.Read"], &[]), EVERYWHERE),
    row("GET", "/users", needs(&["User.Read.All"], &["User.Read.All"]), EVERYWHERE),
    row("GET", "/users/{user-id}", needs(&["User.Read.All"], &["User.Read.All"]), EVERYWHERE),
    row("GET", "/users/delta", needs(&["User.Read.All"], &["User.Read.All"]), EVERYWHERE),
    row("GET", "/users/{user-id}/memberOf", needs(&["User.Read.All"], &["User.Read.All"]), EVERYWHERE),
    row("GET", "/users/{user-id}/transitiveMemberOf", needs(&["User.Read.All"], &["User.Read.All"]), EVERYWHERE),
    row("GET", "/users/{user-id}/photo/$value", needs(&["User.ReadBasic.All"], &["User.Read.All", "ProfilePhoto.Read.All"]), EVERYWHERE),
    row("GET", "/groups", needs(&["Group.Read.All"], &["Group.Read.All"]), EVERYWHERE),
    row("GET", "/groups/{group-id}", needs(&["Group.Read.All"], &["Group.Read.All"]), EVERYWHERE),
    row("GET", "/groups/delta", needs(&["Group.Read.All"], &["Group.Read.All"]), EVERYWHERE),
    row("GET", "/groups/{group-id}/members", needs(&["GroupMember.Read.All"], &["GroupMember.Read.All"]), EVERYWHERE),
    row("GET", "/groups/{group-id}/transitiveMembers", needs(&["GroupMember.Read.All"], &["GroupMember.Read.All"]), EVERYWHERE),
    row("GET", "/directoryObjects/delta", ANY, EVERYWHERE),
    row("POST", "/directoryObjects/getByIds", needs(&["Directory.Read.All"], &["Directory.Read.All"]), EVERYWHERE),
    row("GET", "/directory/deletedItems/microsoft.graph.user", needs(&["User.Read.All"], &["User.Read.All"]), EVERYWHERE),
    row("GET", "/domains", needs(&["Domain.Read.All"], &["Domain.Read.All"]), EVERYWHERE),
    row("GET", "/domains/{domain-id}", needs(&["Domain.Read.All"], &["Domain.Read.All"]), EVERYWHERE),
    row("GET", "/domains/{domain-id}/federationConfiguration", needs(&["Domain-InternalFederation.ReadWrite.All", "Domain.ReadWrite.All"], &["Domain-InternalFederation.ReadWrite.All", "Domain.ReadWrite.All"]), EVERYWHERE),
    row("POST", "/domains/{domain-id}/federationConfiguration", needs(&["Domain-InternalFederation.ReadWrite.All", "Domain.ReadWrite.All"], &["Domain-InternalFederation.ReadWrite.All", "Domain.ReadWrite.All"]), EVERYWHERE),
    row("PATCH", "/domains/{domain-id}/federationConfiguration/{internalDomainFederation-id}", needs(&["Domain-InternalFederation.ReadWrite.All", "Domain.ReadWrite.All"], &["Domain-InternalFederation.ReadWrite.All", "Domain.ReadWrite.All"]), EVERYWHERE),
    row("DELETE", "/domains/{domain-id}/federationConfiguration/{internalDomainFederation-id}", needs(&["Domain-InternalFederation.ReadWrite.All", "Domain.ReadWrite.All"], &["Domain-InternalFederation.ReadWrite.All", "Domain.ReadWrite.All"]), EVERYWHERE),
    row("GET", "/servicePrincipals", needs(&["Application.Read.All"], &["Application.Read.All"]), EVERYWHERE),
    row("GET", "/subscriptions", ANY, EVERYWHERE),
    row("POST", "/subscriptions", ANY, EVERYWHERE),
    row("PATCH", "/subscriptions/{subscription-id}", ANY, EVERYWHERE),
    row("DELETE", "/subscriptions/{subscription-id}", ANY, EVERYWHERE),
    row("POST", "/teams", needs(&["Team.Create"], &["Team.Create", "Teamwork.Migrate.All"]), EVERYWHERE),
    row("GET", "/teams/{team-id}", needs(&["Team.ReadBasic.All"], &["Team.ReadBasic.All"]), EVERYWHERE),
    row("GET", "/teams/{team-id}/operations/{teamsAsyncOperation-id}", ANY, EVERYWHERE),
    row("POST", "/teams/{team-id}/completeMigration", needs(&[], &["Teamwork.Migrate.All"]), EVERYWHERE),
    row("GET", "/teams/{team-id}/members", needs(&["TeamMember.Read.All"], &["TeamMember.Read.All"]), EVERYWHERE),
    row("POST", "/teams/{team-id}/members", needs(&["TeamMember.ReadWrite.All"], &["TeamMember.ReadWrite.All"]), EVERYWHERE),
    row("GET", "/teams/{team-id}/primaryChannel", needs(&["Channel.ReadBasic.All"], &["Channel.ReadBasic.All"]), EVERYWHERE),
    row("GET", "/teams/{team-id}/channels", needs(&["Channel.ReadBasic.All"], &["Channel.ReadBasic.All"]), EVERYWHERE),
    row("POST", "/teams/{team-id}/channels", needs(&["Channel.Create"], &["Channel.Create", "Teamwork.Migrate.All"]), EVERYWHERE),
    row("GET", "/teams/{team-id}/channels/{channel-id}", needs(&["Channel.ReadBasic.All"], &["Channel.ReadBasic.All"]), EVERYWHERE),
    row("PATCH", "/teams/{team-id}/channels/{channel-id}", needs(&["ChannelSettings.ReadWrite.All"], &["ChannelSettings.ReadWrite.All"]), EVERYWHERE),
    row("DELETE", "/teams/{team-id}/channels/{channel-id}", needs(&["Channel.Delete.All"], &["Channel.Delete.All"]), EVERYWHERE),
    row("POST", "/teams/{team-id}/channels/{channel-id}/startMigration", needs(&[], &["Teamwork.Migrate.All"]), only(&["global"])),
    row("POST", "/teams/{team-id}/channels/{channel-id}/completeMigration", needs(&[], &["Teamwork.Migrate.All"]), EVERYWHERE),
    row("GET", "/teams/{team-id}/channels/{channel-id}/members", needs(&["ChannelMember.Read.All"], &["ChannelMember.Read.All"]), EVERYWHERE),
    row("POST", "/teams/{team-id}/channels/{channel-id}/members", needs(&["ChannelMember.ReadWrite.All"], &["ChannelMember.ReadWrite.All"]), EVERYWHERE),
    row("GET", "/teams/{team-id}/channels/{channel-id}/filesFolder", needs(&["Files.Read.All"], &["Files.Read.All"]), EVERYWHERE),
    row("GET", "/teams/{team-id}/channels/{channel-id}/tabs", needs(&["TeamsTab.Read.All"], &["TeamsTab.Read.All"]), EVERYWHERE),
    row("POST", "/teams/{team-id}/channels/{channel-id}/tabs", needs(&["TeamsTab.Create"], &["TeamsTab.Create"]), EVERYWHERE),
    row("GET", "/teams/{team-id}/channels/{channel-id}/messages", needs(&["ChannelMessage.Read.All"], &["ChannelMessage.Read.All"]), EVERYWHERE),
    row("POST", "/teams/{team-id}/channels/{channel-id}/messages", needs(&["ChannelMessage.Send"], &["Teamwork.Migrate.All"]), EVERYWHERE),
    row("GET", "/teams/{team-id}/channels/{channel-id}/messages/delta", needs(&["ChannelMessage.Read.All"], &["ChannelMessage.Read.All"]), EVERYWHERE),
    row("GET", "/teams/{team-id}/channels/{channel-id}/messages/{chatMessage-id}/replies", needs(&["ChannelMessage.Read.All"], &["ChannelMessage.Read.All"]), EVERYWHERE),
    row("POST", "/teams/{team-id}/channels/{channel-id}/messages/{chatMessage-id}/replies", needs(&["ChannelMessage.Send"], &["Teamwork.Migrate.All"]), EVERYWHERE),
    row("GET", "/teams/{team-id}/channels/{channel-id}/messages/{chatMessage-id}", needs(&["ChannelMessage.Read.All"], &["ChannelMessage.Read.All"]), EVERYWHERE),
    row("PATCH", "/teams/{team-id}/channels/{channel-id}/messages/{chatMessage-id}", needs(&["ChannelMessage.ReadWrite"], &["ChannelMessage.UpdatePolicyViolation.All"]), only(&["global"])),
    row("POST", "/teams/{team-id}/channels/{channel-id}/messages/{chatMessage-id}/softDelete", needs(&["ChannelMessage.ReadWrite"], &[]), only(&["global"])),
    row("POST", "/teams/{team-id}/channels/{channel-id}/messages/{chatMessage-id}/undoSoftDelete", needs(&["ChannelMessage.ReadWrite"], &[]), EVERYWHERE),
    row("POST", "/teams/{team-id}/channels/{channel-id}/messages/{chatMessage-id}/setReaction", needs(&["ChannelMessage.Send"], &[]), EVERYWHERE),
    row("POST", "/teams/{team-id}/channels/{channel-id}/messages/{chatMessage-id}/unsetReaction", needs(&["ChannelMessage.Send"], &[]), EVERYWHERE),
    row("GET", "/teams/{team-id}/channels/{channel-id}/messages/{chatMessage-id}/replies/{reply-id}", needs(&["ChannelMessage.Read.All"], &["ChannelMessage.Read.All"]), EVERYWHERE),
    row("PATCH", "/teams/{team-id}/channels/{channel-id}/messages/{chatMessage-id}/replies/{reply-id}", needs(&["ChannelMessage.ReadWrite"], &["ChannelMessage.UpdatePolicyViolation.All"]), only(&["global"])),
    row("POST", "/teams/{team-id}/channels/{channel-id}/messages/{chatMessage-id}/replies/{reply-id}/softDelete", needs(&["ChannelMessage.ReadWrite"], &[]), only(&["global"])),
    row("POST", "/teams/{team-id}/channels/{channel-id}/messages/{chatMessage-id}/replies/{reply-id}/undoSoftDelete", needs(&["ChannelMessage.ReadWrite"], &[]), EVERYWHERE),
    row("POST", "/teams/{team-id}/channels/{channel-id}/messages/{chatMessage-id}/replies/{reply-id}/setReaction", needs(&["ChannelMessage.Send"], &[]), EVERYWHERE),
    row("POST", "/teams/{team-id}/channels/{channel-id}/messages/{chatMessage-id}/replies/{reply-id}/unsetReaction", needs(&["ChannelMessage.Send"], &[]), EVERYWHERE),
    row("GET", "/teams/{team-id}/channels/{channel-id}/messages/{chatMessage-id}/hostedContents", needs(&["ChannelMessage.Read.All"], &["ChannelMessage.Read.All"]), EVERYWHERE),
    row("GET", "/teams/{team-id}/channels/{channel-id}/messages/{chatMessage-id}/hostedContents/{hostedContent-id}/$value", needs(&["ChannelMessage.Read.All"], &["ChannelMessage.Read.All"]), EVERYWHERE),
    row("GET", "/teams/{team-id}/channels/getAllMessages", needs(&[], &["ChannelMessage.Read.All"]), EVERYWHERE),
    row("POST", "/teams/{team-id}/sendActivityNotification", needs(&["TeamsActivity.Send"], &["TeamsActivity.Send"]), EVERYWHERE),
    row("GET", "/teams/{team-id}/installedApps", needs(&["TeamsAppInstallation.ReadForTeam"], &["TeamsAppInstallation.ReadForTeam.All"]), EVERYWHERE),
    row("GET", "/chats", needs(&["Chat.ReadBasic"], &[]), EVERYWHERE),
    row("POST", "/chats", needs(&["Chat.Create"], &["Chat.Create", "Teamwork.Migrate.All"]), EVERYWHERE),
    row("GET", "/chats/{chat-id}", needs(&["Chat.ReadBasic"], &["Chat.ReadBasic.All"]), EVERYWHERE),
    row("GET", "/chats/{chat-id}/members", needs(&["ChatMember.Read"], &["ChatMember.Read.All"]), EVERYWHERE),
    row("POST", "/chats/{chat-id}/startMigration", needs(&[], &["Teamwork.Migrate.All"]), only(&["global"])),
    row("POST", "/chats/{chat-id}/completeMigration", needs(&[], &["Teamwork.Migrate.All"]), only(&["global"])),
    row("POST", "/chats/{chat-id}/sendActivityNotification", needs(&["TeamsActivity.Send"], &["TeamsActivity.Send"]), EVERYWHERE),
    row("GET", "/chats/{chat-id}/messages", needs(&["Chat.Read"], &["Chat.Read.All"]), EVERYWHERE),
    row("POST", "/chats/{chat-id}/messages", needs(&["ChatMessage.Send"], &["Teamwork.Migrate.All"]), EVERYWHERE),
    row("GET", "/chats/{chat-id}/messages/{chatMessage-id}", needs(&["Chat.Read"], &["Chat.Read.All"]), EVERYWHERE),
    row("PATCH", "/chats/{chat-id}/messages/{chatMessage-id}", needs(&["Chat.ReadWrite"], &["Chat.UpdatePolicyViolation.All"]), only(&["global"])),
    row("POST", "/chats/{chat-id}/messages/{chatMessage-id}/setReaction", needs(&["ChatMessage.Send"], &[]), EVERYWHERE),
    row("POST", "/chats/{chat-id}/messages/{chatMessage-id}/unsetReaction", needs(&["ChatMessage.Send"], &[]), EVERYWHERE),
    row("POST", "/chats/{chat-id}/messages/replyWithQuote", needs(&["ChatMessage.Send"], &[]), EVERYWHERE),
    row("POST", "/users/{user-id}/chats/{chat-id}/messages/{chatMessage-id}/softDelete", needs(&["Chat.ReadWrite"], &[]), only(&["global"])),
    row("POST", "/users/{user-id}/chats/{chat-id}/messages/{chatMessage-id}/undoSoftDelete", needs(&["Chat.ReadWrite"], &[]), EVERYWHERE),
    row("POST", "/users/{user-id}/teamwork/sendActivityNotification", needs(&["TeamsActivity.Send"], &["TeamsActivity.Send", "TeamsActivity.Send.User"]), EVERYWHERE),
    row("POST", "/teamwork/sendActivityNotificationToRecipients", needs(&["TeamsActivity.Send"], &["TeamsActivity.Send"]), only(&["global", "usgov", "china"])),
    row("GET", "/users/{user-id}/teamwork/installedApps", needs(&["TeamsAppInstallation.ReadForUser"], &["TeamsAppInstallation.ReadForUser.All"]), each(&["global", "usgov"], &["global"])),
    row("POST", "/users/{user-id}/teamwork/installedApps", needs(&["TeamsAppInstallation.ReadWriteForUser"], &["TeamsAppInstallation.ReadWriteForUser.All"]), each(&["global", "usgov"], &["global"])),
    row("GET", "/appCatalogs/teamsApps", needs(&["AppCatalog.Read.All"], &["AppCatalog.Read.All"]), EVERYWHERE),
    row("POST", "/me/sendMail", needs(&["Mail.Send"], &["Mail.Send"]), EVERYWHERE),
    row("POST", "/me/messages", needs(&["Mail.ReadWrite"], &["Mail.ReadWrite"]), EVERYWHERE),
    row("POST", "/users/{user-id}/sendMail", needs(&["Mail.Send"], &["Mail.Send"]), EVERYWHERE),
    row("POST", "/users/{user-id}/messages", needs(&["Mail.ReadWrite"], &["Mail.ReadWrite"]), EVERYWHERE),
    row("GET", "/users/{user-id}/messages", needs(&["Mail.Read"], &["Mail.Read"]), EVERYWHERE),
    row("GET", "/users/{user-id}/messages/{message-id}", needs(&["Mail.Read"], &["Mail.Read"]), EVERYWHERE),
    row("PATCH", "/users/{user-id}/messages/{message-id}", needs(&["Mail.ReadWrite"], &["Mail.ReadWrite"]), EVERYWHERE),
    row("DELETE", "/users/{user-id}/messages/{message-id}", needs(&["Mail.ReadWrite"], &["Mail.ReadWrite"]), EVERYWHERE),
    row("GET", "/users/{user-id}/messages/{message-id}/$value", needs(&["Mail.Read"], &["Mail.Read"]), EVERYWHERE),
    row("POST", "/users/{user-id}/messages/{message-id}/send", needs(&["Mail.Send"], &["Mail.Send"]), EVERYWHERE),
    row("POST", "/users/{user-id}/messages/{message-id}/reply", needs(&["Mail.Send"], &["Mail.Send"]), EVERYWHERE),
    row("GET", "/users/{user-id}/messages/{message-id}/attachments", needs(&["Mail.Read"], &["Mail.Read"]), EVERYWHERE),
    row("POST", "/users/{user-id}/messages/{message-id}/attachments", needs(&["Mail.ReadWrite"], &["Mail.ReadWrite"]), EVERYWHERE),
    row("POST", "/users/{user-id}/messages/{message-id}/attachments/createUploadSession", needs(&["Mail.ReadWrite"], &["Mail.ReadWrite"]), only(&["global", "china", "ussec", "usnat"])),
    row("GET", "/users/{user-id}/mailFolders", needs(&["Mail.Read"], &["Mail.Read"]), EVERYWHERE),
    row("POST", "/users/{user-id}/mailFolders", needs(&["Mail.ReadWrite"], &["Mail.ReadWrite"]), EVERYWHERE),
    row("GET", "/users/{user-id}/mailFolders/{mailFolder-id}/messages", needs(&["Mail.Read"], &["Mail.Read"]), EVERYWHERE),
    row("POST", "/users/{user-id}/mailFolders/{mailFolder-id}/messages", needs(&["Mail.ReadWrite"], &["Mail.ReadWrite"]), EVERYWHERE),
    row("GET", "/users/{user-id}/mailFolders/{mailFolder-id}/messages/delta", needs(&["Mail.Read"], &["Mail.Read"]), only(&["global", "usgov", "ussec", "usnat"])),
    row("POST", "/admin/exchange/mailboxes/{mailbox-id}/createImportSession", needs(&["MailboxItem.ImportExport"], &["MailboxItem.ImportExport.All"]), only(&["global"])),
    row("GET", "/users/{user-id}/events", needs(&["Calendars.ReadWrite"], &["Calendars.ReadWrite"]), EVERYWHERE),
    row("POST", "/users/{user-id}/events", needs(&["Calendars.ReadWrite"], &["Calendars.ReadWrite"]), EVERYWHERE),
    row("GET", "/users/{user-id}/events/{event-id}", needs(&["Calendars.ReadWrite"], &["Calendars.ReadWrite"]), EVERYWHERE),
    row("PATCH", "/users/{user-id}/events/{event-id}", needs(&["Calendars.ReadWrite"], &["Calendars.ReadWrite"]), EVERYWHERE),
    row("DELETE", "/users/{user-id}/events/{event-id}", needs(&["Calendars.ReadWrite"], &["Calendars.ReadWrite"]), EVERYWHERE),
    row("GET", "/users/{user-id}/calendarView", needs(&["Calendars.ReadWrite"], &["Calendars.ReadWrite"]), EVERYWHERE),
    row("GET", "/users/{user-id}/calendarView/delta", needs(&["Calendars.ReadWrite"], &["Calendars.ReadWrite"]), EVERYWHERE),
    row("GET", "/users/{user-id}/drive", needs(&["Files.Read.All"], &["Files.Read.All", "Sites.Read.All"]), EVERYWHERE),
    row("GET", "/groups/{group-id}/drive", needs(&["Files.Read.All"], &["Files.Read.All", "Sites.Read.All"]), EVERYWHERE),
    row("GET", "/sites/{site-id}/drive", needs(&["Files.Read.All"], &["Files.Read.All", "Sites.Read.All"]), EVERYWHERE),
    row("GET", "/drives/{drive-id}", needs(&["Files.Read.All"], &["Files.Read.All", "Sites.Read.All"]), EVERYWHERE),
    row("GET", "/sites/{site-id}/drives", needs(&["Files.Read.All"], &["Files.Read.All", "Sites.Read.All"]), EVERYWHERE),
    row("GET", "/drives/{drive-id}/root", needs(&["Files.Read.All"], &["Files.Read.All", "Sites.Read.All"]), EVERYWHERE),
    row("GET", "/drives/{drive-id}/root/delta", needs(&["Files.Read.All"], &["Files.Read.All", "Sites.Read.All"]), EVERYWHERE),
    row("GET", "/drives/{drive-id}/items/{driveItem-id}", needs(&["Files.Read.All"], &["Files.Read.All", "Sites.Read.All"]), EVERYWHERE),
    row("PATCH", "/drives/{drive-id}/items/{driveItem-id}", needs(&["Files.ReadWrite.All"], &["Files.ReadWrite.All", "Sites.ReadWrite.All", "Sites.Selected"]), EVERYWHERE),
    row("DELETE", "/drives/{drive-id}/items/{driveItem-id}", needs(&["Files.ReadWrite.All"], &["Files.ReadWrite.All", "Sites.ReadWrite.All", "Sites.Selected"]), EVERYWHERE),
    row("GET", "/drives/{drive-id}/items/{driveItem-id}/children", needs(&["Files.Read.All"], &["Files.Read.All", "Sites.Read.All"]), EVERYWHERE),
    row("POST", "/drives/{drive-id}/items/{driveItem-id}/children", needs(&["Files.ReadWrite.All"], &["Files.ReadWrite.All", "Sites.ReadWrite.All", "Sites.Selected"]), EVERYWHERE),
    row("GET", "/drives/{drive-id}/items/{driveItem-id}/content", needs(&["Files.Read.All"], &["Files.Read.All", "Sites.Read.All"]), EVERYWHERE),
    row("PUT", "/drives/{drive-id}/items/{driveItem-id}/content", needs(&["Files.ReadWrite.All"], &["Files.ReadWrite.All", "Sites.ReadWrite.All", "Sites.Selected"]), EVERYWHERE),
    row("PUT", "/drives/{drive-id}/items/{parent-id}:/{filename}:/content", needs(&["Files.ReadWrite.All"], &["Files.ReadWrite.All", "Sites.ReadWrite.All", "Sites.Selected"]), EVERYWHERE),
    row("POST", "/drives/{drive-id}/items/{parent-id}:/{filename}:/createUploadSession", needs(&["Files.ReadWrite.All"], &["Files.ReadWrite.All", "Sites.ReadWrite.All", "Sites.Selected"]), EVERYWHERE),
    row("PUT", "/drives/{drive-id}/root:/{item-path}:/content", needs(&["Files.ReadWrite.All"], &["Files.ReadWrite.All", "Sites.ReadWrite.All", "Sites.Selected"]), EVERYWHERE),
    row("POST", "/drives/{drive-id}/root:/{item-path}:/createUploadSession", needs(&["Files.ReadWrite.All"], &["Files.ReadWrite.All", "Sites.ReadWrite.All", "Sites.Selected"]), EVERYWHERE),
    row("POST", "/drives/{drive-id}/items/{driveItem-id}/createUploadSession", needs(&["Files.ReadWrite.All"], &["Files.ReadWrite.All", "Sites.ReadWrite.All", "Sites.Selected"]), EVERYWHERE),
    row("POST", "/drives/{drive-id}/items/{driveItem-id}/createLink", needs(&["Files.ReadWrite.All"], &["Files.ReadWrite.All", "Sites.ReadWrite.All", "Sites.Selected"]), EVERYWHERE),
    row("GET", "/sites/{site-id}", needs(&["Sites.Read.All"], &["Sites.Read.All", "Sites.Selected"]), EVERYWHERE),
    row("GET", "/sites/{site-id}/lists", needs(&["Sites.ReadWrite.All"], &["Sites.ReadWrite.All", "Sites.Selected", "Lists.SelectedOperations.Selected"]), EVERYWHERE),
    row("POST", "/sites/{site-id}/lists", needs(&["Sites.Manage.All"], &["Sites.Manage.All"]), EVERYWHERE),
    row("GET", "/sites/{site-id}/lists/{list-id}", needs(&["Sites.ReadWrite.All"], &["Sites.ReadWrite.All", "Sites.Selected", "Lists.SelectedOperations.Selected"]), EVERYWHERE),
    row("GET", "/sites/{site-id}/lists/{list-id}/columns", needs(&["Sites.ReadWrite.All"], &["Sites.ReadWrite.All", "Sites.Selected", "Lists.SelectedOperations.Selected"]), EVERYWHERE),
    row("POST", "/sites/{site-id}/lists/{list-id}/columns", needs(&["Sites.Manage.All"], &["Sites.Manage.All"]), EVERYWHERE),
    row("GET", "/sites/{site-id}/lists/{list-id}/items", needs(&["Sites.ReadWrite.All"], &["Sites.ReadWrite.All", "Sites.Selected", "Lists.SelectedOperations.Selected"]), EVERYWHERE),
    row("POST", "/sites/{site-id}/lists/{list-id}/items", needs(&["Sites.ReadWrite.All"], &["Sites.ReadWrite.All", "Sites.Selected", "Lists.SelectedOperations.Selected"]), EVERYWHERE),
    row("DELETE", "/sites/{site-id}/lists/{list-id}/items/{listItem-id}", needs(&["Sites.ReadWrite.All"], &["Sites.ReadWrite.All", "Sites.Selected", "Lists.SelectedOperations.Selected"]), EVERYWHERE),
    row("PATCH", "/sites/{site-id}/lists/{list-id}/items/{listItem-id}/fields", needs(&["Sites.ReadWrite.All"], &["Sites.ReadWrite.All", "Sites.Selected", "Lists.SelectedOperations.Selected"]), EVERYWHERE),
    row("GET", "/groups/{group-id}/planner/plans", needs(&["Tasks.ReadWrite"], &["Tasks.ReadWrite.All"]), only(&["global", "usgov", "ussec", "usnat"])),
    row("POST", "/planner/plans", needs(&["Tasks.ReadWrite"], &["Tasks.ReadWrite.All"]), only(&["global", "usgov", "ussec", "usnat"])),
    row("GET", "/planner/plans/{plannerPlan-id}", needs(&["Tasks.ReadWrite"], &["Tasks.ReadWrite.All"]), only(&["global", "usgov", "ussec", "usnat"])),
    row("PATCH", "/planner/plans/{plannerPlan-id}", needs(&["Tasks.ReadWrite"], &["Tasks.ReadWrite.All"]), only(&["global", "usgov", "ussec", "usnat"])),
    row("DELETE", "/planner/plans/{plannerPlan-id}", needs(&["Tasks.ReadWrite"], &["Tasks.ReadWrite.All"]), only(&["global", "usgov", "ussec", "usnat"])),
    row("POST", "/planner/buckets", needs(&["Tasks.ReadWrite"], &["Tasks.ReadWrite.All"]), only(&["global", "usgov", "ussec", "usnat"])),
    row("GET", "/planner/buckets/{plannerBucket-id}", needs(&["Tasks.ReadWrite"], &["Tasks.ReadWrite.All"]), only(&["global", "usgov", "ussec", "usnat"])),
    row("PATCH", "/planner/buckets/{plannerBucket-id}", needs(&["Tasks.ReadWrite"], &["Tasks.ReadWrite.All"]), only(&["global", "usgov", "ussec", "usnat"])),
    row("DELETE", "/planner/buckets/{plannerBucket-id}", needs(&["Tasks.ReadWrite"], &["Tasks.ReadWrite.All"]), only(&["global", "usgov", "ussec", "usnat"])),
    row("POST", "/planner/tasks", needs(&["Tasks.ReadWrite"], &["Tasks.ReadWrite.All"]), only(&["global", "usgov", "ussec", "usnat"])),
    row("GET", "/planner/tasks/{plannerTask-id}", needs(&["Tasks.ReadWrite"], &["Tasks.ReadWrite.All"]), only(&["global", "usgov", "ussec", "usnat"])),
    row("PATCH", "/planner/tasks/{plannerTask-id}", needs(&["Tasks.ReadWrite"], &["Tasks.ReadWrite.All"]), only(&["global", "usgov", "ussec", "usnat"])),
    row("DELETE", "/planner/tasks/{plannerTask-id}", needs(&["Tasks.ReadWrite"], &["Tasks.ReadWrite.All"]), only(&["global", "usgov", "ussec", "usnat"])),
    row("GET", "/planner/plans/{plannerPlan-id}/buckets", needs(&["Tasks.ReadWrite"], &["Tasks.ReadWrite.All"]), only(&["global", "usgov", "ussec", "usnat"])),
    row("GET", "/planner/plans/{plannerPlan-id}/tasks", needs(&["Tasks.ReadWrite"], &["Tasks.ReadWrite.All"]), only(&["global", "usgov", "ussec", "usnat"])),
    row("GET", "/planner/plans/{plannerPlan-id}/details", needs(&["Tasks.ReadWrite"], &["Tasks.ReadWrite.All"]), only(&["global", "usgov", "ussec", "usnat"])),
    row("PATCH", "/planner/plans/{plannerPlan-id}/details", needs(&["Tasks.ReadWrite"], &["Tasks.ReadWrite.All"]), only(&["global", "usgov", "ussec", "usnat"])),
    row("GET", "/planner/tasks/{plannerTask-id}/details", needs(&["Tasks.ReadWrite"], &["Tasks.ReadWrite.All"]), only(&["global", "usgov", "ussec", "usnat"])),
    row("PATCH", "/planner/tasks/{plannerTask-id}/details", needs(&["Tasks.ReadWrite"], &["Tasks.ReadWrite.All"]), only(&["global", "usgov", "ussec", "usnat"])),
    row("GET", "/users/{user-id}/todo/lists", needs(&["Tasks.ReadWrite"], &["Tasks.ReadWrite.All"]), only(&["global", "usgov", "ussec", "usnat"])),
    row("POST", "/users/{user-id}/todo/lists", needs(&["Tasks.ReadWrite"], &["Tasks.ReadWrite.All"]), only(&["global", "usgov", "ussec", "usnat"])),
    row("GET", "/users/{user-id}/todo/lists/{todoTaskList-id}/tasks", needs(&["Tasks.ReadWrite"], &["Tasks.ReadWrite.All"]), only(&["global", "usgov", "ussec", "usnat"])),
    row("POST", "/users/{user-id}/todo/lists/{todoTaskList-id}/tasks", needs(&["Tasks.ReadWrite"], &["Tasks.ReadWrite.All"]), only(&["global", "usgov", "ussec", "usnat"])),
    row("GET", "/users/{user-id}/todo/lists/{todoTaskList-id}/tasks/delta", needs(&["Tasks.ReadWrite"], &["Tasks.ReadWrite.All"]), only(&["global", "usgov", "ussec", "usnat"])),
    row("PATCH", "/users/{user-id}/todo/lists/{todoTaskList-id}/tasks/{todoTask-id}", needs(&["Tasks.ReadWrite"], &["Tasks.ReadWrite.All"]), only(&["global", "usgov", "ussec", "usnat"])),
    row("DELETE", "/users/{user-id}/todo/lists/{todoTaskList-id}/tasks/{todoTask-id}", needs(&["Tasks.ReadWrite"], &["Tasks.ReadWrite.All"]), only(&["global", "usgov", "ussec", "usnat"])),
];
