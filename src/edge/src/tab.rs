//! The tab of Teams and Outlook: whom a host's token names at this site.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use microsoft::entra::{Expected, VerifyError};
use microsoft::package::{self, CLIENTS, TeamsApp};
use microsoft::{Entra, Graph, PackageError};
use mission::Core;
use mission::http::{ApiState, HostRefusal, HostSignIn, HttpSettings, Tab};
use mission::ws::WsHub;
use model::Id;

/// The API with the tab, where section `[microsoft.app]` is there. The hosts of the cloud may then show the site in a frame.
///
/// # Errors
/// When the site has no address that Teams would open.
pub(crate) fn api(
    core: &Core,
    sockets: &WsHub,
    mut http: HttpSettings,
    graph: Option<&Graph>,
) -> Result<ApiState, PackageError> {
    let wanted = graph.and_then(|graph| Some((graph, graph.settings().app.as_ref()?)));
    let Some((graph, app)) = wanted else { return Ok(ApiState::new(core.clone(), sockets.clone(), http)) };
    let settings = graph.settings();
    let app = TeamsApp::new(app.clone(), settings.client, http.site_url.as_deref().unwrap_or_default())?;
    let hosts = [http.frame_ancestors.trim(), package::frame_ancestors(settings.cloud)];
    http.frame_ancestors = hosts.join(" ").trim().to_owned();
    let expected = Expected {
        // The one in tokens of version 2, the other in those of version 1.
        audiences: vec![settings.client.to_string(), app.identifier_uri()],
        tenants: vec![settings.tenant],
        scope: Some(package::SCOPE.to_owned()),
        parties: CLIENTS.iter().map(|(_, id)| (*id).to_owned()).collect(),
        nonce: None,
    };
    let sign_in = Arc::new(ByEntra { entra: graph.entra().clone(), expected, core: core.clone() });
    let state = ApiState::new(core.clone(), sockets.clone(), http);
    Ok(state.with_tab(Tab { library: app.library().to_owned(), sign_in }))
}

struct ByEntra {
    entra: Entra,
    expected: Expected,
    core: Core,
}

impl ByEntra {
    async fn find(&self, token: &str) -> Result<Id, HostRefusal> {
        let named = self.entra.verify(token, &self.expected).await.map_err(|e| match e {
            VerifyError::Invalid(why) => HostRefusal::Invalid(why.to_owned()),
            VerifyError::NoKeys(why) => HostRefusal::Unavailable(why),
        })?;
        let (tenant, oid) = (named.tenant.to_string(), named.oid.to_string());
        let core = self.core.clone();
        let look = move || core.user_by_entra(&tenant, &oid);
        let found = tokio::task::spawn_blocking(look).await.expect("looking up a user does not panic");
        found.map(|user| user.id).map_err(|e| match e.status_code {
            404 => HostRefusal::Unknown(format!("{}/{}", named.tenant, named.oid)),
            _ => HostRefusal::Unavailable(e.to_string()),
        })
    }
}

impl HostSignIn for ByEntra {
    fn user_of<'a>(&'a self, token: &'a str) -> Pin<Box<dyn Future<Output = Result<Id, HostRefusal>> + Send + 'a>> {
        Box::pin(self.find(token))
    }
}
