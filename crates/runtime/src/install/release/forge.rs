//! What two kinds of forge say of a repository's releases.

use reqwest::Url;
use serde::Deserialize;
use wharf_model::{ErrorKind, Failure};
use wharf_services::{Forge, Release};

use super::site;
use crate::install::{
    Job,
    web::{Credential, Trouble, Web},
};

/// An answer about releases: one with a thousand files has two MiB.
const LARGEST_ANSWER: u64 = 8 << 20;
/// So many files are named in an error.
const NAMED: usize = 40;

/// A release.
#[derive(Debug)]
pub(in crate::install) struct Found {
    /// For people: `github.com/prometheus/prometheus`.
    pub place: String,
    pub tag: String,
    /// The tag without what is written around the version.
    pub version: String,
    pub assets: Vec<Asset>,
}

/// A file of a release.
#[derive(Debug, Clone)]
pub(in crate::install) struct Asset {
    pub name: String,
    pub url: Url,
    /// 0: the forge does not say.
    pub bytes: u64,
    /// `sha256:…`, where the forge makes one.
    pub digest: Option<String>,
}

impl Asset {
    pub fn known_bytes(&self) -> Option<u64> {
        (self.bytes > 0).then_some(self.bytes)
    }
}

impl Found {
    /// For people: `release v2.42.0 of github.com/prometheus/prometheus`.
    pub fn title(&self) -> String {
        format!("release {} of {}", self.tag, self.place)
    }

    /// What it has, a line each.
    pub fn offer(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.assets.iter().take(NAMED).map(|a| format!("on offer: {}", a.name)).collect();
        if self.assets.len() > NAMED {
            lines.push(format!("on offer: {} more", self.assets.len() - NAMED));
        }
        if lines.is_empty() {
            lines.push("on offer: no file at all".into());
        }
        lines
    }
}

#[derive(Deserialize)]
struct Said {
    tag_name: String,
    #[serde(default)]
    assets: Vec<SaidAsset>,
}

#[derive(Deserialize)]
struct SaidAsset {
    name: String,
    browser_download_url: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    digest: Option<String>,
}

/// Finds the wanted release, or says which there are.
pub(super) async fn find(job: &Job<'_>, web: &Web, release: &Release) -> Result<(Found, Option<Credential>), Failure> {
    if release.forge == Forge::Site {
        return Ok((site::find(release)?, None));
    }
    let place = format!("{}/{}", release.host, release.repo);
    let base = api(release)?;
    let credential = credential(web, release, &base);
    let ask = async |path: &str| -> Result<Vec<u8>, Trouble> {
        let url = base.join(path).map_err(|e| Trouble::Refused(format!("{path}: {e}")))?;
        web.read(&url, credential.as_ref(), LARGEST_ANSWER).await
    };
    let Some(version) = &release.version else {
        job.say(format!("asking {} for the latest release of {}", release.host, release.repo));
        let what = format!("the latest release of {place}");
        let answer = ask("latest").await.map_err(|trouble| match trouble.is_absent() {
            true => Failure::new(ErrorKind::InstallFailed, format!("{place} has no release"))
                .hint("is the repository there, and public? A private one needs a token"),
            false => trouble.failure(&what),
        })?;
        let found = read(&place, release, &answer, &what)?;
        job.say(format!("the latest release of {} is {}", release.repo, found.tag));
        return Ok((found, credential));
    };
    job.say(format!("asking {} for release {version} of {}", release.host, release.repo));
    for tag in tags(release, version) {
        let what = format!("release {tag} of {place}");
        match ask(&format!("tags/{tag}")).await {
            Ok(answer) => return Ok((read(&place, release, &answer, &what)?, credential)),
            Err(trouble) if trouble.is_absent() => {}
            Err(trouble) => return Err(trouble.failure(&what)),
        }
    }
    let text = format!("there is no release {} of {place}", tags(release, version).join(" or "));
    let failure = Failure::new(ErrorKind::InstallFailed, text);
    // The list is a help, no more: without it the error stands all the same.
    let all = ask("?per_page=20&limit=20").await.ok();
    let all = all.and_then(|answer| serde_json::from_slice::<Vec<Said>>(&answer).ok()).unwrap_or_default();
    let tags: Vec<&str> = all.iter().map(|said| said.tag_name.as_str()).collect();
    Err(match tags.is_empty() {
        true => failure.hint("is the repository there, and public? A private one needs a token"),
        false => failure.hint(format!("on offer: {}", tags.join(", "))),
    })
}

