//! `port.*`: params become terms, looks become rows. What is right is decided in `wharf_core::ports`.

mod desk;
mod evict;
mod look;
mod rows;
mod watch;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use tokio::{task::spawn_blocking, time::Instant};
use wharf_api::{
    Caller, ListParams,
    rpc::port::{
        PortApi, PortCheckParams, PortCheckRow, PortChecked, PortConfirmParams, PortConfirmed, PortDrift,
        PortDriftParams, PortEvictParams, PortEvicted, PortFree, PortFreeParams, PortLeaseParams, PortLeaseRow,
        PortLeased, PortLeases, PortList, PortListParams, PortRanges, PortReleaseParams, PortReleased, PortRenewParams,
        PortRenewed, PortSpan, PortVerdict, PortWhois, PortWhoisParams,
    },
};
use wharf_core::{
    Unit,
    ports::{HOST, Outside, Owner, PortLease, Ranges, Span, Terms, Want},
};
use wharf_model::{ErrorKind, Failure, Handoff, Protocol, UnitName};
use wharf_runtime::ports::{self, Settings, Socket, Use};

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
fn of_units(shared: &Shared, settings: &Settings) -> BTreeMap<(u16, Protocol), UnitName> {
    let mut of_units = BTreeMap::new();
    for declared in look::declared(shared, settings) {
        let place = (declared.port, declared.protocol);
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

/// What a caller asks for, as the ledger takes it.
fn terms(caller: &Caller, p: &PortLeaseParams) -> Result<Terms, Failure> {
    let bad = |text: &str| Failure::new(ErrorKind::InvalidParams, format!("port.lease: {text}"));
    let uid = caller.peer.uid;
    let want = match (p.port, p.from, p.to) {
        (Some(_), Some(_), _) | (Some(_), _, Some(_)) => return Err(bad("port, or from and to")),
        (Some(_), None, None) if p.count != 1 => return Err(bad("one port has one number: leave out count")),
        (Some(number), None, None) => Some(Want::Number(number)),
        (None, Some(from), Some(to)) => {
            Some(Want::Within { span: Span { from, to }, count: p.count, contiguous: p.contiguous })
        }
        (None, None, None) => None,
        (None, Some(_), None) | (None, None, Some(_)) => return Err(bad("from goes with to")),
    };
    let network = p.network.clone().unwrap_or_else(|| HOST.to_owned());
    let handoff = match (p.protocol, p.handoff) {
        (_, Handoff::Fd) => {
            return Err(bad("a listening socket is passed to units only")
                .hint("let the program be a unit: wharf run … --policy '{\"on_demand\": {\"pass_sockets\": true}}'"));
        }
        // A second UDP socket of a port would be given a part of the datagrams.
        (Protocol::Udp, Handoff::Park | Handoff::Plain) => Handoff::Plain,
        (Protocol::Tcp, asked) if network == HOST => asked,
        (Protocol::Tcp, Handoff::Park | Handoff::Plain) => Handoff::Plain,
    };
    Ok(Terms {
        uid,
        key: p.client_key.clone(),
        service: p.service.clone().or_else(|| ports::user(uid)).unwrap_or_else(|| format!("uid-{uid}")),
        name: p.port_name.clone(),
        protocol: p.protocol,
        network,
        want,
        purpose: p.range.clone(),
        reach: p.bind,
        handoff,
        sticky: p.sticky,
        ttl_ms: p.ttl_ms,
        holder: holder(caller, p)?,
    })
}

/// With whom a lease ends.
fn holder(caller: &Caller, p: &PortLeaseParams) -> Result<Option<Outside>, Failure> {
    let gone = |pid| {
        Failure::new(ErrorKind::Precondition, format!("there is no process {pid} to hold the lease"))
            .hint("name one that lives (holder_pid), or a time (ttl_ms)")
    };
    match (p.holder_pid, p.ttl_ms) {
        (Some(pid), _) => {
            let outside = desk::outside(pid).map_err(|_| gone(pid))?;
            let uid = std::fs::metadata(format!("/proc/{pid}")).map(|meta| std::os::unix::fs::MetadataExt::uid(&meta));
            let uid = uid.map_err(|_| gone(pid))?;
            if caller.peer.uid != 0 && uid != caller.peer.uid {
                let text = format!("process {pid} is of uid {uid}, and the caller is uid {}", caller.peer.uid);
                return Err(Failure::new(ErrorKind::LeaseDenied, text).hint("name a process of your own"));
            }
            Ok(Some(outside))
        }
        (None, Some(_)) => Ok(None),
        (None, None) => {
            let pid = caller.peer.pid;
            let identity = caller.peer.identity.ok_or_else(|| gone(pid))?;
            Ok(Some(Outside { pid, identity }))
        }
    }
}

/// Several ports of a purpose's ranges: the ledger takes one span.
fn within(terms: Terms, p: &PortLeaseParams, ranges: &Ranges) -> Result<Terms, Failure> {
    if terms.want.is_some() || p.count == 1 {
        return Ok(terms);
    }
    let purpose = terms.purpose.clone().unwrap_or_else(|| "any".into());
    let span = ranges.of(&purpose).max_by_key(|span| span.to - span.from);
    let span = span.ok_or_else(|| {
        Failure::new(ErrorKind::InvalidParams, format!("there is no range for {purpose:?}"))
            .hint("`wharf ports ranges` has the table")
    })?;
    Ok(Terms { want: Some(Want::Within { span, count: p.count, contiguous: p.contiguous }), ..terms })
}

fn leased(lease: &PortLease, dry_run: bool, ranges: &Ranges) -> PortLeased {
    let env = lease.ports.iter().enumerate().map(|(n, port)| {
        let name = if n == 0 { "PORT".into() } else { format!("PORT_{}", n + 1) };
        (name, port.to_string())
    });
    let advice = |port: &u16| ranges.advise(lease.purpose.as_deref(), *port);
    let mut warnings: Vec<String> =
        lease.ports.iter().flat_map(advice).map(|l| format!("{}: {}", l.kind, l.text)).collect();
    warnings.dedup();
    let scheme = lease.protocol;
    PortLeased {
        lease: (!dry_run).then_some(lease.id),
        epoch: lease.epoch,
        ports: lease.ports.clone(),
        env: env.collect(),
        url: format!("{scheme}://127.0.0.1:{}", lease.ports.first().copied().unwrap_or_default()),
        handoff_used: lease.handoff,
        expires_in_ms: lease.expires_ms.map(|at| at.saturating_sub(turn::now().boot_ms)),
        holder_pid: lease.holder.map(|holder| holder.pid),
        warnings,
    }
}

fn check_one(shared: &Shared, port: u16, protocol: Protocol, settings: &Settings, ranges: &Ranges) -> PortCheckRow {
    let mut row =
        PortCheckRow { port, verdict: PortVerdict::Free, free: true, holder: None, warnings: vec![], remedies: vec![] };
    let sockets = ports::at(protocol, port);
    let of = |used| sockets.iter().filter(move |s: &&Socket| s.used == used).count();
    if of(Use::TimeWait) > 0 {
        row.verdict = PortVerdict::TimeWait;
        row.warnings.push("connections that are over wait there: a program without SO_REUSEADDR cannot listen".into());
    }
    let lease = shared.ports.see(|ledger| ledger.at(protocol, port).cloned());
    let unit = look::declared(shared, settings).into_iter().find(|d| (d.port, d.protocol) == (port, protocol));
    if let Err(e) = ports::attempt(protocol, port) {
        let failure = desk::taken(port, protocol, &e, true);
        let is_forbidden = failure.kind == ErrorKind::Permission;
        row.verdict = if is_forbidden { PortVerdict::Forbidden } else { PortVerdict::Taken };
        row.holder = Some(failure.message);
        row.remedies.extend(failure.hint);
    } else if let Some(lease) = &lease {
        row.verdict = PortVerdict::Leased;
        row.holder = Some(format!("{} ({})", lease.label(), lease.id));
        row.remedies.push(format!("wharf ports release {}", lease.id.0));
    } else if let Some(unit) = &unit {
        row.verdict = PortVerdict::Declared;
        row.holder = Some(format!("unit {} ({})", unit.unit, unit.name));
        row.remedies.push(format!("wharf start {} --port {}=auto", unit.unit, unit.name));
    }
    row.free = matches!(row.verdict, PortVerdict::Free | PortVerdict::TimeWait);
    let listening: BTreeSet<String> =
        sockets.iter().filter(|s| s.used == Use::Listens).map(|s| s.local.to_string()).collect();
    if listening.len() > 1 {
        let list = listening.into_iter().collect::<Vec<_>>().join(" and ");
        row.warnings.push(format!("several listen there: {list}: localhost can mean either"));
    }
    let purpose = unit.as_ref().and_then(|d| d.purpose.clone());
    // Who asks for a port has said nothing of GPUs.
    let advice = ranges.advise(purpose.as_deref(), port).into_iter();
    row.warnings.extend(
        advice.filter(|l| purpose.is_some() || l.kind != wharf_model::DriftKind::PortOutsideRange).map(|l| l.text),
    );
    if !row.free && row.verdict != PortVerdict::Forbidden {
        row.remedies.push("wharf ports free finds others".into());
    }
    row
}

impl Engine {
    fn port_lease_rows(&self) -> Vec<PortLeaseRow> {
        let boot_ms = turn::now().boot_ms;
        self.shared.ports.leases().iter().map(|(lease, parked)| rows::lease(lease, *parked, boot_ms)).collect()
    }

    /// Who listens on a lease's ports now: its own, and everybody else.
    async fn listeners_of(&self, lease: &PortLease) -> Result<(Vec<Seen>, Vec<Seen>), Failure> {
        let (id, protocol, numbers) = (lease.id, lease.protocol, lease.ports.clone());
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
            Ok(PortList { ports: rows::list(&view, &p) })
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
                p.ports.iter().map(|port| check_one(shared, *port, p.protocol, &settings, &ranges)).collect();
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
            let is_ours = |port| shared.ports.see(|ledger| ledger.at(p.protocol, port).is_some());
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

    async fn port_lease(&self, caller: &Caller, p: PortLeaseParams) -> Result<PortLeased, Failure> {
        let terms = terms(caller, &p)?;
        if !p.dry_run && !self.room().await {
            let text = "could not lease a port: the disk of the state database is full";
            return Err(Failure::new(ErrorKind::Storage, text).hint("free some space"));
        }
        let (lease, unsaved, ranges) = beside(&self.shared, move |shared| {
            let settings = Settings::read(&shared.layout.ports_file())?;
            let ranges = look::ranges(&settings);
            let terms = within(terms, &p, &ranges)?;
            let units = of_units(shared, &settings);
            let (lease, unsaved) = shared.ports.take(shared, &terms, &ranges, &units, p.dry_run)?;
            Ok((lease, (unsaved, p.dry_run), ranges))
        })
        .await?;
        let (unsaved, dry_run) = unsaved;
        unsaved.durable().await?;
        Ok(leased(&lease, dry_run, &ranges))
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

    async fn port_evict(&self, caller: &Caller, p: PortEvictParams) -> Result<PortEvicted, Failure> {
        let uid = caller.peer.uid;
        beside(&self.shared, move |shared| evict::evict(shared, uid, &p)).await
    }
}
