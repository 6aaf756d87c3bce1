//! The services that this Wharf knows.

mod agent_mail;
mod bluesky_pds;
mod caddy;
mod chatterbox;
mod code_server;
mod comfyui;
mod command;
mod compose;
mod dkron;
mod dufs;
mod etcd;
mod etcd_proxy;
mod grafana;
mod hello;
mod inngest;
mod jupyter;
mod litellm;
mod livekit;
mod llama;
mod meilisearch;
mod minio;
mod mosquitto;
mod mosquitto_clients;
mod nats;
mod node_exporter;
mod ollama;
mod onnxruntime;
mod open_webui;
mod piper;
mod postgres;
mod prometheus;
mod python_api;
mod qdrant;
mod redis;
mod restate;
mod s3rver;
mod server_everything;
#[cfg(test)]
mod tests;
mod typesense;
mod vite_web;
mod vllm;
mod whisper;

use std::{collections::BTreeMap, sync::Arc};

use wharf_model::{ErrorKind, Failure, Installed};

use crate::{Context, Service};

/// Services by name, made at compile time.
///
/// Left out: Wharf itself, which would be its own client: `wharf setup` has it started at boot.
/// Left out: Docker, systemd and other supervisors of the machine: what they run is deferred to, or is `compose@NAME`.
/// Left out: what is neither started nor used by a service: a folder with a file in it is no service.
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
            .with(agent_mail::AgentMail)
            .with(bluesky_pds::BlueskyPds)
            .with(caddy::Caddy)
            .with(chatterbox::Chatterbox)
            .with(code_server::CodeServer)
            .with(comfyui::ComfyUi)
            .with(command::Command)
            .with(compose::Compose)
            .with(dkron::Dkron)
            .with(dufs::Dufs)
            .with(etcd::Etcd)
            .with(etcd_proxy::EtcdProxy)
            .with(grafana::Grafana)
            .with(hello::Hello)
            .with(inngest::Inngest)
            .with(jupyter::Jupyter)
            .with(litellm::LiteLlm)
            .with(livekit::LiveKit)
            .with(llama::Llama)
            .with(meilisearch::Meilisearch)
            .with(minio::Minio)
            .with(mosquitto::Mosquitto)
            .with(mosquitto_clients::MosquittoClients)
            .with(nats::Nats)
            .with(node_exporter::NodeExporter)
            .with(ollama::Ollama)
            .with(onnxruntime::OnnxRuntime)
            .with(open_webui::OpenWebUi)
            .with(piper::Piper)
            .with(postgres::Postgres)
            .with(prometheus::Prometheus)
            .with(python_api::PythonApi)
            .with(qdrant::Qdrant)
            .with(redis::Redis)
            .with(restate::Restate)
            .with(s3rver::S3rver)
            .with(server_everything::ServerEverything)
            .with(typesense::Typesense)
            .with(vite_web::ViteWeb)
            .with(vllm::Vllm)
            .with(whisper::Whisper)
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
    cx.nothing_to_place()
}

/// What a start of something answers that is only placed.
fn never_started(cx: &Context) -> Failure {
    Failure::new(ErrorKind::Precondition, format!("{} is never started", cx.unit)).about(&cx.unit)
}

/// What is placed of the unit itself.
fn placed(cx: &Context) -> crate::Result<&Installed> {
    cx.installed.as_ref().ok_or_else(|| {
        Failure::new(ErrorKind::Precondition, format!("{} is not placed", cx.unit))
            .hint(format!("place it: wharf install {}", cx.unit))
            .about(&cx.unit)
    })
}

/// What a secret of the unit is called: each instance has its own.
fn secret_of(cx: &Context, what: &str) -> String {
    format!("{}-{what}", cx.unit.as_str().replace('@', "."))
}
