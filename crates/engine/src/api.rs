//! The sixteen methods: params become asks, the state becomes results.

use std::{path::Path, sync::Arc, time::Instant};

use async_trait::async_trait;
use serde_json::{Value, value::RawValue};
use tokio::sync::broadcast::error::RecvError;
use wharf_api::*;
use wharf_core::{Ask, Goal, Removal, Unit};
use wharf_model::{ErrorKind, Failure, Health, Operation, Phase, UnitName};
use wharf_services::{PortChoice, Service, described};

use crate::{
    acts,
    engine::Engine,
    fit, names, redaction,
    report::{self, now_seconds, seconds},
    turn, verify,
};

type Answer<T> = Result<T, Failure>;

impl Engine {
    fn service(&self, name: &UnitName) -> Answer<Arc<dyn Service>> {
        self.shared.service(name)
    }

    /// What takes new room on the disk is refused while the reserve is gone.
    pub(crate) async fn with_room(&self, name: &UnitName, verb: &str) -> Answer<()> {
        if self.room().await {
            return Ok(());
        }
        Err(Failure::new(
            ErrorKind::Storage,
            format!("could not {verb} {name}: the disk of the state database is full"),
        )
        .hint("free some space; stop, status and logs work meanwhile")
        .about(name))
    }

    /// Asks, tells the caller how far it is where it listens, and waits.
    pub(crate) async fn operate(&self, caller: &Caller, ask: Ask) -> Answer<Operation> {
        let Some(stream) = caller.stream.clone() else { return self.ask(ask).await };
        let name = ask.unit.clone();
        let mut progress = self.shared.progress.subscribe();
        let mut answer = std::pin::pin!(self.ask(ask));
        loop {
            tokio::select! {
                answer = &mut answer => return answer,
                news = progress.recv() => match news {
                    Ok((unit, p)) if unit == name => {
                        let row = ProgressRow { name: unit, stage: p.stage, done: p.done, total: p.total };
                        if let Ok(params) = serde_json::value::to_raw_value(&row) {
                            // A slow reader misses a step, and sees the next one.
                            let _ = stream.try_send(Notification { method: "service.progress", params });
                        }
                    }
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return answer.await,
                },
            }
        }
    }

    /// The unit after an operation; a delete may have followed it already.
    pub(crate) fn after(&self, name: &UnitName) -> Answer<Arc<Unit>> {
        self.unit(name)
            .ok_or_else(|| Failure::new(ErrorKind::Conflict, format!("{name} was deleted meanwhile")).about(name))
    }

    pub(crate) fn unit_or_blank(&self, name: &UnitName) -> Answer<Arc<Unit>> {
        if let Some(unit) = self.unit(name) {
            return Ok(unit);
        }
        let service = self.service(name)?;
        let declared = self.declare(name, &*service, None, None).ok();
        Ok(Arc::new(Unit::blank(name.clone(), declared)))
    }

    pub(crate) fn status_of(&self, name: &UnitName) -> Answer<Status> {
        match self.unit(name) {
            // A unit whose service this Wharf has lost is still a unit.
            Some(unit) => Ok(report::status(&unit, self.shared.catalogue.load().get(name.service()).map(|s| &**s))),
            None => {
                let service = self.service(name)?;
                if name.service() == "command" {
                    return Err(Failure::new(ErrorKind::NotFound, format!("there is no unit {name}"))
                        .hint(format!("wharf run --name {} -- PROGRAM makes it", name.instance().unwrap_or("web")))
                        .about(name));
                }
                if service.takes_manifests() {
                    self.shared.manifests.knows(name)?;
                }
                let with = self.shared.manifests.parameters(name, &*service).unwrap_or_default();
                Ok(report::status_unmade(name, &*service, &with))
            }
        }
    }

    fn recent_ops(&self, name: &UnitName) -> Vec<Operation> {
        self.unit(name).map(|u| u.ops.iter().rev().take(5).cloned().collect()).unwrap_or_default()
    }
}

fn millis(since: Instant) -> u64 {
    since.elapsed().as_millis() as u64
}

/// A file is named by its whole path, since the daemon is elsewhere, and instead of a download.
pub(crate) fn can_be_placed_from(from: &Path, mode: Mode, service: &dyn Service) -> Answer<()> {
    let refused = |text: &str, hint: &str| Err(Failure::new(ErrorKind::InvalidParams, text).hint(hint));
    if mode == Mode::Source {
        return refused("from: a file is not built", "leave `mode` out");
    }
    if !service.needs_install() {
        return refused("from: it has no program of its own", "leave `from` out");
    }
    if !from.is_absolute() {
        return refused("from: it is no whole path", "name the file from the root on: /tmp/x.tar.gz");
    }
    Ok(())
}

