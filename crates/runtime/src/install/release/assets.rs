//! Which file of a release is for this machine: by the service's own patterns, else by the seven that are usual.
//!
//! In a pattern `{bin}` is the program (or the service, or the repository), `{version}` and `{tag}` the release's,
//! `{os}`, `{arch}`, `{libc}` and `{triple}` this machine's in every way that they are written. Letters may be large
//! or small.

use wharf_model::{ErrorKind, Failure};
use wharf_services::{Binary, Release};

use super::forge::{Asset, Found};

/// The seven ways in which releases name their files, tried in this order.
const USUAL: [&[&str]; 7] = [
    // 1. The program itself. HS-64 and HS-69: `wharf-linux-amd64-musl`.
    &["{bin}-{os}-{arch}-{libc}", "{bin}-{os}-{arch}", "{bin}_{os}_{arch}", "{bin}-{triple}"],
    // 2. goreleaser: `caddy_2.11.7_linux_amd64.tar.gz`.
    &["{bin}_{version}_{os}_{arch}.tar.gz", "{bin}_{os}_{arch}.tar.gz"],
    // 3. `nats-server-v2.15.1-linux-amd64.tar.gz`, `prometheus-2.42.0.linux-amd64.tar.gz`.
    &[
        "{bin}-v{version}-{os}-{arch}.tar.gz",
        "{bin}-{version}-{os}-{arch}.tar.gz",
        "{bin}-{version}.{os}-{arch}.tar.gz",
    ],
    // 4. cargo-dist: `restate-server-x86_64-unknown-linux-musl.tar.xz`.
    &[
        "{bin}-{triple}.tar.xz",
        "{bin}-{triple}.tar.gz",
        "{bin}-{triple}.tar.zst",
        "{bin}-v{version}-{triple}.tar.gz",
        "{bin}-{version}-{triple}.tar.gz",
    ],
    // 5. `llama-b4711-bin-ubuntu-x64.tar.gz`.
    &["{bin}-{tag}-bin-ubuntu-{arch}.tar.gz", "{bin}-{tag}-bin-ubuntu-{arch}.zip"],
    // 6. A Debian package.
    &[
        "{bin}_{version}_{arch}.deb",
        "{bin}_{version}-1_{arch}.deb",
        "{bin}-{version}-{arch}.deb",
        "{bin}-{version}-{os}-{arch}.deb",
    ],
    // 7. `ollama-linux-amd64.tgz`.
    &[
        "{bin}-{os}-{arch}.tgz",
        "{bin}-{os}-{arch}.tar.gz",
        "{bin}-{os}-{arch}.tar.zst",
        "{bin}-{os}-{arch}.tar.xz",
        "{bin}-{os}-{arch}.zip",
    ],
];

const ARCHIVES: [&str; 9] = [".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.zst", ".tzst", ".zip", ".deb", ".tar"];

/// So many names are shown that were looked for.
const SHOWN: usize = 6;

/// A file to fetch.
#[derive(Debug)]
pub(super) struct Picked<'a> {
    pub asset: &'a Asset,
    /// It is this program itself, and no archive.
    pub program: Option<Binary>,
}

/// Chooses the files, or says what was looked for and what is there.
pub(super) fn pick<'a>(
    service: &str,
    binaries: &[Binary],
    release: &Release,
    found: &'a Found,
) -> Result<Vec<Picked<'a>>, Failure> {
    let machine = Machine::this();
    let names = Names::new(service, binaries, release, found, &machine);
    let usual = || USUAL.iter().flat_map(|patterns| patterns.iter().map(|p| (*p).to_owned())).collect();
    let patterns: Vec<String> = if release.assets.is_empty() { usual() } else { release.assets.clone() };
    let candidates: Vec<Candidate> = patterns.iter().flat_map(|pattern| names.candidates(pattern)).collect();
    for candidate in &candidates {
        let Some(asset) = named(found, &candidate.name) else { continue };
        let is_archive = ARCHIVES.iter().any(|end| asset.name.to_ascii_lowercase().ends_with(end));
        if is_archive || !candidate.template.contains("{bin}") || binaries.len() < 2 {
            let program = (!is_archive).then(|| binaries.first().cloned()).flatten();
            return Ok(vec![Picked { asset, program }]);
        }
        // Each program is a file of its own, under names that differ in nothing else.
        return binaries
            .iter()
            .map(|binary| {
                let name = candidate.template.replace("{bin}", &binary.name);
                let asset = named(found, &name).ok_or_else(|| absent(found, &[name], &machine))?;
                Ok(Picked { asset, program: Some(binary.clone()) })
            })
            .collect();
    }
    let tried: Vec<String> = candidates.into_iter().map(|c| c.name).collect();
    Err(absent(found, &tried, &machine))
}

fn named<'a>(found: &'a Found, name: &str) -> Option<&'a Asset> {
    let exact = found.assets.iter().find(|asset| asset.name == name);
    exact.or_else(|| found.assets.iter().find(|asset| asset.name.eq_ignore_ascii_case(name)))
}

