//! `wharf graph`: services and what they need of each other, drawn.

use clap_complete::engine::ArgValueCompleter;
use wharf_api::rpc::deps::{Graph as Drawn, GraphFormat, GraphParams};
use wharf_model::UnitName;

use crate::{Exit, complete, given, session::Session, trouble::Outcome};

/// Draw what services need of each other
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  wharf graph
  wharf graph command@api
  wharf graph --format svg > services.svg
  wharf graph --format mermaid")]
pub(crate) struct Graph {
    /// Only this service, what it needs and what needs it
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(complete::units))]
    name: Option<UnitName>,
    /// How it is drawn
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
enum Format {
    /// A tree
    #[default]
    Text,
    /// A Mermaid flowchart
    Mermaid,
    /// A picture
    Svg,
}

impl Graph {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let format = match self.format {
            Format::Text => GraphFormat::Text,
            Format::Mermaid => GraphFormat::Mermaid,
            Format::Svg => GraphFormat::Svg,
        };
        let params = given::params(&GraphParams { name: self.name, format })?;
        let client = session.client.rpc();
        let raw = session.block_on(async { Ok(client.raw("deps.graph", params).await?) })?;
        session.show(&raw, text)?;
        Ok(Exit::Done)
    }
}

fn text(graph: &Drawn) -> String {
    match &graph.drawing {
        _ if graph.units.is_empty() => "there is no service yet: wharf list shows what can be installed".into(),
        Some(drawing) => drawing.clone(),
        None => String::new(),
    }
}
