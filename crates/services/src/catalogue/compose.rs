//! compose: what a folder with a `service.yaml` and a compose file describes. One code for all such folders.
//!
//! The run is `wharf serve-compose`, which brings the project up, follows its containers, lives as long as one of them
//! does, and takes all down at SIGTERM. What that left when it was killed is taken down by `clear`.

mod gpu;
#[cfg(test)]
mod tests;
mod with;

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde_json::Value;
use wharf_model::{ErrorKind, Facts, Failure, GpuNeed, GpuRequest, Health, Installed, Policy, Preset, UnitName};

use crate::{
    Check, Container, Context, Endpoint, HttpProbe, Params, PortChoice, PortWish, Probe, Result, Run, Service, Wanted,
    command::Bound,
};
use with::With;

/// A folder with a manifest (`service.yaml`) and a compose file, brought up by Docker Compose.
///
/// Limitation: who may reach the engine's socket has the rights of root; Wharf's user must, and so may whoever may use Wharf.
/// Limitation: limits of the policy hold for the follower, not for the containers: the compose file sets theirs.
/// Limitation: which GPU a container sees is the compose file's to say; `wharf verify` compares it with gpu_required.
pub struct Compose;

/// The follower writes this line once everything was brought up.
const IS_UP: &str = "^wharf: the project is up$";
/// From the end of `down` to a kill: what it left is removed meanwhile.
const AFTER_DOWN_MS: u64 = 30_000;
/// `docker compose version` and the like.
const ASKED_MS: u64 = 20_000;
/// The ways to compose, best first.
const FORMS: [&[&str]; 3] = [&["docker", "compose"], &["docker-compose"], &["podman", "compose"]];

impl Compose {
    /// The command that understands compose files on this machine.
    async fn words(cx: &Context, with: &With) -> Result<Vec<String>> {
        if let Some(first) = with.compose.first() {
            cx.need(first, "correct with.compose")?;
            return Ok(with.compose.clone());
        }
        for form in FORMS {
            if cx.hands().which(form[0]).is_none() {
                continue;
            }
            // The client may be there without its plugin.
            let asked = with.surround(cx.run(form[0])).args(&form[1..]).arg("version").limit_ms(ASKED_MS);
            if form.len() == 1 || asked.output().await.is_ok_and(|said| said.code == 0) {
                return Ok(form.iter().map(|word| (*word).to_owned()).collect());
            }
        }
        let text = "none of `docker compose`, `docker-compose` and `podman compose` is on this machine";
        Err(Failure::new(ErrorKind::Precondition, text)
            .hint("Debian: apt install docker.io docker-compose")
            .about(&cx.unit))
    }

    /// The follower: `wharf serve-compose`, with everything that it needs to know on its line.
    fn follower<'a>(cx: &'a Context, with: &With, at: &Place, then: Then, words: &[String]) -> Result<Bound<'a>> {
        let folder = with.folder(&cx.unit)?;
        let record = cx.run_dir().join("containers.json");
        let mut run = cx.run(cx.hands().own_binary().display().to_string()).arg("serve-compose");
        run = run.arg("--folder").arg(folder.display());
        run = run.args(["--project", &at.project, "--engine", &at.engine, "--record"]).arg(record.display());
        run = match then {
            // A folder that is not there is told before anything is made.
            Then::Follow => run.cwd(folder).arg("--up-limit").arg(with.up_timeout_s),
            Then::Down => run.arg("--down"),
        };
        // Compose speaks to the engine that is watched.
        let run = run.arg("--down-limit").arg(with.down_timeout_s).force_env("DOCKER_HOST", &at.engine);
        Ok(if words.is_empty() { run } else { with.surround(run).arg("--").args(words) })
    }
}

/// What the follower is to do.
enum Then {
    /// Bring up, follow, take down when it is asked to.
    Follow,
    /// Take down what is there.
    Down,
}

/// Where a project runs, and what it is called there.
struct Place {
    engine: String,
    project: String,
}

impl Place {
    /// Where it would be brought up now.
    fn new(cx: &Context, with: &With) -> Result<Self> {
        Ok(Self { engine: Self::engine(cx, with)?, project: with::project(cx, with)? })
    }

    /// Where it was brought up.
    fn kept(cx: &Context, with: &With) -> Result<Self> {
        Ok(Self { engine: Self::engine(cx, with)?, project: with::kept_project(cx, with)? })
    }

