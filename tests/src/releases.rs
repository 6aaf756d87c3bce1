//! A forge on this machine: it speaks GitHub's and Forgejo's shapes, and does wrong what it is told to do wrong.
//!
//! ```no_run
//! use wharf_tests::{Daemon, Forge, ReleaseServer, stand_in, tar_gz};
//!
//! let server = ReleaseServer::start();
//! server
//!     .forge(Forge::GitHub, "prometheus", "prometheus")
//!     .release("v2.42.0")
//!     .asset("prometheus-2.42.0.linux-amd64.tar.gz", tar_gz(&[("prometheus-2.42.0.linux-amd64/prometheus", stand_in())]))
//!     .checksums("sha256sums.txt");
//! let mut daemon = Daemon::prepare().with_env("WHARF_MIRRORS", &server.mirrors());
//! daemon.launch();
//! ```
//!
//! It stands for github.com, api.github.com and codeberg.org. A forge on another host is named by `mirror_of`, and a host
//! that has files and is no forge by `site`.

mod answer;
mod pack;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

pub use pack::{deb, gz, sha256, stand_in, tar_gz, tar_xz, tar_zst, zip};

/// How a forge speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Forge {
    /// github.com.
    GitHub,
    /// codeberg.org.
    Forgejo,
}

/// What goes wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It is listed, and not there.
    NotThere,
    /// A page comes instead.
    Html,
    /// Only so many bytes come, each time, as if that were all.
    Truncated(usize),
    /// The connection ends after so many bytes of what was asked for, so many times.
    Cut {
        /// Bytes of each answer.
        after: usize,
        /// How often.
        times: u32,
    },
    /// As `Cut`, and the file is another one afterwards: its tag has changed.
    Replaced {
        /// Bytes of the first answer.
        after: usize,
        /// What it is then.
        by: Vec<u8>,
    },
    /// Another address is named.
    Redirect(String),
    /// Nothing but refusals: too many requests.
    Limited,
    /// So many bytes a second, so that one can do something meanwhile.
    Slow(usize),
}

/// What a client asked for.
#[derive(Debug, Clone)]
pub struct Seen {
    /// With the query.
    pub path: String,
    /// Names in small letters.
    pub headers: BTreeMap<String, String>,
}

#[derive(Debug, Clone)]
struct Asset {
    name: String,
    bytes: Arc<Vec<u8>>,
    fault: Option<Fault>,
    /// The forge's own digest of it is told.
    digest: bool,
    asked: u32,
}

#[derive(Debug, Clone)]
struct Release {
    tag: String,
    assets: Vec<Asset>,
}

#[derive(Default)]
struct World {
    /// By forge, owner and name; the newest release last.
    repos: BTreeMap<(Forge, String, String), Vec<Release>>,
    limited: bool,
    seen: Vec<Seen>,
    other_hosts: Vec<String>,
    /// Of hosts that are no forge, by host and path.
    files: BTreeMap<String, Vec<u8>>,
}

/// The server. It ends with the value.
pub struct ReleaseServer {
    port: u16,
    world: Arc<Mutex<World>>,
}

impl ReleaseServer {
    /// On a free port of 127.0.0.1, without any repository.
    pub fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let world = Arc::<Mutex<World>>::default();
        let weak = Arc::downgrade(&world);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let Some(world) = weak.upgrade() else { return };
                thread::spawn(move || converse(stream, port, &world));
            }
        });
        Self { port, world }
    }

    /// A repository of a forge; it is made where it is named first.
    pub fn forge(&self, forge: Forge, owner: &str, repo: &str) -> Repo<'_> {
        let key = (forge, owner.to_owned(), repo.to_owned());
        locked(&self.world).repos.entry(key.clone()).or_default();
        Repo { server: self, key }
    }

    /// One more host that speaks Forgejo's shape here.
    pub fn mirror_of(&self, host: &str) -> &Self {
        locked(&self.world).other_hosts.push(host.to_owned());
        self
    }

    /// A file of a host that is no forge: `site("dl.example", "thing/1.2/thing.tar.gz", bytes)`.
    pub fn site(&self, host: &str, path: &str, bytes: impl Into<Vec<u8>>) -> &Self {
        locked(&self.world).files.insert(format!("{host}/{path}"), bytes.into());
        self
    }

    /// The value of `WHARF_MIRRORS` with which a daemon asks here.
    pub fn mirrors(&self) -> String {
        let base = self.base();
        let mut all = vec![
            format!("api.github.com={base}/api.github.com"),
            format!("github.com={base}/github.com"),
            format!("codeberg.org={base}/codeberg.org"),
        ];
        let world = locked(&self.world);
        all.extend(world.other_hosts.iter().map(|host| format!("{host}={base}/codeberg.org")));
        let sites: BTreeSet<&str> = world.files.keys().filter_map(|path| path.split('/').next()).collect();
        all.extend(sites.into_iter().filter(|host| *host != "github.com").map(|host| format!("{host}={base}/{host}")));
        all.join(",")
    }

    /// `http://127.0.0.1:PORT`.
    pub fn base(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// From now on every question about releases is one too many.
    pub fn limit_rate(&self, limited: bool) {
        locked(&self.world).limited = limited;
    }

    /// What was asked for so far.
    pub fn seen(&self) -> Vec<Seen> {
        locked(&self.world).seen.clone()
    }
}

