//! `port.*`: params become terms, looks become rows. What is right is decided in `wharf_core::ports`.

mod check;
mod desk;
mod evict;
mod hatch;
mod look;
mod register;
mod rows;
mod take;
mod watch;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::{task::spawn_blocking, time::Instant};
use wharf_api::{
    Caller, ListParams, WatchReport,
    rpc::event::EventApi,
    rpc::port::{
        PortApi, PortCheckParams, PortCheckRow, PortChecked, PortConfirmParams, PortConfirmed, PortDeclareParams,
        PortDeclared, PortDrift, PortDriftParams, PortEvictParams, PortEvicted, PortFree, PortFreeParams,
        PortLeaseParams, PortLeaseRow, PortLeased, PortLeases, PortList, PortListParams, PortRanges, PortReleaseParams,
        PortReleased, PortRenewParams, PortRenewed, PortSpan, PortUndeclareParams, PortUndeclared, PortWatchParams,
        PortWhois, PortWhoisParams,
    },
};
use wharf_core::{
    Unit,
    ports::{Ledger, Outside, Owner, PortLease, Span},
};
use wharf_model::{ErrorKind, Failure, Protocol};
use wharf_runtime::ports::{self, Settings, Socket};

use crate::{
    engine::{Engine, Shared},
    turn,
};

pub use desk::Desk;
use look::{Seen, View};
pub use watch::keep;

/// Ports of one question.
const MOST_ASKED: usize = 256;
const MOST_WAIT_MS: u64 = 60_000;
/// A listener that is waited for is looked for this often.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Looks and binds block: they are done beside the tasks.
async fn beside<T: Send + 'static>(
    shared: &Arc<Shared>,
    work: impl FnOnce(&Shared) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let shared = shared.clone();
    spawn_blocking(move || work(&shared)).await.map_err(|e| Failure::new(ErrorKind::Internal, e.to_string()))?
}

fn sockets_at(port: u16, protocols: &[Protocol]) -> Vec<Socket> {
    protocols.iter().flat_map(|protocol| ports::at(*protocol, port)).collect()
}

fn protocols(one: Option<Protocol>) -> Vec<Protocol> {
    one.map_or(vec![Protocol::Tcp, Protocol::Udp], |one| vec![one])
}

/// Whose each port of a unit is.
fn of_units(shared: &Shared, settings: &Settings) -> desk::OfUnits {
    let mut of_units = BTreeMap::new();
    for declared in look::declared(shared, settings) {
        let (protocol, port) = declared.place();
        let place = (port, protocol);
        // Of several that declare it, the one that runs has it.
        if declared.is_up || !of_units.contains_key(&place) {
            of_units.insert(place, declared.unit);
        }
    }
    of_units
}

/// Says where a unit's ports lie oddly (SN-86). It never keeps a unit from starting.
pub fn advise(shared: &Shared, unit: &Unit, chosen: &BTreeMap<String, u16>) {
    let Ok(settings) = Settings::read(&shared.layout.ports_file()) else { return };
    let ranges = look::ranges(&settings);
    let said = settings.units.get(&unit.name).and_then(|said| said.purpose.clone());
    let purpose = said.or_else(|| unit.policy.gpu.as_ref().map(|_| "gpu".to_owned()));
    for (name, port) in chosen {
        for lint in ranges.advise(purpose.as_deref(), *port) {
            tracing::warn!("{}: {} ({name}): {}", unit.name, lint.kind, lint.text);
        }
    }
}

impl Engine {
    fn port_lease_rows(&self) -> Vec<PortLeaseRow> {
        let boot_ms = turn::now().boot_ms;
        self.shared.ports.leases().iter().map(|(lease, kept)| rows::lease(lease, kept, boot_ms)).collect()
    }

    /// Nothing new is written on a full disk.
    async fn has_room(&self, dry_run: bool, to_do: &str) -> Result<(), Failure> {
        if dry_run || self.room().await {
            return Ok(());
        }
        let text = format!("could not {to_do}: the disk of the state database is full");
        Err(Failure::new(ErrorKind::Storage, text).hint("free some space"))
    }

    /// Who listens on a lease's ports now: its own, and everybody else.
    async fn listeners_of(&self, lease: &PortLease) -> Result<(Vec<Seen>, Vec<Seen>), Failure> {
        let (id, protocol, numbers) = (lease.id, lease.terms.protocol, lease.ports.clone());
        beside(&self.shared, move |shared| {
            let wanted = |s: &Socket| s.protocol == protocol && numbers.contains(&s.local.port());
            let seen = View::of(shared, wanted)?.seen.into_iter();
            Ok(seen.partition(|seen| seen.owner == Owner::Lease(id)))
        })
        .await
    }
}

#[async_trait]
impl PortApi for Engine {
    async fn port_list(&self, _: &Caller, p: PortListParams) -> Result<PortList, Failure> {
        beside(&self.shared, move |shared| {
            let view = View::of(shared, |_| true)?;
            let here = register::this_machine(&shared.layout);
            Ok(PortList { ports: rows::list(&view, &look::uses(shared), &here, &p) })
        })
        .await
    }

