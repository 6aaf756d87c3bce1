//! The publisher's signature of a file, or of the list that has the file's digest, by minisign.

use std::{fs::File, io::Read, path::Path};

use minisign_verify::{PublicKey, Signature};
use wharf_model::{ErrorKind, Failure};

use super::{Chosen, checksums::Expected, forge::Asset};
use crate::install::place::unplaced;

/// A signature has four lines.
const LARGEST: u64 = 16 * 1024;

/// Checks it, and says by what.
pub(super) async fn check(
    chosen: &Chosen,
    asset: &Asset,
    expected: &Expected,
    key: &str,
    file: &Path,
    what: &str,
) -> Result<String, Failure> {
    let key = PublicKey::from_base64(key.trim()).map_err(|e| {
        Failure::new(ErrorKind::Internal, format!("the minisign key in the service's file is none: {e}"))
    })?;
    let of = |name: &str| chosen.found.assets.iter().find(|a| a.name == format!("{name}.minisig"));
    if let Some(signature) = of(&asset.name) {
        let signature = read(chosen, signature).await?;
        verify_file(&key, &signature, file).map_err(|why| wrong(what, &why))?;
        return Ok("its publisher's signature".into());
    }
    if let Some((list, text)) = &expected.list
        && let Some(signature) = of(list)
    {
        let signature = read(chosen, signature).await?;
        key.verify(text, &signature, false)
            .map_err(|e| wrong(&format!("{list} of {}", chosen.found.title()), &e.to_string()))?;
        return Ok(format!("its publisher's signature of {list}"));
    }
    Err(Failure::new(
        ErrorKind::InstallFailed,
        format!("{what} is not signed, and its publisher signs what it releases"),
    )
    .causes(chosen.found.offer())
    .hint("somebody else has made this release, or signing was given up: ask the publisher"))
}

async fn read(chosen: &Chosen, asset: &Asset) -> Result<Signature, Failure> {
    let what = format!("{} of {}", asset.name, chosen.found.title());
    let text = chosen.web.read(&asset.url, chosen.credential.as_ref(), LARGEST).await.map_err(|t| t.failure(&what))?;
    Signature::decode(&String::from_utf8_lossy(&text)).map_err(|e| wrong(&what, &e.to_string()))
}

fn verify_file(key: &PublicKey, signature: &Signature, path: &Path) -> Result<(), String> {
    let mut verifier = key.verify_stream(signature).map_err(|e| e.to_string())?;
    let mut file = File::open(path).map_err(|e| unplaced(path, e).message)?;
    let mut buffer = vec![0; 128 * 1024];
    loop {
        match file.read(&mut buffer).map_err(|e| unplaced(path, e).message)? {
            0 => return verifier.finalize().map_err(|e| e.to_string()),
            n => verifier.update(&buffer[..n]),
        }
    }
}

fn wrong(what: &str, why: &str) -> Failure {
    Failure::new(
        ErrorKind::InstallFailed,
        format!("the signature of {what} is not its publisher's, so nothing was placed"),
    )
    .cause(why.to_owned())
    .hint("the file was changed on its way, or its publisher has a new key: do not use it before you know which")
}
