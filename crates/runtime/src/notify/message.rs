//! The text of a notification: lines of NAME=value, as sd_notify(3) has them. Nothing in it is trusted.

/// A longer datagram is cut, in bytes.
pub(crate) const MOST_BYTES: usize = 4096;
/// What is kept of a status, in characters.
const STATUS_CHARS: usize = 256;

/// What one datagram says. What is not understood is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Message {
    pub ready: bool,
    pub reloading: bool,
    pub stopping: bool,
    pub status: Option<String>,
    /// Errno that it fails with.
    pub errno: Option<i32>,
    pub bus_error: Option<String>,
    pub watchdog: Option<Watchdog>,
    /// In milliseconds, at least 1.
    pub watchdog_ms: Option<u64>,
    /// In milliseconds, at least 1.
    pub extend_ms: Option<u64>,
    pub main_pid: Option<i32>,
    /// The pidfd inode of `main_pid`.
    pub main_id: Option<u64>,
    pub barrier: bool,
    pub fd_store: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Watchdog {
    Alive,
    Trigger,
}

impl Message {
    /// Reads a datagram. Any bytes are one.
    pub fn read(bytes: &[u8]) -> Self {
        let mut message = Self::default();
        for line in bytes.split(|b| *b == b'\n' || *b == 0) {
            if let Ok(line) = std::str::from_utf8(line)
                && let Some((name, value)) = line.split_once('=')
            {
                message.take(name, value.trim_end_matches('\r'));
            }
        }
        message
    }

    fn take(&mut self, name: &str, value: &str) {
        match (name, value) {
            ("READY", "1") => self.ready = true,
            ("RELOADING", "1") => self.reloading = true,
            ("STOPPING", "1") => self.stopping = true,
            ("STATUS", text) => self.status = Some(shown(text)),
            ("ERRNO", number) => self.errno = number.parse().ok().filter(|n| (1..=4095).contains(n)),
            ("BUSERROR", text) => self.bus_error = Some(shown(text)).filter(|text| !text.is_empty()),
            ("WATCHDOG", "1") => self.watchdog = Some(Watchdog::Alive),
            ("WATCHDOG", "trigger") => self.watchdog = Some(Watchdog::Trigger),
            ("WATCHDOG_USEC", usec) => self.watchdog_ms = milliseconds(usec),
            ("EXTEND_TIMEOUT_USEC", usec) => self.extend_ms = milliseconds(usec),
            ("MAINPID", pid) => self.main_pid = pid.parse().ok().filter(|pid| *pid > 1),
            ("MAINPIDFDID", id) => self.main_id = id.parse().ok(),
            ("BARRIER", "1") => self.barrier = true,
            ("FDSTORE" | "FDSTOREREMOVE", "1") => self.fd_store = true,
            // MONOTONIC_USEC only orders reloads, which arrive in order here; EXIT_STATUS, X_… and the
            // like are for others.
            _ => {}
        }
    }
}

/// Microseconds, as milliseconds: never fewer than were meant. None and infinity change nothing.
fn milliseconds(usec: &str) -> Option<u64> {
    usec.parse::<u64>().ok().filter(|usec| *usec > 0 && *usec < u64::MAX).map(|usec| usec.div_ceil(1000))
}

/// Text of a stranger, fit for a terminal.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(STATUS_CHARS).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_verb_is_understood() {
        let text = "READY=1\nRELOADING=1\nMONOTONIC_USEC=5\nSTOPPING=1\nSTATUS=loading \x1b[31m3/4\nERRNO=2\nBUSERROR=org.x.Y\n\
                    WATCHDOG=1\nWATCHDOG_USEC=1500\nEXTEND_TIMEOUT_USEC=2000000\nMAINPID=42\nMAINPIDFDID=77\n\
                    BARRIER=1\nFDSTORE=1\nFDNAME=a\nX_OWN=1\nnonsense\n";
        let wanted = Message {
            ready: true,
            reloading: true,
            stopping: true,
            status: Some("loading [31m3/4".into()),
            errno: Some(2),
            bus_error: Some("org.x.Y".into()),
            watchdog: Some(Watchdog::Alive),
            watchdog_ms: Some(2),
            extend_ms: Some(2_000),
            main_pid: Some(42),
            main_id: Some(77),
            barrier: true,
            fd_store: true,
        };
        assert_eq!(Message::read(text.as_bytes()), wanted);
        assert_eq!(Message::read(b"WATCHDOG=trigger").watchdog, Some(Watchdog::Trigger));
    }

    #[test]
    fn what_is_no_value_says_nothing() {
        for text in [
            "",
            "\n\n",
            "=",
            "READY",
            "READY=0",
            "READY=yes",
            "ready=1",
            " READY=1",
            "ERRNO=-1",
            "ERRNO=0",
            "MAINPID=0",
            "MAINPID=1",
            "MAINPID=-4",
            "MAINPID=99999999999",
            "WATCHDOG_USEC=0",
            "WATCHDOG_USEC=-1",
            "EXTEND_TIMEOUT_USEC=18446744073709551615",
            "EXTEND_TIMEOUT_USEC=1s",
            "WATCHDOG=2",
            "BUSERROR=",
        ] {
            assert_eq!(Message::read(text.as_bytes()), Message::default(), "{text:?}");
        }
        assert_eq!(Message::read(b"\xff\xfe=1\nREADY=1\0"), Message { ready: true, ..Message::default() });
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_bytes_are_read_and_what_is_kept_is_bounded(bytes in prop::collection::vec(any::<u8>(), 0..MOST_BYTES)) {
            let message = Message::read(&bytes);
            prop_assert!(message.status.is_none_or(|s| s.chars().count() <= STATUS_CHARS));
        }

        #[test]
        fn what_looks_like_a_message_is_read(
            lines in prop::collection::vec(
                ("(READY|STATUS|ERRNO|WATCHDOG|WATCHDOG_USEC|EXTEND_TIMEOUT_USEC|MAINPID|MAINPIDFDID|BARRIER|FDSTORE)", "\\PC*|-?[0-9]{0,30}|1"),
                0..20,
            ),
        ) {
            let text: String = lines.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
            let message = Message::read(text.as_bytes());
            prop_assert!(message.main_pid.is_none_or(|pid| pid > 1));
            prop_assert!(message.watchdog_ms != Some(0) && message.extend_ms != Some(0));
            prop_assert!(message.status.is_none_or(|s| !s.chars().any(char::is_control)));
        }
    }
}
