//! `wharf gpu queue`, `leases`, `ps`, `clients`, `calibrate`: rows, one a line.

use clap_complete::engine::ArgValueCompleter;
use serde_json::json;
use wharf_api::rpc::gpu::{Calibration, ClientKind, GpuClientList, GpuQueue, LeaseList, LeaseRow, ProcessList, Whose};
use wharf_model::{Enforced, LeaseId, Share, UnitName, size};

use super::{ask, device};
use crate::{
    Exit, complete,
    session::Session,
    table::{Cell, Table},
    trouble::Outcome,
    words,
};

/// Show who waits, in the order of their turns, and why
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  wharf gpu queue\n  wharf gpu queue --json | jq '.waiting[].why.message'")]
pub(crate) struct Queue {}

impl Queue {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let raw = ask(session, "gpu.queue", json!({}))?;
        session.show(&raw, queue)?;
        Ok(Exit::Done)
    }
}

pub(super) fn queue(queue: &GpuQueue) -> String {
    if queue.waiting.is_empty() {
        return "nobody waits\n".into();
    }
    let mut text = String::new();
    for row in &queue.waiting {
        let priority = word(&row.priority);
        let about = row.est_ms.map_or_else(String::new, |ms| format!(", about {} still", words::duration(ms)));
        let gives_up =
            row.gives_up_in_ms.map_or_else(String::new, |ms| format!(", gives up in {}", words::duration(ms)));
        let waited = words::duration(row.waited_ms);
        let (at, lease, holder, wants) = (row.position, row.lease, &row.holder, &row.wants);
        text.push_str(&format!(
            "{at}. {holder} ({lease}, {priority}) wants {wants}: has waited {waited}{about}{gives_up}\n"
        ));
        if let Some(why) = &row.why {
            text.push_str(&format!("     {}\n", why.message));
            text.extend(why.hint.iter().map(|hint| format!("     {hint}\n")));
        }
    }
    text
}

fn word(value: &impl serde::Serialize) -> String {
    let word = serde_json::to_value(value).ok();
    word.as_ref().and_then(|word| word.as_str()).unwrap_or_default().replace('_', " ")
}

/// Show leases and requests: who has or wants what, since when and until when
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  wharf gpu leases\n  wharf gpu leases command@chat\n  wharf gpu leases --device 0")]
pub(crate) struct Leases {
    /// Only those of this service
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(complete::units))]
    name: Option<UnitName>,
    /// Only those on this device
    #[arg(long, value_name = "DEVICE", add = ArgValueCompleter::new(complete::devices))]
    device: Option<String>,
}

impl Leases {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let mut params = json!({});
        if let Some(name) = self.name {
            params["unit"] = json!(name);
        }
        if let Some(typed) = &self.device {
            params["device"] = device(session, typed)?.into();
        }
        let raw = ask(session, "gpu.leases", params)?;
        session.show(&raw, |list: &LeaseList| {
            if list.leases.is_empty() {
                return "nobody has a GPU, and nobody waits for one".into();
            }
            let mut table = Table::new(&["LEASE", "HOLDER", "STATE", "SINCE", "DEVICE", "COUNTS", "SEEN", ""]);
            list.leases.iter().for_each(|row| lease(&mut table, row));
            table.text()
        })?;
        Ok(Exit::Done)
    }
}

fn lease(table: &mut Table, row: &LeaseRow) {
    let since = words::duration(row.in_state_ms);
    let seen = |share: &Share| share.measured_bytes.map_or_else(|| "-".to_owned(), size);
    let first = row.devices.first();
    let charge = |share: Option<&Share>| share.map_or_else(String::new, |share| size(share.charge_bytes));
    table.row([
        row.lease.to_string().into(),
        row.holder.clone().into(),
        words::lease_state(row.state),
        since.into(),
        first.map_or_else(String::new, |share| share.device.to_string()).into(),
        charge(first).into(),
        first.map_or_else(String::new, seen).into(),
        beside(row).into(),
    ]);
    for share in row.devices.iter().skip(1) {
        let empty = || Cell::from("");
        table.row([
            empty(),
            empty(),
            empty(),
            empty(),
            share.device.to_string().into(),
            charge(Some(share)).into(),
            seen(share).into(),
        ]);
    }
}

fn beside(row: &LeaseRow) -> String {
    let mut notes = vec![];
    match row.enforced {
        Enforced::None => {}
        Enforced::Dmem => notes.push("kept to it by the kernel".to_owned()),
        Enforced::Nvml => notes.push("kept to it by the driver".to_owned()),
    }
    notes.extend(row.expires_in_ms.map(|ms| format!("expires in {}", words::duration(ms))));
    notes.extend(row.pinned_for_ms.map(|ms| format!("pinned for {}", words::duration(ms))));
    notes.extend(row.killed_in_ms.map(|ms| format!("killed in {}", words::duration(ms))));
    notes.extend(row.leaves_for.map(|by| format!("leaves for {by}")));
    notes.extend(row.busy.map(|requests| match requests {
        0 => "idle".to_owned(),
        1 => "works on 1 request".to_owned(),
        many => format!("works on {many} requests"),
    }));
    notes.join(", ")
}

/// Show the processes that have memory on GPUs, and whose they are
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  wharf gpu ps\n  wharf gpu ps --device 0")]
pub(crate) struct Ps {
    /// Only those on this device
    #[arg(long, value_name = "DEVICE", add = ArgValueCompleter::new(complete::devices))]
    device: Option<String>,
}

