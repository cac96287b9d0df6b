//! Microsoft Graph: who may do what where, and one place that every request goes through.

pub(crate) mod activity;
mod batch;
pub(crate) mod directory;
pub(crate) mod files;
mod html;
pub(crate) mod lists;
pub(crate) mod mail;
pub(crate) mod planner;
pub mod rows;
pub(crate) mod teams;
pub(crate) mod throttle;

use std::sync::OnceLock;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::clock::{Millis, iso};
use crate::entra::NotAccepted;
use crate::http::{Answer, Body, Request, decode};
use crate::openapi::Contract;
use crate::oracle::{Rule, What};
use crate::world::{Caller, Trace, World};
use rows::{ROWS, Row};

/// A request to Graph is larger than this only where it carries a file.
const BODY_MAX: usize = 4 << 20;

/// A refusal in Graph's form.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) inner: Option<String>,
    pub(crate) headers: Vec<(String, String)>,
}

impl Refusal {
    pub(crate) fn new(status: u16, code: &str, message: impl Into<String>) -> Self {
        Self { status, code: code.to_owned(), message: message.into(), inner: None, headers: Vec::new() }
    }

    pub(crate) fn bad(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    pub(crate) fn missing(message: impl Into<String>) -> Self {
        Self::new(404, "NotFound", message)
    }

    pub(crate) fn inner(mut self, code: &str) -> Self {
        self.inner = Some(code.to_owned());
        self
    }

    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub(crate) fn answer(self, now: Millis, trace: &Trace) -> Answer {
        let mut inner = json!({
            "date": iso(now)[..19], "request-id": trace.request_id, "client-request-id": trace.client_request_id,
        });
        if let Some(code) = &self.inner {
            inner["code"] = json!(code);
        }
        let body = json!({ "error": { "code": self.code, "message": self.message, "innerError": inner } });
        let mut answer = Answer::json(self.status, body);
        answer.headers.extend(self.headers);
        answer
    }
}

/// One authorised request on its way to what answers it.
pub(crate) struct Call<'a> {
    pub(crate) caller: &'a Caller,
    pub(crate) row: &'static Row,
    /// What stands in the template's braces, decoded.
    pub(crate) params: Vec<String>,
    pub(crate) request: &'a Request,
    /// The body, where it is JSON; otherwise null.
    pub(crate) json: Value,
    pub(crate) trace: &'a Trace,
}

impl Call<'_> {
    pub(crate) fn query(&self, name: &str) -> Option<&str> {
        self.request.query(name)
    }

    pub(crate) fn body(&self) -> &Bytes {
        &self.request.body
    }

    /// The object id of the user that the token speaks for.
    pub(crate) fn user(&self) -> Option<&str> {
        self.caller.user.as_deref()
    }
}