impl Drop for ReleaseServer {
    fn drop(&mut self) {
        // The listener's thread looks whether there is still a world when somebody knocks.
        self.world = Arc::default();
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// A repository.
#[derive(Clone)]
pub struct Repo<'a> {
    server: &'a ReleaseServer,
    key: (Forge, String, String),
}

impl<'a> Repo<'a> {
    /// A release, the latest from now on.
    pub fn release(&self, tag: &str) -> Published<'a> {
        let release = Release { tag: tag.to_owned(), assets: vec![] };
        locked(&self.server.world).repos.entry(self.key.clone()).or_default().push(release);
        Published { repo: self.clone(), tag: tag.to_owned() }
    }
}

/// A release.
#[derive(Clone)]
pub struct Published<'a> {
    repo: Repo<'a>,
    tag: String,
}

impl<'a> Published<'a> {
    /// One more file.
    pub fn asset(self, name: &str, bytes: impl Into<Vec<u8>>) -> Self {
        self.add(name, bytes.into(), None)
    }

    /// One more file with which something goes wrong.
    pub fn faulty(self, name: &str, bytes: impl Into<Vec<u8>>, fault: Fault) -> Self {
        self.add(name, bytes.into(), Some(fault))
    }

    fn add(self, name: &str, bytes: Vec<u8>, fault: Option<Fault>) -> Self {
        let asset = Asset { name: name.to_owned(), bytes: Arc::new(bytes), fault, digest: false, asked: 0 };
        self.change(|release| {
            release.assets.retain(|a| a.name != asset.name);
            release.assets.push(asset.clone());
        });
        self
    }

    /// A list of the digests of all files so far, as `sha256sum` writes it.
    pub fn checksums(self, name: &str) -> Self {
        let mut list = String::new();
        self.change(|release| {
            list = release.assets.iter().map(|a| format!("{}  {}\n", sha256(&a.bytes), a.name)).collect();
        });
        self.asset(name, list)
    }

    /// The forge tells a digest of each file so far, as GitHub does.
    pub fn digests(self) -> Self {
        self.change(|release| release.assets.iter_mut().for_each(|a| a.digest = true));
        self
    }

    /// The repository, for another release.
    pub fn repo(&self) -> Repo<'a> {
        self.repo.clone()
    }

    fn change(&self, change: impl FnOnce(&mut Release)) {
        let mut world = locked(&self.repo.server.world);
        let releases = world.repos.get_mut(&self.repo.key).unwrap();
        change(releases.iter_mut().find(|r| r.tag == self.tag).unwrap());
    }
}

fn locked(world: &Mutex<World>) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One connection, request after request.
fn converse(stream: TcpStream, port: u16, world: &Mutex<World>) {
    let Ok(mut out) = stream.try_clone() else { return };
    let mut lines = BufReader::new(stream);
    while let Some(seen) = read_request(&mut lines) {
        locked(world).seen.push(seen.clone());
        if answer::answer(&mut out, &seen, port, world).is_err() {
            return;
        }
    }
}

fn read_request(lines: &mut impl BufRead) -> Option<Seen> {
    let mut first = String::new();
    lines.read_line(&mut first).ok().filter(|n| *n > 0)?;
    let path = first.split(' ').nth(1)?.to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        lines.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { return Some(Seen { path, headers }) };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
}
