//! Replaced when the link session lands.
use crate::talk::*;
use keys::Peer;
use link::Lane;
use model::{BitsPerSecond, NodeId};
use std::collections::BTreeSet;
use std::time::Duration;
use wire::frame::Frame;

pub(crate) struct Mute;

impl Talk for Mute {
    fn connected(&mut self, _: Duration) -> Result<(), Refusal> {
        Ok(())
    }
    fn disconnected(&mut self) {}
    fn received(&mut self, _: Duration, _: Frame) -> Result<(), Refusal> {
        Ok(())
    }
    fn needs_settling(&self) -> bool {
        false
    }
    fn settle(&mut self, _: Duration) -> Result<(), Refusal> {
        Ok(())
    }
    fn next_frame(&mut self, _: Duration, _: u64) -> Result<Option<(Lane, Frame)>, Refusal> {
        Ok(None)
    }
    fn deadline(&self) -> Option<Duration> {
        None
    }
    fn set_rate(&mut self, _: BitsPerSecond, _: Duration) {}
    async fn wait(&mut self) {
        std::future::pending().await
    }
}

impl Talks for Mute {
    type Talk = Mute;
    fn open(&self, _: &Peer, _: BitsPerSecond, _: Duration) -> Result<Mute, String> {
        Ok(Mute)
    }
    fn retain(&self, _: &BTreeSet<NodeId>) {}
}