fn paths(unit: &Unit) -> Vec<String> {
    let binaries = unit.installed.iter().flat_map(|i| i.binaries.values());
    binaries.map(|p| p.display().to_string()).collect()
}

#[async_trait]
impl ServiceApi for Engine {
    async fn list(&self, _: &Caller, _: ListParams) -> Answer<Vec<ListRow>> {
        let world = self.world();
        let mut rows: Vec<ListRow> = world.values().map(|u| report::row(u)).collect();
        let catalogue = self.shared.catalogue.load_full();
        for name in names::known_units(&catalogue, &self.shared.manifests) {
            if !world.contains_key(&name)
                && let Some(service) = catalogue.get(name.service())
            {
                let status = if service.needs_install() { Phase::NotInstalled } else { Phase::Stopped };
                rows.push(ListRow { name, status, version_installed: None, healthy: None });
            }
        }
        rows.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(rows)
    }

    async fn inspect(&self, _: &Caller, p: NameParams) -> Answer<Inspection> {
        let status = self.status_of(&p.name)?;
        let service = self.service(&p.name)?;
        let unit = self.unit_or_blank(&p.name)?;
        let log_file = self.log_file(&p.name);
        let mut definition = described(&*service).await;
        definition.uses.retain(|other| *other != p.name.as_str());
        for wish in service.ports(&p.name, &Value::Null).unwrap_or_default() {
            // An instance has numbers of its own.
            if let (Some(port), PortChoice::Number(n)) =
                (definition.ports.iter_mut().find(|port| port.name == wish.name), wish.choice)
            {
                port.default = n;
            }
        }
        Ok(Inspection {
            definition,
            params_schema: service.params().schema().clone(),
            with: redaction::shown((*unit.with).clone()),
            policy: (*unit.policy).clone(),
            policy_changes: (*unit.changes).clone(),
            status,
            installed: unit.installed.clone(),
            data_dir: self.shared.layout.data(&p.name).display().to_string(),
            log_file,
            recent_ops: self.recent_ops(&p.name),
            name: p.name,
        })
    }

    async fn status(&self, _: &Caller, p: NameParams) -> Answer<Status> {
        self.status_of(&p.name)
    }

    async fn health(&self, _: &Caller, p: NameParams) -> Answer<HealthReport> {
        let status = self.status_of(&p.name)?;
        let (began, checked_at) = (Instant::now(), now_seconds());
        let health = match (self.unit(&p.name), status.state.is_live()) {
            (Some(unit), true) => acts::probe(&self.shared, &self.shared.context(&unit)).await,
            (Some(_) | None, _) => Health::unhealthy(format!("it is {}", status.state)),
        };
        Ok(HealthReport {
            healthy: health.verdict == wharf_model::Verdict::Healthy,
            verdict: health.verdict,
            detail: health.detail,
            state: status.state,
            checked_at,
            duration_ms: began.elapsed().as_secs_f64() * 1000.0,
            name: p.name,
        })
    }

    async fn build(&self, caller: &Caller, p: BuildParams) -> Answer<Outcome<BuildReport>> {
        let service = self.service(&p.name)?;
        let declared = Some(self.declare(&p.name, &*service, p.with, None)?);
        let began = Instant::now();
        if service.facts().build.is_none() {
            let note = format!("nothing to build: {} comes ready made", p.name.service());
            let report = BuildReport { name: p.name, installed_paths: vec![], version: None, duration_ms: 0, note };
            return Ok(Outcome::Done(report));
        }
        self.with_room(&p.name, "build").await?;
        let ask = Ask {
            unit: p.name.clone(),
            goal: Goal::Build { version: p.version },
            declared,
            wait: p.wait,
            force: false,
        };
        let operation = self.operate(caller, ask).await?;
        if !p.wait {
            return Ok(Outcome::Begun(Begun { operation }));
        }
        let unit = self.after(&p.name)?;
        Ok(Outcome::Done(BuildReport {
            installed_paths: paths(&unit),
            version: unit.installed.as_ref().map(|i| i.version.clone()),
            duration_ms: millis(began),
            note: format!("built by: {}", service.facts().build.unwrap_or_default()),
            name: p.name,
        }))
    }