impl Ps {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let mut params = json!({});
        if let Some(typed) = &self.device {
            params["device"] = device(session, typed)?.into();
        }
        let raw = ask(session, "gpu.processes", params)?;
        session.show(&raw, processes)?;
        Ok(Exit::Done)
    }
}

fn processes(list: &ProcessList) -> String {
    let mut text = if list.processes.is_empty() {
        "no process has memory on a GPU\n".to_owned()
    } else {
        let mut table = Table::new(&["DEVICE", "PID", "PROGRAM", "USER", "MEMORY", "KIND", "WHOSE"]);
        for row in &list.processes {
            let whose = match (row.whose, row.lease, &row.unit, &row.belongs_to) {
                (Whose::Lease, Some(lease), Some(unit), _) => format!("{unit}'s, by {lease}"),
                (Whose::Lease, Some(lease), None, _) => lease.to_string(),
                (Whose::Unit, _, Some(unit), _) => format!("{unit}'s, which has no lease"),
                (Whose::Ghost, ..) => "nobody's: it lives no more, and the driver lists it still".into(),
                (Whose::Foreign, _, _, Some(whose)) => format!("no lease: {whose}"),
                (Whose::Ignored, _, _, Some(whose)) => format!("no lease, ignored: {whose}"),
                (Whose::Ignored, ..) => "no lease, ignored".into(),
                (Whose::Lease | Whose::Unit | Whose::Foreign, ..) => "no lease".into(),
            };
            table.row([
                row.device.to_string().into(),
                row.pid.to_string().into(),
                row.program.clone().unwrap_or_else(|| "-".into()).into(),
                row.uid.map_or_else(|| "-".to_owned(), |uid| uid.to_string()).into(),
                row.used_bytes.map_or_else(|| "not told".to_owned(), size).into(),
                word(&row.kind).into(),
                whose.into(),
            ]);
        }
        table.text()
    };
    text.extend(list.silent.iter().map(|id| format!("{id}: its driver does not say who is there\n")));
    text
}

/// Show who has leases or waits for them, with what each is known to need
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  wharf gpu clients")]
pub(crate) struct Clients {}

impl Clients {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let raw = ask(session, "gpu.clients", json!({}))?;
        session.show(&raw, clients)?;
        Ok(Exit::Done)
    }
}

fn clients(list: &GpuClientList) -> String {
    if list.clients.is_empty() {
        return "nobody has asked for a GPU yet".into();
    }
    let mut table = Table::new(&["CLIENT", "KIND", "NEEDS", "PRIORITY", "IMPORTANCE", "LEASES", "COUNTS", "USED"]);
    let named = |leases: &[LeaseId]| leases.iter().map(ToString::to_string).collect::<Vec<_>>();
    for row in &list.clients {
        let kind = match (row.kind, row.uid) {
            (ClientKind::Unit, _) => "service".to_owned(),
            (ClientKind::Program, Some(uid)) => format!("program of user {uid}"),
            (ClientKind::Program, None) => "program".to_owned(),
        };
        let needs = row.profile.as_ref().map_or_else(
            || "-".to_owned(),
            |profile| {
                let much = profile.need.vram_bytes.map_or_else(|| "a whole device".to_owned(), size);
                if profile.need.devices > 1 { format!("{} x {much}", profile.need.devices) } else { much }
            },
        );
        let waiting = named(&row.waiting).into_iter().map(|lease| format!("{lease} waits"));
        let leases: Vec<String> = named(&row.leases).into_iter().chain(waiting).collect();
        let profile = row.profile.as_ref();
        table.row([
            row.client.clone().into(),
            kind.into(),
            needs.into(),
            profile.map_or_else(String::new, |profile| word(&profile.priority)).into(),
            profile.map_or_else(String::new, |profile| profile.importance.to_string()).into(),
            if leases.is_empty() { "-".to_owned() } else { leases.join(", ") }.into(),
            size(row.charged_bytes).into(),
            uses(row.uses_an_hour_milli).into(),
        ]);
    }
    table.text()
}

fn uses(milli: u64) -> String {
    format!("{}.{}/h", milli / 1000, milli % 1000 / 100)
}

/// Show what holders were seen to do, and what they had better declare
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  wharf gpu calibrate")]
pub(crate) struct Calibrate {}

impl Calibrate {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let raw = ask(session, "gpu.calibrate", json!({}))?;
        session.show(&raw, calibration)?;
        Ok(Exit::Done)
    }
}

fn calibration(list: &Calibration) -> String {
    if list.holders.is_empty() {
        return "nobody was seen on a GPU yet".into();
    }
    let mut table = Table::new(&["HOLDER", "LOADS", "LOADING", "USED", "MOST SEEN", "DECLARED", "ADVICE"]);
    let or_none = |bytes: Option<u64>| bytes.map_or_else(|| "-".to_owned(), size);
    for row in &list.holders {
        table.row([
            row.holder.clone().into(),
            row.loads.to_string().into(),
            row.load_ms.map_or_else(|| "-".to_owned(), words::duration).into(),
            uses(row.uses_an_hour_milli).into(),
            or_none(row.high_water_bytes).into(),
            or_none(row.declared_bytes).into(),
            row.advice.clone().unwrap_or_default().into(),
        ]);
    }
    table.text()
}
