//! What a shim tells the daemon that asked for it: that the program began or why not, and how it ended.
//!
//! Only news: whoever misses it finds the same in the run's folder and with the kernel.

use crate::{
    codec::{BadBytes, Reader, Writer},
    record::{Outcome, Stage},
};

/// One message of a shim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// The request's number.
    pub token: u64,
    /// What has come of it.
    pub news: News,
}

/// What has happened to a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// The program runs.
    Began(Began),
    /// A step failed, with the kernel's error number.
    Failed(Stage, i32),
    /// The run was not ours to begin, or could not be recorded: one of [`crate::ends`].
    Refused(u8),
    /// The main process has ended.
    Ended(Outcome),
}

/// The processes of a run that has begun: what its start record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Began {
    /// The shim's pid.
    pub shim_pid: i32,
    /// The shim's identity.
    pub shim_id: u64,
    /// The main process's pid.
    pub pid: i32,
    /// The main process's identity.
    pub pid_id: u64,
    /// When it began, in milliseconds since 1970.
    pub wall_ms: i64,
    /// When it began, in milliseconds since boot.
    pub boottime_ms: i64,
}

impl Report {
    /// Longer than any report.
    pub const ROOM: usize = 64;

    /// As one message.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        w.uint64(self.token);
        match self.news {
            News::Began(began) => {
                w.byte(1);
                w.int32(began.shim_pid);
                w.uint64(began.shim_id);
                w.int32(began.pid);
                w.uint64(began.pid_id);
                w.int64(began.wall_ms);
                w.int64(began.boottime_ms);
            }
            News::Failed(stage, errno) => outcome(&mut w, 2, Outcome::StartFailed(stage, errno)),
            News::Refused(code) => {
                w.byte(3);
                w.byte(code);
            }
            News::Ended(how) => outcome(&mut w, 4, how),
        }
        w.plain()
    }

    /// From one message.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadBytes> {
        let mut r = Reader::plain(bytes);
        let (token, kind) = (r.uint64()?, r.byte()?);
        let news = match kind {
            1 => News::Began(Began {
                shim_pid: r.int32()?,
                shim_id: r.uint64()?,
                pid: r.int32()?,
                pid_id: r.uint64()?,
                wall_ms: r.int64()?,
                boottime_ms: r.int64()?,
            }),
            2 => match Outcome::read(&mut r)? {
                Outcome::StartFailed(stage, errno) => News::Failed(stage, errno),
                Outcome::Exited(_) | Outcome::Signaled(_) => return Err(BadBytes),
            },
            3 => News::Refused(r.byte()?),
            4 => News::Ended(Outcome::read(&mut r)?),
            _ => return Err(BadBytes),
        };
        Ok(Self { token, news })
    }
}

fn outcome(w: &mut Writer, kind: u8, outcome: Outcome) {
    w.byte(kind);
    outcome.write(w);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_survive_the_socket() {
        let began = Began { shim_pid: 1, shim_id: 2, pid: 3, pid_id: u64::MAX, wall_ms: -5, boottime_ms: 6 };
        for news in [
            News::Began(began),
            News::Failed(Stage::Setuid, 1),
            News::Refused(75),
            News::Ended(Outcome::Exited(7)),
            News::Ended(Outcome::Signaled(9)),
        ] {
            let report = Report { token: 77, news };
            let bytes = report.encode();
            assert!(bytes.len() <= Report::ROOM);
            assert_eq!(Report::decode(&bytes), Ok(report));
            assert_eq!(Report::decode(&bytes[..bytes.len() - 1]), Err(BadBytes));
        }
    }
}
