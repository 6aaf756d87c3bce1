//! `op.*`: operations of several steps, their way back, and giving one up.

use std::time::Instant;

use async_trait::async_trait;
use wharf_api::{
    Begun, Caller, Mode, OpList, OpListParams, Outcome, UpgradeReport,
    rpc::op::{CancelParams, DeployParams, DeployReport, OpApi, OpPlan, OpPlanParams, RollbackParams},
};
use wharf_core::{Ask, Goal};
use wharf_model::{ErrorKind, Failure, OpOutcome, Operation, UnitName};

use crate::{engine::Engine, fit, verify};

impl Engine {
    pub(crate) fn version_of(&self, name: &UnitName) -> Option<String> {
        Some(self.unit(name)?.installed.as_ref()?.version.clone())
    }

    /// A service whose programs can be compiled, or why not.
    pub(crate) fn can_be_built(&self, name: &UnitName) -> Result<(), Failure> {
        if self.shared.service(name)?.facts().build.is_some() {
            return Ok(());
        }
        Err(Failure::new(ErrorKind::InstallFailed, format!("{name} cannot be built from source"))
            .hint(format!("wharf install {name} --mode download"))
            .about(name))
    }
}

#[async_trait]
impl OpApi for Engine {
    async fn op_list(&self, _: &Caller, p: OpListParams) -> Result<OpList, Failure> {
        self.listed(p).await
    }

    async fn op_cancel(&self, _: &Caller, p: CancelParams) -> Result<Operation, Failure> {
        self.cancel(p.op).await
    }

    async fn op_plan(&self, _: &Caller, p: OpPlanParams) -> Result<OpPlan, Failure> {
        self.op_planned(p).await
    }

    async fn op_deploy(&self, caller: &Caller, p: DeployParams) -> Result<Outcome<DeployReport>, Failure> {
        let service = self.shared.service(&p.name)?;
        let build = p.mode == Mode::Source;
        if build {
            self.can_be_built(&p.name)?;
        }
        let with = self.with_manifest(&p.name, &*service, p.with).await?;
        let declared = self.declare(&p.name, &*service, with, None)?;
        fit::can_start(&p.name, &*service)?;
        self.with_room(&p.name, "deploy").await?;
        self.make_needed(&declared.policy).await?;
        self.place_beside(&*service, &declared).await?;
        let (began, from) = (Instant::now(), self.version_of(&p.name));
        let goal = Goal::Deploy { version: p.version, build };
        let ask = Ask { unit: p.name.clone(), goal, declared: Some(declared), wait: p.wait, force: false };
        let operation = self.operate(caller, ask).await?;
        if !p.wait {
            return Ok(Outcome::Begun(Begun { operation }));
        }
        let unit = self.after(&p.name)?;
        let checks = verify::checks(&self.shared, &unit).await?;
        Ok(Outcome::Done(DeployReport {
            from,
            to: unit.installed.as_ref().map(|i| i.version.clone()),
            pid: unit.life.pid(),
            ok: checks.iter().all(|c| c.ok),
            checks,
            duration_ms: began.elapsed().as_millis() as u64,
            name: p.name,
        }))
    }

    async fn op_rollback(&self, caller: &Caller, p: RollbackParams) -> Result<Outcome<UpgradeReport>, Failure> {
        self.status_of(&p.name)?;
        self.with_room(&p.name, "roll back").await?;
        let (began, from) = (Instant::now(), self.version_of(&p.name));
        let ask = Ask { unit: p.name.clone(), goal: Goal::Rollback, declared: None, wait: p.wait, force: false };
        let operation = self.operate(caller, ask).await?;
        if !p.wait {
            return Ok(Outcome::Begun(Begun { operation }));
        }
        let to = self.version_of(&p.name);
        let changed = operation.outcome == OpOutcome::Done;
        let duration_ms = began.elapsed().as_millis() as u64;
        Ok(Outcome::Done(UpgradeReport { name: p.name, from, to, changed, duration_ms }))
    }
}
