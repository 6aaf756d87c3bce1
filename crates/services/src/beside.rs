//! Other services of this machine, as a service that needs them sees them.
//!
//! It owns what may be known of them: where they listen and where they are placed. It refuses to change them.

use std::collections::BTreeMap;

use wharf_model::{ErrorKind, Failure, Installed, UnitName};

use crate::{Context, Result};

/// A unit that another one needs, or whose files it uses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Beside {
    /// Where it listens, or will.
    pub ports: BTreeMap<String, u16>,
    /// What is placed of it.
    pub installed: Option<Installed>,
}

impl Context {
    /// The port of a unit that it needs, as that one runs now.
    pub fn port_of(&self, unit: &str, port: &str) -> Result<u16> {
        let named = self.beside.iter().find(|(other, _)| other.as_str() == unit);
        let found = named.and_then(|(_, other)| other.ports.get(port).copied());
        found.filter(|number| *number != 0).ok_or_else(|| {
            Failure::new(ErrorKind::Precondition, format!("{} needs {unit}, which has no port {port:?} yet", self.unit))
                .hint(format!("wharf start {unit}"))
                .about(&self.unit)
        })
    }

    /// What is placed of a service whose files it uses.
    pub fn placed_of(&self, service: &str) -> Result<&Installed> {
        let named = |unit: &UnitName| unit.instance().is_none() && unit.service() == service;
        let found = self.beside.iter().find(|(unit, _)| named(unit)).and_then(|(_, other)| other.installed.as_ref());
        found.ok_or_else(|| {
            Failure::new(ErrorKind::Precondition, format!("{} uses {service}, which is not placed", self.unit))
                .hint(format!("place it: wharf install {service}"))
                .about(&self.unit)
        })
    }
}
