//! What an operation would come to: the service's own install is done with hands that only write down.
//!
//! It owns the reading of those notes. What it looks up it looks up as an install would; it places nothing, and asks the
//! core for nothing.

use std::{collections::BTreeSet, sync::Arc};

use wharf_api::{
    Mode,
    rpc::op::{OpPlan, OpPlanParams, PlacedRow},
};
use wharf_core::{Declared, Unit};
use wharf_model::{ErrorKind, Failure, OpKind, UnitName};
use wharf_services::{Context, Deed, InstallPlan, Recording, Service, Wanted};

use crate::{api::can_be_placed_from, engine::Engine};

/// What a service would have placed.
pub(crate) async fn placings(
    service: &dyn Service,
    cx: Context,
    want: &Wanted,
    build: bool,
) -> Result<Vec<InstallPlan>, Failure> {
    let notes = Arc::new(Recording::default());
    let cx = cx.with_hands(notes.clone());
    if build {
        service.build(&cx, want).await?;
    } else {
        service.install(&cx, want).await?;
    }
    let placed = |deed| match deed {
        Deed::Place(plan) => Some(plan),
        Deed::Exec(_)
        | Deed::Spawn(_)
        | Deed::Probe(_)
        | Deed::Signal(_)
        | Deed::Write { .. }
        | Deed::Secret(_)
        | Deed::VerifyPlaced
        | Deed::PlaceStaged { .. } => None,
    };
    Ok(notes.deeds().into_iter().filter_map(placed).collect())
}

impl Engine {
    pub(crate) async fn op_planned(&self, p: OpPlanParams) -> Result<OpPlan, Failure> {
        let service = self.shared.service(&p.name)?;
        let build = match (p.kind, p.mode) {
            (OpKind::Build, _) | (OpKind::Deploy, Mode::Source) => true,
            (OpKind::Install | OpKind::Upgrade | OpKind::Deploy | OpKind::Rollback, _) => false,
            (OpKind::Start | OpKind::Stop | OpKind::Restart | OpKind::Delete, _) => {
                let text = format!("{} places nothing, so there is nothing to plan", p.kind);
                return Err(Failure::new(ErrorKind::InvalidParams, text)
                    .hint("kind is install, build, upgrade, deploy or rollback"));
            }
        };
        if build {
            self.can_be_built(&p.name)?;
        }
        if let Some(from) = &p.from {
            if p.kind != OpKind::Install {
                let text = format!("from: {} takes no file", p.kind);
                return Err(Failure::new(ErrorKind::InvalidParams, text).hint("leave `from` out, or plan an install"));
            }
            can_be_placed_from(from, p.mode, service.as_ref())?;
        }
        let with = self.with_manifest(&p.name, &*service, p.with).await?;
        let declared = self.declare(&p.name, &*service, with, None)?;
        let unit = self.unit(&p.name);
        let blank = || Arc::new(Unit::blank(p.name.clone(), Some(declared.clone())));
        let shown = unit.clone().unwrap_or_else(blank);
        let from = shown.installed.clone();
        let mut places = vec![];
        if p.kind == OpKind::Rollback {
            let Some(previous) = &shown.previous else {
                return Err(Failure::new(
                    ErrorKind::Conflict,
                    format!("{} has no version before the present one", p.name),
                )
                .hint(format!("see what lies there: wharf versions {}", p.name.service()))
                .about(&p.name));
            };
            places.push(PlacedRow {
                service: p.name.service().to_owned(),
                source: "the store".into(),
                version: Some(previous.version.clone()),
                folder: previous.path.display().to_string(),
                is_there: previous.path.exists(),
                programs: previous.binaries.keys().cloned().collect(),
                note: None,
            });
        } else if service.needs_install() || build {
            let want = Wanted { version: p.version.clone(), from: p.from.clone(), ..Wanted::default() };
            let mut cx = self.shared.context(&shown);
            cx.with = declared.with.clone();
            for plan in placings(&*service, cx, &want, build).await? {
                places.push(self.row(plan).await);
            }
        }
        let first = if p.kind == OpKind::Rollback { vec![] } else { self.placed_first(&*service, &declared) };
        let to = places.last().and_then(|row| row.version.clone());
        let same = to.is_some()
            && places.last().is_some_and(|row| row.is_there)
            && to == from.as_ref().map(|i| i.version.clone());
        let runs = shown.is_wanted() && !shown.held && shown.life.run().is_some();
        let restarts = match p.kind {
            OpKind::Deploy => true,
            OpKind::Rollback => runs,
            OpKind::Upgrade => runs && !same,
            OpKind::Install | OpKind::Build | OpKind::Start | OpKind::Stop | OpKind::Restart | OpKind::Delete => false,
        };
        let falls_back_to = from.as_ref().filter(|_| restarts && !same).map(|i| i.version.clone());
        let mut plan = OpPlan {
            kind: p.kind,
            from: from.map(|i| i.version),
            to,
            places,
            first,
            restarts,
            falls_back_to,
            explain: vec![],
            name: p.name,
        };
        plan.explain = explain(&plan, runs);
        Ok(plan)
    }

    async fn row(&self, plan: InstallPlan) -> PlacedRow {
        let looked = self.shared.hands.look_up(&plan).await;
        let source = plan.source.to_string();
        let folder = self.shared.layout.store().join(&plan.service).display().to_string();
        let programs = plan.binaries.iter().map(|b| b.name.clone()).collect();
        let (version, is_there, note) = match looked {
            Ok(found) => (Some(found.version).filter(|v| !v.is_empty()), found.placed.is_some() && !plan.reset, None),
            Err(failure) => (None, false, Some(failure.message)),
        };
        PlacedRow { service: plan.service, source, version, folder, is_there, programs, note }
    }

    /// What an install takes along: what the service's own code rests on and needs, and is not there.
    fn placed_first(&self, service: &dyn Service, declared: &Declared) -> Vec<UnitName> {
        let policy = service.policy(&declared.with);
        let needs = policy.required().cloned();
        let rests_on = service.rests_on().iter().filter_map(|name| UnitName::new(name, None).ok());
        let all: BTreeSet<UnitName> = needs.chain(rests_on).collect();
        all.into_iter().filter(|name| !self.unit(name).is_some_and(|unit| unit.is_placed())).collect()
    }
}

fn explain(plan: &OpPlan, runs: bool) -> Vec<String> {
    let name = &plan.name;
    let mut said = vec![];
    for first in &plan.first {
        said.push(format!("{first} is placed first: {name} rests on it"));
    }
    for row in &plan.places {
        let version = row.version.as_deref().unwrap_or("a version that could not be looked up");
        said.push(match (&row.note, row.is_there) {
            (Some(note), _) => format!("{}: {} could not be looked up: {note}", row.service, row.source),
            (None, true) => format!("{} {version} lies in {} already: nothing is fetched", row.service, row.folder),
            (None, false) => format!("{} {version} is fetched: {}; into {}", row.service, row.source, row.folder),
        });
    }
    if plan.places.is_empty() {
        said.push(format!("nothing is placed: Wharf carries {name}"));
    }
    said.push(match (plan.restarts, runs) {
        (true, true) => format!("{name} is stopped and started"),
        (true, false) => format!("{name} is started"),
        (false, true) => format!("{name} runs on as it is"),
        (false, false) => format!("{name} does not run, and is not started"),
    });
    if let Some(old) = &plan.falls_back_to {
        said.push(format!("if it does not get ready, {old} comes back by itself"));
    }
    said
}