type Outcome = Result<Answer, Refusal>;
type Handler = fn(&mut World, &Call<'_>) -> Outcome;

/// What answers an operation; `None` where the simulator has nothing that does.
fn handler(row: &Row) -> Option<Handler> {
    let found: Handler = match (row.method, row.template) {
        ("GET", "/organization") => directory::organization,
        ("GET", "/me") => directory::me,
        ("GET", "/users") => directory::users,
        ("GET", "/users/{user-id}") => directory::user,
        ("GET", "/users/delta") => directory::users_delta,
        ("GET", "/users/{user-id}/memberOf" | "/users/{user-id}/transitiveMemberOf") => directory::member_of,
        ("GET", "/groups") => directory::groups,
        ("GET", "/groups/{group-id}") => directory::group,
        ("GET", "/groups/delta") => directory::groups_delta,
        ("GET", "/groups/{group-id}/members" | "/groups/{group-id}/transitiveMembers") => directory::members,
        ("GET", "/directory/deletedItems/microsoft.graph.user") => directory::deleted_users,
        ("POST", "/teams") => teams::create_team,
        ("GET", "/teams/{team-id}") => teams::team,
        ("GET", "/teams/{team-id}/operations/{teamsAsyncOperation-id}") => teams::operation,
        ("POST", "/teams/{team-id}/completeMigration") => teams::complete_team,
        ("GET", "/teams/{team-id}/members") => teams::members,
        ("POST", "/teams/{team-id}/members") => teams::add_member,
        ("GET", "/teams/{team-id}/primaryChannel") => teams::primary_channel,
        ("GET", "/teams/{team-id}/channels") => teams::channels,
        ("POST", "/teams/{team-id}/channels") => teams::create_channel,
        ("GET", "/teams/{team-id}/channels/{channel-id}") => teams::channel,
        ("GET", "/teams/{team-id}/channels/{channel-id}/members") => teams::members,
        ("GET", "/teams/{team-id}/channels/{channel-id}/filesFolder") => teams::files_folder,
        ("POST", "/teams/{team-id}/channels/{channel-id}/startMigration") => teams::start_migration,
        ("POST", "/teams/{team-id}/channels/{channel-id}/completeMigration") => teams::complete_migration,
        ("GET", "/teams/{team-id}/channels/{channel-id}/messages") => teams::messages,
        ("GET", "/teams/{team-id}/channels/{channel-id}/messages/delta") => teams::messages_delta,
        ("POST", "/teams/{team-id}/channels/{channel-id}/messages") => teams::post,
        ("GET", "/teams/{team-id}/channels/{channel-id}/messages/{chatMessage-id}") => teams::message,
        ("PATCH", "/teams/{team-id}/channels/{channel-id}/messages/{chatMessage-id}") => teams::edit,
        ("GET", "/teams/{team-id}/channels/{channel-id}/messages/{chatMessage-id}/replies") => teams::replies,
        ("POST", "/teams/{team-id}/channels/{channel-id}/messages/{chatMessage-id}/replies") => teams::reply,
        ("GET", "/teams/{team-id}/channels/{channel-id}/messages/{chatMessage-id}/replies/{reply-id}") => {
            teams::message
        }
        ("PATCH", "/teams/{team-id}/channels/{channel-id}/messages/{chatMessage-id}/replies/{reply-id}") => teams::edit,
        ("GET", t) if t.ends_with("/hostedContents") => teams::hosted_contents,
        ("GET", t) if t.ends_with("/hostedContents/{hostedContent-id}/$value") => teams::hosted_content,
        ("POST", t) if t.ends_with("/softDelete") => teams::soft_delete,
        ("POST", t) if t.ends_with("/undoSoftDelete") => teams::undo_soft_delete,
        ("POST", t) if t.ends_with("/setReaction") => teams::set_reaction,
        ("POST", t) if t.ends_with("/unsetReaction") => teams::unset_reaction,
        ("POST", "/chats") => teams::create_chat,
        ("GET", "/chats/{chat-id}") => teams::chat,
        ("GET", "/chats/{chat-id}/messages") => teams::messages,
        ("POST", "/chats/{chat-id}/messages") => teams::post,
        ("GET", "/chats/{chat-id}/messages/{chatMessage-id}") => teams::message,
        ("PATCH", "/chats/{chat-id}/messages/{chatMessage-id}") => teams::edit,
        ("POST", "/chats/{chat-id}/startMigration") => teams::start_migration,
        ("POST", "/chats/{chat-id}/completeMigration") => teams::complete_migration,
        ("POST", "/users/{user-id}/teamwork/sendActivityNotification") => activity::to_user,
        ("POST", "/teams/{team-id}/sendActivityNotification") => activity::to_team,
        ("POST", "/chats/{chat-id}/sendActivityNotification") => activity::to_chat,
        ("POST", "/teamwork/sendActivityNotificationToRecipients") => activity::to_recipients,
        ("GET", "/users/{user-id}/teamwork/installedApps") => activity::installed,
        ("POST", "/users/{user-id}/teamwork/installedApps") => activity::install,
        ("GET", "/appCatalogs/teamsApps") => activity::catalogue,
        (
            "GET",
            "/users/{user-id}/drive" | "/groups/{group-id}/drive" | "/sites/{site-id}/drive" | "/drives/{drive-id}",
        ) => files::drive,
        ("GET", "/sites/{site-id}/drives") => files::drives,
        ("GET", "/sites/{site-id}") => files::site,
        ("GET", "/drives/{drive-id}/root" | "/drives/{drive-id}/items/{driveItem-id}") => files::item,
        ("GET", "/drives/{drive-id}/items/{driveItem-id}/children") => files::children,
        ("POST", "/drives/{drive-id}/items/{driveItem-id}/children") => files::create_folder,
        ("PATCH", "/drives/{drive-id}/items/{driveItem-id}") => files::change,
        ("DELETE", "/drives/{drive-id}/items/{driveItem-id}") => files::delete,
        ("GET", "/drives/{drive-id}/items/{driveItem-id}/content") => files::content,
        ("PUT", t) if t.ends_with("/content") => files::put,
        ("POST", "/users/{user-id}/messages/{message-id}/attachments/createUploadSession") => return None,
        ("POST", t) if t.ends_with("/createUploadSession") => files::create_session,
        ("POST", "/users/{user-id}/sendMail" | "/me/sendMail") => mail::send,
        ("GET", "/users/{user-id}/messages") => mail::messages,
        ("POST", "/users/{user-id}/messages" | "/me/messages") => mail::create,
        ("GET", "/users/{user-id}/messages/{message-id}") => mail::message,
        ("PATCH", "/users/{user-id}/messages/{message-id}") => mail::change,
        ("DELETE", "/users/{user-id}/messages/{message-id}") => mail::delete,
        ("POST", "/users/{user-id}/messages/{message-id}/send") => mail::send_draft,
        ("GET", "/users/{user-id}/mailFolders") => mail::folders,
        ("POST", "/users/{user-id}/mailFolders") => mail::create_folder,
        ("GET", "/users/{user-id}/mailFolders/{mailFolder-id}/messages") => mail::messages,
        ("POST", "/users/{user-id}/mailFolders/{mailFolder-id}/messages") => mail::create,
        ("GET", "/sites/{site-id}/lists") => lists::lists,
        ("POST", "/sites/{site-id}/lists") => lists::create,
        ("GET", "/sites/{site-id}/lists/{list-id}") => lists::list,
        ("GET", "/sites/{site-id}/lists/{list-id}/columns") => lists::columns,
        ("POST", "/sites/{site-id}/lists/{list-id}/columns") => lists::create_column,
        ("GET", "/sites/{site-id}/lists/{list-id}/items") => lists::items,
        ("POST", "/sites/{site-id}/lists/{list-id}/items") => lists::create_item,
        ("PATCH", "/sites/{site-id}/lists/{list-id}/items/{listItem-id}/fields") => lists::change_item,
        ("DELETE", "/sites/{site-id}/lists/{list-id}/items/{listItem-id}") => lists::delete_item,
        (
            "GET",
            "/groups/{group-id}/planner/plans"
            | "/planner/plans/{plannerPlan-id}/buckets"
            | "/planner/plans/{plannerPlan-id}/tasks",
        ) => planner::all,
        ("GET", t) if t.starts_with("/planner/") => planner::one,
        ("POST", t) if t.starts_with("/planner/") => planner::create,
        ("PATCH", t) if t.starts_with("/planner/") => planner::change,
        ("DELETE", t) if t.starts_with("/planner/") => planner::delete,
        ("POST", "/users/{user-id}/events") => mail::create_event,
        ("GET", "/users/{user-id}/events/{event-id}") => mail::event,
        _ => return None,
    };
    Some(found)
}

impl World {
    /// One request at the Graph host.
    pub(crate) fn graph(&mut self, request: &Request, contract: Option<&Contract>) -> (Answer, String) {
        let trace = Trace {
            request_id: self.guid(),
            client_request_id: request.header("client-request-id").unwrap_or("").to_owned(),
        };
        let (answer, path) = self.graph_answer(request, contract, &trace);
        (self.with_graph_headers(answer, &trace), path)
    }

    pub(crate) fn with_graph_headers(&self, answer: Answer, trace: &Trace) -> Answer {
        let answer = answer.with("request-id", trace.request_id.clone()).with(
            "x-ms-ags-diagnostic",
            r#"{"ServerInfo":{"DataCenter":"Simulated","Slice":"E","Ring":"1","ScaleUnit":"000","RoleInstance":"graphsim"}}"#,
        );
        let id = if trace.client_request_id.is_empty() { &trace.request_id } else { &trace.client_request_id };
        answer.with("client-request-id", id.clone())
    }

    fn graph_answer(&mut self, request: &Request, contract: Option<&Contract>, trace: &Trace) -> (Answer, String) {
        let refuse = |world: &Self, refusal: Refusal| refusal.answer(world.now(), trace);
        let caller = match self.caller(request) {
            Ok(caller) => caller,
            Err(refusal) => return (refuse(self, refusal), request.path.clone()),
        };
        if request.path == "/oidc/userinfo" {
            return (self.userinfo(&caller), request.path.clone());
        }
        let Some(path) = request.path.strip_prefix("/v1.0/") else {
            let refusal = Refusal::bad("Invalid version: only v1.0 is served.");
            return (refuse(self, refusal), request.path.clone());
        };
        if path == "$batch" && request.method == "POST" {
            let answer = self.batch(request, &caller, contract, trace).unwrap_or_else(|r| refuse(self, r));
            return (answer, "/$batch".to_owned());
        }
        self.one(request, path, &caller, contract, trace)
    }

    /// One request, alone or out of a batch.
    pub(crate) fn one(
        &mut self,
        request: &Request,
        path: &str,
        caller: &Caller,
        contract: Option<&Contract>,
        trace: &Trace,
    ) -> (Answer, String) {
        let spelled = match self.spelled_out(path, caller) {
            Ok(spelled) => spelled,
            Err(refusal) => return (refusal.answer(self.now(), trace), path.to_owned()),
        };
        let Some((row, params)) = locate(request.method.as_str(), &spelled) else {
            let text = format!("{} /{path}", request.method);
            let now = self.now();
            self.oracle.violated(now, Rule::UnknownOperation, text);
            let last = path.rsplit('/').next().unwrap_or("");
            let refusal = Refusal::bad(format!("Resource not found for the segment '{last}'."));
            return (refusal.answer(now, trace), path.to_owned());
        };
        let template = row.template.to_owned();
        let answered = self.authorised(row, params, request, caller, contract, trace);
        let mut answer = answered.unwrap_or_else(|refusal| refusal.answer(self.now(), trace));
        answer.headers.append(&mut self.throttle.told);
        if let Some(contract) = contract {
            self.oracle.validated += 1;
            if let Some(complaint) = contract.answer(row.template, row.method, &answer) {
                let now = self.now();
                self.oracle.violated(now, Rule::AnswerOutsideContract, complaint);
            }
        }
        (answer, template)
    }

    fn authorised(
        &mut self,
        row: &'static Row,
        params: Vec<String>,
        request: &Request,
        caller: &Caller,
        contract: Option<&Contract>,
        trace: &Trace,
    ) -> Outcome {
        let clouds = if caller.user.is_some() { row.clouds.delegated } else { row.clouds.application };
        if !clouds.is_empty() && !clouds.contains(&self.settings.cloud.name()) {
            return Err(Refusal::new(
                404,
                "ResourceNotFound",
                "The operation is not available in this national cloud.",
            ));
        }
        permitted(row, caller)?;
        self.throttled(row, &params, caller, trace)?;
        if request.body.len() > BODY_MAX && !row.template.ends_with("/content") {
            return Err(Refusal::new(413, "RequestEntityTooLarge", "The request is larger than 4 MB."));
        }
        let media = request.media();
        // A file may be JSON, or may be said to be; it is bytes all the same.
        let file = row.template.ends_with("/content");
        let mut json = if media == "application/json" && !request.body.is_empty() && !file {
            serde_json::from_slice(&request.body)
                .map_err(|e| Refusal::bad(format!("Unable to read JSON request payload: {e}.")))?
        } else {
            Value::Null
        };
        if row.template.ends_with("/sendMail") {
            uncapitalise(&mut json);
        }
        if let Some(contract) = contract {
            self.oracle.validated += 1;
            if let Some(complaint) = contract.request(row.template, row.method, &media, request, &json) {
                let now = self.now();
                self.oracle.violated(now, Rule::RequestOutsideContract, complaint.clone());
                return Err(Refusal::bad(complaint));
            }
        }
        let call = Call { caller, row, params, request, json, trace };
        match handler(row) {
            Some(run) => run(self, &call),
            None => {
                let (now, text) = (self.now(), format!("{} {}", row.method, row.template));
                self.oracle.violated(now, Rule::NotSimulated, text.clone());
                Err(Refusal::new(501, "NotImplemented", format!("graphsim does not simulate {text}.")))
            }
        }
    }

    fn caller(&self, request: &Request) -> Result<Caller, Refusal> {
        let challenge = |extra: &str| {
            format!(
                "Bearer realm=\"\", authorization_uri=\"{}/common/oauth2/authorize\", client_id=\"00000003-0000-0000-c000-000000000000\"{extra}",
                self.urls.login
            )
        };
        let refuse = |message: &str, extra: &str| {
            Err(Refusal::new(401, "InvalidAuthenticationToken", message).with("www-authenticate", challenge(extra)))
        };
        let Some(token) = request.header("authorization").and_then(|h| h.strip_prefix("Bearer ")) else {
            return refuse("Access token is empty.", "");
        };
        match self.bearer(token.trim()) {
            Ok(caller) => Ok(caller),
            Err(NotAccepted::Unknown) => refuse("CompactToken validation failed.", ""),
            Err(NotAccepted::Audience) => refuse("Access token validation failure. Invalid audience.", ""),
            Err(NotAccepted::Expired) => refuse("Lifetime validation failed, the token is expired.", ""),
            Err(NotAccepted::Challenge(claims)) => {
                let claims = data_encoding::BASE64.encode(claims.to_string().as_bytes());
                let extra = format!(", error=\"insufficient_claims\", claims=\"{claims}\"");
                let message = "Continuous access evaluation resulted in challenge with result: InteractionRequired and code: TokenIssuedBeforeRevocationTimestamp";
                refuse(message, &extra)
            }
        }
    }

    fn userinfo(&self, caller: &Caller) -> Answer {
        match caller.user.as_ref().and_then(|u| self.entra.users.get(u)) {
            Some(user) => Answer::json(200, json!({ "sub": user.id, "name": user.display_name })),
            None => Answer::json(403, json!({ "error": { "code": "Forbidden", "message": "Not a user's token." } })),
        }
    }

    /// `/me` is the caller's own; names of types and empty brackets are taken off.
    fn spelled_out(&self, path: &str, caller: &Caller) -> Result<String, Refusal> {
        let mut segments: Vec<String> = path
            .split('/')
            .map(|s| s.strip_suffix("()").unwrap_or(s))
            .map(|s| if s == "microsoft.graph.user" { s } else { s.strip_prefix("microsoft.graph.").unwrap_or(s) })
            .map(str::to_owned)
            .collect();
        if segments[0] == "me" {
            let Some(user) = &caller.user else {
                return Err(Refusal::bad("/me request is only valid with delegated authentication flow."));
            };
            if segments.len() > 1 {
                segments.splice(0..1, ["users".to_owned(), user.clone()]);
            }
        }
        Ok(segments.join("/"))
    }

    /// A page of a list, with the link to the next one.
    pub(crate) fn page(&mut self, call: &Call<'_>, values: Vec<Value>, top_max: usize) -> Outcome {
        self.page_of(call, values, top_max, |_, value| value)
    }

    /// The same of anything that is shown as a value only where it stands on the page.
    pub(crate) fn page_of<T>(
        &mut self,
        call: &Call<'_>,
        values: Vec<T>,
        top_max: usize,
        shown: impl Fn(&Self, T) -> Value,
    ) -> Outcome {
        let top = match call.query("$top") {
            Some(text) => {
                let top: usize = text.parse().map_err(|_| Refusal::bad("Invalid value for $top."))?;
                if top == 0 || top > top_max {
                    return Err(Refusal::bad(format!(
                        "Invalid page size specified: '{top}'. Must be between 1 and {top_max} inclusive."
                    )));
                }
                top
            }
            None => self.settings.limits.page.min(top_max),
        };
        let from = match call.query("$skiptoken") {
            Some(token) => *self.skips.get(token).ok_or_else(|| Refusal::bad("Skip token is not valid."))?,
            None => 0,
        };
        let total = values.len();
        let select = call.query("$select").map(str::to_owned);
        let mut body = json!({ "@odata.context": self.context(call) });
        if call.query("$count") == Some("true") {
            body["@odata.count"] = json!(total);
        }
        let page: Vec<Value> =
            values.into_iter().skip(from).take(top).map(|v| selected(shown(self, v), select.as_deref())).collect();
        if from + page.len() < total {
            let token = self.secret("");
            self.skips.insert(token.clone(), from + page.len());
            body["@odata.nextLink"] = json!(self.next_link(call, "$skiptoken", &token));
        }
        body["value"] = json!(page);
        Ok(Answer::json(200, body))
    }

    /// The same request with a token.
    pub(crate) fn next_link(&self, call: &Call<'_>, name: &str, token: &str) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        for (n, v) in call.request.query.iter().filter(|(n, _)| n != "$skiptoken") {
            query.append_pair(n, v);
        }
        query.append_pair(name, token);
        format!("{}{}?{}", self.urls.graph, call.request.path, query.finish())
    }

    pub(crate) fn context(&self, call: &Call<'_>) -> String {
        let last = call.row.template.trim_start_matches('/').split('/').next().unwrap_or("");
        format!("{}/v1.0/$metadata#{last}", self.urls.graph)
    }

    pub(crate) fn record(
        &mut self,
        call: &Call<'_>,
        what: What,
        place: impl Into<String>,
        id: impl Into<String>,
        detail: Value,
    ) {
        self.commit(call.caller, call.trace, what, place, id, detail);
    }
}

