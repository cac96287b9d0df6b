//! How much room there is, and what is refused while there is little.

/// Room on the file system that holds a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskSpace {
    /// Bytes that this process may still write.
    pub free_bytes: u64,
    /// Size of the file system.
    pub total_bytes: u64,
    /// Files that may still be made; `None` where the file system does not count them.
    pub free_files: Option<u64>,
}

/// What a node refuses for want of room, in the stated order: each level refuses what those before it refuse, and more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum SpaceLevel {
    /// Nothing is refused.
    #[default]
    Ok = 0,
    /// File content, from users and from peers.
    FilesRefused = 1,
    /// Deferred entries too.
    DeferredRefused = 2,
    /// Routine entries too.
    RoutineRefused = 3,
    /// Priority entries too.
    PriorityRefused = 4,
    /// Immediate entries too: flash alone fits, and what the node notes for itself.
    OnlyFlash = 5,
    /// Flash too. Receipts and what trimming writes may still fit.
    Nothing = 6,
}

impl SpaceLevel {
    /// Every level, the roomiest first.
    pub const ALL: [Self; 7] = [
        Self::Ok,
        Self::FilesRefused,
        Self::DeferredRefused,
        Self::RoutineRefused,
        Self::PriorityRefused,
        Self::OnlyFlash,
        Self::Nothing,
    ];

    /// The level at which everything less urgent than `class`, and that class itself, is refused.
    pub fn that_refuses(class: crate::Precedence) -> Self {
        match class {
            crate::Precedence::Flash => Self::Nothing,
            crate::Precedence::Immediate => Self::OnlyFlash,
            crate::Precedence::Priority => Self::PriorityRefused,
            crate::Precedence::Routine => Self::RoutineRefused,
            crate::Precedence::Deferred => Self::DeferredRefused,
        }
    }

    /// Is an entry of this class taken?
    pub fn admits(self, class: crate::Precedence) -> bool {
        self < Self::that_refuses(class)
    }

    /// Is the content of files taken?
    pub fn admits_files(self) -> bool {
        self < Self::FilesRefused
    }

    /// The level with this number; what is unknown refuses nothing.
    pub fn from_number(number: u8) -> Self {
        Self::ALL.into_iter().find(|level| *level as u8 == number).unwrap_or_default()
    }

    /// As status and metrics show it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::FilesRefused => "files refused",
            Self::DeferredRefused => "deferred refused",
            Self::RoutineRefused => "routine refused",
            Self::PriorityRefused => "priority refused",
            Self::OnlyFlash => "only flash",
            Self::Nothing => "nothing fits",
        }
    }
}

impl std::fmt::Display for SpaceLevel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Precedence;

    #[test]
    fn files_are_refused_first_and_flash_last() {
        let mut refused = Vec::new();
        for level in SpaceLevel::ALL {
            assert_eq!(SpaceLevel::from_number(level as u8), level);
            let classes = Precedence::ALL.into_iter().filter(|class| !level.admits(*class)).count();
            refused.push((level.admits_files(), classes));
        }
        let expected = [(true, 0), (false, 0), (false, 1), (false, 2), (false, 3), (false, 4), (false, 5)];
        assert_eq!(refused, expected);
        assert!(SpaceLevel::OnlyFlash.admits(Precedence::Flash));
    }
}
