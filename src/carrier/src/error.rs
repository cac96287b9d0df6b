use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use keys::PeerName;
use model::NodeId;

use crate::settings::LinkName;

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
    /// The HTTPS socket could not be opened, or its certificate not be used.
    #[error("cannot listen on {address} for peers over HTTPS; nothing was started")]
    BindHttps {
        /// `carrier.https_listen`.
        address: SocketAddr,
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
    /// What is ordered and spent on each link cannot be read.
    #[error("cannot read {}, where orders and budgets of links stand; nothing was started", path.display())]
    LinksUnreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It cannot be written.
    #[error("cannot write {}; after a restart what was ordered before applies", path.display())]
    LinksNotSaved {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What is held for other nodes cannot be looked at.
    #[error("cannot read {}, where parcels for other nodes are held; nothing was started", path.display())]
    TransitUnreadable {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The link cannot be measured at present.
    #[error("the link `{0}` was not tested: {1}")]
    LinkNotTested(LinkName, String),
    /// There is no such link.
    #[error("the peer {0} has no link `{1}`; nothing was changed")]
    UnknownLink(PeerName, LinkName),
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
            Self::BindHttps { .. } => {
                "choose a free TCP port in carrier.https_listen, check https_certificate and https_key, then restart the node"
            }
            Self::EmissionNotSaved { .. } => "free space on the disk or correct its permissions, then set it again",
            Self::LinksUnreadable { .. } => {
                "restore it from a backup, or remove it: then every link is used and no budget counts as spent"
            }
            Self::LinksNotSaved { .. } => "free space on the disk or correct its permissions, then order it again",
            Self::TransitUnreadable { .. } => {
                "correct its permissions or check the disk, then restart the node; whoever wrote the parcels still holds what is in them"
            }
            Self::LinkNotTested(..) => "see what it is doing with `holdfast link list`",
            Self::UnknownLink(..) => "see the links with `holdfast link list`",
            Self::UnknownPeer(_) => "see the enrolled nodes with `holdfast enroll list`",
        }
    }
}
