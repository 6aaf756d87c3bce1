//! SIGTERM and SIGINT, heard by a thread of their own: a daemon that hands over has no runtime for a while.

use std::{io, thread};

use tokio::{
    runtime::Builder,
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// True as soon as the daemon is asked to end.
pub(super) type Quit = watch::Receiver<bool>;

/// Begins to listen.
pub(super) fn listen() -> io::Result<Quit> {
    let runtime = Builder::new_current_thread().enable_io().build()?;
    let (mut terminated, mut interrupted) = {
        let _inside = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
    };
    let (tell, quit) = watch::channel(false);
    let listen = async move {
        tokio::select! {
            _ = terminated.recv() => {}
            _ = interrupted.recv() => {}
        }
        tell.send_replace(true);
        // A sender that is gone would mean nothing new, but it would wake whoever waits.
        std::future::pending::<()>().await;
    };
    thread::Builder::new().name("signals".into()).spawn(move || runtime.block_on(listen))?;
    Ok(quit)
}