    async fn port_whois(&self, _: &Caller, p: PortWhoisParams) -> Result<PortWhois, Failure> {
        let leases = self.port_lease_rows().into_iter().filter(|lease| lease.ports.contains(&p.port)).collect();
        beside(&self.shared, move |shared| {
            let view = View::with(shared, sockets_at(p.port, &protocols(p.protocol)))?;
            Ok(rows::whois(&view, p.port, leases))
        })
        .await
    }

    async fn port_check(&self, _: &Caller, p: PortCheckParams) -> Result<PortChecked, Failure> {
        if p.ports.is_empty() || p.ports.len() > MOST_ASKED || p.ports.contains(&0) {
            let text = format!("port.check: ports are 1 to {MOST_ASKED} numbers from 1 to 65535");
            return Err(Failure::new(ErrorKind::InvalidParams, text));
        }
        beside(&self.shared, move |shared| {
            let settings = Settings::read(&shared.layout.ports_file())?;
            let ranges = look::ranges(&settings);
            let rows: Vec<PortCheckRow> =
                p.ports.iter().map(|port| check::one(shared, *port, p.protocol, &settings, &ranges)).collect();
            Ok(PortChecked { ok: rows.iter().all(|row| row.free), ports: rows })
        })
        .await
    }

    async fn port_free(&self, _: &Caller, p: PortFreeParams) -> Result<PortFree, Failure> {
        beside(&self.shared, move |shared| {
            let settings = Settings::read(&shared.layout.ports_file())?;
            let (ranges, units) = (look::ranges(&settings), of_units(shared, &settings));
            let purpose = p.range.clone().unwrap_or_else(|| "any".into());
            let spans: Vec<Span> = ranges.of(&purpose).collect();
            if spans.is_empty() {
                let text = format!("there is no range for {purpose:?}");
                return Err(Failure::new(ErrorKind::InvalidParams, text).hint("`wharf ports ranges` has the table"));
            }
            let is_ours = |port| {
                let has = |ledger: &Ledger| {
                    ledger.at(p.protocol, port).is_some() || ledger.entry_at(p.protocol, port).is_some()
                };
                shared.ports.see(has)
            };
            let is_free = |port: &u16| {
                ranges.reserved(*port).is_none()
                    && !units.contains_key(&(*port, p.protocol))
                    && !is_ours(*port)
                    && ports::attempt(p.protocol, *port).is_ok()
            };
            let all = spans.iter().flat_map(|span| span.from..=span.to);
            let found: Vec<u16> = all.filter(is_free).take(p.count.clamp(1, 64).into()).collect();
            if found.is_empty() {
                let text = format!("no port of {purpose} is free");
                return Err(Failure::new(ErrorKind::RangeExhausted, text)
                    .hint(format!("wharf ports --range {purpose} shows who has them")));
            }
            Ok(PortFree { ports: found })
        })
        .await
    }

    async fn port_declare(&self, caller: &Caller, p: PortDeclareParams) -> Result<PortDeclared, Failure> {
        let uid = caller.peer.uid;
        self.has_room(p.dry_run, "write a port down").await?;
        let (declared, unsaved) = beside(&self.shared, move |shared| register::declare(shared, uid, p)).await?;
        unsaved.durable().await?;
        Ok(declared)
    }

    async fn port_undeclare(&self, caller: &Caller, p: PortUndeclareParams) -> Result<PortUndeclared, Failure> {
        let uid = caller.peer.uid;
        let struck = |ledger: &mut Ledger| ledger.undeclare(&p.service, p.port_name.as_deref(), uid);
        let (entries, unsaved) = self.shared.ports.change(&self.shared, struck)?;
        unsaved.durable().await?;
        Ok(PortUndeclared { entries })
    }

    async fn port_lease(&self, caller: &Caller, p: PortLeaseParams) -> Result<PortLeased, Failure> {
        let (terms, dry_run) = (take::terms(caller, &p)?, p.dry_run);
        self.has_room(p.dry_run, "lease a port").await?;
        let (lease, socket, unsaved, ranges) = beside(&self.shared, move |shared| {
            let settings = Settings::read(&shared.layout.ports_file())?;
            let ranges = look::ranges(&settings);
            let terms = take::within(terms, &p, &ranges)?;
            let units = of_units(shared, &settings);
            let (lease, unsaved) = shared.ports.take(shared, &terms, &ranges, &units, p.dry_run)?;
            let socket = shared.ports.keeping(lease.id).socket.filter(|_| !p.dry_run);
            Ok((lease, socket, unsaved, ranges))
        })
        .await?;
        unsaved.durable().await?;
        Ok(take::leased(&lease, socket, dry_run, &ranges))
    }

