//! Where a download goes: a file, and its digests, made beside the network on a thread that may wait for the disk.

use std::{
    fs::File,
    io::{self, Seek, Write},
    path::Path,
};

use bytes::Bytes;
use sha2::{Digest, Sha256, Sha512};
use tokio::{sync::mpsc, task::JoinHandle};
use wharf_model::{ErrorKind, Failure};

use super::Trouble;
use crate::secret::hex;

/// So many pieces wait for the disk. A piece is what one read brought: up to 400 KiB on a fast connection.
const WAITING: usize = 4;

enum Letter {
    Piece(Bytes),
    Restart,
}

/// What lies there in the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::install) struct Saved {
    pub bytes: u64,
    pub sha256: String,
    /// Where it was asked for.
    pub sha512: Option<String>,
}

pub(super) struct Sink {
    letters: mpsc::Sender<Letter>,
    writer: JoinHandle<io::Result<Saved>>,
    bytes: u64,
}

impl Sink {
    pub fn open(path: &Path, sha512: bool) -> Result<Self, Trouble> {
        let file = File::create(path).map_err(Trouble::Storage)?;
        let (letters, inbox) = mpsc::channel(WAITING);
        let writer = tokio::task::spawn_blocking(move || write(file, inbox, sha512));
        Ok(Self { letters, writer, bytes: 0 })
    }

    /// What it was given so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub async fn push(&mut self, piece: Bytes) -> Result<(), Trouble> {
        self.bytes += piece.len() as u64;
        self.send(Letter::Piece(piece)).await
    }

    /// Forgets what it was given.
    pub async fn restart(&mut self) -> Result<(), Trouble> {
        if self.bytes == 0 {
            return Ok(());
        }
        self.bytes = 0;
        self.send(Letter::Restart).await
    }

    async fn send(&mut self, letter: Letter) -> Result<(), Trouble> {
        if self.letters.send(letter).await.is_ok() {
            return Ok(());
        }
        // Nobody reads any more: the disk said no.
        let ended = (&mut self.writer).await;
        Err(Trouble::Storage(match ended {
            Ok(Err(e)) => e,
            Ok(Ok(_)) | Err(_) => io::Error::other("writing broke off"),
        }))
    }

    pub async fn finish(self) -> Result<Saved, Trouble> {
        drop(self.letters);
        match self.writer.await {
            Ok(saved) => saved.map_err(Trouble::Storage),
            Err(e) => Err(Trouble::Broken(Failure::new(ErrorKind::Internal, e.to_string()))),
        }
    }
}

fn write(mut file: File, mut inbox: mpsc::Receiver<Letter>, sha512: bool) -> io::Result<Saved> {
    let mut bytes = 0;
    let (mut short, mut long) = (Sha256::new(), Sha512::new());
    while let Some(letter) = inbox.blocking_recv() {
        match letter {
            Letter::Piece(piece) => {
                file.write_all(&piece)?;
                bytes += piece.len() as u64;
                short.update(&piece);
                if sha512 {
                    long.update(&piece);
                }
            }
            Letter::Restart => {
                file.set_len(0)?;
                file.rewind()?;
                (bytes, short, long) = (0, Sha256::new(), Sha512::new());
            }
        }
    }
    let sha512 = sha512.then(|| hex(&long.finalize()));
    Ok(Saved { bytes, sha256: hex(&short.finalize()), sha512 })
}