    fn engine(cx: &Context, with: &With) -> Result<String> {
        let podman = with.compose.first().is_some_and(|word| word.contains("podman"));
        cx.hands().engine(with.engine.as_deref(), podman).map_err(|f| f.about(&cx.unit))
    }

    async fn containers(&self, cx: &Context) -> Result<Vec<Container>> {
        cx.hands().containers(&self.engine, &self.project).await.map_err(|f| f.about(&cx.unit))
    }
}

#[async_trait]
impl Service for Compose {
    fn facts(&self) -> Facts {
        Facts::new("compose", "A folder with a service.yaml and a compose file")
            .source("the folder; its images are the engine's business")
            .command("docker compose, docker-compose or podman compose")
            .env("DOCKER_HOST")
            .data("nothing: containers keep theirs in volumes")
            .limitation(
                "who may reach the engine's socket has the rights of root; Wharf's user must, and so may whoever may use Wharf.",
            )
            .limitation("limits of the policy hold for the follower, not for the containers: the compose file sets theirs.")
            .limitation(
                "which GPU a container sees is the compose file's to say; `wharf verify` compares it with gpu_required.",
            )
    }

    fn params(&self) -> Params {
        Params::of::<With>()
    }

    fn takes_manifests(&self) -> bool {
        true
    }

    fn policy(&self, with: &Value) -> Policy {
        let with = With::of(with);
        let manifest = with.manifest().ok().flatten();
        let down_ms = with.down_timeout_s.saturating_mul(1_000).saturating_add(AFTER_DOWN_MS);
        let gpu = manifest.as_ref().filter(|manifest| manifest.gpu_required).map(|manifest| GpuRequest {
            need: GpuNeed {
                // GB, as on the label of a card.
                vram_bytes: manifest.vram_gb.map(|gb| (gb * 1e9) as u64).filter(|bytes| *bytes > 0),
                exclusive: !with.share_gpu,
                ..GpuNeed::default()
            },
            drain_ms: down_ms,
            ..GpuRequest::default()
        });
        Policy {
            gpu,
            needs: manifest.as_ref().map(|manifest| with.needs(manifest)).unwrap_or_default(),
            start_timeout_ms: with.start_timeout_ms(manifest.as_ref()),
            stop_timeout_ms: down_ms,
            ..Policy::default().preset(Preset::Observe)
        }
    }

    fn needs_install(&self) -> bool {
        false
    }

    fn ports(&self, unit: &UnitName, with: &Value) -> Result<Vec<PortWish>> {
        let with = With::of(with);
        let Some(manifest) = with.manifest().map_err(|f| f.about(unit))? else { return Ok(vec![]) };
        with::health_at(&manifest).map_err(|f| f.about(unit))?;
        let mcp = manifest.mcp.as_ref().filter(|mcp| mcp.enabled).and_then(|mcp| mcp.port);
        let all = [("main", manifest.port), ("mcp", mcp.filter(|port| Some(*port) != manifest.port))];
        let wish = |(name, port): (&str, Option<u16>)| {
            Some(PortWish { name: name.to_owned(), choice: PortChoice::Number(port?) })
        };
        Ok(all.into_iter().filter_map(wish).collect())
    }

    fn health_url(&self, _ports: &BTreeMap<String, u16>, with: &Value) -> Option<String> {
        let (port, path) = with::health_at(&With::of(with).manifest().ok()??).ok()??;
        Some(format!("http://127.0.0.1:{port}{path}"))
    }

    async fn install(&self, cx: &Context, _want: &Wanted) -> Result<Installed> {
        let with: With = cx.with()?;
        with.folder(&cx.unit)?;
        Self::words(cx, &with).await?;
        Ok(super::nothing_to_place(cx))
    }

    /// It was brought up by somebody else, or by the engine after a boot.
    async fn runs_already(&self, cx: &Context) -> Result<bool> {
        let with: With = cx.with()?;
        let found = Place::new(cx, &with)?.containers(cx).await?;
        Ok(found.iter().any(Container::lives))
    }

    async fn start(&self, cx: &Context) -> Result<Run> {
        let with: With = cx.with()?;
        let folder = with.folder(&cx.unit)?;
        let at = Place::new(cx, &with)?;
        let others = |c: &Container| c.folder.as_ref().is_some_and(|own| own != folder);
        if let Some(other) = at.containers(cx).await?.into_iter().find(others) {
            let theirs = other.folder.unwrap_or_default();
            let text =
                format!("the compose project {} belongs to {}, with {}", at.project, theirs.display(), other.name);
            return Err(Failure::new(ErrorKind::Conflict, text)
                .hint(format!("give this one another name: wharf start {} --with project=NAME", cx.unit))
                .about(&cx.unit));
        }
        let words = Self::words(cx, &with).await?;
        // What is taken down is what was brought up, whatever the files say by then.
        cx.write(&cx.run_dir().join(with::PROJECT), &at.project, 0o644).await?;
        Self::follower(cx, &with, &at, Then::Follow, &words)?.spawn().await
    }

