//! The WebSocket: events to clients as they happen, and the few requests that clients send this way.
//!
//! core --publish--> hub --filter--> [ queues of each connection ] --writer--> socket
//!
//! A connection is one life of a socket, with queues that outlive it: when the socket dies they keep filling,
//! and a client that returns within five minutes with its connection id takes them over and misses nothing.
//!
//! Invariants
//! - `publish` never blocks: queues are bounded, and who cannot keep up loses its connection, not our memory.
//! - A connection whose session ended is closed at once.
//! - Every task here is known to the hub and ends when the hub is told to stop.
//!
//! Not here: who may read what. The core works out the recipients of every event.

mod frame;
mod queues;
mod requests;
mod socket;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::{Id, Sensitive};
use serde_json::{Map, Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::frame::{EventText, Frame};
use self::queues::{Overflow, Queues, Resume, UNSENT_SLOW};
pub(crate) use self::requests::announce_typing;
pub(crate) use self::socket::upgrade;
use crate::events::{Broadcast, EventSink, Recipients};

/// Dead connections kept per user for their return. A user has a handful of devices; more is a client that
/// never returns to what it left.
const WAITING_PER_USER_MAX: usize = 8;

/// Sockets that one user may have open. A handful of devices with a few windows each is less; more is a program that opens
/// new ones without closing the old, and loses its oldest.
const OPEN_PER_USER_MAX: usize = 64;

/// Events that are worthless when late.
const PERISHABLE: [&str; 3] = ["typing", "status_change", "multiple_channels_viewed"];
/// Events that matter only to who looks at the channel.
const SCOPED: [&str; 3] = ["typing", "reaction_added", "reaction_removed"];

/// All connections of the site. Cheap to clone.
#[derive(Clone, Debug)]
pub struct WsHub(Arc<Hub>);

#[derive(Debug)]
struct Hub {
    connections: Mutex<BTreeMap<Id, Arc<Connection>>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// One life of a socket.
#[derive(Debug)]
struct Connection {
    id: Id,
    user: Id,
    /// Rises with each arrival at the hub.
    arrived: u64,
    /// To see whether the session is still good.
    token: Sensitive<String>,
    /// The client wants to acknowledge notifications.
    posted_ack: bool,
    state: Mutex<State>,
    /// Something in `state` changed for the task that serves the connection.
    changed: Notify,
    /// Overflown, taken over, or the hub stops: the task must end, whatever it waits for.
    gone: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    queues: Queues,
    /// A socket is attached.
    active: bool,
    /// The session may have ended.
    check_session: bool,
    looking_at: LookingAt,
}

/// What the client says it shows. `None` where it never said.
#[derive(Debug, Default)]
struct LookingAt {
    channel: Option<String>,
    thread_beside: Option<String>,
    thread_view: Option<String>,
}

impl LookingAt {
    /// Whether an event that matters only in `channel` can be left out: the client said all that it shows, and
    /// the channel is not among it.
    fn elsewhere(&self, channel: &str) -> bool {
        let other = |shown: &Option<String>| shown.as_deref().is_some_and(|shown| shown != channel);
        other(&self.channel) && other(&self.thread_beside) && other(&self.thread_view)
    }
}

/// How a client wants to go on after its socket died.
#[derive(Clone, Copy, Debug)]
struct Return {
    connection: Id,
    /// The number of the next event it expects.
    expected: u64,
}

/// Who is connecting.
struct Arrival {
    user: Id,
    token: Sensitive<String>,
    posted_ack: bool,
    returning: Option<Return>,
}

impl WsHub {
    /// A hub whose connections end when `stop` is cancelled.
    pub fn new(stop: CancellationToken) -> Self {
        Self(Arc::new(Hub { connections: Mutex::default(), tasks: TaskTracker::new(), stop }))
    }

    /// Waits until every connection's task has ended. Call it after cancelling the token.
    pub async fn ended(&self) {
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    /// Sockets that are attached, for the metrics.
    pub fn active_connections(&self) -> usize {
        self.connections().values().filter(|connection| connection.state().active).count()
    }

    fn connections(&self) -> MutexGuard<'_, BTreeMap<Id, Arc<Connection>>> {
        // A panic elsewhere cannot leave the map half changed: entries are inserted and removed whole.
        self.0.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a connection: as the continuation of a dead one where that is possible without a gap, else as
    /// a new one, greeted by `hello`.
    fn arrive(&self, arrival: Arrival, fresh_id: Id, hello: impl FnOnce(Id) -> Frame) -> Arc<Connection> {
        let mut connections = self.connections();
        let left = arrival.returning.and_then(|back| Some((back, connections.get(&back.connection)?.clone())));
        let left = left.filter(|(_, old)| old.user == arrival.user && !old.state().active);
        let (id, queues) = match left {
            Some((back, old)) => {
                connections.remove(&old.id);
                let mut queues = old.retire();
                match queues.resume(back.expected) {
                    Resume::Continued => (old.id, queues),
                    Resume::Lost => {
                        queues.restart(hello(fresh_id));
                        (fresh_id, queues)
                    }
                }
            }
            None => {
                let mut queues = Queues::default();
                queues.restart(hello(fresh_id));
                (fresh_id, queues)
            }
        };
        let arrived = connections.values().map(|other| other.arrived).max().map_or(0, |newest| newest + 1);
        let mut open: Vec<_> =
            connections.values().filter(|other| other.user == arrival.user && other.state().active).cloned().collect();
        open.sort_unstable_by_key(|other| other.arrived);
        for oldest in open.iter().take((open.len() + 1).saturating_sub(OPEN_PER_USER_MAX)) {
            tracing::warn!(user = %oldest.user, connection = %oldest.id, "a user has too many sockets; the oldest is closed");
            Self::remove(&mut connections, oldest);
            oldest.retire();
        }
        let connection = Arc::new(Connection {
            id,
            user: arrival.user,
            arrived,
            token: arrival.token,
            posted_ack: arrival.posted_ack,
            // The session may have ended between the handshake and here, when nobody could be told.
            state: Mutex::new(State { queues, active: true, check_session: true, ..State::default() }),
            changed: Notify::new(),
            gone: self.0.stop.child_token(),
        });
        connections.insert(id, Arc::clone(&connection));
        connection
    }

    /// The socket of `connection` died. Says whether its queues wait for the client to return.
    fn socket_died(&self, connection: &Arc<Connection>) -> bool {
        let mut connections = self.connections();
        let waiting =
            connections.values().filter(|other| other.user == connection.user && !other.state().active).count();
        connection.state().active = false;
        if connection.gone.is_cancelled() || waiting >= WAITING_PER_USER_MAX {
            Self::remove(&mut connections, connection);
            return false;
        }
        true
    }

    /// Forgets a connection.
    fn forget(&self, connection: &Arc<Connection>) {
        Self::remove(&mut self.connections(), connection);
    }

    /// Another life may already hold the same id; only this one goes.
    fn remove(connections: &mut BTreeMap<Id, Arc<Connection>>, connection: &Arc<Connection>) {
        if connections.get(&connection.id).is_some_and(|held| Arc::ptr_eq(held, connection)) {
            connections.remove(&connection.id);
        }
    }

    fn has_active(&self, user: Id) -> bool {
        self.connections().values().any(|connection| connection.user == user && connection.state().active)
    }
}

impl EventSink for WsHub {
    fn publish(&self, broadcast: Broadcast) {
        let text = Arc::new(EventText::new(broadcast.event, &broadcast.data, &broadcast_json(&broadcast)));
        let named: Option<BTreeSet<&Id>> = match &broadcast.to {
            Recipients::All => None,
            Recipients::Users(users) => Some(users.iter().collect()),
        };
        let reaches = |user: Id| {
            named.as_ref().is_none_or(|named| named.contains(&user)) && !broadcast.omit_users.contains(&user)
        };
        let mut connections = self.connections();
        let mut overflown = Vec::new();
        for connection in connections.values() {
            let caused_it = broadcast.omit_connection == Some(connection.id);
            if !caused_it && reaches(connection.user) && connection.offer(&broadcast, &text) == Err(Overflow) {
                overflown.push(Arc::clone(connection));
            }
        }
        for connection in overflown {
            tracing::warn!(user = %connection.user, connection = %connection.id, "a client was too slow; its connection is closed");
            Self::remove(&mut connections, &connection);
            connection.retire();
        }
    }

    fn sessions_ended(&self, user: Id) {
        for connection in self.connections().values().filter(|connection| connection.user == user) {
            connection.state().check_session = true;
            connection.changed.notify_one();
        }
    }
}

impl Connection {
    fn state(&self) -> MutexGuard<'_, State> {
        // The queues stay consistent between statements; a panic in another holder does not spoil them.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a frame for this connection's client.
    fn push(&self, frame: Frame) -> Result<(), Overflow> {
        let pushed = self.state().queues.push(frame);
        self.changed.notify_one();
        pushed
    }

    /// Queues an event unless it is not worth it.
    fn offer(&self, broadcast: &Broadcast, text: &Arc<EventText>) -> Result<(), Overflow> {
        let mut state = self.state();
        if state.queues.waiting() >= UNSENT_SLOW && PERISHABLE.contains(&broadcast.event) {
            return Ok(());
        }
        let scope = broadcast.channel_id.filter(|_| SCOPED.contains(&broadcast.event));
        if scope.is_some_and(|channel| state.looking_at.elsewhere(channel.as_str())) {
            return Ok(());
        }
        let frame = match broadcast.per_user.get(&self.user) {
            Some(own) => {
                let mut own = own.clone();
                if self.posted_ack && state.active && (own.contains_key("mentions") || own.contains_key("followers")) {
                    own.insert("should_ack".to_owned(), Value::Bool(true));
                }
                Frame::event_with(text, &own)
            }
            None => Frame::event(text),
        };
        let pushed = state.queues.push(frame);
        drop(state);
        self.changed.notify_one();
        pushed
    }

    /// Ends this life and hands out what it still had to send.
    fn retire(&self) -> Queues {
        self.gone.cancel();
        std::mem::take(&mut self.state().queues)
    }
}

fn broadcast_json(broadcast: &Broadcast) -> Value {
    let text = |id: &Option<Id>| id.as_ref().map_or(String::new(), Id::to_string);
    let omitted: Map<String, Value> =
        broadcast.omit_users.iter().map(|user| (user.to_string(), Value::Bool(true))).collect();
    json!({
        "omit_users": if omitted.is_empty() { Value::Null } else { Value::Object(omitted) },
        "user_id": text(&broadcast.user_id),
        "channel_id": text(&broadcast.channel_id),
        "team_id": text(&broadcast.team_id),
        "connection_id": "",
        "omit_connection_id": crate::rows::text(&broadcast.omit_connection),
    })
}

#[cfg(test)]
mod tests {
    use super::queues::UNSENT_MAX;
    use super::*;

    const ID: &str = "ybndrfg8ejkmcpqxot1uwisza";

    fn id(last: char) -> Id {
        format!("{ID}{last}").parse().unwrap()
    }

    fn hub() -> WsHub {
        WsHub::new(CancellationToken::new())
    }

    fn arrive(hub: &WsHub, user: Id, fresh: Id, returning: Option<Return>) -> Arc<Connection> {
        let arrival = Arrival { user, token: Sensitive(String::new()), posted_ack: false, returning };
        hub.arrive(arrival, fresh, |_| Frame::event(&frame::tests::bare_event("hello")))
    }

    fn names(connection: &Connection) -> Vec<String> {
        let mut state = connection.state();
        let texts = std::iter::from_fn(|| state.queues.next());
        let event = |text: String| serde_json::from_str::<Value>(&text).unwrap()["event"].as_str().unwrap().to_owned();
        texts.map(event).collect()
    }

    #[test]
    fn an_event_reaches_its_recipients_but_for_those_it_omits() {
        let hub = hub();
        let [ann, bob, cid] = ['a', 'b', 'c'].map(id);
        let connections = [ann, bob, cid].map(|user| arrive(&hub, user, user, None));
        hub.publish(Broadcast::to_channel("typing", id('x'), vec![ann, bob]).omitting(ann));
        hub.publish(Broadcast::to_user("post_unread", cid));
        let heard = connections.map(|connection| names(&connection)[1..].to_vec());
        assert_eq!(heard, [vec![], vec!["typing".to_owned()], vec!["post_unread".to_owned()]]);
    }

    #[test]
    fn fields_for_one_user_stay_with_that_user() {
        let hub = hub();
        let (ann, bob) = (id('a'), id('b'));
        let connections = [ann, bob].map(|user| arrive(&hub, user, user, None));
        let mut posted = Broadcast::to_all("posted").with("post", "{}");
        posted.per_user.entry(bob).or_default().insert("mentions".to_owned(), json!("[\"bob\"]"));
        hub.publish(posted);
        let [for_ann, for_bob] = connections.map(|connection| {
            let mut state = connection.state();
            state.queues.next();
            serde_json::from_str::<Value>(&state.queues.next().unwrap()).unwrap()["data"].clone()
        });
        assert_eq!(for_ann, json!({ "post": "{}" }));
        assert_eq!(for_bob, json!({ "post": "{}", "mentions": "[\"bob\"]" }));
    }

    #[test]
    fn what_is_worthless_when_late_is_dropped_before_the_rest_suffers() {
        let hub = hub();
        let connection = arrive(&hub, id('a'), id('a'), None);
        (0..UNSENT_SLOW).for_each(|_| hub.publish(Broadcast::to_all("posted")));
        hub.publish(Broadcast::to_all("typing"));
        hub.publish(Broadcast::to_all("posted"));
        let names = names(&connection);
        assert!(!names.contains(&"typing".to_owned()));
        assert_eq!(names.len(), UNSENT_SLOW + 2, "with the greeting");
    }

    #[test]
    fn a_dead_connection_that_overflows_is_forgotten() {
        let hub = hub();
        let user = id('a');
        let connection = arrive(&hub, user, id('1'), None);
        assert!(hub.socket_died(&connection), "it waits for the client");
        (0..=UNSENT_MAX).for_each(|_| hub.publish(Broadcast::to_all("posted")));
        assert!(connection.gone.is_cancelled());
        let back = arrive(&hub, user, id('2'), Some(Return { connection: id('1'), expected: 1 }));
        assert_eq!((back.id, names(&back)), (id('2'), vec!["hello".to_owned()]));
    }

    #[test]
    fn only_its_own_user_takes_over_a_connection() {
        let hub = hub();
        let left = arrive(&hub, id('a'), id('1'), None);
        names(&left);
        hub.socket_died(&left);
        let returning = Some(Return { connection: id('1'), expected: 1 });
        assert_eq!(arrive(&hub, id('b'), id('2'), returning).id, id('2'));
        assert_eq!(arrive(&hub, id('a'), id('3'), returning).id, id('1'));
        assert!(left.gone.is_cancelled(), "the former life ends");
    }

    #[test]
    fn a_user_cannot_pile_up_dead_connections() {
        let hub = hub();
        let fresh = "abcdefghijklmnopqrstuvwxyz".chars().map(id);
        let kept = fresh.filter(|fresh| hub.socket_died(&arrive(&hub, id('a'), *fresh, None))).count();
        assert_eq!(kept, WAITING_PER_USER_MAX);
        assert_eq!(hub.connections().len(), WAITING_PER_USER_MAX);
    }

    #[test]
    fn a_user_with_too_many_sockets_loses_the_oldest() {
        let hub = hub();
        let other = arrive(&hub, id('b'), id('9'), None);
        let letters: Vec<char> = "ybndrfg8ejkmcpqxot1uwisza345h769".chars().collect();
        let fresh = |n: usize| format!("{}{}{}", &ID[..24], letters[n / 32], letters[n % 32]).parse().unwrap();
        let opened: Vec<_> = (0..OPEN_PER_USER_MAX + 3).map(|n| arrive(&hub, id('a'), fresh(n), None)).collect();
        let gone: Vec<usize> = (0..opened.len()).filter(|n| opened[*n].gone.is_cancelled()).collect();
        assert_eq!(gone, [0, 1, 2]);
        assert!(!other.gone.is_cancelled());
        assert_eq!(hub.active_connections(), OPEN_PER_USER_MAX + 1);
    }

    #[test]
    fn who_has_not_said_all_they_look_at_gets_everything() {
        let mut shown = LookingAt::default();
        assert!(!shown.elsewhere("here"));
        shown.channel = Some("there".to_owned());
        shown.thread_view = Some(String::new());
        assert!(!shown.elsewhere("here"));
        shown.thread_beside = Some("there".to_owned());
        assert!(shown.elsewhere("here"));
        shown.thread_beside = Some("here".to_owned());
        assert!(!shown.elsewhere("here"), "a thread of the channel is open beside");
    }
}
