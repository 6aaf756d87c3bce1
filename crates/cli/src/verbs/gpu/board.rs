//! `wharf gpu`: each device as a bar, then who waits.

use std::fmt::Write;

use anstyle::{AnsiColor, Color, Style};
use serde_json::json;
use wharf_api::rpc::gpu::{DeviceRow, GpuList, GpuQueue};
use wharf_model::{LeaseId, size};

use super::lists;
use crate::{
    Exit,
    session::{Session, read},
    table::{Cell, Table},
    trouble::Outcome,
    words,
};

/// How long a new measurement is waited for: a person looks.
const FRESH_MS: u64 = 700;
/// A bar where nobody knows the width, and at most.
const WIDTH: usize = 80;
const MOST: usize = 120;

/// Colours of holders, in turn.
const COLOURS: [AnsiColor; 6] = [
    AnsiColor::Blue,
    AnsiColor::Magenta,
    AnsiColor::Cyan,
    AnsiColor::Green,
    AnsiColor::BrightBlue,
    AnsiColor::BrightMagenta,
];

pub(super) fn show(session: &Session) -> Outcome {
    let client = session.client.rpc();
    let (devices, queue) = session.block_on(async {
        let devices = client.raw("gpu.list", json!({ "fresh_within_ms": FRESH_MS })).await?;
        Ok((devices, client.raw("gpu.queue", json!({})).await?))
    })?;
    if session.json {
        session.say_json(&format!("{{\"devices\":{},\"queue\":{}}}", devices.get(), queue.get()))?;
    } else {
        session.say(&text(&read(&devices)?, &read(&queue)?, width()))?;
    }
    Ok(Exit::Done)
}

/// So wide that it fits the terminal.
fn width() -> usize {
    let told = std::env::var("COLUMNS").ok().and_then(|text| text.parse::<usize>().ok());
    let seen = || {
        let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
        Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
    };
    told.or_else(seen).unwrap_or(WIDTH).clamp(30, MOST)
}

fn text(list: &GpuList, queue: &GpuQueue, width: usize) -> String {
    let mut out = String::new();
    // Each lease has one letter, on all of its devices.
    let mut leases: Vec<LeaseId> =
        list.devices.iter().flat_map(|row| &row.charges).map(|charge| charge.lease).collect();
    leases.sort();
    leases.dedup();
    if list.devices.is_empty() {
        out.push_str("this host has no GPU\n");
        if list.problems.is_empty() {
            out.push_str("  a file gpus.toml describes simulated devices: docs/gpu.md\n");
        }
    }
    for (at, row) in list.devices.iter().enumerate() {
        if at > 0 {
            out.push('\n');
        }
        device(&mut out, row, &leases, width);
    }
    for problem in &list.problems {
        let _ = writeln!(out, "{} {problem}", Cell::styled("!", words::bad()).shown());
    }
    if !queue.waiting.is_empty() {
        let bold = Style::new().bold();
        let _ = write!(out, "\n{bold}queue{bold:#}\n{}", lists::queue(queue));
    }
    out
}

fn device(out: &mut String, row: &DeviceRow, leases: &[LeaseId], width: usize) {
    let bold = Style::new().bold();
    let dim = Style::new().dimmed();
    let part = row.parent.as_ref().map_or_else(String::new, |parent| format!(", part of {parent}"));
    let pci = row.pci.as_ref().map_or_else(String::new, |pci| format!("  {pci}"));
    // One that has no name of its own is called once.
    let id = if row.name == *row.id.0 { String::new() } else { format!("  {}", row.id) };
    let _ = writeln!(out, "{bold}{} {}{bold:#}{dim}{id}{pci}{part}{dim:#}", row.index, row.name);
    let _ = writeln!(out, "  [{}]", bar(row, leases, width.saturating_sub(4)));
    let (headroom, total) = (size(row.headroom_bytes), size(row.total_bytes));
    let is_out_of_use = row.stale || !row.taints.is_empty();
    let mut sums = vec![match is_out_of_use {
        false => format!("{headroom} of {total} can be handed out"),
        true => format!("nothing of {total} is handed out now"),
    }];
    let parts = [("leased", row.charged_bytes), ("without a lease", row.foreign_bytes), ("kept free", row.kept_bytes)];
    sums.extend(parts.iter().filter(|(_, bytes)| *bytes > 0).map(|(what, bytes)| format!("{} {what}", size(*bytes))));
    let _ = writeln!(out, "  {}", sums.join(", "));
    let mut table = Table::bare();
    for charge in &row.charges {
        let seen = charge.measured_bytes.map_or_else(|| "not told".to_owned(), |bytes| format!("uses {}", size(bytes)));
        let letter = Cell::styled(format!("  {}", letter(leases, charge.lease)), holder_style(leases, charge.lease));
        let lease = charge.lease.to_string();
        let charged = size(charge.charge_bytes);
        table.row([
            letter,
            charge.holder.clone().into(),
            lease.into(),
            words::lease_state(charge.state),
            charged.into(),
            seen.into(),
        ]);
    }
    for foreign in &row.foreign {
        let whose = if foreign.ignored { "no lease, ignored" } else { "no lease" };
        table.row(["  #".into(), foreign.to_string().into(), whose.into()]);
    }
    if row.unattributed_bytes > 64 << 20 {
        let text = format!("{} that belong to no process", size(row.unattributed_bytes));
        table.row(["  #".into(), text.into(), "the driver, or a leak".into()]);
    }
    out.push_str(&table.text());
    for taint in &row.taints {
        let what = match taint.effect {
            wharf_model::TaintEffect::NoNew => "nothing new",
            wharf_model::TaintEffect::Drain => "being emptied",
        };
        let _ = writeln!(out, "  {} {what}: {}", Cell::styled("!", words::bad()).shown(), taint.reason);
    }
    if row.stale {
        let age = words::duration(row.measured_age_ms);
        let mark = Cell::styled("!", words::bad()).shown();
        let _ = writeln!(out, "  {mark} last measured {age} ago: until the driver answers, nothing new is handed out");
    }
}

