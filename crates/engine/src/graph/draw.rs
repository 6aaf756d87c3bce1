//! A graph of needs drawn: as a tree of text, for Mermaid, as SVG. Pure: the same graph, the same drawing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use wharf_api::rpc::deps::{GraphNeed, GraphUnit};
use wharf_model::{Phase, UnitName};

use super::state_word;

type Ways<'a> = BTreeMap<&'a UnitName, Vec<&'a GraphNeed>>;

fn ways(needs: &[GraphNeed]) -> Ways<'_> {
    let mut ways = Ways::new();
    for need in needs {
        ways.entry(&need.from).or_default().push(need);
    }
    ways
}

/// Each unit that nobody needs, and below it what it needs. What was drawn above is only named again.
pub fn text(units: &[GraphUnit], needs: &[GraphNeed]) -> String {
    let (ways, needed): (_, BTreeSet<&UnitName>) = (ways(needs), needs.iter().map(|need| &need.to).collect());
    let mut tree = Tree { units, ways, drawn: BTreeSet::new(), out: String::new() };
    for unit in units.iter().filter(|unit| !needed.contains(&unit.name)) {
        tree.draw(&unit.name, "", "", "");
    }
    // Rings cannot be made; a graph that holds one all the same is drawn too.
    for unit in units {
        if !tree.drawn.contains(&unit.name) {
            tree.draw(&unit.name, "", "", "");
        }
    }
    tree.out
}

struct Tree<'a> {
    units: &'a [GraphUnit],
    ways: Ways<'a>,
    drawn: BTreeSet<&'a UnitName>,
    out: String,
}

impl<'a> Tree<'a> {
    fn draw(&mut self, name: &'a UnitName, branch: &str, stem: &str, note: &str) {
        let state = self.units.iter().find(|unit| unit.name == *name).and_then(|unit| unit.state);
        let again = !self.drawn.insert(name);
        let below = self.ways.get(name).cloned().unwrap_or_default();
        let more = if again && !below.is_empty() { " …" } else { "" };
        let _ = writeln!(self.out, "{branch}{name}  {}{note}{more}", state_word(state));
        if again {
            return;
        }
        let last = below.len().saturating_sub(1);
        for (n, need) in below.into_iter().enumerate() {
            let (turn, on) = if n == last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            let note = if need.soft { "  (soft)" } else { "" };
            self.draw(&need.to, &format!("{stem}{turn}"), &format!("{stem}{on}"), note);
        }
    }
}

/// A flowchart for Mermaid: solid arrows are required needs, dotted ones soft.
pub fn mermaid(units: &[GraphUnit], needs: &[GraphNeed]) -> String {
    let id = |name: &UnitName| units.iter().position(|unit| unit.name == *name).unwrap_or_default();
    let mut out = String::from("flowchart TD\n");
    for (n, unit) in units.iter().enumerate() {
        let word = state_word(unit.state);
        let _ = writeln!(out, "  u{n}[\"{}<br/>{word}\"]:::{}", unit.name, colour(unit.state).0);
    }
    for need in needs {
        let arrow = if need.soft { "-.->" } else { "-->" };
        let _ = writeln!(out, "  u{} {arrow} u{}", id(&need.from), id(&need.to));
    }
    for (class, fill) in COLOURS {
        let _ = writeln!(out, "  classDef {class} fill:{fill}");
    }
    out
}

const COLOURS: [(&str, &str); 4] = [("well", "#c8e6c9"), ("busy", "#fff9c4"), ("bad", "#ffcdd2"), ("off", "#eceff1")];

fn colour(state: Option<Phase>) -> (&'static str, &'static str) {
    let [well, busy, bad, off] = COLOURS;
    match state {
        Some(Phase::Running) => well,
        Some(Phase::Starting | Phase::Stopping | Phase::Unknown) => busy,
        Some(Phase::Degraded | Phase::Unhealthy | Phase::Backoff | Phase::Failed | Phase::Blocked) | None => bad,
        Some(Phase::Stopped | Phase::NotInstalled) => off,
    }
}

const WIDE: usize = 170;
const HIGH: usize = 44;
const GAP_X: usize = 24;
const GAP_Y: usize = 56;