/// HS-125: which file of which release, and what there is instead.
fn absent(found: &Found, tried: &[String], machine: &Machine) -> Failure {
    let shown = tried.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = if tried.len() > SHOWN { format!(" and {} other names", tried.len() - SHOWN) } else { String::new() };
    let text = match tried {
        [only] => format!("{} has no file {only}", found.title()),
        _ => format!("{} has no file for {} on {}", found.title(), machine.arch[0], machine.os[0]),
    };
    let failure = Failure::new(ErrorKind::InstallFailed, text);
    let failure = if tried.len() > 1 { failure.cause(format!("looked for: {shown}{more}")) } else { failure };
    failure.causes(found.offer()).hint(
        "its publisher has renamed the file or has none for this machine: try another version, or build it from source",
    )
}

/// Fills a pattern as most publishers write this machine: `linux`, `amd64`.
pub(super) fn plainly(pattern: &str, version: &str) -> String {
    let machine = Machine::this();
    let triple = machine.triple.first().map_or("", String::as_str);
    let holes = [("{version}", version), ("{os}", machine.os[0]), ("{arch}", machine.arch[0]), ("{triple}", triple)];
    holes.into_iter().fold(pattern.to_owned(), |text, (hole, filling)| text.replace(hole, filling))
}

/// This machine, in every way that it is written.
struct Machine {
    os: &'static [&'static str],
    arch: &'static [&'static str],
    libc: &'static [&'static str],
    triple: Vec<String>,
}

impl Machine {
    fn this() -> Self {
        Self::of(std::env::consts::ARCH)
    }

    fn of(arch: &'static str) -> Self {
        let written: &[&str] = match arch {
            "x86_64" => &["amd64", "x86_64", "x64", "64bit"],
            "aarch64" => &["arm64", "aarch64"],
            "riscv64" => &["riscv64"],
            "powerpc64" => &["ppc64le", "powerpc64le"],
            "s390x" => &["s390x"],
            _ => &["unknown"],
        };
        // What is linked with musl has all that it needs with it, as a rule.
        let libc: &[&str] = &["musl", "gnu"];
        let triple = libc.iter().map(|libc| format!("{arch}-unknown-linux-{libc}")).collect();
        Self { os: &["linux"], arch: written, libc, triple }
    }
}

/// A name to look for, and the same with `{bin}` left open.
struct Candidate {
    name: String,
    template: String,
}

/// What stands for what in a pattern.
struct Names<'a> {
    bins: Vec<String>,
    version: &'a str,
    tag: &'a str,
    machine: &'a Machine,
}

impl<'a> Names<'a> {
    fn new(service: &str, binaries: &[Binary], release: &Release, found: &'a Found, machine: &'a Machine) -> Self {
        let mut bins: Vec<String> = binaries.iter().take(1).map(|b| b.name.clone()).collect();
        let repo = release.repo.rsplit('/').next().unwrap_or_default();
        for other in [service, repo] {
            if !bins.iter().any(|bin| bin == other) {
                bins.push(other.to_owned());
            }
        }
        Self { bins, version: &found.version, tag: &found.tag, machine }
    }

    /// Everything that a pattern can mean, in order.
    fn candidates(&self, pattern: &str) -> Vec<Candidate> {
        let fixed = pattern.replace("{version}", self.version).replace("{tag}", self.tag);
        let mut templates = vec![fixed];
        let triples: Vec<&str> = self.machine.triple.iter().map(String::as_str).collect();
        let choices: [(&str, &[&str]); 4] = [
            ("{os}", self.machine.os),
            ("{arch}", self.machine.arch),
            ("{libc}", self.machine.libc),
            ("{triple}", &triples),
        ];
        for (hole, fillings) in choices {
            let fill = |template: String| -> Vec<String> {
                if !template.contains(hole) {
                    return vec![template];
                }
                fillings.iter().map(|filling| template.replace(hole, filling)).collect()
            };
            templates = templates.into_iter().flat_map(fill).collect();
        }
        let named = |template: String| -> Vec<Candidate> {
            if !template.contains("{bin}") {
                return vec![Candidate { name: template.clone(), template }];
            }
            let with = |bin: &String| Candidate { name: template.replace("{bin}", bin), template: template.clone() };
            self.bins.iter().map(with).collect()
        };
        templates.into_iter().flat_map(named).collect()
    }
}

#[cfg(test)]
mod tests {
    use wharf_services::Forge;

    use super::*;

    fn found(tag: &str, version: &str, names: &[&str]) -> Found {
        let asset = |name: &&str| Asset {
            name: (*name).to_owned(),
            url: "https://x/y".parse().unwrap(),
            bytes: 1,
            digest: None,
        };
        Found {
            place: "github.com/o/thing".into(),
            tag: tag.into(),
            version: version.into(),
            assets: names.iter().map(asset).collect(),
        }
    }

    fn release(assets: &[&str]) -> Release {
        Release {
            forge: Forge::GitHub,
            host: "github.com".into(),
            repo: "o/thing".into(),
            version: None,
            tag: String::new(),
            assets: assets.iter().map(|a| (*a).to_owned()).collect(),
            sha256: vec![],
            minisign: None,
        }
    }

