//! A service's command with everything around it: whose it is, its program, environment and folders, and what must hold
//! before it is run.

use std::{
    fs,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::Duration,
};

use wharf_model::{ErrorKind, Failure, Requirement};
use wharf_services::{Command, Context, Output};

use super::RealHands;
use crate::{
    account::Account,
    environment::{self, Base},
    gpu, requirements,
    tool::Tool,
    which,
};

/// A program that is asked for its version may take this long.
const VERSION_MS: u64 = 5_000;

impl RealHands {
    /// Whom a command runs as; `None`: as Wharf itself.
    pub(super) fn account(&self, cx: &Context, command: &Command) -> Result<Option<Account>, Failure> {
        match &cx.policy.run_as {
            // Whoever installs is Wharf, unless the service's code says otherwise.
            Some(named) if cx.run.is_some() || command.unprivileged => Account::of_policy(named),
            Some(_) | None if command.unprivileged => self.services_user.clone(),
            Some(_) | None => Ok(None),
        }
    }

    /// A command as a program with everything around it.
    pub(super) async fn resolve(&self, cx: &Context, command: &Command, base: Base) -> Result<Resolved, Failure> {
        let cwd = command.cwd.clone().unwrap_or_else(|| cx.dirs.data.clone());
        let account = self.account(cx, command)?;
        let program = program(cx, command, &cwd)?;
        let mut env = environment::build(cx, command, account.as_ref(), base)?;
        env.extend(cx.gpus.iter().filter_map(|devices| gpu::simulated_environment(&self.layout, devices)));
        if let Some(run) = cx.run {
            env.extend(self.credentials.variables(run, &cx.policy.secrets));
        }
        let (dirs, who, reached) = (cx.dirs.clone(), account.clone(), program.clone());
        let at = cwd.clone();
        // Without another user it is a look at two folders; to give away a tree takes its time.
        let is_quick = who.is_none();
        let prepare = move || {
            for folder in [&dirs.data, &dirs.run] {
                own_folder(folder, who.as_ref())?;
            }
            if !at.is_dir() {
                let text = format!("the working folder {} does not exist", at.display());
                return Err(Failure::new(ErrorKind::Precondition, text).hint("make it, or name another"));
            }
            who.map_or(Ok(()), |who| who.can_reach(&reached).and_then(|()| who.can_reach(&at.join("."))))
        };
        if is_quick {
            prepare()?;
        } else {
            let prepared = tokio::task::spawn_blocking(prepare).await;
            prepared.map_err(|e| Failure::new(ErrorKind::Internal, e.to_string()))??;
        }
        Ok(Resolved { program, env: env.into_iter().collect(), cwd, account })
    }

    pub(super) async fn check_requirements(
        &self,
        cx: &Context,
        command: &Command,
        env: &[(String, String)],
    ) -> Result<(), Failure> {
        let variable = |name: &str| env.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone());
        for requirement in &cx.policy.requires {
            if let Requirement::Version { program, at_least } = requirement {
                let asked = Command { program: program.clone(), args: vec!["--version".into()], ..command.clone() };
                let asked = Command { limit_ms: VERSION_MS, ..asked };
                let said = self.run_to_end(cx, asked, Base::Clean).await.map_err(|f| {
                    Failure::new(ErrorKind::Precondition, format!("{program} cannot be asked for its version: {f}"))
                        .hint(format!("install {program} {at_least} or newer"))
                })?;
                let said = format!("{}\n{}", said.stdout, said.stderr);
                requirements::too_old(program, at_least, &said).map_or(Ok(()), Err)?;
            }
            requirements::missing(requirement, variable).map_or(Ok(()), Err)?;
        }
        Ok(())
    }

    /// The policy's preflight, in the unit's own surroundings.
    pub(super) async fn preflight(&self, cx: &Context, command: &Command) -> Result<(), Failure> {
        let Some((program, args)) = cx.policy.preflight.split_first() else { return Ok(()) };
        let limit_ms = cx.policy.start_timeout_ms;
        let check = Command { program: program.clone(), args: args.to_vec(), limit_ms, ..command.clone() };
        let out = self.run_to_end(cx, check, Base::Clean).await?;
        if out.code == 0 {
            return Ok(());
        }
        let said = if out.stderr.trim().is_empty() { &out.stdout } else { &out.stderr };
        let tail: Vec<String> = said.lines().rev().take(10).map(str::to_owned).collect();
        let text = format!("its preflight {program} exited with code {}", out.code);
        Err(Failure::new(ErrorKind::ServiceFailed, text)
            .hint("run it by hand to see why; `--policy preflight=null` starts without it")
            .causes(tail.into_iter().rev()))
    }

    pub(super) async fn run_to_end(&self, cx: &Context, command: Command, base: Base) -> Result<Output, Failure> {
        let resolved = self.resolve(cx, &command, base).await?;
        Tool {
            program: resolved.program,
            args: command.args,
            env: Some(resolved.env.into_iter().collect()),
            set: vec![],
            cwd: Some(resolved.cwd),
            run_as: resolved.account,
            limit: Duration::from_millis(command.limit_ms),
            stdin: command.stdin,
            heard: None,
        }
        .output()
        .await
    }
}

/// What is run, and around it.
pub(super) struct Resolved {
    pub(super) program: PathBuf,
    pub(super) env: Vec<(String, String)>,
    pub(super) cwd: PathBuf,
    pub(super) account: Option<Account>,
}

/// An installed binary, a path, or a name in PATH.
fn program(cx: &Context, command: &Command, cwd: &Path) -> Result<PathBuf, Failure> {
    let name = command.program.as_str();
    let placed = cx.installed.as_ref().and_then(|i| i.binaries.get(name)).cloned();
    let (found, place) = match placed {
        Some(path) => (Some(path), "in the store"),
        // A relative path is relative to the working folder, as for a shell that stands there.
        None if name.contains('/') => (Some(cwd.join(name)), "there"),
        None => (which::first(name), "in PATH"),
    };
    found.filter(|path| which::is_runnable(path)).ok_or_else(|| {
        Failure::new(ErrorKind::Precondition, format!("{name:?} is no program that can be run {place}"))
            .hint(match place {
                "in the store" => {
                    format!("what was placed is damaged; place it again: wharf install {} --reset", cx.unit)
                }
                _ => format!("install it, or correct its name: `command -v {name}` should find it"),
            })
            .about(&cx.unit)
    })
}

/// Makes a unit's folder, and gives it to whom it serves.
fn own_folder(folder: &Path, who: Option<&Account>) -> Result<(), Failure> {
    if !folder.is_dir() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    match who {
        None => Ok(()),
        Some(who) => {
            who.can_reach(folder)?;
            who.own_tree(folder)
        }
    }
}
