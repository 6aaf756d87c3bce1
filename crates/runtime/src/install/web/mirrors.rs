//! Other addresses for hosts: a company's mirror, a server in a test.
//!
//! `sources.toml` names them, and `WHARF_MIRRORS` for one daemon: `github.com=https://mirror.example/github`. Without
//! TLS only this machine is talked to.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::IpAddr,
    path::Path,
};

use reqwest::Url;
use serde::Deserialize;
use wharf_model::{ErrorKind, Failure};

use super::host_of;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// Host and address.
    #[serde(default)]
    mirrors: BTreeMap<String, String>,
}

/// Which address stands for which host.
#[derive(Debug, Clone, Default)]
pub(in crate::install) struct Mirrors {
    bases: BTreeMap<String, Url>,
    /// `http://127.0.0.1:PORT` of those that are on this machine.
    plain: BTreeSet<String>,
}

impl Mirrors {
    /// From the file, if there is one, and the variable.
    pub fn load(file: &Path, variable: Option<&str>) -> Result<Self, Failure> {
        let wrong = |text: String| {
            Failure::new(ErrorKind::Precondition, text)
                .hint("it is written as: [mirrors], then \"github.com\" = \"https://mirror.example/github\"")
        };
        let said = match fs::read_to_string(file) {
            Ok(text) => toml::from_str::<File>(&text).map_err(|e| wrong(format!("{}: {e}", file.display())))?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => File::default(),
            Err(e) => return Err(wrong(format!("{} cannot be read: {e}", file.display()))),
        };
        let mut mirrors = Self::default();
        let named = variable.into_iter().flat_map(|v| v.split(',')).map(str::trim).filter(|v| !v.is_empty());
        let named = named.map(|pair| {
            let (host, base) = pair.split_once('=').ok_or_else(|| wrong(format!("WHARF_MIRRORS: {pair:?}")))?;
            Ok::<_, Failure>((host.to_owned(), base.to_owned()))
        });
        // The variable is nearer, and comes last.
        for pair in said.mirrors.into_iter().map(Ok).chain(named) {
            let (host, base) = pair?;
            mirrors.add(&host, &base).map_err(wrong)?;
        }
        Ok(mirrors)
    }

    fn add(&mut self, host: &str, base: &str) -> Result<(), String> {
        let mut url: Url = base.parse().map_err(|e| format!("the mirror of {host}: {base:?} is no address: {e}"))?;
        if url.scheme() == "http" && is_this_machine(&url) {
            self.plain.insert(url.origin().ascii_serialization());
        } else if url.scheme() != "https" {
            return Err(format!("the mirror of {host}: {base} is not https, and not on this machine"));
        }
        if !url.path().ends_with('/') {
            let path = format!("{}/", url.path());
            url.set_path(&path);
        }
        self.bases.insert(host.to_ascii_lowercase(), url);
        Ok(())
    }

    /// The address that is asked in the end.
    pub fn stand_in(&self, url: &Url) -> Result<Url, String> {
        let Some(base) = self.bases.get(&host_of(url)) else { return Ok(url.clone()) };
        let mut there = base.join(url.path().trim_start_matches('/')).map_err(|e| format!("{url}: {e}"))?;
        there.set_query(url.query());
        Ok(there)
    }

    /// Whether it is a mirror on this machine, which needs no TLS.
    pub fn is_plain(&self, url: &Url) -> bool {
        self.plain.contains(&url.origin().ascii_serialization())
    }

    /// Whether somebody named it here.
    pub fn is_named(&self, url: &Url) -> bool {
        self.bases.values().any(|base| base.origin() == url.origin())
    }
}

fn is_this_machine(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_stands_for_a_host_and_only_this_machine_may_be_plain() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("sources.toml");
        fs::write(&file, "[mirrors]\n\"github.com\" = \"https://mirror.example/gh\"\n").unwrap();
        let variable = "codeberg.org=http://127.0.0.1:8123/forge, api.github.com=http://localhost:1/";
        let mirrors = Mirrors::load(&file, Some(variable)).unwrap();
        let of = |url: &str| mirrors.stand_in(&url.parse().unwrap()).unwrap().to_string();
        assert_eq!(of("https://github.com/a/b?c=d"), "https://mirror.example/gh/a/b?c=d");
        assert_eq!(of("https://codeberg.org/api/v1/x"), "http://127.0.0.1:8123/forge/api/v1/x");
        assert_eq!(of("https://api.github.com/repos/a/b"), "http://localhost:1/repos/a/b");
        assert_eq!(of("https://elsewhere.example/x"), "https://elsewhere.example/x");
        let url = |url: &str| url.parse::<Url>().unwrap();
        assert!(
            mirrors.is_plain(&url("http://127.0.0.1:8123/y")) && !mirrors.is_plain(&url("http://127.0.0.1:8124/y"))
        );
        assert!(mirrors.is_named(&url("https://mirror.example/z")) && !mirrors.is_named(&url("https://github.com/z")));
        for wrong in ["x=http://mirror.example/", "x", "x=ftp://127.0.0.1/"] {
            let failure = Mirrors::load(Path::new("/nowhere"), Some(wrong)).unwrap_err();
            assert_eq!(failure.kind, ErrorKind::Precondition, "{wrong}");
        }
    }
}