/// Where a repository's releases are asked for.
fn api(release: &Release) -> Result<Url, Failure> {
    let is_sound = |part: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        !part.is_empty() && part.chars().all(plain) && !part.starts_with('.')
    };
    let parts: Vec<&str> = release.repo.split('/').collect();
    let is_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | ':');
    if parts.len() != 2 || !parts.iter().all(|part| is_sound(part)) || !release.host.chars().all(is_host) {
        let text = format!("{}/{} is no repository: it is written HOST and OWNER/NAME", release.host, release.repo);
        return Err(Failure::new(ErrorKind::InvalidParams, text).hint("correct it in the service's file"));
    }
    let (host, repo) = (&release.host, &release.repo);
    let base = match release.forge {
        Forge::GitHub if host == "github.com" => format!("https://api.github.com/repos/{repo}/releases/"),
        Forge::GitHub => format!("https://{host}/api/v3/repos/{repo}/releases/"),
        Forge::Forgejo => format!("https://{host}/api/v1/repos/{repo}/releases/"),
        Forge::Site => format!("https://{host}/"),
    };
    base.parse().map_err(|e| Failure::new(ErrorKind::InvalidParams, format!("{base}: {e}")))
}

/// A token of the environment, for this forge's host and no other. HS-73.
fn credential(web: &Web, release: &Release, base: &Url) -> Option<Credential> {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    let (scheme, token) = match release.forge {
        Forge::GitHub => ("Bearer", set("GITHUB_TOKEN").or_else(|| set("GH_TOKEN"))?),
        // Where somebody says which host it is for, no other gets it.
        Forge::Forgejo if set("FORGEJO_HOST").is_some_and(|host| host != release.host) => return None,
        Forge::Forgejo => ("token", set("FORGEJO_TOKEN")?),
        Forge::Site => return None,
    };
    Credential::new(&web.stands_for(base), scheme, &token)
}

/// How the tag of a version may be written.
fn tags(release: &Release, version: &str) -> Vec<String> {
    let sound = |tag: String| tag.replace(['?', '#', ' '], "");
    if !release.tag.is_empty() {
        return vec![sound(release.tag.replace("{version}", version))];
    }
    match version.strip_prefix('v') {
        Some(bare) => vec![sound(version.to_owned()), sound(bare.to_owned())],
        None => vec![sound(format!("v{version}")), sound(version.to_owned())],
    }
}

/// The version in a tag.
fn version_in(release: &Release, tag: &str) -> String {
    let (before, after) = release.tag.split_once("{version}").unwrap_or(("v", ""));
    let bare = tag.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
    bare.filter(|v| !v.is_empty()).unwrap_or(tag).to_owned()
}

fn read(place: &str, release: &Release, answer: &[u8], what: &str) -> Result<Found, Failure> {
    let said: Said = serde_json::from_slice(answer).map_err(|e| {
        let beginning: String = String::from_utf8_lossy(answer).chars().take(200).collect();
        Failure::new(ErrorKind::InstallFailed, format!("{what}: the answer is none about a release: {e}"))
            .cause(format!("it begins: {beginning}"))
            .hint("a proxy or a mirror answers instead of the forge")
    })?;
    let assets = said.assets.into_iter().filter_map(|a| {
        let url = a.browser_download_url.parse().ok()?;
        Some(Asset { name: a.name, url, bytes: a.size, digest: a.digest })
    });
    let version = version_in(release, &said.tag_name);
    Ok(Found { place: place.to_owned(), version, assets: assets.collect(), tag: said.tag_name })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(forge: Forge, host: &str, repo: &str, tag: &str) -> Release {
        Release {
            forge,
            host: host.into(),
            repo: repo.into(),
            version: None,
            tag: tag.into(),
            assets: vec![],
            sha256: vec![],
            minisign: None,
        }
    }

    /// HS-68.
    #[test]
    fn each_forge_is_asked_in_its_own_way() {
        let of = |forge, host: &str| api(&release(forge, host, "a/b", "")).unwrap().to_string();
        assert_eq!(of(Forge::GitHub, "github.com"), "https://api.github.com/repos/a/b/releases/");
        assert_eq!(of(Forge::GitHub, "git.example"), "https://git.example/api/v3/repos/a/b/releases/");
        assert_eq!(of(Forge::Forgejo, "codeberg.org"), "https://codeberg.org/api/v1/repos/a/b/releases/");
        for repo in ["a", "a/b/c", "a/..", "../b", "a/b?x", "/b"] {
            assert_eq!(
                api(&release(Forge::GitHub, "github.com", repo, "")).unwrap_err().kind,
                ErrorKind::InvalidParams
            );
        }
        assert!(api(&release(Forge::Forgejo, "x/../y", "a/b", "")).is_err());
    }

    #[test]
    fn tags_and_versions_are_made_of_each_other() {
        let plain = release(Forge::GitHub, "github.com", "a/b", "");
        assert_eq!(tags(&plain, "1.2"), ["v1.2", "1.2"]);
        assert_eq!(tags(&plain, "v1.2"), ["v1.2", "1.2"]);
        assert_eq!((version_in(&plain, "v1.2"), version_in(&plain, "b4711")), ("1.2".into(), "b4711".into()));
        let own = release(Forge::GitHub, "github.com", "a/b", "redis-{version}-final");
        assert_eq!(tags(&own, "7"), ["redis-7-final"]);
        assert_eq!(version_in(&own, "redis-7-final"), "7");
    }
}
