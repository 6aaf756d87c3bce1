//! A git repository, brought to one commit in the cache by the machine's own git.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use wharf_model::{ErrorKind, Failure};
use wharf_services::Output;

use super::{Job, fault, place::unplaced, tool_failed};
use crate::tool::Tool;

/// A repository at one commit.
pub(super) struct Checkout {
    pub folder: PathBuf,
    pub commit: String,
}

/// Brings one commit of a repository into the cache. What is there of an earlier time is used, and made anew where an
/// interrupted git has left it damaged.
pub(super) async fn check_out(job: &Job<'_>, url: &str, rev: Option<&str>) -> Result<Checkout, Failure> {
    let rev = rev.unwrap_or("HEAD");
    let repo = Repo::new(job, url, rev)?;
    let output = match repo.begin(false).await {
        Ok(()) => repo.fetch(job).await?,
        Err(_) => {
            repo.begin(true).await?;
            repo.fetch(job).await?
        }
    };
    if output.code != 0 {
        return Err(tool_failed(&format!("git could not fetch {url} at {rev}"), &output, 20)
            .hint(format!("is it there? `git ls-remote {url}` shows its tags and branches")));
    }
    fault::point("install.downloading");
    if repo.check_out().await.is_err() {
        repo.begin(true).await?;
        repo.fetch(job).await?;
        repo.check_out().await?;
    }
    let commit = repo.must(&["rev-parse", "HEAD"]).await?.stdout.trim().to_owned();
    job.say(format!("{url} at {rev} is commit {commit}"));
    Ok(Checkout { folder: repo.folder, commit })
}

/// The owner and the name in a repository's address.
pub(super) fn owner_and_name(url: &str) -> Option<(String, String)> {
    let path = url.trim_end_matches('/').trim_end_matches(".git");
    let mut parts = path.rsplit(['/', ':']).filter(|part| !part.is_empty() && !matches!(*part, "." | ".."));
    let name = parts.next()?.to_owned();
    Some((parts.next().unwrap_or_default().to_owned(), name))
}

struct Repo<'a> {
    program: PathBuf,
    folder: PathBuf,
    url: &'a str,
    rev: &'a str,
}

impl<'a> Repo<'a> {
    fn new(job: &Job<'_>, url: &'a str, rev: &'a str) -> Result<Self, Failure> {
        // `ext::` and its like would run commands; a leading dash would be an option.
        let is_sound = !url.contains("::") && !url.starts_with("http://") && !url.starts_with("git://");
        if !is_sound || url.starts_with('-') || rev.starts_with('-') {
            let text = format!("{url} at {rev} is not fetched: only https, ssh and folders of this machine are");
            return Err(Failure::new(ErrorKind::InvalidParams, text).hint("name it as https://HOST/OWNER/NAME"));
        }
        let program = crate::which::first("git").ok_or_else(|| {
            Failure::new(ErrorKind::Precondition, "git was not found in PATH").hint("install it: apt-get install git")
        })?;
        Ok(Self { program, folder: job.cache.join("src").join(&job.plan.service), url, rev })
    }

    fn git(&self, args: &[&str]) -> Tool {
        // Nobody is there to answer a question.
        Tool::new(&self.program)
            .set("GIT_TERMINAL_PROMPT", "0")
            .set("LC_ALL", "C.UTF-8")
            .cwd(&self.folder)
            .args(args.iter().copied())
            .limit(Duration::from_secs(1_800))
    }

    async fn must(&self, args: &[&str]) -> Result<Output, Failure> {
        let output = self.git(args).output().await?;
        match output.code {
            0 => Ok(output),
            _ => Err(tool_failed(&format!("git could not {} {}", args[0], self.url), &output, 20)),
        }
    }

    /// An empty repository, or the one that is there.
    async fn begin(&self, anew: bool) -> Result<(), Failure> {
        if anew {
            fs::remove_dir_all(&self.folder).map_err(|e| unplaced(&self.folder, e))?;
        }
        fs::create_dir_all(&self.folder).map_err(|e| unplaced(&self.folder, e))?;
        if Path::new(&self.folder.join(".git/HEAD")).is_file() {
            for lock in ["index.lock", "shallow.lock", "HEAD.lock"] {
                // Only an install works here, and one at a time.
                let _ = fs::remove_file(self.folder.join(".git").join(lock));
            }
            return Ok(());
        }
        self.must(&["init", "--quiet", "."]).await.map(drop)
    }

    async fn fetch(&self, job: &Job<'_>) -> Result<Output, Failure> {
        let stage = format!("fetching {} at {}", self.url, self.rev);
        let shallow = ["fetch", "--quiet", "--force", "--depth", "1", "--", self.url, self.rev];
        let output = job.run(&stage, self.git(&shallow)).await?;
        let is_commit = self.rev.len() >= 7 && self.rev.bytes().all(|b| b.is_ascii_hexdigit());
        if output.code == 0 || !is_commit {
            return Ok(output);
        }
        // Not every server hands out a single commit: everything then, and the commit is taken from it.
        let all = ["fetch", "--quiet", "--force", "--tags", "--", self.url, "+refs/heads/*:refs/remotes/all/*"];
        job.run(&stage, self.git(&all)).await
    }

    async fn check_out(&self) -> Result<(), Failure> {
        // A whole fetch leaves some branch in FETCH_HEAD; the commit's own name is exact where it is known.
        let commit = format!("{}^{{commit}}", self.rev);
        let is_hex = self.rev.len() >= 7 && self.rev.bytes().all(|b| b.is_ascii_hexdigit());
        let is_known = is_hex && self.git(&["rev-parse", "--verify", "--quiet", &commit]).output().await?.code == 0;
        let at = if is_known { self.rev } else { "FETCH_HEAD" };
        self.must(&["checkout", "--quiet", "--force", "--detach", at]).await?;
        self.must(&["clean", "--quiet", "-ffdx"]).await?;
        if self.folder.join(".gitmodules").is_file() {
            self.must(&["submodule", "update", "--quiet", "--init", "--recursive", "--depth", "1"]).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_owner_and_repository() {
        let of = |url: &str| owner_and_name(url).map(|(owner, name)| format!("{owner} {name}"));
        assert_eq!(of("https://codeberg.org/them/thing.git").as_deref(), Some("them thing"));
        assert_eq!(of("git@host:them/thing").as_deref(), Some("them thing"));
        assert_eq!(of("/srv/code/thing/").as_deref(), Some("code thing"));
        assert_eq!(of("https://host/../..").as_deref(), Some("https host"), "no way up");
    }
}
