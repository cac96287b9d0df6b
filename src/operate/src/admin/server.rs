//! The node's end of the admin socket.

use std::future::Future;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

use super::{
    AcceptRequest, Control, CourierAsk, EmissionChange, FileRequest, HoldChange, InviteRequest, JoinRequest,
    NewPassword, NewUser, PurgeRequest, Refusal, RemoveRequest, SOCKET, WhyRequest,
};
use crate::bulk::BulkAsk;
use crate::directory::DirectoryAsk;
use crate::exit::Failure;
use crate::links::{LinkChange, LinkTest};
use crate::m365::M365Ask;
use crate::simulate::SimulateRequest;
use crate::targets::TargetsAsk;
use crate::upkeep::Upkeep;

/// The largest request is a user with a long password.
const BODY_BYTES_MAX: usize = 64 << 10;
/// One parcel as base64, with what stands around it.
const PARCEL_BODY_BYTES_MAX: usize = wire::parcel::PARCEL_BYTES_MAX / 3 * 4 + 4_096;

/// A bound socket; its file is removed when this is dropped.
pub struct AdminSocket {
    listener: UnixListener,
    file: SocketFile,
}

struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // A socket left behind is replaced at the next start.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Binds the socket in `data`. The caller holds the directory's lock, so one that is there is a leftover.
///
/// # Errors
/// When the directory does not allow it.
pub fn bind(data: &Path) -> Result<AdminSocket, Failure> {
    let path = data.join(SOCKET);
    let fail = |e: &std::io::Error| Failure::io("opening the admin socket", &path, e);
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(fail(&e)),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&path).map_err(|e| fail(&e))?;
    // The directory is 0700, so nobody came in between.
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(|e| fail(&e))?;
    Ok(AdminSocket { listener, file: SocketFile(path) })
}

/// Serves until `stop`, then lets running requests finish.
pub async fn serve<C: Control>(socket: AdminSocket, control: Arc<C>, stop: CancellationToken) -> std::io::Result<()> {
    let AdminSocket { listener, file: _file } = socket;
    axum::serve(listener, router(control)).with_graceful_shutdown(stop.cancelled_owned()).await
}

