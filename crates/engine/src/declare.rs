//! Parameters: given ones laid over kept ones, checked by the service, and what it says for them.

use std::sync::Arc;

use serde_json::Value;
use wharf_core::{Declared, Wishes};
use wharf_model::{ErrorKind, Failure, UnitName};
use wharf_services::{PortChoice, Service};

use crate::{engine::Engine, fronts, habits};

impl Engine {
    /// What the service says for these parameters, or for those that the unit has.
    pub(crate) fn declare(
        &self,
        name: &UnitName,
        service: &dyn Service,
        with: Option<Value>,
        policy: Option<Value>,
    ) -> Result<Declared, Failure> {
        let (kept, changes) = match self.unit(name) {
            Some(unit) => (unit.with.clone(), unit.changes.clone()),
            None => (Arc::new(self.shared.manifests.parameters(name, service).unwrap_or_default()), Arc::default()),
        };
        let with = Arc::new(laid_over(&kept, with));
        service.params().check(&with).map_err(|f| f.about(name))?;
        let wishes: Wishes = service
            .ports(name, &with)
            .map_err(|f| f.about(name))?
            .into_iter()
            .map(|wish| match wish.choice {
                PortChoice::Number(0) | PortChoice::Auto(_) => (wish.name, None),
                PortChoice::Number(n) => (wish.name, Some(n)),
            })
            .collect();
        if let Some((a, b, n)) = twice(&wishes) {
            return Err(Failure::new(ErrorKind::InvalidParams, format!("ports {a} and {b} are both {n}")).about(name));
        }
        let changes = Arc::new(habits::changed(&changes, policy));
        let policy = Arc::new(habits::policy(name, service.policy(&with), &changes)?);
        fronts::sound(name, &policy, &wishes)?;
        Ok(Declared { with, policy, changes, wishes, needs_install: service.needs_install() })
    }
}

/// Given parameters over kept ones: what is not named stays, null takes a field back to its default.
fn laid_over(kept: &Value, given: Option<Value>) -> Value {
    let mut all = kept.as_object().cloned().unwrap_or_default();
    match given {
        None | Some(Value::Null) => {}
        Some(Value::Object(given)) => {
            for (field, value) in given {
                match value {
                    Value::Null => drop(all.remove(&field)),
                    value => drop(all.insert(field, value)),
                }
            }
        }
        // No object: the check says so.
        Some(other) => return other,
    }
    Value::Object(all)
}

fn twice(wishes: &Wishes) -> Option<(&str, &str, u16)> {
    let fixed: Vec<(&str, u16)> = wishes.iter().filter_map(|(n, w)| w.map(|w| (n.as_str(), w))).collect();
    fixed.iter().enumerate().find_map(|(i, (a, n))| {
        let (b, _) = fixed.get(i + 1..)?.iter().find(|(_, m)| m == n)?;
        Some((*a, *b, *n))
    })
}
