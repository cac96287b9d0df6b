//! Targets of Microsoft 365: what the CLI asks of a running node, and what the node answers.

use apply::targets::plan::Plan;
use apply::targets::{ItemView, TargetError, TargetStatus, TargetsHandle};
use serde::{Deserialize, Serialize};

use crate::exit::Failure;

/// Items listed at most of each target.
const LISTED_MAX: usize = 1_000;

/// Body of `POST /v1/m365/targets`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum TargetsAsk {
    /// How every target is.
    Status,
    /// What would go where.
    Plan,
    /// Items that were given up.
    Dead {
        /// Of this target; of all when absent.
        target: Option<String>,
    },
    /// Items that were given up are tried again.
    Retry {
        /// Of this target.
        target: String,
        /// This one; all when absent.
        item: Option<i64>,
    },
    /// Items that were given up are put away.
    Skip {
        /// Of this target.
        target: String,
        /// This one; all when absent.
        item: Option<i64>,
    },
}

/// Answer to [`TargetsAsk`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TargetsAnswer {
    /// How they are.
    Status(Vec<TargetStatus>),
    /// What would go.
    Plan(Plan),
    /// What was given up.
    Dead(Vec<ItemView>),
    /// So many items were changed.
    Changed {
        /// How many.
        items: u64,
    },
}

/// Does what was asked. Touches the disk.
///
/// # Errors
/// When no target is configured, there is none of that name, or a store fails.
pub(crate) fn answer(targets: Option<&TargetsHandle>, ask: TargetsAsk) -> Result<TargetsAnswer, Failure> {
    let Some(targets) = targets else {
        return Err(Failure::new(
            "no target in Microsoft 365 is configured; nothing goes there",
            "write [[microsoft.target]] into the configuration (docs/microsoft365.md) and restart the node",
        ));
    };
    let failed = |e: TargetError| Failure::new(e.to_string(), e.next_step());
    let known = |name: &str| match targets.names().any(|known| known == name) {
        true => Ok(()),
        false => Err(Failure::new(
            format!("there is no target `{name}`; nothing was changed"),
            "list them with `holdfast m365 targets`",
        )),
    };
    Ok(match ask {
        TargetsAsk::Status => TargetsAnswer::Status(targets.status().map_err(failed)?),
        TargetsAsk::Plan => TargetsAnswer::Plan(targets.plan().map_err(failed)?),
        TargetsAsk::Dead { target } => {
            target.as_deref().map(known).transpose()?;
            TargetsAnswer::Dead(targets.dead(target.as_deref(), LISTED_MAX).map_err(failed)?)
        }
        TargetsAsk::Retry { target, item } => {
            known(&target)?;
            TargetsAnswer::Changed { items: targets.retry(&target, item).map_err(failed)? }
        }
        TargetsAsk::Skip { target, item } => {
            known(&target)?;
            TargetsAnswer::Changed { items: targets.skip(&target, item).map_err(failed)? }
        }
    })
}