    async fn health(&self, cx: &Context) -> Result<Health> {
        let with: With = cx.with()?;
        if cx.starting {
            let up = cx.ask(Probe::LogLine(IS_UP.into())).await?;
            if !up.is_ready() {
                return Ok(Health::unhealthy("compose is bringing it up"));
            }
        }
        let found = Place::kept(cx, &with)?.containers(cx).await?;
        if !found.iter().any(Container::lives) {
            return Ok(Health::unhealthy("none of its containers runs"));
        }
        let faults: Vec<String> = found.iter().filter_map(Container::fault).collect();
        if !faults.is_empty() {
            return Ok(Health::unhealthy(faults.join("; ")));
        }
        match with.manifest()?.map(|manifest| with::health_at(&manifest)).transpose()?.flatten() {
            Some((port, path)) => cx.ask(Probe::Http(HttpProbe::new(Endpoint::Port(port), &path))).await,
            None => Ok(Health::healthy(format!("{} containers run", found.iter().filter(|c| c.lives()).count()))),
        }
    }

    async fn clear(&self, cx: &Context) -> Result<()> {
        let with: With = cx.with()?;
        let Ok(at) = Place::kept(cx, &with) else {
            // Where no engine is, nothing runs under one.
            return Ok(());
        };
        let limit_ms = with.down_timeout_s.saturating_mul(1_000).saturating_add(AFTER_DOWN_MS);
        let words = Self::words(cx, &with).await.unwrap_or_default();
        let down = async |words: &[String]| {
            let run = Self::follower(cx, &with, &at, Then::Down, words)?;
            run.limit_ms(limit_ms).success().await.map(drop)
        };
        let Err(failure) = down(&words).await else { return Ok(()) };
        // Without compose itself, by a file of variables that is gone for example, what is left is removed one by one.
        down(&[]).await.map_err(|_| {
            let said = failure.causes.iter().rev().find_map(|line| line.strip_prefix("error: ")).map(str::to_owned);
            Failure { message: said.unwrap_or_else(|| failure.message.clone()), ..failure }
        })
    }

    async fn verify(&self, cx: &Context) -> Result<Vec<Check>> {
        let with: With = cx.with()?;
        let folder = with.folder(&cx.unit)?;
        let Some(manifest) = with.manifest()? else { return Ok(vec![]) };
        let words = match Self::words(cx, &with).await {
            Ok(words) => words,
            Err(failure) => return Ok(vec![Check::new("compose", false, failure.message)]),
        };
        let config = with.surround(cx.run(&words[0]).args(&words[1..]).arg("config"));
        let read = match config.cwd(folder).limit_ms(ASKED_MS).success().await {
            Ok(said) => gpu::read(&said.stdout),
            Err(failure) => Err(std::iter::once(failure.message).chain(failure.causes).collect::<Vec<_>>().join("; ")),
        };
        let mut checks = vec![Check::new("compose", true, words.join(" "))];
        match read {
            Ok(file) => {
                checks.extend([Check::new("compose file", true, "it can be read"), gpu::agrees(&manifest, &file)])
            }
            Err(why) => checks.push(Check::new("compose file", false, why)),
        }
        let found = match Place::kept(cx, &with) {
            Ok(at) => at.containers(cx).await,
            Err(failure) => Err(failure),
        };
        checks.extend(match found {
            Ok(found) => vec![reachable(&found)],
            Err(failure) => vec![Check::new("engine", false, failure.message)],
        });
        Ok(checks)
    }
}

/// Whether others on the network reach its containers.
fn reachable(found: &[Container]) -> Check {
    let open: Vec<String> = found
        .iter()
        .flat_map(|c| c.published.iter().filter(|at| !at.ip().is_loopback()).map(|at| format!("{at} ({})", c.service)))
        .collect();
    let count = found.iter().filter(|c| c.lives()).count();
    match open.is_empty() {
        true => Check::new("published on loopback only", true, format!("{count} containers run")),
        false => {
            Check::new("published on loopback only", false, format!("reachable from outside: {}", open.join(", ")))
        }
    }
}