    async fn install(&self, caller: &Caller, p: InstallParams) -> Answer<Outcome<InstallReport>> {
        let service = self.service(&p.name)?;
        let with = self.with_manifest(&p.name, &*service, p.with).await?;
        let declared = Some(self.declare(&p.name, &*service, with, p.policy)?);
        if p.mode == Mode::Source {
            self.can_be_built(&p.name)?;
        }
        if let Some(from) = &p.from {
            can_be_placed_from(from, p.mode, &*service).map_err(|f| f.about(&p.name))?;
        }
        self.with_room(&p.name, "install").await?;
        if let Some(declared) = &declared {
            self.place_beside(&*service, declared).await?;
        }
        let began = Instant::now();
        let goal = match p.mode {
            Mode::Source => Goal::Build { version: p.version },
            Mode::Download => Goal::Install { version: p.version, reset: p.reset, from: p.from },
        };
        let operation =
            self.operate(caller, Ask { unit: p.name.clone(), goal, declared, wait: p.wait, force: false }).await?;
        if !p.wait {
            return Ok(Outcome::Begun(Begun { operation }));
        }
        let unit = self.after(&p.name)?;
        let installed = unit.installed.as_ref();
        Ok(Outcome::Done(InstallReport {
            version: installed.map(|i| i.version.clone()),
            digest: installed.map(|i| i.digest.clone()),
            source: installed.map_or_else(|| "built-in".into(), |i| i.source.clone()),
            installed_paths: paths(&unit),
            duration_ms: millis(began),
            warnings: verify::clashes(&self.shared, &unit),
            name: p.name,
        }))
    }

    async fn start(&self, caller: &Caller, p: StartParams) -> Answer<Outcome<StartReport>> {
        let service = self.service(&p.name)?;
        let with = self.with_manifest(&p.name, &*service, p.with).await?;
        if with.is_none() && p.policy.is_none() {
            // A template without parameters is no unit: that is said before any field is missed.
            self.status_of(&p.name)?;
        }
        let declared = self.declare(&p.name, &*service, with, p.policy)?;
        fit::can_start(&p.name, &*service)?;
        self.make_needed(&declared.policy).await?;
        if self.unit(&p.name).is_some_and(|unit| unit.is_placed()) {
            self.place_beside(&*service, &declared).await?;
        }
        let declared = Some(declared);
        if let Some(asked) = &p.version {
            let unit = self.unit(&p.name);
            let placed = unit.as_ref().and_then(|u| u.installed.as_ref()).map(|i| i.version.as_str());
            if placed != Some(asked) {
                let placed = placed.unwrap_or("none");
                let text = format!("{} is installed in version {placed}, not {asked}", p.name);
                return Err(Failure::new(ErrorKind::Conflict, text)
                    .hint(format!("wharf upgrade {} --version {asked}", p.name))
                    .about(&p.name));
            }
        }
        self.with_room(&p.name, "start").await?;
        let began = Instant::now();
        let goal = Goal::Start { reset: p.reset };
        let ask = Ask { unit: p.name.clone(), goal, declared, wait: p.wait, force: p.force };
        let operation = self.operate(caller, ask).await?;
        if !p.wait {
            return Ok(Outcome::Begun(Begun { operation }));
        }
        let unit = self.after(&p.name)?;
        Ok(Outcome::Done(StartReport {
            started_at: seconds(unit.started_at_ms.unwrap_or_else(turn::wall_ms)),
            pid: unit.life.pid(),
            ports: unit.ports.clone(),
            duration_ms: millis(began),
            name: p.name,
        }))
    }

    async fn stop(&self, caller: &Caller, p: StopParams) -> Answer<Outcome<StopReport>> {
        let name = p.name;
        self.status_of(&name)?;
        let began = Instant::now();
        let goal = Goal::Stop { keep_want: p.keep_want, retire: p.retire };
        let operation =
            self.operate(caller, Ask { unit: name.clone(), goal, declared: None, wait: p.wait, force: false }).await?;
        if !p.wait {
            return Ok(Outcome::Begun(Begun { operation }));
        }
        let last_exit = self.unit(&name).and_then(|u| u.last_exit.clone());
        Ok(Outcome::Done(StopReport { name, stopped_at: now_seconds(), last_exit, duration_ms: millis(began) }))
    }

    async fn restart(&self, caller: &Caller, p: RestartParams) -> Answer<Outcome<RestartReport>> {
        let service = self.service(&p.name)?;
        let declared = Some(self.declare(&p.name, &*service, None, None)?);
        self.with_room(&p.name, "restart").await?;
        let began = Instant::now();
        let ask = Ask { unit: p.name.clone(), goal: Goal::Restart, declared, wait: p.wait, force: p.force };
        let operation = self.operate(caller, ask).await?;
        if !p.wait {
            return Ok(Outcome::Begun(Begun { operation }));
        }
        let unit = self.after(&p.name)?;
        Ok(Outcome::Done(RestartReport {
            restarted_at: seconds(unit.started_at_ms.unwrap_or_else(turn::wall_ms)),
            pid: unit.life.pid(),
            restart_count: unit.restart_count,
            duration_ms: millis(began),
            name: p.name,
        }))
    }

