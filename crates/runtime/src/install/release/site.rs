//! A publisher's own host, without a forge: where a version's files are is made of the version, and nobody is asked.
//!
//! It owns how addresses are made. It refuses to guess which versions there are: such a host does not say.

use wharf_model::{ErrorKind, Failure};
use wharf_services::Release;

use super::{
    assets,
    forge::{Asset, Found},
};

/// The release of the version that is asked for, whether it is there or not: the first fetch tells.
pub(super) fn find(release: &Release) -> Result<Found, Failure> {
    let host = &release.host;
    let Some(version) = &release.version else {
        let text = format!("{host} does not tell which version is the newest");
        return Err(Failure::new(ErrorKind::InvalidParams, text).hint("name one: --version VERSION"));
    };
    let is_sound = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '+');
    if version.is_empty() || version.starts_with('.') || !version.chars().all(is_sound) {
        let text = format!("{version:?} is no version of a file on {host}");
        return Err(Failure::new(ErrorKind::InvalidParams, text).hint("letters, digits, '.', '-', '_' and '+'"));
    }
    let folder = assets::plainly(&release.repo, version);
    let asset = |pattern: &String| {
        let name = assets::plainly(pattern, version);
        let address = format!("https://{host}/{folder}/{name}");
        let url = address.parse().map_err(|e| Failure::new(ErrorKind::InvalidParams, format!("{address}: {e}")))?;
        Ok(Asset { name, url, bytes: 0, digest: None })
    };
    let assets = release.assets.iter().map(asset).collect::<Result<_, Failure>>()?;
    Ok(Found { place: host.clone(), tag: version.clone(), version: version.clone(), assets })
}

#[cfg(test)]
mod tests {
    use wharf_services::Forge;

    use super::*;

    fn release(version: Option<&str>) -> Release {
        Release {
            forge: Forge::Site,
            host: "dl.example".into(),
            repo: "thing/{os}-{arch}/{version}".into(),
            version: version.map(str::to_owned),
            tag: String::new(),
            assets: vec!["thing-{version}.tar.gz".into(), "thing-{version}.tar.gz.sha256".into()],
            sha256: vec![],
            minisign: None,
        }
    }

    #[test]
    fn addresses_are_made_of_the_version_and_the_machine() {
        let found = find(&release(Some("1.2"))).unwrap();
        let arch = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
        let urls: Vec<String> = found.assets.iter().map(|asset| asset.url.to_string()).collect();
        let base = format!("https://dl.example/thing/linux-{arch}/1.2/thing-1.2.tar.gz");
        assert_eq!(urls, [base.clone(), format!("{base}.sha256")]);
        assert_eq!(found.title(), "release 1.2 of dl.example");
    }

    #[test]
    fn a_version_is_named_and_leads_nowhere_else() {
        let failure = find(&release(None)).unwrap_err();
        assert!(failure.message.contains("does not tell") && failure.hint.unwrap().contains("--version"));
        for unsound in ["", "..", "../x", "1/2", "1?x", "1 2", "1#2"] {
            assert_eq!(find(&release(Some(unsound))).unwrap_err().kind, ErrorKind::InvalidParams, "{unsound}");
        }
    }
}