/// Parameters of an action may begin with a capital: the SDKs write those of sendMail so, as the metadata does.
fn uncapitalise(json: &mut Value) {
    if let Some(object) = json.as_object_mut() {
        let renamed = std::mem::take(object).into_iter().map(|(name, value)| match name.as_str() {
            "Message" => ("message".to_owned(), value),
            "SaveToSentItems" => ("saveToSentItems".to_owned(), value),
            _ => (name, value),
        });
        object.extend(renamed);
    }
}

/// Only what `$select` names, and what identifies it.
pub(crate) fn selected(mut value: Value, select: Option<&str>) -> Value {
    let Some(select) = select else { return value };
    let names: Vec<&str> = select.split(',').map(str::trim).collect();
    if let Some(object) = value.as_object_mut() {
        object.retain(|name, _| name == "id" || name.contains('@') || names.contains(&name.as_str()));
    }
    value
}

/// Whether Graph has a permission of that name.
pub(crate) fn is_permission(name: &str) -> bool {
    ROWS.iter()
        .filter_map(|row| row.needs)
        .flat_map(|needs| needs.delegated.iter().chain(needs.application))
        .any(|known| *known == name || implied(name, known))
}

fn permitted(row: &Row, caller: &Caller) -> Result<(), Refusal> {
    let Some(needs) = row.needs else { return Ok(()) };
    let enough = if caller.user.is_some() { needs.delegated } else { needs.application };
    if enough.iter().any(|need| caller.permissions.iter().any(|have| have == need || implied(have, need))) {
        return Ok(());
    }
    if enough.is_empty() {
        let kind = if caller.user.is_some() { "delegated" } else { "application-only" };
        return Err(Refusal::new(403, "Forbidden", format!("The operation is not supported in {kind} context.")));
    }
    let message = format!("Insufficient privileges to complete the operation. One of {enough:?} is required.");
    Err(Refusal::new(403, "Authorization_RequestDenied", message))
}

