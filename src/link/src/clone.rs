//! Notices when two machines use one identity.

use std::collections::{BTreeMap, VecDeque};

use model::NodeId;

/// Boots remembered per node. A clone alternates with its twin, so the last few are enough.
const BOOTS_MAX: usize = 16;

/// Remembers which starts of a node's process were followed by others. A start that was followed and speaks again
/// is a second machine with the same identity: a process that was replaced does not come back.
#[derive(Clone, Debug, Default)]
pub struct CloneDetector {
    seen: BTreeMap<NodeId, VecDeque<u64>>,
}

/// What a greeting's boot number tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloneVerdict {
    /// As before, or a restart.
    Single,
    /// Two processes take turns.
    Cloned,
}

impl CloneVerdict {
    /// What to tell both operators.
    pub const CLONED_TEXT: &str = "two machines use this node's identity; stop one of them, \
        then enrol it anew with `holdfast enroll` under a key of its own. Nothing that was acknowledged is lost";
}

impl CloneDetector {
    /// Takes note of a greeting of `node`.
    pub fn greeted(&mut self, node: NodeId, boot: u64) -> CloneVerdict {
        let boots = self.seen.entry(node).or_default();
        if boots.back() == Some(&boot) {
            return CloneVerdict::Single;
        }
        if boots.contains(&boot) {
            return CloneVerdict::Cloned;
        }
        boots.push_back(boot);
        if boots.len() > BOOTS_MAX {
            boots.pop_front();
        }
        CloneVerdict::Single
    }

    /// Forgets a node, after the operator resolved the matter.
    pub fn forget(&mut self, node: NodeId) {
        self.seen.remove(&node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId([1; 16]);

    #[test]
    fn a_restart_is_no_clone() {
        let mut detector = CloneDetector::default();
        for boot in [1, 1, 2, 2, 3] {
            assert_eq!(detector.greeted(NODE, boot), CloneVerdict::Single);
        }
    }

    #[test]
    fn a_start_that_was_replaced_and_speaks_again_is_a_clone() {
        let mut detector = CloneDetector::default();
        detector.greeted(NODE, 1);
        detector.greeted(NODE, 2);
        assert_eq!(detector.greeted(NODE, 1), CloneVerdict::Cloned);
        assert_eq!(detector.greeted(NodeId([2; 16]), 1), CloneVerdict::Single);
    }
}