/// A picture: each unit one row below everything that needs it.
pub fn svg(units: &[GraphUnit], needs: &[GraphNeed]) -> String {
    let places = places(units, needs);
    let columns = places.values().map(|(x, _)| x + 1).max().unwrap_or(1);
    let rows = places.values().map(|(_, y)| y + 1).max().unwrap_or(1);
    let (width, height) = (columns * (WIDE + GAP_X) + GAP_X, rows * (HIGH + GAP_Y));
    let corner = |name: &UnitName| {
        let (x, y) = places.get(name).copied().unwrap_or_default();
        (GAP_X + x * (WIDE + GAP_X), GAP_Y / 2 + y * (HIGH + GAP_Y))
    };
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"13\">\n\
         <defs><marker id=\"tip\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" \
         orient=\"auto\"><path d=\"M0 0L8 4L0 8z\" fill=\"#546e7a\"/></marker></defs>\n"
    );
    for need in needs {
        let ((x1, y1), (x2, y2)) = (corner(&need.from), corner(&need.to));
        let dash = if need.soft { " stroke-dasharray=\"4 4\"" } else { "" };
        let (x1, y1, x2) = (x1 + WIDE / 2, y1 + HIGH, x2 + WIDE / 2);
        let _ = writeln!(
            out,
            "<path d=\"M{x1} {y1}C{x1} {} {x2} {} {x2} {y2}\" fill=\"none\" stroke=\"#546e7a\"{dash} marker-end=\"url(#tip)\"/>",
            y1 + GAP_Y / 2,
            y2.saturating_sub(GAP_Y / 2),
        );
    }
    for unit in units {
        let ((x, y), fill) = (corner(&unit.name), colour(unit.state).1);
        let middle = x + WIDE / 2;
        // Names are letters, digits and `@._-`: nothing to escape.
        let _ = writeln!(
            out,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{WIDE}\" height=\"{HIGH}\" rx=\"6\" fill=\"{fill}\" stroke=\"#90a4ae\"/>\
             <text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{}</text>\
             <text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\" fill=\"#546e7a\" font-size=\"11\">{}</text>",
            y + 18,
            unit.name,
            y + 34,
            state_word(unit.state),
        );
    }
    out.push_str("</svg>\n");
    out
}

/// Column and row of each unit: a row is the longest way from one that nobody needs.
fn places<'a>(units: &'a [GraphUnit], needs: &'a [GraphNeed]) -> BTreeMap<&'a UnitName, (usize, usize)> {
    let mut rows: BTreeMap<&UnitName, usize> = units.iter().map(|unit| (&unit.name, 0)).collect();
    // As many rounds as units at most: a longer way would be a ring.
    for _ in 0..units.len() {
        let mut moved = false;
        for need in needs {
            let below = rows.get(&need.from).copied().unwrap_or_default() + 1;
            if let Some(row) = rows.get_mut(&need.to).filter(|row| **row < below && below < units.len()) {
                *row = below;
                moved = true;
            }
        }
        if !moved {
            break;
        }
    }
    let mut filled: BTreeMap<usize, usize> = BTreeMap::new();
    rows.into_iter()
        .map(|(name, row)| {
            let column = filled.entry(row).or_default();
            *column += 1;
            (name, (*column - 1, row))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (Vec<GraphUnit>, Vec<GraphNeed>) {
        let unit = |name: &str, state| GraphUnit { name: name.parse().unwrap(), state };
        let need =
            |from: &str, to: &str, soft| GraphNeed { from: from.parse().unwrap(), to: to.parse().unwrap(), soft };
        let units = vec![
            unit("api", Some(Phase::Running)),
            unit("db", Some(Phase::Running)),
            unit("queue", None),
            unit("web", Some(Phase::Blocked)),
        ];
        (
            units,
            vec![
                need("api", "db", false),
                need("web", "api", false),
                need("web", "db", false),
                need("web", "queue", true),
            ],
        )
    }

    #[test]
    fn a_tree_begins_with_what_nobody_needs() {
        let (units, needs) = sample();
        let expected = "\
web  blocked
├─ api  running
│  └─ db  running
├─ db  running
└─ queue  missing  (soft)
";
        assert_eq!(text(&units, &needs), expected);
    }

    #[test]
    fn mermaid_has_a_node_a_unit_and_an_arrow_a_need() {
        let (units, needs) = sample();
        let drawn = mermaid(&units, &needs);
        assert_eq!(drawn.matches("-->").count(), 3);
        assert_eq!(drawn.matches("-.->").count(), 1);
        assert!(drawn.contains("u3[\"web<br/>blocked\"]:::bad"), "{drawn}");
    }

    #[test]
    fn in_the_picture_a_unit_is_below_whoever_needs_it() {
        let (units, needs) = sample();
        let places = places(&units, &needs);
        for need in &needs {
            assert!(places[&need.from].1 < places[&need.to].1, "{} and {}", need.from, need.to);
        }
        assert_eq!(svg(&units, &needs).matches("<rect").count(), 4);
    }
}