    async fn delete(&self, caller: &Caller, p: DeleteParams) -> Answer<Outcome<DeleteReport>> {
        let name = p.name;
        if let Err(unknown) = self.status_of(&name)
            && !self.shared.layout.data(&name).exists()
        {
            return Err(unknown);
        }
        let service = self.service(&name);
        let placed = service.as_ref().map_or(true, |s| s.needs_install());
        service.map(drop).or_else(|f| if self.unit(&name).is_some() { Ok(()) } else { Err(f) })?;
        let goal = Goal::Delete(Removal { binaries: p.purge_binaries, data: p.purge_data });
        let operation =
            self.operate(caller, Ask { unit: name.clone(), goal, declared: None, wait: p.wait, force: false }).await?;
        if !p.wait {
            return Ok(Outcome::Begun(Begun { operation }));
        }
        let data = self.shared.layout.data(&name);
        let holds_data = std::fs::read_dir(&data).is_ok_and(|mut d| d.next().is_some());
        Ok(Outcome::Done(DeleteReport {
            deleted_at: now_seconds(),
            purged_binaries: p.purge_binaries && placed,
            purged_data: p.purge_data,
            data_kept_in: holds_data.then(|| data.display().to_string()),
            name,
        }))
    }

    async fn upgrade(&self, caller: &Caller, p: UpgradeParams) -> Answer<Outcome<UpgradeReport>> {
        let service = self.service(&p.name)?;
        if !service.needs_install() {
            self.status_of(&p.name)?;
            return Ok(Outcome::Done(UpgradeReport {
                name: p.name,
                from: None,
                to: None,
                changed: false,
                duration_ms: 0,
            }));
        }
        let declared = Some(self.declare(&p.name, &*service, None, None)?);
        self.with_room(&p.name, "upgrade").await?;
        let began = Instant::now();
        let from = self.version_of(&p.name);
        let goal = Goal::Upgrade { version: p.version };
        let operation =
            self.operate(caller, Ask { unit: p.name.clone(), goal, declared, wait: p.wait, force: false }).await?;
        if !p.wait {
            return Ok(Outcome::Begun(Begun { operation }));
        }
        let to = self.version_of(&p.name);
        let changed = from != to;
        Ok(Outcome::Done(UpgradeReport { name: p.name, from, to, changed, duration_ms: millis(began) }))
    }

    async fn verify(&self, _: &Caller, p: NameParams) -> Answer<VerifyReport> {
        self.status_of(&p.name)?;
        let unit = self.unit_or_blank(&p.name)?;
        let checks = verify::checks(&self.shared, &unit).await?;
        Ok(VerifyReport { ok: checks.iter().all(|c| c.ok), checks, name: p.name })
    }

    async fn logs(&self, caller: &Caller, p: LogsParams) -> Answer<LogsReport> {
        self.status_of(&p.name)?;
        self.read_logs(caller, p).await
    }

    async fn troubleshoot(&self, _: &Caller, p: TroubleshootParams) -> Answer<Troubleshooting> {
        let status = self.status_of(&p.name)?;
        let unit = self.unit_or_blank(&p.name)?;
        let count = p.lines.unwrap_or(50).min(1000) as usize;
        let log_tail = self.log_tail(&p.name, count).await;
        let findings = verify::findings(&self.shared, &unit, &status, &log_tail);
        let live = unit.life.run().and_then(|run| self.shared.hands.live(run));
        Ok(Troubleshooting {
            status,
            recent_ops: self.recent_ops(&p.name),
            log_tail,
            findings,
            processes: live.map(|l| l.pids()).unwrap_or_default(),
            name: p.name,
        })
    }

    async fn discover(&self, _: &Caller, _: ListParams) -> Answer<Document> {
        RawValue::from_string(SERVICE_DOCUMENT.trim_end().to_owned())
            .map(Document)
            .map_err(|e| Failure::new(ErrorKind::Internal, e.to_string()))
    }

    async fn daemon_health(&self, _: &Caller, _: ListParams) -> Answer<DaemonHealth> {
        let mut health = self.daemon();
        if !self.room().await {
            health.status = "degraded".into();
            health.problems.push("the disk of the state database is full: only stop, status and logs work".into());
        }
        Ok(health)
    }
}
