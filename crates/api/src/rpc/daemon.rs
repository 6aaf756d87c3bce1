//! `rpc.*` of rpc.sock: its document, and how the daemon is.

use crate::{Caller, params::ListParams, results::*, table::methods};

methods! {
    /// What the engine does for `rpc.*` on rpc.sock.
    trait RpcDaemonApi, client RpcDaemonClient, dispatch dispatch, schemas schemas;

    /// The OpenRPC document of this socket.
    Read "rpc.discover" rpc_document(ListParams) -> Document;
    /// How the daemon is.
    Read "rpc.health" rpc_health(ListParams) -> DaemonHealth;
}
