//! Plans as a service writes them: `cx.debian("redis-server", want).binary("usr/bin/redis-server").place()`.
//!
//! It owns the builder. It refuses to know how any of it is fetched.

use std::path::PathBuf;

use wharf_model::Installed;

use crate::{
    Context, InstallPlan, Pinned, Result, Wanted,
    plan::{Crate, Forge, Npm, Release, Source},
};

impl Context {
    /// Debian packages to place.
    pub fn debian(&self, package: &str, want: &Wanted) -> Placing<'_> {
        let first = want.version.as_ref().map_or_else(|| package.to_owned(), |v| format!("{package}={v}"));
        self.placing(Source::Debian { packages: vec![first] }, want)
    }

    /// A pinned wheel to place.
    pub fn wheel(&self, package: &str, version: &str, sha256: &[&str], want: &Wanted) -> Placing<'_> {
        let sha256 = sha256.iter().map(|s| (*s).to_owned()).collect();
        self.placing(Source::Wheel { package: package.into(), version: version.into(), sha256 }, want)
    }

    /// A virtual environment to make from a lock file with hashes.
    pub fn venv(&self, version: &str, requirements: &str, want: &Wanted) -> Placing<'_> {
        self.placing(Source::Venv { version: version.into(), requirements: requirements.into() }, want)
    }

    /// A source tree to build with cargo.
    pub fn cargo(&self, tree: impl Into<PathBuf>, want: &Wanted) -> Placing<'_> {
        self.placing(Source::Cargo(Crate::Tree(tree.into())), want)
    }

    /// A git repository to build with cargo: its tag, branch or commit is the wanted version, else `rev`.
    pub fn cargo_git(&self, url: &str, rev: Option<&str>, want: &Wanted) -> Placing<'_> {
        let rev = want.version.clone().or_else(|| rev.map(str::to_owned));
        self.placing(Source::Cargo(Crate::Git { url: url.into(), rev, folder: String::new() }), want)
    }

    /// A crate of the registry to build with cargo: the wanted version, else this one.
    pub fn cargo_crate(&self, name: &str, version: &str, want: &Wanted) -> Placing<'_> {
        let version = want.version.as_deref().unwrap_or(version).to_owned();
        self.placing(Source::Cargo(Crate::Registry { name: name.into(), version }), want)
    }

    /// A release on github.com: `owner/name`. The wanted version, or the latest.
    pub fn github(&self, repo: &str, want: &Wanted) -> Placing<'_> {
        self.release(Forge::GitHub, "github.com", repo, want)
    }

    /// A release on a host that runs Forgejo or Gitea.
    pub fn forgejo(&self, host: &str, repo: &str, want: &Wanted) -> Placing<'_> {
        self.release(Forge::Forgejo, host, repo, want)
    }

    /// A release on the publisher's own host: `site("dl.example", "releases/{version}", want)`. Its `asset`s are the file
    /// and the lists of digests beside it; `{version}`, `{os}`, `{arch}` (amd64, arm64) and `{triple}` are filled in. The
    /// version must be `pinned` or wanted.
    pub fn site(&self, host: &str, folder: &str, want: &Wanted) -> Placing<'_> {
        self.release(Forge::Site, host, folder, want)
    }

    fn release(&self, forge: Forge, host: &str, repo: &str, want: &Wanted) -> Placing<'_> {
        let release = Release {
            forge,
            host: host.into(),
            repo: repo.into(),
            version: want.version.clone().filter(|v| v != LATEST),
            tag: String::new(),
            assets: vec![],
            sha256: vec![],
            minisign: None,
        };
        let mut placing = self.placing(Source::Release(release), want);
        placing.is_latest_asked = want.version.as_deref() == Some(LATEST);
        placing
    }

    /// A package of npm in this version, with the lock file that pins all that it needs.
    pub fn npm(&self, package: &str, version: &str, lock: &str, want: &Wanted) -> Placing<'_> {
        let (package, version, lock) = (package.into(), version.into(), lock.into());
        self.placing(Source::Npm(Npm { package, version, lock, scripts: false, node: None }), want)
    }

    /// A program or an archive that lies on this machine.
    pub fn local(&self, path: impl Into<PathBuf>, want: &Wanted) -> Placing<'_> {
        self.placing(Source::File { path: path.into(), version: want.version.clone(), sha256: None }, want)
    }

    fn placing(&self, source: Source, want: &Wanted) -> Placing<'_> {
        let service = self.unit.service().to_owned();
        let named = |path: &PathBuf| Source::File { path: path.clone(), version: want.version.clone(), sha256: None };
        let source = want.from.as_ref().map_or(source, named);
        let plan = InstallPlan { service, source, binaries: vec![], files: vec![], reset: want.reset };
        Placing { cx: self, plan, is_latest_asked: false, is_given: want.from.is_some() }
    }
}

/// What a person writes to have the newest version instead of the one that a service's file knows.
const LATEST: &str = "latest";

/// A plan bound to the context that will carry it out.
#[must_use = "nothing is placed until place() is awaited"]
pub struct Placing<'a> {
    cx: &'a Context,
    plan: InstallPlan,
    is_latest_asked: bool,
    /// Somebody named a file: who knows how it is laid out.
    is_given: bool,
}

