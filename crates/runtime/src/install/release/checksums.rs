//! What others say that a file's digest is: the service's file, the publisher's lists, the forge.

use wharf_model::Failure;

use super::forge::{Asset, Found};
use crate::install::web::{Credential, Saved, Web};

/// A list of digests has at most so many bytes.
const LARGEST_LIST: u64 = 1 << 20;
/// So many lists are read.
const MOST_LISTS: usize = 4;

/// What a file must be, and who says so.
#[derive(Debug, Default)]
pub(super) struct Expected {
    /// Any of these, where the service's file has some.
    pub pinned: Vec<String>,
    pub sha256: Vec<Says>,
    pub sha512: Option<Says>,
    /// The list that named it, as it was read: it can be signed.
    pub list: Option<(String, Vec<u8>)>,
    pub trust: Vec<String>,
}

/// A digest in hex and who says it.
#[derive(Debug, Clone)]
pub(super) struct Says {
    pub digest: String,
    pub by: String,
}

/// A digest that is another one.
pub(super) struct Wrong {
    pub algorithm: &'static str,
    pub by: String,
    pub found: String,
    pub wanted: String,
}

impl Expected {
    /// Nobody says anything.
    pub fn is_unknown(&self) -> bool {
        self.pinned.is_empty() && self.sha256.is_empty() && self.sha512.is_none()
    }

    /// Who says otherwise.
    pub fn contradicts(&self, saved: &Saved) -> Option<Wrong> {
        if !self.pinned.is_empty() && !self.pinned.iter().any(|pinned| pinned.eq_ignore_ascii_case(&saved.sha256)) {
            let (by, wanted) = ("the pinned one".to_owned(), self.pinned.join(" or "));
            return Some(Wrong { algorithm: "sha256", by, found: saved.sha256.clone(), wanted });
        }
        let by = |says: &Says| format!("the one in {}", says.by);
        if let Some(says) = self.sha256.iter().find(|says| says.digest != saved.sha256) {
            let (found, wanted) = (saved.sha256.clone(), says.digest.clone());
            return Some(Wrong { algorithm: "sha256", by: by(says), found, wanted });
        }
        let says = self.sha512.as_ref()?;
        let found = saved.sha512.clone().filter(|found| *found != says.digest)?;
        Some(Wrong { algorithm: "sha512", by: by(says), found, wanted: says.digest.clone() })
    }

    /// For people: what the file was believed by.
    pub fn trust(&self) -> String {
        let pinned = (!self.pinned.is_empty()).then(|| "the digest in the service's file".to_owned());
        let said = self.sha256.iter().chain(&self.sha512).map(|says| says.by.clone());
        let all: Vec<String> = self.trust.iter().cloned().chain(pinned).chain(said).collect();
        all.join(", ")
    }
}

/// Reads the lists of a release and the forge's own word.
pub(super) async fn expected(
    web: &Web,
    credential: Option<&Credential>,
    found: &Found,
    asset: &Asset,
) -> Result<Expected, Failure> {
    let mut expected = Expected::default();
    for list in lists(found, asset).into_iter().take(MOST_LISTS) {
        let text = web.read(&list.url, credential, LARGEST_LIST).await;
        let text = text.map_err(|trouble| trouble.failure(&format!("{} of {}", list.name, found.title())))?;
        let Some(digest) = digest_in(&String::from_utf8_lossy(&text), &asset.name) else { continue };
        let says = Says { digest, by: format!("{} of the release", list.name) };
        match says.digest.len() {
            64 => expected.sha256.push(says),
            _ => expected.sha512 = Some(says),
        }
        expected.list = Some((list.name.clone(), text));
        break;
    }
    let of_forge = asset.digest.as_deref().and_then(|digest| digest.strip_prefix("sha256:"));
    if let Some(digest) = of_forge.filter(|digest| is_digest(digest)) {
        expected.sha256.push(Says { digest: digest.to_ascii_lowercase(), by: "the forge's answer".into() });
    }
    Ok(expected)
}

/// The files of a release that have digests, the nearest first.
fn lists<'a>(found: &'a Found, asset: &Asset) -> Vec<&'a Asset> {
    let own =
        [".sha256", ".sha256sum", ".sha256.txt", ".sha512", ".sha512sum"].map(|end| format!("{}{end}", asset.name));
    let (mut near, mut far) = (vec![], vec![]);
    for other in &found.assets {
        let name = other.name.to_ascii_lowercase();
        let is_list = ["checksums", "sha256sum", "sha512sum"].iter().any(|word| name.contains(word))
            && [".sig", ".asc", ".pem", ".minisig", ".cert", ".bundle", ".json"].iter().all(|end| !name.ends_with(end));
        if own.iter().any(|own| own.eq_ignore_ascii_case(&other.name)) {
            near.push(other);
        } else if is_list && !found.assets.iter().any(|a| is_own_list_of(&name, a)) {
            far.push(other);
        }
    }
    // A sha256 is as good as a sha512, and is recorded anyway.
    near.sort_by_key(|list| list.name.contains("512"));
    far.sort_by_key(|list| list.name.contains("512"));
    near.into_iter().chain(far).collect()
}

