//! The flags that say what is needed of GPUs, as a request.

use serde_json::{Map, Value, json};

use super::devices;
use crate::{amount, session::Session, trouble::Trouble};

/// What is needed, and by which rules.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct Need {
    /// Memory on each device: 8GiB, 8192MiB, 1.5G, or bytes. Without it each device is had alone
    #[arg(long, value_name = "SIZE", value_parser = amount::some_bytes)]
    vram: Option<u64>,
    /// How many devices
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    devices: u32,
    /// Nobody else on these devices
    #[arg(long)]
    exclusive: bool,
    /// All on devices that reach each other directly, by NVLink or the like
    #[arg(long)]
    same_island: bool,
    /// Only on this device: its id, the beginning of it, or its place. Several times for several
    #[arg(long, value_name = "DEVICE")]
    only: Vec<String>,
    /// Not on this device
    #[arg(long, value_name = "DEVICE")]
    avoid: Vec<String>,
    /// What would do instead, where the first has to be waited for: 24GiB, 2x12GiB, or 2x for two whole ones
    #[arg(long = "or", value_name = "[COUNTx]SIZE", value_parser = alternative)]
    or: Vec<Value>,
    /// How soon it is its turn. Waiting raises it, so nobody starves
    #[arg(long, value_enum)]
    priority: Option<Priority>,
    /// How much it matters, 0 to 100: those of more are not asked to leave for it
    #[arg(long, value_name = "0-100", value_parser = clap::value_parser!(u8).range(0..=100))]
    importance: Option<u8>,
    /// Who may be asked to leave for it
    #[arg(long, value_enum)]
    preempt: Option<Preempt>,
    /// It is not to be asked to leave itself
    #[arg(long)]
    stay: bool,
    /// From being asked to leave to SIGKILL: 10s, 2m
    #[arg(long, value_name = "TIME", value_parser = amount::millis)]
    drain: Option<u64>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Priority {
    /// Whatever can wait for hours
    Batch,
    /// After what people wait for
    Low,
    /// As usual
    Normal,
    /// A person waits
    High,
    /// A person waits, and it hurts
    Urgent,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Preempt {
    /// Nobody
    Never,
    /// Those that do nothing just now, of the same importance or less
    Idle,
    /// These, and those of less importance
    Lower,
    /// Everybody who is not pinned
    Force,
}

impl Need {
    /// The `request` of a call.
    pub(super) fn request(&self, session: &Session) -> Result<Value, Trouble> {
        let mut request = Map::new();
        request.insert("devices".into(), self.devices.into());
        if let Some(bytes) = self.vram {
            request.insert("vram_bytes".into(), bytes.into());
        }
        for (name, is_set) in [("exclusive", self.exclusive), ("same_island", self.same_island)] {
            if is_set {
                request.insert(name.into(), true.into());
            }
        }
        for (name, typed) in [("only", &self.only), ("avoid", &self.avoid)] {
            if !typed.is_empty() {
                request.insert(name.into(), devices(session, typed)?.into());
            }
        }
        if !self.or.is_empty() {
            request.insert("alternatives".into(), self.or.clone().into());
        }
        let priority = self.priority.map(|priority| match priority {
            Priority::Batch => "batch",
            Priority::Low => "low",
            Priority::Normal => "normal",
            Priority::High => "high",
            Priority::Urgent => "urgent",
        });
        let preempt = self.preempt.map(|preempt| match preempt {
            Preempt::Never => "never",
            Preempt::Idle => "idle",
            Preempt::Lower => "lower",
            Preempt::Force => "force",
        });
        request.extend(priority.map(|word| ("priority".into(), word.into())));
        request.extend(preempt.map(|word| ("preempt".into(), word.into())));
        request.extend(self.importance.map(|importance| ("importance".into(), importance.into())));
        request.extend(self.drain.map(|ms| ("drain_ms".into(), ms.into())));
        if self.stay {
            request.insert("evictable".into(), false.into());
        }
        Ok(request.into())
    }
}

/// `24GiB`, `2x12GiB`, `2x`.
fn alternative(text: &str) -> Result<Value, String> {
    let (count, size) = text.split_once('x').map_or((Ok(1), text), |(count, size)| (count.parse::<u32>(), size));
    let wrong = || format!("{text:?} is no alternative: 24GiB, 2x12GiB, or 2x for two whole devices");
    let count = count.map_err(|_| wrong())?;
    match size {
        "" if text.len() > 1 => Ok(json!({ "devices": count })),
        size => Ok(json!({ "devices": count, "vram_bytes": amount::some_bytes(size).map_err(|_| wrong())? })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alternatives_have_a_short_form() {
        assert_eq!(alternative("24GiB").unwrap(), json!({ "devices": 1, "vram_bytes": 24_u64 << 30 }));
        assert_eq!(alternative("2x12GiB").unwrap(), json!({ "devices": 2, "vram_bytes": 12_u64 << 30 }));
        assert_eq!(alternative("2x").unwrap(), json!({ "devices": 2 }));
        for text in ["", "x", "2y", "twox8G"] {
            assert!(alternative(text).is_err(), "{text:?} was taken");
        }
    }
}