    fn binaries(names: &[&str]) -> Vec<Binary> {
        names.iter().map(|name| Binary { name: (*name).to_owned(), path: (*name).to_owned() }).collect()
    }

    /// The names of x86-64, so that the test says the same on every machine.
    fn adapted(name: &str) -> String {
        match std::env::consts::ARCH {
            "x86_64" => name.to_owned(),
            arch => {
                let other = Machine::of(arch);
                name.replace("x86_64", arch).replace("amd64", other.arch[0]).replace("x64", other.arch[0])
            }
        }
    }

    #[track_caller]
    fn picks(names: &[&str], bins: &[&str], wanted: &str) {
        let names: Vec<String> = names.iter().map(|n| adapted(n)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let found = found("v1.2.3", "1.2.3", &names);
        let picked = pick("thing", &binaries(bins), &release(&[]), &found).unwrap();
        assert_eq!(picked[0].asset.name, adapted(wanted));
    }

    /// T40, HS-64, HS-69, HS-77.
    #[test]
    fn the_seven_usual_patterns_are_known() {
        let noise = ["thing-darwin-arm64", "thing_1.2.3_windows_amd64.zip", "SHA256SUMS", "thing.sbom.json"];
        for wanted in [
            "thing-linux-amd64-musl",
            "thing-linux-amd64-gnu",
            "thing-linux-amd64",
            "thing_1.2.3_linux_amd64.tar.gz",
            "thing_1.2.3_Linux_x86_64.tar.gz",
            "thing-v1.2.3-linux-amd64.tar.gz",
            "thing-1.2.3.linux-amd64.tar.gz",
            "thing-x86_64-unknown-linux-musl.tar.xz",
            "thing-x86_64-unknown-linux-gnu.tar.gz",
            "thing-v1.2.3-bin-ubuntu-x64.tar.gz",
            "thing_1.2.3_amd64.deb",
            "thing-linux-amd64.tgz",
            "thing-linux-amd64.tar.zst",
        ] {
            picks(&[&noise[..], &[wanted]].concat(), &["thing"], wanted);
        }
    }

    #[test]
    fn they_are_tried_in_order_and_static_builds_come_first() {
        picks(
            &["thing-linux-amd64.tgz", "thing_1.2.3_linux_amd64.tar.gz"],
            &["thing"],
            "thing_1.2.3_linux_amd64.tar.gz",
        );
        picks(
            &["thing-x86_64-unknown-linux-gnu.tar.xz", "thing-x86_64-unknown-linux-musl.tar.xz"],
            &["thingd"],
            "thing-x86_64-unknown-linux-musl.tar.xz",
        );
    }

    #[test]
    fn a_services_own_pattern_comes_instead() {
        let found = found("b4711", "b4711", &["thing-linux-amd64", "odd.b4711.run"]);
        let picked = pick("thing", &binaries(&["thing"]), &release(&["odd.{tag}.run"]), &found).unwrap();
        assert_eq!(picked[0].asset.name, "odd.b4711.run");
        assert!(picked[0].program.is_some());
    }

    #[test]
    fn each_of_several_bare_programs_is_fetched_and_a_missing_one_is_named() {
        let names: Vec<String> = ["a-linux-amd64-musl", "b-linux-amd64-musl"].iter().map(|n| adapted(n)).collect();
        let found = found("v1", "1", &names.iter().map(String::as_str).collect::<Vec<_>>());
        let picked = pick("thing", &binaries(&["a", "b"]), &release(&[]), &found).unwrap();
        assert_eq!(picked.iter().map(|p| p.asset.name.clone()).collect::<Vec<_>>(), names);
        let failure = pick("thing", &binaries(&["a", "c"]), &release(&[]), &found).unwrap_err();
        let wanted = adapted("c-linux-amd64-musl");
        assert_eq!(failure.message, format!("release v1 of github.com/o/thing has no file {wanted}"));
        assert_eq!(failure.causes, [format!("on offer: {}", names[0]), format!("on offer: {}", names[1])]);
    }

    /// HS-124, HS-125.
    #[test]
    fn a_release_without_a_file_for_this_machine_says_what_it_has() {
        let found = found("v1.2.3", "1.2.3", &["thing-darwin-arm64", "old_name-linux-amd64"]);
        let failure = pick("thing", &binaries(&["thing"]), &release(&[]), &found).unwrap_err();
        assert!(failure.message.starts_with("release v1.2.3 of github.com/o/thing has no file for "), "{failure}");
        assert!(failure.causes[0].starts_with("looked for: thing-linux-"), "{failure:?}");
        assert_eq!(failure.causes[1..], ["on offer: thing-darwin-arm64", "on offer: old_name-linux-amd64"]);
        let empty = super::tests::found("v1", "1", &[]);
        let failure = pick("thing", &binaries(&["thing"]), &release(&["x.tgz"]), &empty).unwrap_err();
        assert_eq!(failure.message, "release v1 of github.com/o/thing has no file x.tgz");
        assert_eq!(failure.causes, ["on offer: no file at all"]);
    }
}
