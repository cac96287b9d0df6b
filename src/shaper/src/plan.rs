//! Which link may carry which class. Pure: the shells say what is, this says what may be.
//!
//! ```text
//!  links: usable, cost, delay, classes --share--> per link: control?, class? --Shaper per link--> grants
//! ```
//!
//! Invariants
//! - A link that is not usable carries nothing, and a link never carries a class that it does not admit.
//! - Flash may go over every usable link that admits it, immediate over whichever of them is free first.
//! - Everything else, control included, goes over the cheapest usable links that admit it, several of the same cost together.
//! - A class that some usable link admits has a link to go over, unless all of them are about to close: then only flash and
//!   immediate do.

use std::time::Duration;

/// One link between two nodes, as it is at present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Can frames be handed to it?
    pub usable: bool,
    /// What a megabyte costs, in a unit of the operator's choice.
    pub cost: u64,
    /// One-way delay, measured or assumed.
    pub delay: Duration,
    /// Classes that it may carry, by [`model::Precedence::index`].
    pub admits: [bool; 5],
    /// Its contact ends within a round trip: what begins now would arrive too late to be acknowledged.
    pub closing: bool,
}

/// What a link may carry now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Control frames.
    pub control: bool,
    /// By [`model::Precedence::index`].
    pub classes: [bool; 5],
}

/// Classes up to this index may use any link that admits them, however dear: flash and immediate.
const URGENT: usize = 2;

impl Link {
    fn admits(&self, class: usize) -> bool {
        self.admits[class] && (class < URGENT || !self.closing)
    }
}

/// What each of the links may carry now, in the same order.
pub fn shares(links: &[Link]) -> Vec<Share> {
    let cheapest = |admitted: &dyn Fn(&Link) -> bool| {
        links.iter().filter(|link| link.usable && admitted(link)).map(|link| link.cost).min()
    };
    let control = cheapest(&|_| true);
    let classes: [Option<u64>; 5] = std::array::from_fn(|class| cheapest(&|link| link.admits(class)));
    let share = |link: &Link| {
        if !link.usable {
            return Share::default();
        }
        let may = |class: usize| link.admits(class) && (class < URGENT || classes[class] == Some(link.cost));
        Share { control: control == Some(link.cost), classes: std::array::from_fn(may) }
    };
    links.iter().map(share).collect()
}

/// The links in the order in which they are offered what waits: the quickest first, among equals the cheapest.
pub fn order(links: &[Link]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..links.len()).collect();
    order.sort_by_key(|at| (links[*at].delay, links[*at].cost));
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Precedence;
    use proptest::prelude::*;

    fn link() -> impl Strategy<Value = Link> {
        (any::<bool>(), 0u64..4, 0u64..600, any::<[bool; 5]>(), any::<bool>()).prop_map(
            |(usable, cost, delay, admits, closing)| Link {
                usable,
                cost,
                delay: Duration::from_millis(delay),
                admits,
                closing,
            },
        )
    }

    proptest! {
        #[test]
        fn a_class_has_a_link_whenever_one_that_admits_it_lives_and_no_link_has_a_class_it_refuses(
            links in prop::collection::vec(link(), 0..6),
        ) {
            let shares = shares(&links);
            for (link, share) in links.iter().zip(&shares) {
                prop_assert!(link.usable || *share == Share::default());
                prop_assert!((0..5).all(|class| link.admits(class) || !share.classes[class]));
            }
            prop_assert_eq!(shares.iter().any(|s| s.control), links.iter().any(|l| l.usable));
            for class in 0..5 {
                let admitting = links.iter().zip(&shares).filter(|(l, _)| l.usable && l.admits(class));
                let least = admitting.clone().map(|(l, _)| l.cost).min();
                for (link, share) in admitting {
                    prop_assert_eq!(share.classes[class], class < URGENT || Some(link.cost) == least);
                }
            }
        }
    }

    #[test]
    fn bulk_waits_for_the_cheap_link_and_flash_takes_both() {
        let radio = Link { usable: true, cost: 0, delay: Duration::from_millis(50), admits: [true; 5], closing: false };
        let satellite = Link { cost: 900, delay: Duration::from_millis(300), ..radio.clone() };
        let links = [satellite, radio];
        let shares = shares(&links);
        let (flash, deferred) = (Precedence::Flash.index(), Precedence::Deferred.index());
        assert_eq!(shares.iter().map(|s| s.classes[flash]).collect::<Vec<_>>(), [true, true]);
        assert_eq!(shares.iter().map(|s| s.classes[deferred]).collect::<Vec<_>>(), [false, true]);
        assert_eq!(order(&links), [1, 0]);
        let closing = super::shares(&[Link { closing: true, ..links[1].clone() }]);
        assert!(closing[0].control && closing[0].classes[flash] && !closing[0].classes[deferred]);
    }
}
