//! `event.*`: what has happened, and what happens.

use crate::{
    Caller,
    event::{WatchParams, WatchReport},
    table::methods,
};

methods! {
    /// What the engine does for `event.*`.
    trait EventApi, client EventClient, dispatch dispatch, schemas schemas;

    /// The events since a number; in a stream, all that follow.
    Logs "event.watch" watch(WatchParams) -> WatchReport;
}