/// Permissions that include another one, as Microsoft documents them.
fn implied(have: &str, need: &str) -> bool {
    let read = have.replace(".ReadWrite", ".Read");
    if read != have && read == need {
        return true;
    }
    match need {
        "User.Read" => matches!(have, "User.Read.All" | "User.ReadWrite.All"),
        "User.ReadBasic.All" => matches!(have, "User.Read.All" | "User.ReadWrite.All" | "Directory.Read.All"),
        "User.Read.All" | "Group.Read.All" | "GroupMember.Read.All" | "Organization.Read.All" => {
            matches!(have, "Directory.Read.All" | "Directory.ReadWrite.All")
                || need == "GroupMember.Read.All" && matches!(have, "Group.Read.All" | "Group.ReadWrite.All")
        }
        "Chat.ReadBasic" => matches!(have, "Chat.Read" | "Chat.ReadWrite"),
        // Which site, the handler looks at.
        "Sites.Read.All" => matches!(have, "Sites.Selected" | "Sites.Manage.All" | "Sites.FullControl.All"),
        "Sites.ReadWrite.All" => matches!(have, "Sites.Manage.All" | "Sites.FullControl.All"),
        "Sites.Manage.All" => have == "Sites.FullControl.All",
        _ => false,
    }
}

type Split = (Vec<&'static str>, &'static Row);

