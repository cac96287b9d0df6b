//! Every state in which a power cut may leave the disk, at every call of a recorded workload.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::disk::{PretendDisk, Trace};
use crate::media::{Keep, Media, Undecided};

/// All subsets are built for so many undecided changes, 256 states; of more a sample.
const SUBSETS_OF: usize = 8;

/// Of more undecided changes so many subsets are tried.
const SUBSETS_SAMPLED: usize = 96;

/// Of one write so many places to cut it at, and holes of each size. A write of 8 KiB has 16 sectors.
const CUTS: usize = 16;

const SECTOR: usize = 512;
const PAGE: usize = 4096;

/// Walks a trace and builds the states.
pub struct CrashStates<'a> {
    trace: &'a Trace,
    media: Media,
    at: usize,
    seed: u64,
    extra: usize,
}

/// The moment after so many calls.
pub struct Boundary {
    /// How many.
    pub calls: usize,
    /// What the power cut decides.
    pub undecided: Vec<Undecided>,
    media: Media,
    keeps: Vec<Vec<Keep>>,
}

impl<'a> CrashStates<'a> {
    /// `extra` is how many random states are added at each moment with something undecided.
    pub fn new(trace: &'a Trace, seed: u64, extra: usize) -> Self {
        Self { trace, media: trace.start.clone(), at: 0, seed, extra }
    }

    /// The moment after the next call; the first one is before all calls.
    pub fn next_boundary(&mut self) -> Option<Boundary> {
        if self.at > self.trace.calls.len() {
            return None;
        }
        if let Some(call) = self.at.checked_sub(1).map(|at| &self.trace.calls[at]) {
            call.apply(&mut self.media);
        }
        let calls = self.at;
        self.at += 1;
        let undecided = self.media.undecided();
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed.wrapping_mul(0x9e37_79b9).wrapping_add(calls as u64));
        let keeps = legal_keeps(&undecided, self.extra, &mut rng);
        Some(Boundary { calls, undecided, media: self.media.clone(), keeps })
    }
}

impl Boundary {
    /// How many states there are; some may be alike.
    pub fn states(&self) -> usize {
        self.keeps.len()
    }

    /// Files that a power cut would leave empty, with their names.
    pub fn hollow_files(&self) -> Vec<std::path::PathBuf> {
        self.media.hollow_files().map(std::path::Path::to_owned).collect()
    }

    /// What the power cut decided in one of them.
    pub fn keeps(&self, state: usize) -> &[Keep] {
        &self.keeps[state]
    }

    /// The disk in one of them, and a number that tells it from others.
    pub fn disk(&self, state: usize) -> (PretendDisk, u64) {
        let media = self.media.after(&self.keeps[state]);
        let print = media.print();
        (PretendDisk::holding(media), print)
    }
}

/// All lost, all kept, each prefix, torn writes, holes, subsets, and some at random.
fn legal_keeps(undecided: &[Undecided], extra: usize, rng: &mut ChaCha8Rng) -> Vec<Vec<Keep>> {
    let n = undecided.len();
    let prefix = |len: usize| -> Vec<Keep> { (0..n).map(|i| if i < len { Keep::Yes } else { Keep::No }).collect() };
    let mut all: Vec<Vec<Keep>> = [0, n].into_iter().chain(1..n).map(prefix).collect();
    if n == 0 {
        return all;
    }
    let subset = |bits: u64| -> Vec<Keep> {
        (0..n).map(|i| if bits >> (i % 64) & 1 == 1 { Keep::Yes } else { Keep::No }).collect()
    };
    if n <= SUBSETS_OF {
        all.extend((0..1u64 << n).map(subset));
    } else {
        all.extend((0..SUBSETS_SAMPLED).map(|_| subset(rng.random())));
    }
    for (i, change) in undecided.iter().enumerate() {
        let Undecided::Write { offset, len } = *change else { continue };
        for cut in cuts(offset, len, rng) {
            // What follows is lost, as with a prefix, or reached the disk first.
            all.push((0..n).map(|at| torn(at, i, Keep::First(cut), Keep::No)).collect());
            all.push((0..n).map(|at| torn(at, i, Keep::Without(cut..len), Keep::No)).collect());
            if i + 1 < n {
                all.push((0..n).map(|at| torn(at, i, Keep::First(cut), Keep::Yes)).collect());
            }
        }
        for hole in holes(offset, len, rng) {
            all.push((0..n).map(|at| torn(at, i, Keep::Without(hole.clone()), Keep::Yes)).collect());
        }
    }
    all.extend((0..extra).map(|_| random_keeps(undecided, rng)));
    all
}

