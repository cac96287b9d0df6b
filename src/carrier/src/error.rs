use std::io;
use std::path::PathBuf;

use model::NodeId;

/// What keeps the carrier from working at all. Trouble with one peer is a state of that peer, not an error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CarrierError {
    /// The UDP socket could not be opened.
    #[error("cannot listen on {address} for peers; nothing was started")]
    Bind {
        /// `carrier.listen`, or "any port" for a node that only dials.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The emission state is set but would not survive a restart.
    #[error("cannot write {}; after a restart the former emission state applies", path.display())]
    EmissionNotSaved {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is no such peer.
    #[error("the node {0} is not enrolled here; nothing was changed")]
    UnknownPeer(NodeId),
}

impl CarrierError {
    /// What the operator should do.
    pub fn next_step(&self) -> &'static str {
        match self {
            Self::Bind { .. } => {
                "choose an address of this machine and a free UDP port in carrier.listen, then restart the node"
            }
            Self::EmissionNotSaved { .. } => "free space on the disk or correct its permissions, then set it again",
            Self::UnknownPeer(_) => "see the enrolled nodes with `holdfast enroll list`",
        }
    }
}
