//! rpc.sock: what is asked of Wharf as a whole, in namespaces.
//!
//! A namespace is a module with its table, one line in [`namespaces!`] below, and its methods in
//! `static/rpc.openrpc.json`, in the same order.

pub mod daemon;
pub mod deps;
pub mod discovery;
pub mod event;
pub mod gpu;
pub mod infra;
pub mod op;
pub mod port;
pub mod store;

use std::sync::Arc;

use async_trait::async_trait;
use jsonrpsee_types::ErrorObjectOwned;
use serde_json::value::RawValue;

use crate::{Caller, Class, MethodSchema, Methods, table::no_such_method};

/// The hand-written document of rpc.sock.
pub const RPC_DOCUMENT: &str = include_str!("../../../static/rpc.openrpc.json");

/// From a list of namespaces: what has to be implemented, the dispatch, the classes, the schemas.
macro_rules! namespaces {
    ($( $prefix:literal $module:ident::$Api:ident; )*) => {
        /// Everything of rpc.sock.
        pub trait RpcApi: $( $module::$Api + )* {}
        impl<A: $( $module::$Api + )* ?Sized> RpcApi for A {}

        async fn dispatch<A: RpcApi + ?Sized>(
            api: &A,
            caller: &Caller,
            method: &str,
            params: Option<&RawValue>,
        ) -> Result<Box<RawValue>, ErrorObjectOwned> {
            match method.split('.').next() {
                $( Some($prefix) => $module::dispatch(api, caller, method, params).await, )*
                _ => Err(no_such_method(method, &rpc_methods().iter().map(|m| m.name).collect::<Vec<_>>())),
            }
        }

        fn class_of(method: &str) -> Option<Class> {
            match method.split('.').next() {
                $( Some($prefix) => <dyn $module::$Api>::class_of(method), )*
                _ => None,
            }
        }

        /// Every method of rpc.sock, in the order of its document.
        pub fn rpc_methods() -> Vec<MethodSchema> {
            let mut all = vec![];
            $( all.extend($module::schemas()); )*
            all
        }
    };
}

namespaces! {
    "deps" deps::DepsApi;
    "discovery" discovery::DiscoveryApi;
    "event" event::EventApi;
    "gpu" gpu::GpuApi;
    "infra" infra::InfraApi;
    "op" op::OpApi;
    "port" port::PortApi;
    "rpc" daemon::RpcDaemonApi;
    "store" store::StoreApi;
}

/// rpc.sock: its namespaces over whatever implements them.
pub struct RpcMethods<A: ?Sized> {
    api: Arc<A>,
    health: fn(&A) -> Box<RawValue>,
    card: fn(&A) -> Box<RawValue>,
}

impl<A: RpcApi + ?Sized> RpcMethods<A> {
    /// `health` and `card` are the bodies of `GET /health` and `GET /.well-known/heroservice.json`.
    pub fn new(api: Arc<A>, health: fn(&A) -> Box<RawValue>, card: fn(&A) -> Box<RawValue>) -> Self {
        Self { api, health, card }
    }
}

#[async_trait]
impl<A: RpcApi + ?Sized> Methods for RpcMethods<A> {
    async fn call(
        &self,
        caller: &Caller,
        method: &str,
        params: Option<&RawValue>,
    ) -> Result<Box<RawValue>, ErrorObjectOwned> {
        dispatch(&*self.api, caller, method, params).await
    }

    fn class(&self, method: &str) -> Option<Class> {
        class_of(method)
    }

    fn document(&self) -> &'static str {
        RPC_DOCUMENT
    }

    fn health(&self) -> Box<RawValue> {
        (self.health)(&self.api)
    }

    fn card(&self) -> Box<RawValue> {
        (self.card)(&self.api)
    }
}
