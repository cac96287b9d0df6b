//! The last own entry of each stream and precedence, so that the next one can say what stands before it.

use std::collections::BTreeMap;

use model::{Epoch, Header, Id, Precedence, Seq, StreamId};

/// Lanes that are remembered: 65,536 x about 70 B = 5 MB, 13,000 channels in which every precedence is used. Of more, those
/// that were used last; an entry of another lane has no predecessor then.
const LANES_MAX: usize = 65_536;

/// Heads in one frame: 48 kB.
const HEADS_PER_FRAME: usize = 1_000;

/// stream u8 | id 26 | precedence u8 | epoch u32 | seq u64 | position u64
const HEAD_LEN: usize = 1 + 26 + 1 + 4 + 8 + 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LaneHead {
    pub(crate) stream: StreamId,
    pub(crate) precedence: Precedence,
    pub(crate) epoch: Epoch,
    pub(crate) seq: Seq,
    /// Local position, which tells what was used last.
    pos: u64,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Lanes(BTreeMap<(StreamId, Precedence), LaneHead>);

impl Lanes {
    /// Takes note of an own entry at a position.
    pub(crate) fn note(&mut self, header: &Header, pos: u64) {
        let Some((stream, precedence)) = header.lane() else { return };
        self.insert(LaneHead { stream, precedence, epoch: header.id.epoch, seq: header.id.seq, pos });
        if self.0.len() > LANES_MAX {
            let mut positions: Vec<u64> = self.0.values().map(|head| head.pos).collect();
            let (_, median, _) = positions.select_nth_unstable(LANES_MAX / 2);
            let median = *median;
            self.0.retain(|_, head| head.pos > median);
        }
    }

    pub(crate) fn insert(&mut self, head: LaneHead) {
        self.0.insert((head.stream, head.precedence), head);
    }

    /// The last entry of a lane.
    pub(crate) fn last(&self, lane: &(StreamId, Precedence)) -> Option<(Epoch, Seq)> {
        self.0.get(lane).map(|head| (head.epoch, head.seq))
    }

    /// Payloads of the frames that hold it all.
    pub(crate) fn frames(&self) -> Vec<Vec<u8>> {
        let heads: Vec<&LaneHead> = self.0.values().collect();
        heads.chunks(HEADS_PER_FRAME).map(|heads| heads.iter().flat_map(|head| head.encode()).collect()).collect()
    }
}

/// The heads of one frame's payload.
pub(crate) fn decode(payload: &[u8]) -> Option<Vec<LaneHead>> {
    let (heads, rest) = payload.as_chunks::<HEAD_LEN>();
    if !rest.is_empty() {
        return None;
    }
    heads.iter().map(LaneHead::decode).collect()
}

impl LaneHead {
    fn encode(&self) -> Vec<u8> {
        let (stream, id) = match &self.stream {
            StreamId::Directory => (0, None),
            StreamId::Team(id) => (1, Some(id)),
            StreamId::Channel(id) => (2, Some(id)),
            StreamId::Purge => (3, None),
        };
        let mut out = Vec::with_capacity(HEAD_LEN);
        out.push(stream);
        out.extend_from_slice(id.map_or(&[0; 26], |id| id.as_str().as_bytes()));
        out.push(self.precedence.index() as u8);
        out.extend(self.epoch.0.to_le_bytes());
        out.extend(self.seq.get().to_le_bytes());
        out.extend(self.pos.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8; HEAD_LEN]) -> Option<Self> {
        let id = || -> Option<Id> { std::str::from_utf8(&bytes[1..27]).ok()?.parse().ok() };
        let stream = match bytes[0] {
            0 => StreamId::Directory,
            1 => StreamId::Team(id()?),
            2 => StreamId::Channel(id()?),
            3 => StreamId::Purge,
            _ => return None,
        };
        Some(Self {
            stream,
            precedence: Precedence::from_index(bytes[27])?,
            epoch: Epoch(u32::from_le_bytes(bytes[28..32].try_into().ok()?)),
            seq: Seq::new(u64::from_le_bytes(bytes[32..40].try_into().ok()?))?,
            pos: u64::from_le_bytes(bytes[40..48].try_into().ok()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(n: u64, precedence: Precedence) -> LaneHead {
        let stream = StreamId::Channel(Id::from_block(u128::from(n).to_le_bytes()));
        LaneHead { stream, precedence, epoch: Epoch(3), seq: Seq::new(n + 1).unwrap(), pos: n }
    }

    #[test]
    fn what_was_written_is_read_again() {
        let mut lanes = Lanes::default();
        (0..2_500).for_each(|n| lanes.insert(head(n, Precedence::ALL[n as usize % 5])));
        lanes.insert(LaneHead { stream: StreamId::Directory, ..head(7, Precedence::Flash) });
        let frames = lanes.frames();
        assert_eq!(frames.len(), 3);
        let mut read = Lanes::default();
        frames.iter().flat_map(|frame| decode(frame).unwrap()).for_each(|head| read.insert(head));
        assert_eq!(read.0, lanes.0);
        assert_eq!(decode(&frames[0][1..]), None);
    }

    #[test]
    fn of_very_many_lanes_those_used_last_are_remembered() {
        let mut lanes = Lanes::default();
        for n in 0..=LANES_MAX as u64 {
            lanes.insert(head(n, Precedence::Routine));
        }
        let newest = head(LANES_MAX as u64 + 1, Precedence::Flash);
        let mut header = crate::tests::entry_of(crate::tests::PEER, newest.seq.get(), b"").header;
        (header.stream, header.precedence, header.id.epoch) = (newest.stream, newest.precedence, newest.epoch);
        lanes.note(&header, newest.pos);
        assert!(lanes.0.len() <= LANES_MAX / 2 + 2, "{}", lanes.0.len());
        assert_eq!(lanes.last(&(newest.stream, newest.precedence)), Some((newest.epoch, newest.seq)));
        assert_eq!(lanes.last(&(head(0, Precedence::Routine).stream, Precedence::Routine)), None);
    }
}
