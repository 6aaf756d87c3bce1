//! From a name to a service: unknown ones get the name that was perhaps meant.

use std::sync::Arc;

use wharf_model::{ErrorKind, Failure, UnitName};
use wharf_services::{Catalogue, Service};

use crate::manifests::Manifests;

/// The service of a unit, or a failure that helps.
pub fn resolve<'a>(
    catalogue: &'a Catalogue,
    manifests: &Manifests,
    unit: &UnitName,
) -> Result<&'a Arc<dyn Service>, Failure> {
    let Some(service) = catalogue.get(unit.service()) else {
        return Err(unknown(catalogue, manifests, unit));
    };
    let instances = service.facts().instances;
    if unit.instance().is_none() && !instances.is_empty() {
        let names: Vec<String> = instances.iter().map(|i| format!("{}@{i}", unit.service())).collect();
        return Err(Failure::new(ErrorKind::NotFound, format!("{unit} runs as instances"))
            .hint(format!("name one: {}", names.join(", ")))
            .about(unit));
    }
    if unit.instance().is_none() && service.takes_manifests() {
        return Err(Failure::new(ErrorKind::NotFound, format!("{unit} is a template: its units are {unit}@NAME"))
            .hint(format!("wharf start {unit}@NAME --with folder=DIR, where DIR has a service.yaml of that name"))
            .about(unit));
    }
    if unit.instance().is_none() && unit.service() == "command" {
        return Err(Failure::new(ErrorKind::NotFound, "command is a template: its units are command@NAME")
            .hint("wharf run --name web -- ./server makes command@web")
            .about(unit));
    }
    Ok(service)
}

fn unknown(catalogue: &Catalogue, manifests: &Manifests, unit: &UnitName) -> Failure {
    let described = unit.instance().is_none() && manifests.get(unit.service()).is_some();
    let of_manifests = catalogue.iter().find(|service| described && service.takes_manifests());
    if let Some(service) = of_manifests {
        let name = service.facts().name;
        return Failure::new(
            ErrorKind::NotFound,
            format!("{unit} is what a manifest is called: its unit is {name}@{unit}"),
        )
        .hint(format!("did you mean {name}@{unit}?"))
        .about(unit);
    }
    let near = catalogue
        .names()
        .map(|n| (strsim::damerau_levenshtein(n, unit.service()), n))
        .filter(|(d, n)| *d <= n.len().max(3) / 3)
        .min();
    let hint = match (near, unit.instance()) {
        (Some((_, name)), None) => format!("did you mean {name}?"),
        (Some((_, name)), Some(instance)) => format!("did you mean {name}@{instance}?"),
        (None, _) => {
            "wharf list shows the services that there are; wharf run makes a unit of any program; a new executable of \
             your own is known after `wharf discover --own`"
                .to_owned()
        }
    };
    Failure::new(ErrorKind::NotFound, format!("there is no service {:?}", unit.service())).hint(hint).about(unit)
}

/// Every unit that the catalogue knows by name without anybody having made it.
pub fn known_units(catalogue: &Catalogue, manifests: &Manifests) -> Vec<UnitName> {
    let mut names = vec![];
    for service in catalogue.iter() {
        let facts = service.facts();
        if service.takes_manifests() {
            names.extend(manifests.units(&facts.name));
        }
        if facts.name == "command" || service.takes_manifests() {
            continue;
        }
        if facts.instances.is_empty() {
            names.extend(UnitName::new(&facts.name, None).ok());
        }
        names.extend(facts.instances.iter().filter_map(|i| UnitName::new(&facts.name, Some(i)).ok()));
    }
    names
}
