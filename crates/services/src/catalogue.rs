//! The services that this Wharf knows.

mod caddy;
mod command;
mod hello;
mod llama;
mod nats;
mod postgres;
mod python_api;
mod redis;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

use wharf_model::Installed;

use crate::{Context, Service};

/// Services by name, made at compile time.
#[derive(Clone, Default)]
pub struct Catalogue {
    services: BTreeMap<String, Arc<dyn Service>>,
}

impl Catalogue {
    /// Without any.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Those that ship with Wharf.
    pub fn built_in() -> Self {
        Self::empty()
            .with(caddy::Caddy)
            .with(command::Command)
            .with(hello::Hello)
            .with(llama::Llama)
            .with(nats::Nats)
            .with(postgres::Postgres)
            .with(python_api::PythonApi)
            .with(redis::Redis)
    }

    /// One more; a service of the same name is replaced.
    #[must_use]
    pub fn with(mut self, service: impl Service) -> Self {
        self.services.insert(service.facts().name, Arc::new(service));
        self
    }

    /// By name.
    pub fn get(&self, name: &str) -> Option<&Arc<dyn Service>> {
        self.services.get(name)
    }

    /// All names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.services.keys().map(String::as_str)
    }

    /// All of them, in order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn Service>> {
        self.services.values()
    }
}

/// What an install answers where nothing has to be placed.
fn nothing_to_place(cx: &Context) -> Installed {
    Installed {
        version: env!("CARGO_PKG_VERSION").into(),
        digest: String::new(),
        path: cx.dirs.store.clone(),
        binaries: BTreeMap::new(),
        source: "built-in".into(),
    }
}
