//! A hub: a site at which edges are enrolled and to which they come.
//!
//! It is the same program as an edge, with the same journal, core and links (room `edge`). What it has besides is a
//! listener and an enrolment desk: an operator invites an edge by name, the edge shows the token once, and from then on
//! its key is known here.
//!
//! Not here: what is said to an edge (carrier, link), what becomes of what it sends (apply).

use std::sync::Arc;
use std::time::Duration;

use edge::{Environment, Site, SiteConfig, StartError};
use keys::{InviteBook, KeysError, PeerName};
use model::{Sensitive, UnixMillis};

/// A running hub.
pub struct Hub {
    site: Site,
    invites: Arc<InviteBook>,
    environment: Environment,
}

/// An invitation as it is handed to the edge's operator.
#[derive(Debug)]
pub struct Invitation {
    /// The text that the edge's operator types or pastes. A secret until it is used.
    pub token: Sensitive<String>,
    /// Where the edge will look for the hub.
    pub address: String,
    /// Not valid after this.
    pub expires_at: UnixMillis,
}

impl Hub {
    /// Starts the hub.
    ///
    /// # Errors
    /// When no listener is configured, or a part does not start.
    pub async fn start(config: SiteConfig, environment: Environment) -> Result<Self, StartError> {
        if config.carrier.listen.is_none() {
            return Err(StartError::NoListener);
        }
        let invites = Arc::new(InviteBook::open(&config.data_dir.join("keys"))?);
        let site = Site::start_with_desk(config, environment.clone(), Some(Arc::clone(&invites))).await?;
        Ok(Self { site, invites, environment })
    }

    /// The site.
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// The site, to wait on.
    pub fn site_mut(&mut self) -> &mut Site {
        &mut self.site
    }

    /// The enrolment desk's book, for whoever answers the operator.
    pub fn invites(&self) -> &Arc<InviteBook> {
        &self.invites
    }

    /// Invites an edge. Without an `address` the one that the socket listens on is told, which serves when that is one
    /// that the edge can reach. Blocks on the disk.
    ///
    /// # Errors
    /// When the invitation cannot be recorded; no token is valid then.
    pub fn invite(&self, name: &PeerName, address: Option<&str>, valid: Duration) -> Result<Invitation, KeysError> {
        let listening = self.site.carrier().local_addr().map(|a| a.to_string());
        let address = address.map(str::to_owned).or(listening).unwrap_or_default();
        let now = self.environment.clock.now();
        let valid_ms = i64::try_from(valid.as_millis()).unwrap_or(i64::MAX);
        let invite = self.invites.create(name.clone(), self.site.node(), &address, now, valid_ms)?;
        Ok(Invitation { token: Sensitive(invite.to_token().to_string()), address, expires_at: invite.expires_at })
    }

    /// Stops every part, in order.
    pub async fn stop(self) {
        self.site.stop().await;
    }
}
