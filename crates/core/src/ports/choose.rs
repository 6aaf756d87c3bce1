//! The choice of ports in a range: which come first, and which are passed over.

use wharf_model::{ErrorKind, Failure};

use super::{
    range::{Ranges, Span},
    terms::Terms,
};

/// The first that nothing is in the way of, beginning at a place that is the same for the same name.
pub(super) fn choose(
    spans: &[Span],
    count: u16,
    contiguous: bool,
    terms: &Terms,
    ranges: &Ranges,
    in_the_way: &mut impl FnMut(u16) -> Option<Failure>,
) -> Result<Vec<u16>, Failure> {
    let all: Vec<u16> = spans.iter().flat_map(|span| span.from..=span.to).collect();
    let first = place(&terms.service, &terms.name, all.len());
    let mut tried = 0;
    let mut is_good = |port: u16| {
        tried += 1;
        ranges.reserved(port).is_none() && in_the_way(port).is_none()
    };
    let mut found: Vec<u16> = vec![];
    for n in 0..all.len() {
        let at = (first + n) % all.len();
        // A row of ports does not go around the end.
        let breaks = contiguous && found.last().is_some_and(|last| last.checked_add(1) != Some(all[at]));
        if breaks {
            found.clear();
        }
        if is_good(all[at]) {
            found.push(all[at]);
        } else if contiguous {
            found.clear();
        }
        if found.len() == usize::from(count) {
            found.sort_unstable();
            return Ok(found);
        }
    }
    // A row that begins before the place where we began and goes on behind it.
    if contiguous {
        let mut row: Vec<u16> = vec![];
        for port in all.iter().copied() {
            if row.last().is_some_and(|last| last.checked_add(1) != Some(port)) {
                row.clear();
            }
            if is_good(port) {
                row.push(port)
            } else {
                row.clear()
            }
            if row.len() == usize::from(count) {
                return Ok(row);
            }
        }
    }
    let list: Vec<String> = spans.iter().map(ToString::to_string).collect();
    let what = match (count, contiguous) {
        (1, _) => "no port".into(),
        (n, true) => format!("no {n} ports side by side"),
        (n, false) => format!("not {n} ports"),
    };
    Err(Failure::new(ErrorKind::RangeExhausted, format!("{what} of {} is free ({tried} tried)", list.join(", ")))
        .hint("`wharf ports --range …` shows who has them; another range may have room"))
}

/// FNV-1a: the same on every machine and in every version.
fn place(service: &str, name: &str, count: usize) -> usize {
    let bytes = service.bytes().chain([0]).chain(name.bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, b| (hash ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    (hash % (count.max(1) as u64)) as usize
}
