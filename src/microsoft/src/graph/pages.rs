//! Answers in pages: links are followed as they were given, and only to the configured Graph.

use serde::Deserialize;
use serde_json::Value;
use url::{Position, Url};

use super::call::{Call, Failure};
use super::{Graph, VERSION};
use crate::cloud::same_origin;

/// One page.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// Its objects; may be empty although more pages follow.
    pub value: Vec<Value>,
    /// On the last page of a delta: where the next round begins.
    pub delta_link: Option<String>,
    /// Is it the last one?
    pub is_last: bool,
}

#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    value: Vec<Value>,
    #[serde(rename = "@odata.nextLink")]
    next_link: Option<String>,
    #[serde(rename = "@odata.deltaLink")]
    delta_link: Option<String>,
}

/// A walk over pages.
#[derive(Debug)]
pub struct Pages {
    graph: Graph,
    next: Option<Call>,
    left: u32,
}

/// A walk ends after so many pages: whoever hands out more is not Graph. 100,000 pages of 100 are ten million users.
const PAGES_MAX: u32 = 100_000;

impl Graph {
    /// A walk that begins with `first` and goes on as long as Graph names a next page.
    pub fn pages(&self, first: Call) -> Pages {
        Pages { graph: self.clone(), next: Some(first), left: PAGES_MAX }
    }

    /// The path for a [`Call`] out of a link that Graph gave, such as a delta link that was stored.
    ///
    /// # Errors
    /// When the link leads to another host, or is none of Graph's: a token is never sent there.
    pub fn path_of_link(&self, link: &str) -> Result<String, Failure> {
        let foreign = || Failure::Broken("a link leads away from the configured Graph; it is not followed".to_owned());
        let url: Url = link.parse().map_err(|_| foreign())?;
        if !same_origin(&url, &self.settings().hosts.graph) || url.username() != "" || url.password().is_some() {
            return Err(foreign());
        }
        let path = url[Position::BeforePath..Position::AfterQuery].strip_prefix(VERSION).ok_or_else(foreign)?;
        if path.starts_with('/') { Ok(path.to_owned()) } else { Err(foreign()) }
    }
}

impl Pages {
    /// The next page; `None` after the last one. After a failure it asks for the same page again. Cancel-safe in that sense.
    ///
    /// # Errors
    /// As [`Graph::call`]; and [`Failure::Broken`] when the link to the next page leads elsewhere.
    pub async fn next(&mut self) -> Option<Result<Page, Failure>> {
        let call = self.next.clone()?;
        Some(self.fetch(call).await)
    }

    async fn fetch(&mut self, call: Call) -> Result<Page, Failure> {
        let answer = self.graph.call(call.clone()).await?;
        let body: Body = answer.json()?;
        self.left = self.left.saturating_sub(1);
        if self.left == 0 {
            return Err(Failure::Broken(format!("more than {PAGES_MAX} pages")));
        }
        let next = body.next_link.as_deref().map(|link| self.graph.path_of_link(link)).transpose()?;
        if next.as_ref() == Some(&call.path) {
            return Err(Failure::Broken("a page names itself as the next one".to_owned()));
        }
        let is_last = next.is_none();
        self.next = next.map(|path| Call { path, ..call });
        Ok(Page { value: body.value, delta_link: body.delta_link, is_last })
    }
}