fn letter(leases: &[LeaseId], lease: LeaseId) -> char {
    let at = leases.iter().position(|known| *known == lease).unwrap_or(0);
    u8::try_from(at % 26).map_or('?', |at| char::from(b'A' + at))
}

fn holder_style(leases: &[LeaseId], lease: LeaseId) -> Style {
    let at = leases.iter().position(|known| *known == lease).unwrap_or(0);
    let colour = COLOURS.get(at % COLOURS.len()).copied().unwrap_or(AnsiColor::Blue);
    Style::new().fg_color(Some(Color::Ansi(colour)))
}

/// A run of cells that look the same.
struct Piece {
    mark: char,
    style: Style,
    bytes: u64,
}

/// What is there, in cells: at least one for whatever is anything.
fn bar(row: &DeviceRow, leases: &[LeaseId], width: usize) -> String {
    let mut pieces = vec![];
    for charge in &row.charges {
        let (mark, style) = (letter(leases, charge.lease), holder_style(leases, charge.lease));
        // Where the driver does not tell, all of it counts as seen.
        let seen = charge.measured_bytes.unwrap_or(charge.charge_bytes).min(charge.charge_bytes);
        pieces.push(Piece { mark, style: style.bold(), bytes: seen });
        pieces.push(Piece { mark: mark.to_ascii_lowercase(), style, bytes: charge.charge_bytes - seen });
    }
    let red = Style::new().fg_color(Some(AnsiColor::Red.into()));
    pieces.push(Piece { mark: '#', style: red, bytes: row.foreign_bytes });
    let dim = Style::new().dimmed();
    pieces.push(Piece { mark: '-', style: dim, bytes: row.kept_bytes.saturating_sub(row.foreign_bytes) });
    let total = u128::from(row.total_bytes.max(1));
    let cells = |bytes: u64| match bytes {
        0 => 0,
        bytes => usize::try_from((u128::from(bytes) * width as u128 + total / 2) / total).unwrap_or(width).max(1),
    };
    let mut left = width;
    let mut text = String::new();
    for piece in pieces {
        let count = cells(piece.bytes).min(left);
        left -= count;
        if count > 0 {
            let (style, marks) = (piece.style, piece.mark.to_string().repeat(count));
            let _ = write!(text, "{style}{marks}{style:#}");
        }
    }
    let _ = write!(text, "{dim}{}{dim:#}", ".".repeat(left));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    const GIB: u64 = 1 << 30;

    fn row(fields: Value) -> Value {
        let mut row = json!({
            "id": "GPU-6f0b", "vendor": "nvidia", "name": "NVIDIA L4", "kind": "gpu", "parent": null, "index": 0,
            "pci": "0000:03:00.0", "numa_node": null, "island": null, "total_bytes": 24 * GIB, "used_bytes": 0,
            "capacity_bytes": 24 * GIB, "headroom_bytes": 24 * GIB, "charged_bytes": 0, "foreign_bytes": 0,
            "unattributed_bytes": 0, "kept_bytes": 0, "charges": [], "foreign": [], "taints": [],
            "limits_backend": "none", "unified": false, "tells_apart": true, "measured_age_ms": 20, "stale": false
        });
        for (key, value) in fields.as_object().unwrap() {
            row[key] = value.clone();
        }
        row
    }

    fn drawn(devices: &[Value], waiting: &Value) -> String {
        let list = json!({ "devices": devices, "waiting": 0, "sources": [], "problems": [], "state_version": 1 });
        let queue = json!({ "waiting": waiting, "state_version": 1 });
        let list: GpuList = serde_json::from_value(list).unwrap();
        let text = text(&list, &serde_json::from_value(queue).unwrap(), 52);
        anstream::adapter::strip_str(&text).to_string()
    }

    #[test]
    fn a_device_is_a_bar_with_its_holders_and_the_queue_below_it() {
        let charge = |lease, holder, state, declared: u64, measured: Option<u64>| {
            json!({ "lease": lease, "holder": holder, "state": state, "declared_bytes": declared,
                "measured_bytes": measured, "charge_bytes": declared.max(measured.unwrap_or(0)) })
        };
        let busy = row(json!({
            "charges": [
                charge(3, "command@chat", "active", 8 * GIB, Some(6 * GIB)),
                charge(4, "train.py (pid 4121)", "starting", 4 * GIB, None),
            ],
            "charged_bytes": 12 * GIB, "foreign_bytes": GIB, "kept_bytes": 2 * GIB, "headroom_bytes": 9 * GIB,
            "foreign": [{ "pid": 801, "program": "Xorg", "uid": 0, "used_bytes": GIB, "belongs_to": "systemd unit gdm.service",
                "ignored": false }],
        }));
        let tainted = row(json!({
            "id": "GPU-6fff", "index": 1, "pci": null, "stale": true, "measured_age_ms": 41_000,
            "taints": [{ "effect": "no_new", "reason": "the fan is loud" }],
        }));
        let waiting = json!([{
            "position": 1, "lease": 5, "holder": "eval.py (pid 5000)", "state": "queued", "wants": "22.0 GiB",
            "priority": "high", "waited_ms": 2_100, "gives_up_in_ms": 598_000, "passed_over": 0, "est_ms": 3_000,
            "why": { "kind": "gpu_busy", "message": "needs 22.0 GiB on one device; best is 9.0 GiB", "retryable": true,
                "hint": "wait for your turn; or stop command@chat (reload 12 s)" },
        }]);
        insta::assert_snapshot!(drawn(&[busy, tainted], &waiting), @r"
        0 NVIDIA L4  GPU-6f0b  0000:03:00.0
          [AAAAAAAAAAAAaaaaBBBBBBBB##--....................]
          9.0 GiB of 24.0 GiB can be handed out, 12.0 GiB leased, 1.0 GiB without a lease, 2.0 GiB kept free
          A  command@chat                                       lease-3   active    8.0 GiB  uses 6.0 GiB
          B  train.py (pid 4121)                                lease-4   starting  4.0 GiB  not told
          #  Xorg (pid 801, systemd unit gdm.service, 1.0 GiB)  no lease

        1 NVIDIA L4  GPU-6fff
          [................................................]
          nothing of 24.0 GiB is handed out now
          ! nothing new: the fan is loud
          ! last measured 41 s ago: until the driver answers, nothing new is handed out

        queue
        1. eval.py (pid 5000) (lease-5, high) wants 22.0 GiB: has waited 2.1 s, about 3.0 s still, gives up in 9 min 58 s
             needs 22.0 GiB on one device; best is 9.0 GiB
             wait for your turn; or stop command@chat (reload 12 s)
        ");
    }

    #[test]
    fn a_host_without_a_gpu_says_so() {
        insta::assert_snapshot!(drawn(&[], &json!([])), @r"
        this host has no GPU
          a file gpus.toml describes simulated devices: docs/gpu.md
        ");
    }

    #[test]
    fn a_bar_is_never_wider_than_it_may_be_and_shows_the_smallest_holder() {
        for total in [GIB, 3 * GIB, 141 * GIB] {
            for n in 0..12_u64 {
                let charges: Vec<Value> = (0..n)
                    .map(|lease| {
                        json!({ "lease": lease, "holder": "x", "state": "active", "declared_bytes": total / (n + 1),
                            "measured_bytes": 1, "charge_bytes": total / (n + 1) })
                    })
                    .collect();
                let row =
                    row(json!({ "total_bytes": total, "charges": charges, "foreign_bytes": 1, "kept_bytes": total }));
                let row: DeviceRow = serde_json::from_value(row).unwrap();
                let leases: Vec<LeaseId> = (0..n).map(LeaseId).collect();
                let drawn = anstream::adapter::strip_str(&bar(&row, &leases, 48)).to_string();
                assert_eq!(drawn.chars().count(), 48, "{drawn}");
                assert!(n == 0 || drawn.contains('A') && drawn.contains('a'), "{drawn}");
            }
        }
    }
}
