//! `store.*`: what lies in the store and who has it, what is newer, and what can go.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use wharf_api::{
    Caller,
    rpc::store::{
        CollectParams, Collected, FreshRow, Freshness, GarbageRow, OutdatedParams, StoreApi, StoreListParams,
        VersionList, VersionRow,
    },
};
use wharf_core::Unit;
use wharf_model::{ErrorKind, Failure, Installed, UnitName};
use wharf_runtime::{Kept, Store, bytes_below};
use wharf_services::Wanted;

use crate::{engine::Engine, planning::placings, report::seconds};

/// Sources are asked so many at a time.
const AT_ONCE: usize = 4;

fn broke_off(e: impl std::fmt::Display) -> Failure {
    Failure::new(ErrorKind::Internal, e.to_string())
}

impl Engine {
    /// By folder: the units that have it, and those to which it would come back.
    fn users(&self) -> BTreeMap<PathBuf, Vec<UnitName>> {
        let mut users: BTreeMap<PathBuf, Vec<UnitName>> = BTreeMap::new();
        for unit in self.world().values() {
            if let Some(installed) = &unit.installed {
                users.entry(installed.path.clone()).or_default().push(unit.name.clone());
            }
        }
        users
    }

    /// Folders that stay: what units have, and what they can go back to.
    fn in_use(&self) -> BTreeSet<PathBuf> {
        let world = self.world();
        let of = |unit: &Arc<Unit>| [unit.installed.clone(), unit.previous.clone()];
        world.values().flat_map(of).flatten().map(|installed: Installed| installed.path).collect()
    }

    /// Units with a program of their own, those first that others need.
    fn in_order(&self, names: &[UnitName]) -> Result<Vec<Arc<Unit>>, Failure> {
        let world = self.world().clone();
        for name in names {
            if !world.contains_key(name) {
                self.status_of(name)?;
                return Err(Failure::new(ErrorKind::Conflict, format!("{name} is not installed"))
                    .hint(format!("wharf install {name}"))
                    .about(name));
            }
        }
        let mut ordered = vec![];
        let mut seen = BTreeSet::new();
        for name in world.keys() {
            visit(&world, name, &mut seen, &mut ordered);
        }
        let wanted = |unit: &Arc<Unit>| unit.installed.is_some() && (names.is_empty() || names.contains(&unit.name));
        Ok(ordered.into_iter().filter(wanted).collect())
    }

    async fn fresh(&self, unit: Arc<Unit>) -> Option<FreshRow> {
        let installed = unit.installed.clone()?;
        let row = |newest: Option<String>, is_fresh, why| {
            let installed = installed.version.clone();
            Some(FreshRow { name: unit.name.clone(), installed, newest, is_fresh, why })
        };
        let looked = async {
            let service = self.shared.service(&unit.name)?;
            let plans = placings(&*service, self.shared.context(&unit), &Wanted::default(), false).await?;
            let Some(plan) = plans.into_iter().next_back() else { return Ok(None) };
            self.shared.hands.look_up(&plan).await.map(Some)
        };
        match looked.await {
            Ok(None) => row(Some(installed.version.clone()), Some(true), None),
            Ok(Some(found)) if found.placed.as_ref() == Some(&installed) => row(Some(found.version), Some(true), None),
            Ok(Some(found)) if found.version.is_empty() => {
                row(None, None, Some("it is built from a folder: only a build says whether that has changed".into()))
            }
            Ok(Some(found)) => {
                let why = if found.version == installed.version {
                    "the same version is made otherwise by now".to_owned()
                } else {
                    format!("{} is there", found.version)
                };
                row(Some(found.version), Some(false), Some(why))
            }
            Err(failure) => row(None, None, Some(failure.message)),
        }
    }
}

/// What a unit needs comes before it. A ring cannot be: it is refused when it is declared.
fn visit(
    world: &BTreeMap<UnitName, Arc<Unit>>,
    name: &UnitName,
    seen: &mut BTreeSet<UnitName>,
    ordered: &mut Vec<Arc<Unit>>,
) {
    let Some(unit) = world.get(name).filter(|_| seen.insert(name.clone())) else { return };
    for need in &unit.policy.needs {
        visit(world, &need.unit, seen, ordered);
    }
    ordered.push(unit.clone());
}

fn rows(store: &Store, only: Option<&str>, users: &BTreeMap<PathBuf, Vec<UnitName>>) -> Result<VersionList, Failure> {
    let mut versions = vec![];
    for service in store.services()? {
        if only.is_none_or(|only| only == service) {
            versions.extend(store.versions(&service).into_iter().map(|kept| row(&service, kept, users)));
        }
    }
    let bytes = versions.iter().map(|row| row.bytes).sum();
    Ok(VersionList { versions, bytes })
}

fn row(service: &str, kept: Kept, users: &BTreeMap<PathBuf, Vec<UnitName>>) -> VersionRow {
    let Kept { installed, receipt, is_current, is_previous } = kept;
    VersionRow {
        service: service.to_owned(),
        used_by: users.get(&installed.path).cloned().unwrap_or_default(),
        bytes: bytes_below(&installed.path),
        folder: installed.path.display().to_string(),
        version: installed.version,
        digest: installed.digest,
        source: installed.source,
        placed_at: seconds(receipt.placed_at_ms as i64),
        is_current,
        is_previous,
        is_runtime: receipt.is_runtime,
    }
}

#[async_trait]
impl StoreApi for Engine {
    async fn store_list(&self, _: &Caller, p: StoreListParams) -> Result<VersionList, Failure> {
        let (store, users, only) = (self.shared.hands.store().clone(), self.users(), p.service.clone());
        let listed = tokio::task::spawn_blocking(move || rows(&store, only.as_deref(), &users)).await;
        let listed = listed.map_err(broke_off)??;
        if let (Some(service), true) = (&p.service, listed.versions.is_empty()) {
            // Nothing lies there: where the name is wrong, that is said.
            let name = service.parse().map_err(|e: <UnitName as std::str::FromStr>::Err| {
                Failure::new(ErrorKind::InvalidParams, e.to_string())
            })?;
            self.shared.service(&name)?;
        }
        Ok(listed)
    }

    async fn store_outdated(&self, _: &Caller, p: OutdatedParams) -> Result<Freshness, Failure> {
        let units = self.in_order(&p.names)?;
        let looks = stream::iter(units.into_iter().map(|unit| self.fresh(unit))).buffered(AT_ONCE);
        let units = looks.filter_map(|row| async { row }).collect().await;
        Ok(Freshness { units })
    }

    async fn store_gc(&self, _: &Caller, p: CollectParams) -> Result<Collected, Failure> {
        let (store, in_use, dry_run) = (self.shared.hands.store().clone(), self.in_use(), p.dry_run);
        let collected = tokio::task::spawn_blocking(move || store.collect_garbage(&in_use, dry_run)).await;
        let found = collected.map_err(broke_off)??;
        let bytes = found.iter().map(|g| g.bytes).sum();
        let row =
            |g: wharf_runtime::Garbage| GarbageRow { what: g.what, path: g.path.display().to_string(), bytes: g.bytes };
        Ok(Collected { dry_run, garbage: found.into_iter().map(row).collect(), bytes })
    }
}
