//! `deps.*`: why units are as they are, and what they need of each other.

use async_trait::async_trait;
use wharf_api::{
    Caller,
    rpc::deps::{DepsApi, Graph, GraphParams, Why, WhyParams},
};
use wharf_model::Failure;

use crate::{engine::Engine, graph, why};

#[async_trait]
impl DepsApi for Engine {
    async fn why(&self, _: &Caller, p: WhyParams) -> Result<Why, Failure> {
        self.status_of(&p.name)?;
        let unit = self.unit_or_blank(&p.name)?;
        Ok(why::explain(&self.world(), &unit))
    }

    async fn graph(&self, _: &Caller, p: GraphParams) -> Result<Graph, Failure> {
        if let Some(name) = &p.name {
            self.status_of(name)?;
        }
        Ok(graph::graph(&self.world(), p.name.as_ref(), p.format))
    }
}
