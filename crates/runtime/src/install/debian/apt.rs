//! apt with lists, archives and caches of Wharf's own.
//!
//! It owns how apt is called. What is asked of it, and why, is not known here.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use wharf_model::Failure;
use wharf_services::Output;

use crate::{
    install::{Job, pip::text, place::unplaced, tool_failed},
    tool::Tool,
};

/// How old the lists may be.
const LISTS_AGE: Duration = Duration::from_secs(24 * 3_600);
/// The hooks of the machine are for the machine's own state: they empty its caches and wake its services.
const CONFIGURATION: &str = r#"#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear APT::Install::Pre-Invoke;
#clear APT::Install::Post-Invoke-Success;
#clear DPkg::Pre-Invoke;
#clear DPkg::Post-Invoke;
#clear DPkg::Pre-Install-Pkgs;
Dir::State::lists "FOLDER/lists";
Dir::Cache "FOLDER/cache";
Dir::Cache::pkgcache "pkgcache.bin";
Dir::Cache::srcpkgcache "srcpkgcache.bin";
Dir::Log "FOLDER/log";
APT::Sandbox::User "root";
Debug::NoLocking "1";
Acquire::Languages "none";
Acquire::Retries "1";
Acquire::http::Timeout "15";
Acquire::https::Timeout "15";
"#;

/// apt with folders of Wharf's own.
pub struct Apt {
    pub folder: PathBuf,
}

impl Apt {
    pub fn archives(&self) -> PathBuf {
        self.folder.join("archives")
    }

    /// Its age is that of the lists.
    fn refreshed(&self) -> PathBuf {
        self.folder.join("refreshed")
    }

    pub fn tool(&self, program: &str) -> Tool {
        Tool::new(program)
            .args(["-c".to_owned(), text(&self.configuration())])
            .set("LC_ALL", "C")
            .set("DEBIAN_FRONTEND", "noninteractive")
            .limit(Duration::from_secs(1_800))
    }

    fn configuration(&self) -> PathBuf {
        self.folder.join("apt.conf")
    }

    /// Makes the folders, and the configuration that is read after the machine's.
    pub fn prepare(&self) -> Result<(), Failure> {
        for sub in ["lists/partial", "cache/archives/partial", "log", "archives"] {
            let folder = self.folder.join(sub);
            fs::create_dir_all(&folder).map_err(|e| unplaced(&folder, e))?;
        }
        let path = self.configuration();
        let text = CONFIGURATION.replace("FOLDER", &text(&self.folder));
        fs::write(&path, text).map_err(|e| unplaced(&path, e))
    }

    /// Fetches the lists anew where they are old. Old ones do where the archive is out of reach.
    pub async fn refresh(&self, job: &Job<'_>) -> Result<(), Failure> {
        let mark = self.refreshed();
        let age = fs::metadata(&mark)
            .and_then(|m| m.modified())
            .ok()
            .and_then(|at| SystemTime::now().duration_since(at).ok());
        if age.is_some_and(|age| age < LISTS_AGE) && !job.plan.reset {
            return Ok(());
        }
        job.say("fetching the package lists");
        let output = self.tool("apt-get").args(["update"]).output().await?;
        let whole = output.code == 0 && !output.stderr.contains("Failed to fetch");
        if whole {
            return fs::write(&mark, "").map_err(|e| unplaced(&mark, e));
        }
        // One broken source among several must not stop the others; whether it matters, the next step shows.
        let has_lists = fs::read_dir(self.folder.join("lists"))
            .is_ok_and(|mut all| all.any(|e| e.is_ok_and(|e| e.file_name().to_string_lossy().contains("_Packages"))));
        if has_lists { Ok(()) } else { Err(tool_failed("apt could not fetch the package lists", &output, 20)) }
    }

    /// What a choice rests on: the lists, what the machine has, and what is asked for.
    pub fn basis(&self, packages: &[String]) -> String {
        let at = |path: &Path| fs::metadata(path).and_then(|m| m.modified()).ok();
        let (lists, status) = (at(&self.refreshed()), at(Path::new("/var/lib/dpkg/status")));
        format!("{packages:?} {lists:?} {status:?}")
    }

    pub async fn ask(&self, program: &str, args: &[&str]) -> Result<Output, Failure> {
        self.tool(program).args(args.iter().copied()).output().await
    }

    /// The index's records of these packages: `NAME` for the candidate, `NAME=VERSION` for another.
    pub async fn records<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Result<Vec<Record>, Failure> {
        let mut args = vec!["show", "--no-all-versions"];
        args.extend(names);
        // It exits with an error when one is unknown, and prints the others.
        Ok(if args.len() == 2 { vec![] } else { records(&self.ask("apt-cache", &args).await?.stdout) })
    }
}

pub type Record = BTreeMap<String, String>;

pub fn records(text: &str) -> Vec<Record> {
    let field = |line: &str| line.split_once(": ").map(|(k, v)| (k.to_owned(), v.trim().to_owned()));
    text.split("\n\n")
        .map(|stanza| stanza.lines().filter(|l| !l.starts_with(' ')).filter_map(field).collect::<Record>())
        .filter(|record| !record.is_empty())
        .collect()
}
