//! Ranges by purpose: where ports of a kind are looked for, and what is odd about a number.
//!
//! They are advice (SN-79 to SN-86): a port outside its range is a warning and never an error.

use std::fmt;

use wharf_model::{DriftKind, PortRange};

/// Ports from the first to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The first.
    pub from: u16,
    /// The last.
    pub to: u16,
}

impl Span {
    /// Whether a port lies in it.
    pub const fn contains(self, port: u16) -> bool {
        self.from <= port && port <= self.to
    }

    const fn overlaps(self, from: u16, to: u16) -> bool {
        self.from <= to && from <= self.to
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.from, self.to)
    }
}

/// Something odd about the table, or about a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lint {
    /// What kind it is.
    pub kind: DriftKind,
    /// One sentence.
    pub text: String,
}

/// The table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranges {
    rows: Vec<PortRange>,
    /// What the kernel gives to outgoing connections, less what it is told to leave alone.
    ephemeral: Vec<Span>,
}

impl Default for Ranges {
    /// The table of SN-79 to SN-85, and one for everything else.
    fn default() -> Self {
        let row = |purpose: &str, from, to| PortRange { purpose: purpose.into(), from, to, reserved_for: None };
        let manager = PortRange { reserved_for: Some("the manager".into()), ..row("manager", 8080, 8080) };
        let rows = vec![
            row("gpu", 8000, 8009),
            row("ml", 8010, 8019),
            row("data", 8020, 8039),
            row("utility", 8040, 8059),
            row("ui", 8060, 8079),
            manager,
            row("mcp", 9000, 9099),
            row("any", 20_000, 31_999),
        ];
        Self { rows, ephemeral: vec![] }
    }
}

impl Ranges {
    /// A table of somebody's own. `ephemeral` is what the kernel gives to outgoing connections.
    pub fn new(rows: Vec<PortRange>, ephemeral: Vec<Span>) -> Self {
        Self { rows, ephemeral }
    }

    /// The same table on a machine whose kernel gives these to outgoing connections.
    #[must_use]
    pub fn beside(self, ephemeral: Vec<Span>) -> Self {
        Self { ephemeral, ..self }
    }

    /// The rows.
    pub fn rows(&self) -> &[PortRange] {
        &self.rows
    }

    /// Those of a purpose that are handed out.
    pub fn of<'a>(&'a self, purpose: &'a str) -> impl Iterator<Item = Span> + 'a {
        let wanted = move |row: &&PortRange| row.purpose == purpose && row.reserved_for.is_none();
        self.rows.iter().filter(wanted).map(|row| Span { from: row.from, to: row.to })
    }

    /// The row that a port lies in; the narrowest of several.
    pub fn at(&self, port: u16) -> Option<&PortRange> {
        self.rows.iter().filter(|row| row.contains(port)).min_by_key(|row| row.to - row.from)
    }

    /// What a port is reserved for.
    pub fn reserved(&self, port: u16) -> Option<&str> {
        self.rows.iter().filter(|row| row.contains(port)).find_map(|row| row.reserved_for.as_deref())
    }

    /// Whether the kernel may give it to an outgoing connection.
    pub fn is_ephemeral(&self, port: u16) -> bool {
        self.ephemeral.iter().any(|span| span.contains(port))
    }

    /// The part of a span that the kernel may give away.
    pub fn ephemeral_in(&self, span: Span) -> Option<Span> {
        let found = self.ephemeral.iter().find(|e| e.overlaps(span.from, span.to))?;
        Some(Span { from: found.from.max(span.from), to: found.to.min(span.to) })
    }

    /// What is odd about a number for this purpose. `None`: nobody has said what it is for, only that no GPU is.
    pub fn advise(&self, purpose: Option<&str>, port: u16) -> Vec<Lint> {
        let mut found = vec![];
        if let Some(what) = self.reserved(port) {
            found.push(Lint { kind: DriftKind::PortReserved, text: format!("{port} is reserved for {what}") });
        } else if let Some(text) = self.misplaced(purpose, port) {
            found.push(Lint { kind: DriftKind::PortOutsideRange, text });
        }
        if self.is_ephemeral(port) {
            let text = format!("{port} lies where the kernel chooses ports for outgoing connections");
            found.push(Lint { kind: DriftKind::EphemeralOverlap, text });
        }
        found
    }

    fn misplaced(&self, purpose: Option<&str>, port: u16) -> Option<String> {
        let at = self.at(port);
        match (purpose, at) {
            (Some(purpose), _) => {
                let mut own = self.rows.iter().filter(|row| row.purpose == purpose).peekable();
                own.peek()?;
                let own: Vec<&PortRange> = own.collect();
                if own.iter().any(|row| row.contains(port)) {
                    return None;
                }
                let list: Vec<String> = own.iter().map(ToString::to_string).collect();
                Some(format!("{port} lies outside of {}", list.join(", ")))
            }
            (None, Some(row)) if row.purpose == "gpu" => {
                Some(format!("{port} lies in the range of {row}, and this asks for no GPU"))
            }
            (None, _) => None,
        }
    }

    /// What is odd about the table itself.
    pub fn lint(&self) -> Vec<Lint> {
        let mut found = vec![];
        for (n, row) in self.rows.iter().enumerate() {
            let span = Span { from: row.from, to: row.to };
            if row.from > row.to || row.from == 0 {
                let text = format!("the range {row} holds no port");
                found.push(Lint { kind: DriftKind::PortOutsideRange, text });
            }
            if row.from < 1024 && row.from > 0 {
                let text = format!("the range {row} begins below 1024: only root may listen there");
                found.push(Lint { kind: DriftKind::PortReserved, text });
            }
            for other in &self.rows[n + 1..] {
                // A reserved port inside a range is what reserving is for.
                let is_meant = row.reserved_for.is_some() || other.reserved_for.is_some();
                if span.overlaps(other.from, other.to) && !is_meant {
                    let text = format!("the ranges {row} and {other} overlap");
                    found.push(Lint { kind: DriftKind::PortOutsideRange, text });
                }
            }
            if let Some(part) = self.ephemeral_in(span) {
                let text = format!(
                    "{part} of the range {row} lies where the kernel chooses ports for outgoing connections: \
                     add it to net.ipv4.ip_local_reserved_ports"
                );
                found.push(Lint { kind: DriftKind::EphemeralOverlap, text });
            }
        }
        found
    }
}