fn torn(at: usize, which: usize, torn: Keep, later: Keep) -> Keep {
    match at.cmp(&which) {
        std::cmp::Ordering::Less => Keep::Yes,
        std::cmp::Ordering::Equal => torn,
        std::cmp::Ordering::Greater => later,
    }
}

/// Where a write may be torn: at sectors and pages of the file, and at some byte.
fn cuts(offset: usize, len: usize, rng: &mut ChaCha8Rng) -> Vec<usize> {
    let edges: Vec<usize> = (offset / SECTOR + 1..).map(|n| n * SECTOR - offset).take_while(|at| *at < len).collect();
    let pages = edges.iter().copied().filter(|at| (at + offset).is_multiple_of(PAGE));
    let mut cuts: Vec<usize> = pages.take(CUTS).collect();
    match edges.len() <= CUTS {
        true => cuts.extend(&edges),
        false => cuts.extend((0..CUTS).map(|_| edges[rng.random_range(0..edges.len())])),
    }
    if len > 1 {
        cuts.extend([1, len - 1]);
        cuts.extend((0..6).map(|_| rng.random_range(1..len)));
    }
    cuts.sort_unstable();
    cuts.dedup();
    cuts
}

/// Parts of a write that may be missing while the rest is there.
fn holes(offset: usize, len: usize, rng: &mut ChaCha8Rng) -> Vec<std::ops::Range<usize>> {
    let whole = 0..len;
    let mut holes = Vec::from([whole]);
    for size in [SECTOR, PAGE] {
        let blocks = offset / size..(offset + len).div_ceil(size);
        let block = |n: usize| (n * size).saturating_sub(offset)..((n + 1) * size - offset).min(len);
        match blocks.len() <= CUTS {
            true => holes.extend(blocks.map(block)),
            false => holes.extend((0..CUTS).map(|_| block(rng.random_range(blocks.clone())))),
        }
    }
    holes.dedup();
    holes
}

/// A random one of all legal outcomes.
pub(crate) fn random_keeps(undecided: &[Undecided], rng: &mut impl RngExt) -> Vec<Keep> {
    let prefix = rng.random_range(0..=undecided.len());
    let in_order = rng.random_bool(0.5);
    let mut keep = |(i, change): (usize, &Undecided)| {
        let part = match change {
            Undecided::Write { len, .. } if *len > 1 => {
                let cut = rng.random_range(0..*len);
                match rng.random_range(0..3) {
                    0 => Some(Keep::First(cut)),
                    1 => Some(Keep::Without(cut..rng.random_range(cut..=*len))),
                    _ => None,
                }
            }
            Undecided::Write { .. } | Undecided::Length | Undecided::Name => None,
        };
        let kept = if in_order { i < prefix } else { rng.random_bool(0.5) };
        match (kept, part) {
            (true, part) => part.unwrap_or(Keep::Yes),
            (false, Some(part)) if in_order && i == prefix => part,
            (false, _) => Keep::No,
        }
    };
    undecided.iter().enumerate().map(&mut keep).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use model::{Disk, OpenMode};

    use super::*;

    #[test]
    fn every_part_of_what_was_not_synced_is_tried_and_nothing_of_what_was_is_missing() {
        let disk = PretendDisk::default();
        disk.record();
        disk.create_dir_all(Path::new("/d")).unwrap();
        let file = disk.open(Path::new("/d/a"), OpenMode::Create).unwrap();
        disk.sync_dir(Path::new("/d")).unwrap();
        file.append(&[1; 700]).unwrap();
        file.sync_data().unwrap();
        file.append(&[2; 5000]).unwrap();
        disk.open(Path::new("/d/b"), OpenMode::Create).unwrap();
        disk.note(1);
        let trace = disk.take_trace();
        let mut states = CrashStates::new(&trace, 1, 4);
        let mut last = BTreeSet::new();
        while let Some(boundary) = states.next_boundary() {
            last.clear();
            for state in 0..boundary.states() {
                let (disk, print) = boundary.disk(state);
                last.insert(print);
                let bytes = disk.bytes_of(Path::new("/d/a"));
                assert!(boundary.calls < 3 || bytes.is_some(), "the name was synced");
                if boundary.calls >= 5 {
                    assert!(bytes.unwrap().starts_with(&[1; 700]), "the bytes were synced");
                }
            }
        }
        assert!(last.len() > 50, "{} states", last.len());
    }
}