    async fn port_confirm(&self, caller: &Caller, p: PortConfirmParams) -> Result<PortConfirmed, Failure> {
        let until = Instant::now() + Duration::from_millis(p.timeout_ms.min(MOST_WAIT_MS));
        loop {
            let uid = caller.peer.uid;
            let lease = self.shared.ports.see(|ledger| ledger.held(p.lease, p.epoch, uid).cloned())?;
            let (own, others) = self.listeners_of(&lease).await?;
            let holders = |seen: &[Seen]| seen.iter().map(|s| rows::holder(s, &[])).collect::<Vec<_>>();
            let others: Vec<Seen> = others.into_iter().filter(|seen| seen.owner != Owner::Daemon).collect();
            if let Some(first) = others.first() {
                let is_also = !own.is_empty();
                let kind = if is_also { ErrorKind::DuplicateListener } else { ErrorKind::Intruder };
                let port = first.socket.local.port();
                let text = match is_also {
                    true => format!("{} listens on port {port} beside {}", first.text(), lease.label()),
                    false => format!("{} listens on port {port}, which is leased to {}", first.text(), lease.label()),
                };
                return Err(Failure::new(kind, text)
                    .hint(format!("end it, or lease another port: wharf ports who {port}"))
                    .detail(serde_json::json!({ "holders": holders(&others) })));
            }
            let all = lease.ports.iter().all(|port| own.iter().any(|s| s.socket.local.port() == *port));
            if all {
                let seen = own.iter().filter_map(|s| Some(Outside { pid: s.who.pid?, identity: s.who.identity? }));
                let seen: Vec<Outside> = seen.collect();
                let saw = self.shared.ports.change(&self.shared, |ledger| {
                    ledger.saw(p.lease, seen);
                    Ok(())
                });
                saw?.1.durable().await?;
                return Ok(PortConfirmed { listeners: holders(&own) });
            }
            if Instant::now() >= until {
                let text = format!("nothing of {} listens on {:?} yet", lease.label(), lease.ports);
                return Err(Failure::new(ErrorKind::Timeout, text).hint("is it told its port? it is in env.PORT"));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn port_renew(&self, caller: &Caller, p: PortRenewParams) -> Result<PortRenewed, Failure> {
        let (uid, boot_ms) = (caller.peer.uid, turn::now().boot_ms);
        let renewed = self
            .shared
            .ports
            .change(&self.shared, |ledger| ledger.renew(p.lease, p.epoch, uid, boot_ms).map(|lease| lease.expires_ms));
        let (expires_ms, unsaved) = renewed?;
        unsaved.durable().await?;
        Ok(PortRenewed { expires_in_ms: expires_ms.map(|at| at.saturating_sub(boot_ms)) })
    }

    async fn port_release(&self, caller: &Caller, p: PortReleaseParams) -> Result<PortReleased, Failure> {
        let uid = caller.peer.uid;
        let released = self.shared.ports.change(&self.shared, |ledger| {
            let epoch = p.epoch.or_else(|| Some(ledger.get(p.lease)?.epoch)).unwrap_or_default();
            ledger.release(p.lease, epoch, uid, p.forget)
        });
        let (lease, unsaved) = released?;
        unsaved.durable().await?;
        watch::tell_of_end(&self.shared, &lease, "it was released");
        let (_, left) = self.listeners_of(&lease).await?;
        Ok(PortReleased { ports: lease.ports, still_listening: left.iter().map(Seen::text).collect() })
    }

    async fn port_leases(&self, _: &Caller, _: ListParams) -> Result<PortLeases, Failure> {
        Ok(PortLeases { leases: self.port_lease_rows() })
    }

    async fn port_ranges(&self, _: &Caller, _: ListParams) -> Result<PortRanges, Failure> {
        let file = self.shared.layout.ports_file();
        let ranges = look::ranges(&Settings::read(&file)?);
        let ephemeral = ports::ephemeral().into_iter().map(|(from, to)| PortSpan { from, to }).collect();
        let warnings = ranges.lint().into_iter().map(|lint| lint.text).collect();
        Ok(PortRanges { ranges: ranges.rows().to_vec(), ephemeral, warnings, file: file.display().to_string() })
    }

    async fn port_drift(&self, _: &Caller, p: PortDriftParams) -> Result<PortDrift, Failure> {
        beside(&self.shared, move |shared| {
            let drift = View::of(shared, |_| true)?.drift();
            let drift: Vec<_> = drift.iter().filter(|d| p.advice || !d.kind.is_advice()).map(rows::drift).collect();
            Ok(PortDrift { ok: drift.iter().all(|row| row.is_advice), drift })
        })
        .await
    }

    async fn port_watch(&self, caller: &Caller, p: PortWatchParams) -> Result<WatchReport, Failure> {
        EventApi::watch(self, caller, p.into()).await
    }

    async fn port_evict(&self, caller: &Caller, p: PortEvictParams) -> Result<PortEvicted, Failure> {
        let uid = caller.peer.uid;
        beside(&self.shared, move |shared| evict::evict(shared, uid, &p)).await
    }
}
