//! The trait.

use std::{collections::BTreeMap, path::PathBuf};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use wharf_model::{ErrorKind, Facts, Failure, Health, Installed, Policy, Signal, UnitName};

use crate::{Auto, Context, Params, PortChoice, PortWish, Result, Run};

/// Which version is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// A version as the publisher writes it; `None`: the one that this Wharf knows as good.
    pub version: Option<String>,
    /// Fetch and place again, even where the same version lies there.
    pub reset: bool,
    /// A program or an archive on this machine that is placed instead of what the service would fetch.
    pub from: Option<PathBuf>,
}

/// What a build left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Built {
    /// The binaries, where they lie now. Empty: there was nothing to build.
    pub installed_paths: Vec<PathBuf>,
    /// For people: what was done, or why nothing.
    pub note: String,
    /// What stands in the store afterwards, where something was built.
    #[serde(skip)]
    pub installed: Option<Installed>,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Check {
    /// What was looked at: `digest of bin/caddy`.
    pub check: String,
    /// As it should be.
    pub ok: bool,
    /// What was found.
    pub detail: String,
}

impl Check {
    /// A finding.
    pub fn new(check: impl Into<String>, ok: bool, detail: impl Into<String>) -> Self {
        Self { check: check.into(), ok, detail: detail.into() }
    }
}

/// Code that knows how to install, start, stop and judge the health of one program.
///
/// Default methods do the common thing; a service overrides what differs. Every method may be
/// called again after it was interrupted at any point, so each repeats safely.
#[async_trait]
pub trait Service: Send + Sync + 'static {
    /// For people, agents and the arbiter. Nothing decides behaviour from it, but for the
    /// names and default numbers of the ports.
    fn facts(&self) -> Facts;

    /// The parameters that `with` may hold, declared as a Rust struct: `Params::of::<Redis>()`.
    fn params(&self) -> Params {
        Params::none()
    }

    /// How it is supervised.
    fn policy(&self, _with: &Value) -> Policy {
        Policy::default()
    }

    /// Whether something must be placed before it can start. Without, it is always installed.
    fn needs_install(&self) -> bool {
        true
    }

    /// Folders with a manifest are its units, each an instance of the manifest's name. Their parameters then have the
    /// fields `folder` and `manifest`, which are read anew at each start and kept until the next.
    fn takes_manifests(&self) -> bool {
        false
    }

    /// It is only placed, for others to use: a tool or a library. It has no processes and is never started.
    fn is_tool(&self) -> bool {
        false
    }

    /// Services whose files it uses: each is placed once, before it, and `cx.placed_of` says where. What must run beside
    /// it stands in `policy().needs`.
    fn rests_on(&self) -> &'static [&'static str] {
        &[]
    }

    /// The ports that it will listen on with these parameters: its facts' ports, as `with.ports` changes them. An
    /// instance (`etcd@a`) gets free ones, so that any number of them runs side by side.
    fn ports(&self, unit: &UnitName, with: &Value) -> Result<Vec<PortWish>> {
        usual_ports(&self.facts(), unit, with)
    }

    /// Where its health can be asked over HTTP with these ports, if it can.
    fn health_url(&self, _ports: &BTreeMap<String, u16>, _with: &Value) -> Option<String> {
        None
    }

    /// Compiles it from source and places the result. The default has nothing to compile.
    async fn build(&self, _cx: &Context, _want: &Wanted) -> Result<Built> {
        Ok(Built { installed_paths: vec![], note: "nothing to build".into(), installed: None })
    }

    /// Fetches, checks and places one version. Not called where `needs_install` is false.
    async fn install(&self, cx: &Context, want: &Wanted) -> Result<Installed>;

    /// Whether what a start would begin runs already, begun by somebody else: then its ports are its own.
    async fn runs_already(&self, _cx: &Context) -> Result<bool> {
        Ok(false)
    }

    /// Makes its processes, through `cx.run(…).spawn()`, once. Ready is not its business.
    async fn start(&self, cx: &Context) -> Result<Run>;

    /// Asks its processes to end. Waiting, and SIGKILL when it takes too long, are not its business.
    async fn stop(&self, cx: &Context) -> Result<()> {
        cx.signal(Signal::Term).await
    }

    /// Ends what a run has left outside of its processes. Asked when none of them lives any more, however they ended;
    /// nobody is told before that the run is over, and a failure is tried again.
    async fn clear(&self, _cx: &Context) -> Result<()> {
        Ok(())
    }

    /// Asks once how it is. An `Err` counts as unhealthy. The default: its process lives.
    async fn health(&self, _cx: &Context) -> Result<Health> {
        Ok(Health::healthy("its process lives"))
    }

    /// Puts its GPU memory away, and sleeps. The default cannot.
    async fn park(&self, cx: &Context) -> Result<()> {
        Err(cannot(cx, "put its GPU memory away"))
    }

    /// Fetches its GPU memory again, after `park`. Ends when it can be used.
    async fn wake(&self, cx: &Context) -> Result<()> {
        Err(cannot(cx, "fetch its GPU memory again"))
    }

    /// Goes on with so many bytes on each of its devices. The default cannot.
    async fn downsize(&self, cx: &Context, _to_bytes: u64) -> Result<()> {
        Err(cannot(cx, "do with less GPU memory"))
    }

    /// Looks at what is placed and whether it is what it was; without an install, at whatever can be wrong.
    async fn verify(&self, cx: &Context) -> Result<Vec<Check>> {
        if self.needs_install() { cx.verify_placed().await } else { Ok(vec![]) }
    }
}

/// The ports of these facts as `with.ports` changes them.
pub fn usual_ports(facts: &Facts, unit: &UnitName, with: &Value) -> Result<Vec<PortWish>> {
    let is_one_of_many = unit.instance().is_some() && facts.instances.is_empty();
    let usual = |number| if is_one_of_many { PortChoice::Auto(Auto::Auto) } else { PortChoice::Number(number) };
    let mut wishes: Vec<PortWish> =
        facts.ports.iter().map(|p| PortWish { name: p.name.clone(), choice: usual(p.default) }).collect();
    for (name, choice) in PortChoice::all_of(with)? {
        match wishes.iter_mut().find(|w| w.name == name) {
            Some(wish) => wish.choice = choice,
            None => {
                let known: Vec<&str> = facts.ports.iter().map(|p| p.name.as_str()).collect();
                return Err(Failure::new(ErrorKind::InvalidParams, format!("{} has no port {name:?}", facts.name))
                    .hint(format!("its ports are: {}", known.join(", ")))
                    .about(unit));
            }
        }
    }
    Ok(wishes)
}

fn cannot(cx: &Context, what: &str) -> Failure {
    Failure::new(ErrorKind::Precondition, format!("{} does not know how to {what}", cx.unit))
        .hint("take parked_bytes and downsize_bytes out of its policy.gpu")
        .about(&cx.unit)
}