fn router<C: Control>(control: Arc<C>) -> axum::Router {
    axum::Router::new()
        .route("/v1/status", get(|State(c): State<Arc<C>>| blocking(move || c.status())))
        .route("/v1/backlog", get(|State(c): State<Arc<C>>| blocking(move || c.backlog())))
        .route(
            "/v1/why",
            post(|State(c): State<Arc<C>>, body: Body<WhyRequest>| with(body, |b| blocking(move || c.why(&b.target)))),
        )
        .route(
            "/v1/simulate",
            post(|State(c): State<Arc<C>>, body: Body<SimulateRequest>| {
                with(body, |b| blocking(move || c.simulate(&b)))
            }),
        )
        .route(
            "/v1/file",
            post(|State(c): State<Arc<C>>, body: Body<FileRequest>| with(body, |b| blocking(move || c.file(&b)))),
        )
        .route("/v1/peers", get(|State(c): State<Arc<C>>| blocking(move || c.peers())))
        .route("/v1/keys", get(|State(c): State<Arc<C>>| blocking(move || c.keys())))
        .route("/v1/keys/rotate", post(|State(c): State<Arc<C>>| blocking(move || c.rotate_keys())))
        .route("/v1/keys/rewrite", post(|State(c): State<Arc<C>>| blocking(move || c.rewrite_step())))
        .route(
            "/v1/stop",
            post(|State(c): State<Arc<C>>| async move {
                c.stop();
                answer(Ok(()))
            }),
        )
        .route(
            "/v1/emission",
            post(|State(c): State<Arc<C>>, body: Body<EmissionChange>| {
                with(body, |b| blocking(move || c.set_emission(b.mode)))
            }),
        )
        .route("/v1/links", get(|State(c): State<Arc<C>>| blocking(move || c.links())))
        .route(
            "/v1/links/order",
            post(|State(c): State<Arc<C>>, body: Body<LinkChange>| with(body, |b| blocking(move || c.order_link(&b)))),
        )
        .route(
            "/v1/links/test",
            post(|State(c): State<Arc<C>>, body: Body<LinkTest>| {
                with(body, |b| async move { answer(c.test_link(&b).await) })
            }),
        )
        .route(
            "/v1/user",
            post(|State(c): State<Arc<C>>, body: Body<NewUser>| with(body, |b| blocking(move || c.add_user(&b)))),
        )
        .route(
            "/v1/user/password",
            post(|State(c): State<Arc<C>>, body: Body<NewPassword>| {
                with(body, |b| blocking(move || c.set_password(&b)))
            }),
        )
        .route(
            "/v1/journal/hold",
            post(|State(c): State<Arc<C>>, body: Body<HoldChange>| with(body, |b| blocking(move || c.change_hold(&b)))),
        )
        .route(
            "/v1/peers/invite",
            post(|State(c): State<Arc<C>>, body: Body<InviteRequest>| with(body, |b| blocking(move || c.invite(&b)))),
        )
        .route(
            "/v1/peers/remove",
            post(|State(c): State<Arc<C>>, body: Body<RemoveRequest>| {
                with(body, |b| blocking(move || c.remove_peer(&b.name)))
            }),
        )
        .route(
            "/v1/journal",
            post(|State(c): State<Arc<C>>, body: Body<Upkeep>| with(body, |b| blocking(move || c.upkeep(&b)))),
        )
        .route(
            "/v1/purge/preview",
            post(|State(c): State<Arc<C>>, body: Body<PurgeRequest>| {
                with(body, |b| blocking(move || c.preview_purge(&b)))
            }),
        )
        .route(
            "/v1/purge",
            post(|State(c): State<Arc<C>>, body: Body<PurgeRequest>| {
                with(body, |b| blocking(move || c.order_purge(&b)))
            }),
        )
        .route("/v1/purges", get(|State(c): State<Arc<C>>| blocking(move || c.purges())))
        .route(
            "/v1/peers/accept",
            post(|State(c): State<Arc<C>>, body: Body<AcceptRequest>| {
                with(body, |b| async move { answer(c.accept(&b.card)) })
            }),
        )
        .route(
            "/v1/peers/join",
            post(|State(c): State<Arc<C>>, body: Body<JoinRequest>| {
                with(body, |b| async move { answer(c.join(&b.token).await) })
            }),
        )
        .route(
            "/v1/courier",
            post(|State(c): State<Arc<C>>, body: Body<CourierAsk>| {
                with(body, |b| async move { answer(c.courier(b).await) })
            })
            .layer(DefaultBodyLimit::max(PARCEL_BODY_BYTES_MAX)),
        )
        .route(
            "/v1/m365/targets",
            post(|State(c): State<Arc<C>>, body: Body<TargetsAsk>| with(body, |b| blocking(move || c.targets(b)))),
        )
        .route(
            "/v1/directory",
            post(|State(c): State<Arc<C>>, body: Body<DirectoryAsk>| {
                with(body, |b| async move { answer(c.directory(b).await) })
            }),
        )
        .route(
            "/v1/m365",
            post(|State(c): State<Arc<C>>, body: Body<M365Ask>| with(body, |b| async move { answer(c.m365(b).await) })),
        )
        .route(
            "/v1/core/bulk",
            post(|State(c): State<Arc<C>>, body: Body<BulkAsk>| with(body, |b| blocking(move || c.bulk(b)))),
        )
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(control)
}

type Body<T> = Result<Json<T>, JsonRejection>;

async fn with<T, F: Future<Output = Response>>(body: Body<T>, run: impl FnOnce(T) -> F) -> Response {
    match body {
        Ok(Json(body)) => run(body).await,
        Err(e) => {
            let text = format!("the request was not understood: {}; nothing was changed", e.body_text());
            refuse(e.status(), text, "use a `holdfast` of the same version as the running node")
        }
    }
}

/// Runs what touches the disk on a thread that may wait.
async fn blocking<T: serde::Serialize + Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Response {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => answer(result),
        Err(e) => {
            tracing::error!(error = %e, "an admin request ended early");
            refuse(StatusCode::INTERNAL_SERVER_ERROR, "the node failed to answer".to_owned(), "see the node's log")
        }
    }
}

fn answer<T: serde::Serialize>(result: Result<T, Failure>) -> Response {
    match result {
        Ok(value) => Json(value).into_response(),
        Err(failure) => refuse(StatusCode::CONFLICT, failure.text, &failure.next_step),
    }
}