impl Placing<'_> {
    /// One more Debian package.
    pub fn package(mut self, name: &str) -> Self {
        if let Source::Debian { packages } = &mut self.plan.source {
            packages.push(name.into());
        }
        self
    }

    /// Placed under the name of another service, with which it shares its programs: they are placed once for both.
    pub fn shared_with(mut self, service: &str) -> Self {
        self.plan.service = service.into();
        self
    }

    /// A program that must be there afterwards.
    pub fn binary(mut self, path: &str) -> Self {
        let name = path.rsplit('/').next().unwrap_or(path);
        self.plan = self.plan.binary(if self.is_given { name } else { path });
        self
    }

    /// A file that is written beside it.
    pub fn file(mut self, path: &str, text: &str) -> Self {
        self.plan = self.plan.file(path, text);
        self
    }

    /// What a release's file is called: `{bin}-{version}.{os}-{arch}.tar.gz`. Several are tried in order.
    pub fn asset(self, pattern: &str) -> Self {
        self.of_release(|release| release.assets.push(pattern.into()))
    }

    /// How a release's tag is made of its version: `v{version}`.
    pub fn tag(self, pattern: &str) -> Self {
        self.of_release(|release| release.tag = pattern.into())
    }

    /// The publisher's minisign key.
    pub fn minisign(self, key: &str) -> Self {
        self.of_release(|release| release.minisign = Some(key.into()))
    }

    /// Versions of a release that are known as good: the first is placed unless another is wanted. One that is not
    /// among them is judged by what its publisher says of it.
    pub fn pinned(self, versions: &[Pinned]) -> Self {
        let is_latest_asked = self.is_latest_asked;
        self.of_release(|release| {
            if release.version.is_none() && !is_latest_asked {
                release.version = versions.first().map(|p| p.version.to_owned());
            }
            let known = release.version.as_deref().and_then(|v| Pinned::find(versions, v));
            release.sha256 = known.into_iter().flat_map(|p| p.sha256).map(|s| (*s).to_owned()).collect();
        })
    }

    /// The oldest Node that runs a package of npm.
    pub fn node(mut self, at_least: u32) -> Self {
        if let Source::Npm(npm) = &mut self.plan.source {
            npm.node = Some(at_least);
        }
        self
    }

    /// Lets the install scripts of npm packages run: they may fetch and run anything.
    pub fn with_scripts(mut self) -> Self {
        if let Source::Npm(npm) = &mut self.plan.source {
            npm.scripts = true;
        }
        self
    }

    /// The folder of a git repository that has the Cargo.toml.
    pub fn in_folder(mut self, name: &str) -> Self {
        if let Source::Cargo(Crate::Git { folder, .. }) = &mut self.plan.source {
            *folder = name.into();
        }
        self
    }

    fn of_release(mut self, change: impl FnOnce(&mut Release)) -> Self {
        if let Source::Release(release) = &mut self.plan.source {
            change(release);
        }
        self
    }

    /// The plan, to be looked at.
    pub fn plan(&self) -> &InstallPlan {
        &self.plan
    }

    /// Does it.
    pub async fn place(self) -> Result<Installed> {
        self.cx.hands().place(self.cx, self.plan).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::Value;

    use super::*;
    use crate::{Catalogue, Recording};

    const KNOWN: &[Pinned] =
        &[Pinned { version: "2", sha256: &["aa", "bb"] }, Pinned { version: "1", sha256: &["cc"] }];

    fn context() -> Context {
        let hello = Catalogue::built_in().get("hello").unwrap().clone();
        Arc::new(Recording::default()).context(&*hello, Value::Null).unwrap()
    }

    fn release(want: &Wanted) -> Release {
        let cx = context();
        let placing = cx.github("o/r", want).pinned(KNOWN).asset("x-{version}.tgz").binary("x");
        match &placing.plan().source {
            Source::Release(release) => release.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn version(version: &str) -> Wanted {
        Wanted { version: Some(version.into()), ..Wanted::default() }
    }

    #[test]
    fn a_release_is_the_pinned_one_unless_another_is_wanted() {
        let of = |want| (release(&want).version, release(&want).sha256);
        assert_eq!(of(Wanted::default()), (Some("2".into()), vec!["aa".into(), "bb".into()]));
        assert_eq!(of(version("1")), (Some("1".into()), vec!["cc".into()]));
        assert_eq!(of(version("3")), (Some("3".into()), vec![]), "its publisher's word counts");
        assert_eq!(of(version("latest")), (None, vec![]));
    }

    #[test]
    fn a_file_that_is_named_comes_instead_of_anything() {
        let cx = context();
        let want = Wanted { from: Some("/tmp/x.tgz".into()), ..version("7") };
        for placing in
            [cx.debian("redis-server", &want), cx.github("o/r", &want).pinned(KNOWN), cx.venv("1", "", &want)]
        {
            let wanted = Source::File { path: "/tmp/x.tgz".into(), version: Some("7".into()), sha256: None };
            assert_eq!(placing.plan().source, wanted);
        }
    }

    #[test]
    fn a_plan_says_where_it_fetches() {
        let cx = context();
        let said = |placing: Placing<'_>| placing.plan().source.to_string();
        let none = Wanted::default();
        assert_eq!(said(cx.github("o/r", &none).pinned(KNOWN)), "release 2 of github.com/o/r, pinned by sha256");
        assert_eq!(said(cx.forgejo("codeberg.org", "o/r", &none)), "the latest release of codeberg.org/o/r");
        assert_eq!(
            said(cx.site("dl.example", "{version}", &none).pinned(KNOWN)),
            "release 2 of dl.example, pinned by sha256"
        );
        assert_eq!(said(cx.npm("vite", "8.3.8", "{}", &none).node(20)), "vite 8.3.8 from npm, with Node 20 or newer");
        assert_eq!(said(cx.debian("redis-server", &none)), "Debian package redis-server");
        assert_eq!(said(cx.cargo_crate("dufs", "0.47.0", &none)), "crate dufs 0.47.0, built by cargo");
    }
}
