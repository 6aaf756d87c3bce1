//! `deps.*`: what units need of each other, and why each is as it is.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wharf_model::{Phase, UnitName, Want};

use crate::{Caller, table::methods};

methods! {
    /// What the engine does for the namespace `deps`.
    trait DepsApi, client DepsClient, dispatch dispatch, schemas schemas;

    /// Why a unit is as it is, and what would change it.
    Read "deps.why" why(WhyParams) -> Why;
    /// Units and what they need of each other, as data or drawn.
    Read "deps.graph" graph(GraphParams) -> Graph;
}

/// Params of `deps.why`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WhyParams {
    /// The unit.
    pub name: UnitName,
}

/// Something that can be done about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Remedy {
    /// What would change.
    pub effect: String,
    /// How to do it; none: it happens by itself.
    pub command: Option<String>,
}

/// A unit that another one needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NeedRow {
    /// Which.
    pub unit: UnitName,
    /// It can do without.
    pub soft: bool,
    /// What it is; none: there is no such unit.
    pub state: Option<Phase>,
    /// It is as it must be for the other to start.
    pub met: bool,
}

/// The result of `deps.why`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Why {
    /// The unit.
    pub name: UnitName,
    /// What it is.
    pub state: Phase,
    /// What is wanted of it.
    pub want: Want,
    /// The answer in one sentence.
    pub answer: String,
    /// The chain behind it, nearest reason first.
    pub because: Vec<String>,
    /// What would change it.
    pub remedies: Vec<Remedy>,
    /// What it needs.
    pub needs: Vec<NeedRow>,
    /// What needs it.
    pub needed_by: Vec<NeedRow>,
}

/// How a graph is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GraphFormat {
    /// Units and edges only.
    #[default]
    Json,
    /// Also a tree of text.
    Text,
    /// Also a Mermaid flowchart.
    Mermaid,
    /// Also an SVG picture.
    Svg,
}

/// Params of `deps.graph`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GraphParams {
    /// Only this unit, what it needs and what needs it, near and far. All units unless it is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<UnitName>,
    /// How it is drawn.
    #[serde(default)]
    pub format: GraphFormat,
}

/// A unit in the graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GraphUnit {
    /// The unit.
    pub name: UnitName,
    /// What it is; none: it is needed, and there is no such unit.
    pub state: Option<Phase>,
}

/// A need in the graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GraphNeed {
    /// Who needs.
    pub from: UnitName,
    /// What.
    pub to: UnitName,
    /// It can do without.
    pub soft: bool,
}

/// The result of `deps.graph`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Graph {
    /// The units, by name.
    pub units: Vec<GraphUnit>,
    /// Who needs what.
    pub needs: Vec<GraphNeed>,
    /// The drawing that was asked for.
    pub drawing: Option<String>,
}
