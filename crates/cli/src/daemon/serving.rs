//! The sockets of a seat while they are served, and what is served at each.

use std::sync::Arc;

use tokio::{sync::watch, task::JoinHandle};
use wharf_api::{RpcMethods, ServiceMethods};
use wharf_engine::{Audited, Engine};
use wharf_server::{Door, Leave, Limits, Offer, Pages, Server};

use super::seat::{ADMIN, RPC, SERVICE};

/// The sockets while they are served.
pub(super) struct Serving {
    pub(super) server: Arc<Server>,
    leave: watch::Sender<Option<Leave>>,
    doors: Vec<(String, JoinHandle<std::io::Result<Option<Door>>>)>,
}

impl Serving {
    pub(super) fn begin(doors: Vec<(String, Door)>, engine: &Engine) -> Self {
        let server = Arc::new(Server::new(Limits::default()));
        let (leave, leaving) = watch::channel(None);
        let serve = |(name, door): (String, Door)| {
            let (server, offer, leaving) = (server.clone(), offer(&name, engine), until_told(leaving.clone()));
            (name, tokio::spawn(async move { server.serve_door(door, offer, leaving).await }))
        };
        let doors = doors.into_iter().map(serve).collect();
        Self { server, leave, doors }
    }

    /// The doors that go on elsewhere: all of them or, where they are closed, none.
    pub(super) async fn leave(self, how: Leave) -> Vec<(String, Door)> {
        self.leave.send_replace(Some(how));
        let mut left = vec![];
        for (name, served) in self.doors {
            match served.await {
                Ok(Ok(Some(door))) => left.push((name, door)),
                Ok(Ok(None)) => {}
                Ok(Err(e)) => tracing::error!("{name} could not be served: {e}"),
                Err(e) => tracing::error!("{name} is not served any more: {e}"),
            }
        }
        left
    }
}

/// What is served at a socket: one arm a name of `seat::SOCKETS`.
fn offer(name: &str, engine: &Engine) -> Offer {
    let (api, health) = (Arc::new(engine.clone()), Engine::health_body);
    match name {
        ADMIN => Pages::new(move || api.health_body()).into(),
        RPC => Arc::new(Audited::new(engine, Arc::new(RpcMethods::new(api, health, Engine::rpc_card)), RPC)).into(),
        _ => Arc::new(Audited::new(engine, Arc::new(ServiceMethods::new(api, health, Engine::card)), SERVICE)).into(),
    }
}

async fn until_told(mut leaving: watch::Receiver<Option<Leave>>) -> Leave {
    // A sender that is gone means the end.
    leaving.wait_for(Option::is_some).await.ok().and_then(|how| *how).unwrap_or(Leave::Close)
}
