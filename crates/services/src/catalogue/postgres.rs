//! PostgreSQL: a relational database.

use std::path::PathBuf;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use wharf_model::{ErrorKind, Facts, Failure, Health, Installed, Policy, Signal};

use crate::{Context, Params, Ports, Probe, Result, Run, Service, Wanted};

/// PostgreSQL from the machine's Debian sources, with a cluster of its own.
///
/// Limitation: it refuses to run as root; where Wharf is root it runs as the user wharf or nobody.
/// Limitation: a cluster fits one major version; a newer one needs pg_upgrade or a dump, by hand.
pub struct Postgres;

/// Parameters of PostgreSQL.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct With {
    /// Other port numbers: `{"main": 5433}` or `{"main": "auto"}`.
    #[serde(default)]
    #[expect(dead_code, reason = "read by Service::ports")]
    ports: Ports,
}

/// `$1` initdb, `$2` the cluster's folder, `$3` the file with the password. What was begun and not
/// ended is begun again: only a whole cluster gets the name.
const INIT: &str = r#"set -e
# An initdb of a daemon that was killed may still be at work: one at a time.
exec 9>"$2.lock"
flock 9
if [ ! -e "$2/PG_VERSION" ]; then
    rm -rf "$2.new"
    "$1" -D "$2.new" --username=postgres --pwfile="$3" --encoding=UTF8 --locale=C.UTF-8 \
        --auth-local=trust --auth-host=scram-sha-256
    if [ -d "$2" ]; then rmdir "$2"; fi
    mv -T "$2.new" "$2"
fi
rm -f "$3""#;

impl Postgres {
    fn program(cx: &Context, name: &str) -> Result<PathBuf> {
        cx.installed.as_ref().and_then(|i| i.binaries.get(name)).cloned().ok_or_else(|| {
            Failure::new(ErrorKind::Precondition, format!("{name} is not placed"))
                .hint(format!("place it: wharf install {}", cx.unit))
                .about(&cx.unit)
        })
    }
}

#[async_trait]
impl Service for Postgres {
    fn facts(&self) -> Facts {
        Facts::new("postgres", "Relational database")
            .source("Debian package postgresql")
            .command("postgres")
            .command("initdb")
            .command("pg_isready")
            .port("main", 5432)
            .data("pgdata, the cluster; the password of the user postgres is in the installation's secrets")
            .limitation("it refuses to run as root; where Wharf is root it runs as the user wharf or nobody.")
            .limitation("a cluster fits one major version; a newer one needs pg_upgrade or a dump, by hand.")
    }

    fn params(&self) -> Params {
        Params::of::<With>()
    }

    fn policy(&self, _with: &Value) -> Policy {
        Policy { start_timeout_ms: 60_000, stop_timeout_ms: 30_000, ..Policy::default() }
    }

    async fn install(&self, cx: &Context, want: &Wanted) -> Result<Installed> {
        cx.debian("postgresql", want)
            .binary("usr/lib/postgresql/*/bin/postgres")
            .binary("usr/lib/postgresql/*/bin/initdb")
            .binary("usr/lib/postgresql/*/bin/pg_isready")
            .binary("usr/lib/postgresql/*/bin/psql")
            .place()
            .await
    }

    async fn start(&self, cx: &Context) -> Result<Run> {
        let cluster = cx.data_dir().join("pgdata");
        let password = cx.secret(&format!("{}-password", cx.unit.as_str().replace('@', ".")), 16).await?;
        let file = cx.run_dir().join("password");
        cx.write(&file, password.reveal(), 0o600).await?;
        cx.run("/bin/sh")
            .args(["-c", INIT, "sh"])
            .arg(Self::program(cx, "initdb")?.display())
            .arg(cluster.display())
            .arg(file.display())
            .unprivileged()
            .limit_ms(50_000)
            .success()
            .await
            .map_err(|f| f.while_doing("make the cluster"))?;
        cx.run("postgres")
            .arg("-D")
            .arg(cluster.display())
            .arg("-p")
            .arg(cx.port("main"))
            .arg("-k")
            .arg(cx.run_dir().display())
            .args(["-c", "listen_addresses=127.0.0.1"])
            .unprivileged()
            .spawn()
            .await
    }

    /// INT is the fast shutdown: it ends sessions and waits for none of them.
    async fn stop(&self, cx: &Context) -> Result<()> {
        cx.signal(Signal::Int).await
    }

    async fn health(&self, cx: &Context) -> Result<Health> {
        // An open port is not enough: it opens while the database still recovers.
        let ask = crate::Command {
            program: "pg_isready".into(),
            args: vec!["-h".into(), "127.0.0.1".into(), "-p".into(), cx.port("main").to_string()],
            unprivileged: true,
            ..crate::Command::default()
        };
        cx.ask(Probe::Exec(ask)).await
    }
}
