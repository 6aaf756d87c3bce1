//! What a socket serves: the seam between the server (bytes, limits) and the engine (deeds).
//!
//! The server knows nothing of services; it hands over a method's name, its params as they were
//! sent, and who is calling, and gets a result or an error object back.

use std::sync::Arc;

use async_trait::async_trait;
use jsonrpsee_types::ErrorObjectOwned;
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use crate::{Class, Follow, WatchParams};

/// Who is calling, as the kernel says (`SO_PEERCRED`, taken when the connection was made).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Process, for display and as the holder of what it asks for itself: never authorise by it.
    pub pid: i32,
    /// Which one of that number, as it was when the connection was taken; none: it was gone already.
    pub identity: Option<u64>,
}

/// Something that is said while a call runs: progress, or a line of a followed log.
#[derive(Debug, Clone)]
pub struct Notification {
    /// The JSON-RPC method of the notification: `service.progress`, `service.log`.
    pub method: &'static str,
    /// Its params, an object.
    pub params: Box<RawValue>,
}

/// What a call is given beside its params.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Who.
    pub peer: Peer,
    /// Where notifications go; `None` where the caller did not ask for a stream.
    /// A full channel means a slow reader: progress may be dropped, log lines wait.
    pub stream: Option<mpsc::Sender<Notification>>,
    /// What the caller calls itself (`X-Client-Id`), for the record only.
    pub client: Option<Arc<str>>,
}

/// A set of methods with its document.
#[async_trait]
pub trait Methods: Send + Sync + 'static {
    /// Runs one method. `params` is an object, an array, or absent.
    async fn call(
        &self,
        caller: &Caller,
        method: &str,
        params: Option<&RawValue>,
    ) -> Result<Box<RawValue>, ErrorObjectOwned>;

    /// What a method may do. `None`: it is not known here, so that the worst is assumed.
    fn class(&self, _method: &str) -> Option<Class> {
        None
    }

    /// A reader of the events that `GET /events` streams. `None`: there are none here.
    fn follow(&self, _params: &WatchParams) -> Option<Follow> {
        None
    }

    /// The OpenRPC document, byte for byte what `rpc.discover` answers and `GET /openrpc.json` serves.
    fn document(&self) -> &'static str;

    /// The body of `GET /health`.
    fn health(&self) -> Box<RawValue>;

    /// The body of `GET /.well-known/heroservice.json`.
    fn card(&self) -> Box<RawValue>;
}
