//! Clearing away what runs leave, a moment after their end: neither the next run nor the end of many
//! others waits for folders to be removed. A daemon that ends clears up first.

use std::time::Duration;

use tokio::sync::watch;

/// After the end of a run.
const LATER: Duration = Duration::from_millis(100);
/// A daemon that ends waits so long; what is left is cleared away by the next.
const AT_THE_END: Duration = Duration::from_secs(2);

/// What is still to be cleared away.
pub struct Clearing {
    open: watch::Sender<usize>,
    hurry: watch::Sender<bool>,
}

impl Default for Clearing {
    fn default() -> Self {
        Self { open: watch::Sender::new(0), hurry: watch::Sender::new(false) }
    }
}

/// Something that is to be cleared away, until it is dropped.
pub struct Open<'a>(&'a Clearing);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.send_modify(|open| *open -= 1);
    }
}

impl Clearing {
    /// When it is time. What comes back is held until it is cleared away.
    pub async fn later(&self) -> Open<'_> {
        self.open.send_modify(|open| *open += 1);
        let open = Open(self);
        let mut hurry = self.hurry.subscribe();
        tokio::select! {
            () = tokio::time::sleep(LATER) => {}
            // The sender is this value's own: it cannot be gone.
            _ = hurry.wait_for(|hurry| *hurry) => {}
        }
        open
    }

    /// Clears away at once, and waits for it.
    pub async fn finish(&self) {
        self.hurry.send_replace(true);
        let mut open = self.open.subscribe();
        let done = open.wait_for(|open| *open == 0);
        if tokio::time::timeout(AT_THE_END, done).await.is_err() {
            tracing::warn!("folders of ended runs are left to the next daemon");
        }
    }
}
