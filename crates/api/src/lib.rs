//! The contract: the methods of each socket, their params, results and errors.
//!
//! A method is one line in its namespace's table (`methods!` in `service.rs`), its params and
//! result as types, and its entry in the hand-written document in `static/`. From the table come
//! the trait that the engine implements, the dispatch, the typed client and the list that the
//! drift tests compare with the document.
//!
//! This crate refuses to know sockets and services: it turns names and JSON into typed calls, and back.

mod errors;
mod event;
mod methods;
mod params;
mod results;
pub mod rpc;
mod service;
mod table;

pub use errors::{error_object, failure_of};
pub use event::{Disk, EventKind, EventRow, Follow, Following, Happened, WatchParams, WatchReport};
pub use methods::{Caller, Methods, Notification, Peer};
pub use params::*;
pub use results::*;
pub use rpc::{
    RPC_DOCUMENT, RpcApi, RpcMethods,
    op::{OpList, OpListParams},
    rpc_methods,
};
pub use service::{SERVICE_DOCUMENT, ServiceApi, ServiceClient, ServiceMethods, service_methods};
pub use table::{Class, MethodSchema, Named};
