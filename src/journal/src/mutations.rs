//! Bugs on demand, so that the fault kit can show that it would find each of them.
//!
//! Each fsync, directory sync, checksum and ordering that durability rests on has a switch here that takes it away. The
//! feature `mutations` is for the kit's tests alone: without it every switch is off when the journal is compiled.

use std::io;

/// What is taken away.
#[cfg_attr(not(feature = "mutations"), allow(unreachable_pub, reason = "public for the kit's tests alone"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Mutation {
    /// A batch is acknowledged without fdatasync.
    SkipDataSync = 1,
    /// A batch is acknowledged, then synced.
    AckBeforeSync,
    /// A sync that failed is tried again, and its success believed.
    RetryFailedSync,
    /// Of a refused batch what was written stays.
    SkipTakeBack,
    /// The cut that takes a refused batch back is not synced.
    SkipTakeBackSync,
    /// That a segment is in doubt after a failed sync is not noted.
    SkipSuspectNote,
    /// The copy of a segment in doubt is not synced before it takes its place.
    SkipMendSync,
    /// The rename of that copy is not synced before the note is removed.
    SkipMendDirSync,
    /// A new segment file is used before its opening is synced.
    SkipHeaderSync,
    /// A new segment file is used before its name is synced.
    SkipSegmentDirSync,
    /// The footer of a segment is not synced.
    SkipFooterSync,
    /// A segment file that could not be made durable is left there.
    SkipUndoSegment,
    /// The removal of such a file is not synced.
    SkipUndoDirSync,
    /// The journal goes on when such a file can neither be made durable nor removed.
    SkipStopInDoubt,
    /// Names that a killed process left are not synced at open.
    SkipOpenDirSync,
    /// What a killed process wrote is not synced at open.
    SkipTailSync,
    /// A torn tail is left where it is.
    SkipTailCut,
    /// No epoch begins after a torn tail.
    SkipTornTailEpoch,
    /// No epoch begins after damage that may hide numbers.
    SkipDamageEpoch,
    /// Positions that damage hides are given out again.
    SkipPositionsSkip,
    /// Rows behind a hole in the last write count as captured.
    SkipHoleCheck,
    /// Receipts behind a segment's opening count as part of it.
    SkipOpeningEnd,
    /// A segment is given up in the same write as what outlives it.
    SkipTrimOrder,
    /// A segment's file is removed before the log gives it up.
    TrimFileFirst,
    /// The removal of a segment's file is not synced.
    SkipTrimDirSync,
    /// Old numbers are given up in the same write as the new ones.
    SkipReissueOrder,
    /// Receipts of a consumer are written behind its removal.
    SkipRemovedFilter,
    /// The checksum of a frame is not compared.
    SkipFrameCrc,
    /// The checksum of a frame does not cover its place.
    SkipPlaceInCrc,
    /// The checksum of a segment's header is not compared.
    SkipHeaderCrc,
    /// The checksum of a footer's trailer is not compared.
    SkipFooterCheck,
    /// Verify does not compare an entry with its hash.
    SkipEntryHash,
    /// Verify does not follow the chain of hashes.
    SkipChainCheck,
    /// A batch that stands on zeros which are durable is not synced.
    SkipSyncOnZeros,
    /// A batch that lengthens its file, and the zeros behind it, are not synced.
    SkipSyncOfZeros,
    /// At open, what stands behind the last whole frame counts as zeros.
    SkipZerosLook,
    /// A segment gets its footer behind its zeros.
    SkipZerosCut,
    /// A segment that was written anew is not synced before it takes the old one's place.
    SkipRewriteSync,
    /// The rename of such a segment is not synced.
    SkipRewriteDirSync,
    /// What others were written from is purged before they are durable without it.
    SkipPurgeWhole,
    /// A purge is noted as done before it is.
    PurgeDoneFirst,
    /// A purge that was begun is not carried out at open.
    SkipPurgeResume,
    /// The removal of files that were set aside is not synced when a purge ends.
    SkipSetAsideSync,
    /// The copy of a damaged place is not synced before it gets its name.
    SkipQuarantineSync,
    /// The name of such a copy is not synced.
    SkipQuarantineDirSync,
    /// The removal of such copies is not synced when a purge ends.
    SkipQuarantineRemoveSync,
    /// An entry that a peer gave back is not held against the chain of hashes.
    SkipReturnedCheck,
    /// The real disk does not sync files.
    SkipStdDataSync,
    /// The real disk does not sync directories.
    SkipStdDirSync,
    /// The real disk makes directories that are not synced in their parents.
    SkipStdParentSync,
}

/// Does what was to be taken away, unless it is.
pub(crate) fn unless(mutation: Mutation, act: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    if is(mutation) { Ok(()) } else { act() }
}

#[cfg(not(feature = "mutations"))]
pub(crate) const fn is(_: Mutation) -> bool {
    false
}

#[cfg(feature = "mutations")]
pub(crate) use switched::is;
#[cfg(feature = "mutations")]
pub use switched::with;

#[cfg(feature = "mutations")]
mod switched {
    use std::sync::atomic::{AtomicU8, Ordering};
    use std::sync::{Mutex, PoisonError};

    use super::Mutation;

    /// The journal writes on threads of its own, so the switch is for the whole process.
    static ACTIVE: AtomicU8 = AtomicU8::new(0);

    static ALONE: Mutex<()> = Mutex::new(());

    pub(crate) fn is(mutation: Mutation) -> bool {
        ACTIVE.load(Ordering::SeqCst) == mutation as u8
    }

    /// Runs something with one bug in every journal of this process.
    pub fn with<T>(mutation: Mutation, run: impl FnOnce() -> T) -> T {
        struct Off;
        impl Drop for Off {
            fn drop(&mut self) {
                ACTIVE.store(0, Ordering::SeqCst);
            }
        }
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let _off = Off;
        ACTIVE.store(mutation as u8, Ordering::SeqCst);
        run()
    }
}