/// The operation of a path and what stands in its braces; literal segments win.
pub(crate) fn locate(method: &str, path: &str) -> Option<(&'static Row, Vec<String>)> {
    static TABLE: OnceLock<Vec<Split>> = OnceLock::new();
    let table = TABLE.get_or_init(|| {
        ROWS.iter().map(|row| (row.template.trim_start_matches('/').split('/').collect(), row)).collect()
    });
    let mut segments: Vec<String> = path.trim_end_matches('/').split('/').map(decode).collect();
    // The SDKs put `root:/a/b:` into one segment, encoded.
    if let [drives, _, items, item, ..] = segments.as_slice()
        && drives == "drives"
        && items == "items"
        && item.contains(":/")
    {
        let parts: Vec<String> = item.split('/').map(str::to_owned).collect();
        segments.splice(3..4, parts);
    }
    if let Some((template, params)) = by_path(method, &segments) {
        let row = ROWS.iter().find(|row| row.method == method && row.template == template)?;
        return Some((row, params));
    }
    let mut best: Option<(usize, &'static Row, Vec<String>)> = None;
    for (parts, row) in table.iter().filter(|(parts, row)| row.method == method && parts.len() == segments.len()) {
        let (mut literal, mut params, mut fits) = (0, Vec::new(), true);
        for (part, segment) in parts.iter().zip(&segments) {
            if part.starts_with('{') && part.ends_with('}') {
                fits &= !segment.is_empty();
                params.push(segment.clone());
            } else {
                fits &= part == segment;
                literal += 1;
            }
        }
        if fits && best.as_ref().is_none_or(|(most, ..)| literal > *most) {
            best = Some((literal, row, params));
        }
    }
    best.map(|(_, row, params)| (row, params))
}

/// Items and sites that are named by path: `/drives/{d}/root:/a/b:/content`, `/sites/{host}:/sites/name:/drive`.
fn by_path(method: &str, segments: &[String]) -> Option<(String, Vec<String>)> {
    let anchor = match segments {
        [drives, _, root, ..] if drives == "drives" && root == "root:" => 2,
        [drives, _, items, parent, ..] if drives == "drives" && items == "items" && parent.ends_with(':') => 3,
        [sites, host, ..] if sites == "sites" && host.ends_with(':') => 1,
        _ => return None,
    };
    let end = (anchor + 1..segments.len()).find(|at| segments[*at].ends_with(':'));
    let (names, rest) = match end {
        Some(end) => (&segments[anchor + 1..=end], &segments[end + 1..]),
        None => (&segments[anchor + 1..], &[][..]),
    };
    let name = names.join("/");
    let name = name.trim_end_matches(':').to_owned();
    let below = rest.iter().fold(String::new(), |all, part| format!("{all}/{part}"));
    let addressed = format!("{}/{name}", segments[anchor]);
    if anchor == 1 {
        return Some((format!("/sites/{{site-id}}{below}"), vec![addressed]));
    }
    let drive = segments[1].clone();
    let writes = matches!((method, below.as_str()), ("PUT", "/content") | ("POST", "/createUploadSession"));
    if writes && segments[anchor] == "root:" {
        return Some((format!("/drives/{{drive-id}}/root:/{{item-path}}:{below}"), vec![drive, name]));
    }
    if writes {
        let parent = segments[3].trim_end_matches(':').to_owned();
        let template = format!("/drives/{{drive-id}}/items/{{parent-id}}:/{{filename}}:{below}");
        return Some((template, vec![drive, parent, name]));
    }
    Some((format!("/drives/{{drive-id}}/items/{{driveItem-id}}{below}"), vec![drive, addressed]))
}

/// The text of a JSON answer's body, for a batch.
pub(crate) fn body_value(answer: &Answer) -> Option<Value> {
    match &answer.body {
        Body::Empty => None,
        Body::Json(value) => Some(value.clone()),
        Body::Bytes(_, bytes) => Some(json!(data_encoding::BASE64.encode(bytes))),
    }
}
