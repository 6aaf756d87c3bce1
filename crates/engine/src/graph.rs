//! Units and what they need of each other, as a graph. How it is drawn is [`draw`]'s.

pub mod draw;

use std::collections::{BTreeMap, BTreeSet};

use wharf_api::rpc::deps::{Graph, GraphFormat, GraphNeed, GraphUnit};
use wharf_model::{Phase, UnitName};

use crate::engine::World;

/// The graph of all units, or of one with all that hangs together with it.
pub fn graph(world: &World, about: Option<&UnitName>, format: GraphFormat) -> Graph {
    let mut needs: Vec<GraphNeed> = world
        .values()
        .flat_map(|unit| {
            let from = &unit.name;
            unit.policy.needs.iter().map(|n| GraphNeed { from: from.clone(), to: n.unit.clone(), soft: n.soft })
        })
        .collect();
    let mut names: BTreeSet<UnitName> = world.keys().cloned().chain(needs.iter().map(|need| need.to.clone())).collect();
    if let Some(about) = about {
        let mut near = reach(about, &needs, |n| (&n.from, &n.to));
        near.extend(reach(about, &needs, |n| (&n.to, &n.from)));
        names.retain(|name| near.contains(name));
        needs.retain(|need| near.contains(&need.from) && near.contains(&need.to));
    }
    let state = |name: &UnitName| world.get(name).map(|unit| unit.phase());
    let units: Vec<GraphUnit> = names.into_iter().map(|name| GraphUnit { state: state(&name), name }).collect();
    let drawing = match format {
        GraphFormat::Json => None,
        GraphFormat::Text => Some(draw::text(&units, &needs)),
        GraphFormat::Mermaid => Some(draw::mermaid(&units, &needs)),
        GraphFormat::Svg => Some(draw::svg(&units, &needs)),
    };
    Graph { units, needs, drawing }
}

/// All that can be reached from a unit along one direction, itself included.
fn reach<'a>(
    from: &'a UnitName,
    needs: &'a [GraphNeed],
    ends: impl Fn(&'a GraphNeed) -> (&'a UnitName, &'a UnitName),
) -> BTreeSet<UnitName> {
    let mut ways: BTreeMap<&UnitName, Vec<&UnitName>> = BTreeMap::new();
    for need in needs {
        let (a, b) = ends(need);
        ways.entry(a).or_default().push(b);
    }
    let (mut seen, mut todo) = (BTreeSet::new(), vec![from]);
    while let Some(name) = todo.pop() {
        if seen.insert(name.clone()) {
            todo.extend(ways.get(name).into_iter().flatten());
        }
    }
    seen
}

/// What a state is called in a drawing.
fn state_word(state: Option<Phase>) -> &'static str {
    state.map_or("missing", Phase::word)
}
