//! Questions to the conversation with a peer, from the threads that serve operators. The conversation answers between two
//! frames; whoever asks waits for it a moment at most.

use std::collections::BTreeMap;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use link::{OnRequest, SentSoFar};
use model::{Epoch, NodeId, Seq};
use tokio::sync::{mpsc, watch};

/// A conversation is busy for as long as a read of the journal takes.
const PATIENCE: Duration = Duration::from_secs(1);

/// Two may ask at the same time: the watch and an operator. More wait for nothing and get no answer.
const WAITING_MAX: usize = 4;

/// What a conversation says of its sending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Telling {
    /// What it has sent since the start.
    pub sent: SentSoFar,
    /// Files of the peer whose content nobody here has wanted so far.
    pub on_request: Vec<OnRequest>,
    /// For how long the entry that was asked about has been on its way without a receipt.
    pub on_its_way: Option<Duration>,
}

/// A question.
pub(crate) struct Question {
    pub(crate) entry: Option<(Epoch, Seq)>,
    pub(crate) answer: SyncSender<Telling>,
}

/// The conversations that can be asked, by peer.
#[derive(Debug, Default)]
pub(crate) struct Asks {
    conversations: Mutex<BTreeMap<NodeId, mpsc::Sender<Question>>>,
    /// Counts requests for files.
    pub(crate) files: watch::Sender<u64>,
}

impl Asks {
    fn all(&self) -> MutexGuard<'_, BTreeMap<NodeId, mpsc::Sender<Question>>> {
        // One insertion or removal at a time: no half of anything is left behind.
        self.conversations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The questions for the conversation with `peer`, which replaces an earlier one.
    pub(crate) fn open(&self, peer: NodeId) -> mpsc::Receiver<Question> {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let mut all = self.all();
        all.retain(|_, sender| !sender.is_closed());
        all.insert(peer, sender);
        receiver
    }

    /// Asks and waits. `None` when there is no conversation, or it does not answer in time.
    pub(crate) fn ask(&self, peer: NodeId, entry: Option<(Epoch, Seq)>) -> Option<Telling> {
        let sender = self.all().get(&peer)?.clone();
        let (answer, answered) = sync_channel(1);
        sender.try_send(Question { entry, answer }).ok()?;
        answered.recv_timeout(PATIENCE).ok()
    }
}