/// `other-file.sha256sum` is about another file.
fn is_own_list_of(list: &str, asset: &Asset) -> bool {
    list.strip_prefix(&asset.name.to_ascii_lowercase()).is_some_and(|rest| rest.starts_with(".sha"))
}

/// The digest of a file in a list: `HEX  NAME`, `HEX *NAME`, `SHA256 (NAME) = HEX`, or one digest alone.
fn digest_in(list: &str, name: &str) -> Option<String> {
    let is_it = |said: &str| {
        let said = said.trim().trim_start_matches('*').trim_start_matches("./");
        said == name || said.rsplit('/').next() == Some(name)
    };
    let of_line = |line: &str| {
        let line = line.trim();
        if let Some((said, digest)) = line.split_once(" = ") {
            let said = said.split_once('(')?.1.strip_suffix(')')?;
            return is_it(said).then(|| digest.trim().to_owned());
        }
        let (digest, said) = line.split_once(char::is_whitespace)?;
        is_it(said).then(|| digest.to_owned())
    };
    let named = list.lines().find_map(of_line);
    let mut words = list.split_whitespace();
    let alone = match (words.next(), words.next()) {
        (Some(only), None) => Some(only.to_owned()),
        _ => None,
    };
    named.or(alone).filter(|digest| is_digest(digest)).map(|digest| digest.to_ascii_lowercase())
}

fn is_digest(text: &str) -> bool {
    matches!(text.len(), 64 | 128) && text.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_list_is_read() {
        let (one, two, long) = ("a".repeat(64), "b".repeat(64), "c".repeat(128));
        let list = format!(
            "{one}  x.tar.gz\n{two} *./dist/y.tar.gz\n\nSHA256 (z (1).deb) = {}\n{long}  l.zip\n",
            "D".repeat(64)
        );
        assert_eq!(digest_in(&list, "x.tar.gz"), Some(one.clone()));
        assert_eq!(digest_in(&list, "y.tar.gz"), Some(two));
        assert_eq!(digest_in(&list, "z (1).deb"), Some("d".repeat(64)));
        assert_eq!(digest_in(&list, "l.zip"), Some(long));
        assert_eq!(digest_in(&list, "tar.gz"), None);
        assert_eq!(digest_in(&format!("{one}\n"), "anything"), Some(one.clone()), "alone in its file");
        assert_eq!(digest_in("<html>404</html>", "x"), None);
        assert_eq!(digest_in(&format!("{}  x", &one[1..]), "x"), None, "one digit is missing");
    }

    #[test]
    fn lists_are_found_the_nearest_first_and_others_are_left() {
        let asset =
            |name: &str| Asset { name: name.into(), url: "https://x/y".parse().unwrap(), bytes: 1, digest: None };
        let names = [
            "a.tgz",
            "b.tgz",
            "b.tgz.sha256",
            "SHA512SUMS",
            "thing_1.0_checksums.txt",
            "thing_1.0_checksums.txt.sig",
            "a.tgz.sha256",
            "sha256sum.txt",
            "b.tgz.sha256sum",
        ];
        let found = Found {
            place: String::new(),
            tag: String::new(),
            version: String::new(),
            assets: names.map(asset).to_vec(),
        };
        let lists: Vec<&str> = lists(&found, &found.assets[0]).into_iter().map(|a| a.name.as_str()).collect();
        assert_eq!(lists, ["a.tgz.sha256", "thing_1.0_checksums.txt", "sha256sum.txt", "SHA512SUMS"]);
    }

    #[test]
    fn whoever_says_otherwise_is_named() {
        let saved = Saved { bytes: 1, sha256: "a".repeat(64), sha512: Some("b".repeat(128)) };
        let mut expected = Expected::default();
        assert!(expected.is_unknown() && expected.contradicts(&saved).is_none());
        expected.sha512 = Some(Says { digest: "b".repeat(128), by: "SHA512SUMS of the release".into() });
        assert!(expected.contradicts(&saved).is_none());
        expected.sha256.push(Says { digest: "c".repeat(64), by: "checksums.txt of the release".into() });
        assert_eq!(expected.contradicts(&saved).unwrap().by, "the one in checksums.txt of the release");
        expected.pinned = vec!["A".repeat(64)];
        assert_eq!(expected.contradicts(&saved).unwrap().algorithm, "sha256");
        expected.pinned = vec!["d".repeat(64)];
        assert_eq!(expected.contradicts(&saved).unwrap().by, "the pinned one", "the nearest first");
    }
}
