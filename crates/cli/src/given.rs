//! Arguments that several verbs take.

use clap_complete::engine::ArgValueCompleter;
use serde_json::Value;
use wharf_api::Mode;
use wharf_model::UnitName;

use crate::{complete, trouble::Trouble};

/// One unit.
#[derive(Debug, clap::Args)]
pub(crate) struct Name {
    /// The unit: redis, python-api@vault
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(complete::units))]
    pub(crate) name: UnitName,
}

/// One unit or several, asked for at the same time.
#[derive(Debug, clap::Args)]
pub(crate) struct Names {
    /// The units: redis, python-api@vault
    #[arg(value_name = "NAME", required = true, add = ArgValueCompleter::new(complete::units))]
    pub(crate) names: Vec<UnitName>,
}

/// Whether an operation is waited for.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Wait {
    /// Answer when it has begun, not when it is done
    #[arg(long)]
    pub(crate) no_wait: bool,
}

/// Where a program comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum From {
    /// A published package
    Download,
    /// Compiled from source
    Source,
}

impl std::convert::From<From> for Mode {
    fn from(from: From) -> Self {
        match from {
            From::Download => Self::Download,
            From::Source => Self::Source,
        }
    }
}

/// One call for each of these units. A name that is said twice is meant once.
pub(crate) fn calls(
    names: &[UnitName],
    params: impl Fn(&UnitName) -> Result<Value, Trouble>,
) -> Result<Vec<(UnitName, Value)>, Trouble> {
    let mut calls: Vec<(UnitName, Value)> = Vec::with_capacity(names.len());
    for name in names {
        if calls.iter().all(|(known, _)| known != name) {
            calls.push((name.clone(), params(name)?));
        }
    }
    Ok(calls)
}

/// The params of a typed call.
pub(crate) fn params(typed: &impl serde::Serialize) -> Result<Value, Trouble> {
    serde_json::to_value(typed).map_err(|e| Trouble::Usage(format!("the params cannot be written: {e}")))
}