fn refuse(status: StatusCode, error: String, next_step: &str) -> Response {
    (status, Json(Refusal { error, next_step: next_step.to_owned() })).into_response()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::admin::{FileView, Joined, Password, PeerRow, Peers, PurgeOrdered, Purges, Token, UserAdded, client};
    use crate::backlog::Backlog;
    use crate::exit::Exit;
    use crate::links::{self, LinkTested, Links};
    use crate::rotation::{KeyList, Rewriting, Rotated};
    use crate::simulate::Forecast;
    use crate::status::{Status, fixture};
    use crate::upkeep::UpkeepDone;
    use crate::why::Why;
    use apply::Holdings;
    use carrier::Emission;

    #[derive(Default)]
    struct Node {
        emission: Mutex<Option<Emission>>,
        stopped: Mutex<bool>,
    }

    impl Control for Node {
        fn status(&self) -> Result<Status, Failure> {
            Ok(fixture::edge_with_backlog())
        }
        fn backlog(&self) -> Result<Backlog, Failure> {
            Err(Failure::new("nothing is known of it", "try again"))
        }
        fn file(&self, asked: &FileRequest) -> Result<FileView, Failure> {
            Err(Failure::new(format!("there is no file {}", asked.id), "name another"))
        }
        fn why(&self, target: &str) -> Result<Why, Failure> {
            Err(Failure::new(format!("`{target}` names nothing"), "name something"))
        }
        fn set_emission(&self, mode: Emission) -> Result<(), Failure> {
            *self.emission.lock().unwrap() = Some(mode);
            Ok(())
        }
        fn links(&self) -> Result<Links, Failure> {
            Ok(Links { schema: "holdfast.links/1".to_owned(), links: Vec::new(), oneway_in: None })
        }
        fn order_link(&self, change: &LinkChange) -> Result<(), Failure> {
            links::choose(Vec::new(), &change.link).map(|_| ())
        }
        async fn test_link(&self, test: &LinkTest) -> Result<LinkTested, Failure> {
            Err(links::choose(Vec::new(), &test.link).unwrap_err())
        }
        fn add_user(&self, user: &NewUser) -> Result<UserAdded, Failure> {
            Ok(UserAdded { id: "id".to_owned(), username: user.username.clone() })
        }
        fn set_password(&self, change: &NewPassword) -> Result<(), Failure> {
            Err(Failure::new(format!("there is no user `{}`", change.username), "list the users"))
        }
        fn peers(&self) -> Result<Peers, Failure> {
            Ok(Peers { schema: "holdfast.peers/1".to_owned(), peers: Vec::new(), invitations: Vec::new() })
        }
        fn invite(&self, _: &InviteRequest) -> Result<Token, Failure> {
            panic!("a handler that panics must not take the node along")
        }
        fn change_hold(&self, change: &HoldChange) -> Result<super::super::HoldChanged, Failure> {
            let (schema, name) = ("holdfast.hold-changed/1".to_owned(), change.name.clone());
            Ok(super::super::HoldChanged { schema, name, changed: change.hold.is_some() })
        }

        fn remove_peer(&self, _: &str) -> Result<(), Failure> {
            Ok(())
        }
        fn keys(&self) -> Result<KeyList, Failure> {
            Err(Failure::new("no keys", "make some"))
        }
        fn rotate_keys(&self) -> Result<Rotated, Failure> {
            Ok(Rotated { number: 2 })
        }
        fn rewrite_step(&self) -> Result<Rewriting, Failure> {
            Ok(Rewriting { finished: true, destroyed: vec![1], ..Rewriting::default() })
        }
        async fn courier(&self, _: CourierAsk) -> Result<crate::admin::CourierAnswer, Failure> {
            Ok(crate::admin::CourierAnswer::Noted)
        }
        async fn directory(&self, _: DirectoryAsk) -> Result<crate::directory::DirectoryAnswer, Failure> {
            Ok(crate::directory::DirectoryAnswer::Links(Vec::new()))
        }
        async fn m365(&self, _: M365Ask) -> Result<crate::m365::M365Answer, Failure> {
            Ok(crate::m365::M365Answer::Waiting)
        }
        fn targets(&self, _: TargetsAsk) -> Result<crate::targets::TargetsAnswer, Failure> {
            Ok(crate::targets::TargetsAnswer::Status(Vec::new()))
        }
        fn bulk(&self, _: BulkAsk) -> Result<crate::bulk::BulkJob, Failure> {
            Err(Failure::new("no job", "ask for one"))
        }
        fn stop(&self) {
            *self.stopped.lock().unwrap() = true;
        }
        fn upkeep(&self, _: &Upkeep) -> Result<UpkeepDone, Failure> {
            Ok(UpkeepDone::Finished)
        }
        fn preview_purge(&self, _: &PurgeRequest) -> Result<Holdings, Failure> {
            Ok(Holdings::default())
        }
        fn order_purge(&self, request: &PurgeRequest) -> Result<PurgeOrdered, Failure> {
            Ok(PurgeOrdered { ids: vec![request.target.clone()] })
        }
        fn purges(&self) -> Result<Purges, Failure> {
            Ok(Purges { schema: Purges::SCHEMA.to_owned(), purges: Vec::new() })
        }
        fn simulate(&self, asked: &SimulateRequest) -> Result<Forecast, Failure> {
            Err(Failure::new(format!("no peer {}", asked.to), "see the peers"))
        }
        fn accept(&self, card: &str) -> Result<PeerRow, Failure> {
            let (name, node, role) = (card.to_owned(), String::new(), String::new());
            Ok(PeerRow { name, node, role, address: None, enrolled_at: model::UnixMillis(0) })
        }
        async fn join(&self, token: &str) -> Result<Joined, Failure> {
            let schema = "holdfast.joined/1".to_owned();
            Ok(Joined { schema, hub: token.to_owned(), node: String::new(), address: String::new() })
        }
    }

    async fn with_node<F: Future<Output = ()>>(run: impl FnOnce(PathBuf, Arc<Node>) -> F) {
        let dir = tempfile::tempdir().unwrap();
        let socket = bind(dir.path()).unwrap();
        let node = Arc::new(Node::default());
        let stop = CancellationToken::new();
        let serving = serve(socket, node.clone(), stop.clone());
        let asking = async {
            run(dir.path().to_owned(), node).await;
            stop.cancel();
        };
        let (served, ()) = tokio::join!(serving, asking);
        served.unwrap();
        assert!(!dir.path().join(SOCKET).exists(), "the socket goes with the node");
    }

    #[tokio::test]
    async fn a_running_node_answers_and_obeys() {
        with_node(|dir, node| async move {
            let status: Status = client::get(&dir, "/v1/status").await.unwrap();
            assert_eq!(status, fixture::edge_with_backlog());
            let change = EmissionChange { mode: Emission::Silent };
            client::post::<()>(&dir, "/v1/emission", &change).await.unwrap();
            assert_eq!(*node.emission.lock().unwrap(), Some(Emission::Silent));
            let joined: Joined =
                client::post(&dir, "/v1/peers/join", &JoinRequest { token: "t".to_owned() }).await.unwrap();
            assert_eq!(joined.hub, "t");
            assert_eq!(client::post::<Rotated>(&dir, "/v1/keys/rotate", &()).await.unwrap().number, 2);
            assert_eq!(client::post::<Rewriting>(&dir, "/v1/keys/rewrite", &()).await.unwrap().destroyed, [1]);
            client::post::<()>(&dir, "/v1/stop", &()).await.unwrap();
            assert!(*node.stopped.lock().unwrap());
        })
        .await;
    }

    #[tokio::test]
    async fn a_refusal_arrives_with_its_next_step() {
        with_node(|dir, _| async move {
            let change = NewPassword { username: "eve".to_owned(), password: Password("x".to_owned()) };
            let refused = client::post::<()>(&dir, "/v1/user/password", &change).await.unwrap_err();
            assert_eq!(refused, Failure::new("there is no user `eve`", "list the users"));
            let malformed =
                client::post::<()>(&dir, "/v1/emission", &serde_json::json!({"mode": "loud"})).await.unwrap_err();
            assert!(malformed.text.contains("not understood"), "{}", malformed.text);
        })
        .await;
    }

    #[tokio::test]
    async fn a_request_that_panics_is_answered_and_the_next_one_too() {
        with_node(|dir, _| async move {
            let request = InviteRequest { name: "a".to_owned(), address: None, valid_seconds: 1 };
            assert!(client::post::<Token>(&dir, "/v1/peers/invite", &request).await.is_err());
            assert!(client::get::<Peers>(&dir, "/v1/peers").await.is_ok());
        })
        .await;
    }

    #[tokio::test]
    async fn the_socket_is_its_owners_alone_and_a_leftover_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let first = bind(dir.path()).unwrap();
        let mode = std::fs::metadata(dir.path().join(SOCKET)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::mem::forget(first); // as kill -9 leaves it
        bind(dir.path()).unwrap();
    }

    #[tokio::test]
    async fn without_a_node_the_caller_learns_that_it_does_not_run() {
        let dir = tempfile::tempdir().unwrap();
        let failure = client::get::<Status>(dir.path(), "/v1/status").await.unwrap_err();
        assert_eq!(failure.exit, Exit::NotRunning);
    }
}
