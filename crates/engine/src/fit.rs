//! Whether a service fits here: what the machine itself must have, and what must lie beside it.
//!
//! It owns the refusal of an install that could never start (LM-125), and the placing of what a service's own code
//! rests on or needs. It refuses to know how anything is placed or started.

use std::collections::{BTreeMap, BTreeSet};

use wharf_core::{Ask, Declared, Goal, Unit};
use wharf_model::{ErrorKind, Failure, Requirement, UnitName, Vendor};
use wharf_services::{Beside, Context, Service, maker_of};

use crate::engine::{Engine, Shared};

/// Fails where this machine can never run it.
pub async fn machine(shared: &Shared, cx: &Context) -> Result<(), Failure> {
    let hint = "install it on a machine that has what it needs; `--policy requires=[]` says that you know better";
    let refused = |failure: Failure| {
        let mut failure = failure.about(&cx.unit);
        failure.message = format!("{} does not fit this machine: {}", cx.unit, failure.message);
        failure.hint(hint)
    };
    shared.hands.lacking(cx).map_err(refused)?;
    gpus(shared, cx).await.map_err(refused)
}

/// Fails where a GPU that it must have is not there: also before a start, since devices come and go.
pub async fn gpus(shared: &Shared, cx: &Context) -> Result<(), Failure> {
    for requirement in &cx.policy.requires {
        if let Requirement::Gpu(vendor) = requirement {
            gpu(shared, *vendor).await.map_err(|failure| failure.about(&cx.unit))?;
        }
    }
    Ok(())
}

async fn gpu(shared: &Shared, vendor: Vendor) -> Result<(), Failure> {
    let inventory = shared.eye.refresh().await;
    if inventory.devices.iter().any(|device| device.vendor == vendor) {
        return Ok(());
    }
    let has: Vec<&str> = inventory.devices.iter().map(|device| device.name.as_str()).collect();
    let has = if has.is_empty() { "no GPU at all".into() } else { has.join(", ") };
    let text = format!("it needs a GPU of {}, and there is {has}", maker_of(vendor));
    Err(Failure::new(ErrorKind::Precondition, text).causes(inventory.problems.iter().cloned()))
}

/// A tool or a library has nothing that could be started.
pub fn can_start(name: &UnitName, service: &dyn Service) -> Result<(), Failure> {
    if !service.is_tool() {
        return Ok(());
    }
    let text = format!("{name} is placed for others to use, and has nothing to start");
    Err(Failure::new(ErrorKind::Precondition, text)
        .hint(format!("`wharf inspect {name}` says where its programs are"))
        .about(name))
}

/// What a unit needs and rests on, as it is now.
pub fn beside(shared: &Shared, unit: &Unit) -> BTreeMap<UnitName, Beside> {
    let rests_on = shared.service(&unit.name).map(|service| named(service.rests_on())).unwrap_or_default();
    if rests_on.is_empty() && unit.policy.needs.is_empty() {
        return BTreeMap::new();
    }
    let world = shared.world.load();
    let needs = unit.policy.needs.iter().map(|need| need.unit.clone());
    let known = needs.chain(rests_on).filter_map(|name| world.get(&name).cloned());
    let seen = |other: &Unit| {
        let fixed = other.fixed_ports().map(|(name, number)| (name.to_owned(), number)).collect();
        let ports = if other.life.run().is_some() { other.ports.clone() } else { fixed };
        Beside { ports, installed: other.installed.clone() }
    };
    known.map(|other| (other.name.clone(), seen(&other))).collect()
}

fn named(services: &[&str]) -> Vec<UnitName> {
    services.iter().filter_map(|name| UnitName::new(name, None).ok()).collect()
}

impl Engine {
    /// Places what a service's own code rests on and needs, and what those do: an install or a start takes them along.
    /// What an operator's policy needs stays the operator's business.
    pub(crate) async fn place_beside(&self, service: &dyn Service, declared: &Declared) -> Result<(), Failure> {
        let of = |service: &dyn Service, declared: &Declared| {
            let policy = service.policy(&declared.with);
            let needs: Vec<UnitName> = policy.required().cloned().collect();
            needs.into_iter().chain(named(service.rests_on())).collect::<Vec<_>>()
        };
        let (mut todo, mut seen) = (of(service, declared), BTreeSet::new());
        while let Some(name) = todo.pop() {
            if !seen.insert(name.clone()) || self.unit(&name).is_some_and(|unit| unit.is_placed()) {
                continue;
            }
            let Ok(service) = self.shared.service(&name) else { continue };
            let declared = self.declare(&name, &*service, None, None)?;
            todo.extend(of(&*service, &declared));
            let goal = Goal::Install { version: None, reset: false, from: None };
            self.ask(Ask { unit: name, goal, declared: Some(declared), wait: true, force: false }).await?;
        }
        Ok(())
    }
}
