//! Documents that are made from the program. A test compares them with what it says now.

use std::fs;

use crate::ground::{cargo, root};

/// Writes docs/man/wharf.1 anew.
pub fn run(_: &[String]) -> Result<(), String> {
    let made = cargo(&["run", "--quiet", "--package", "wharf", "--", "man"])
        .output()
        .map_err(|e| format!("wharf man: {e}"))?;
    if !made.status.success() {
        return Err(format!("wharf man: {}", String::from_utf8_lossy(&made.stderr)));
    }
    let path = root().join("docs/man/wharf.1");
    fs::create_dir_all(path.parent().unwrap_or(&path)).map_err(|e| e.to_string())?;
    fs::write(&path, made.stdout).map_err(|e| format!("{}: {e}", path.display()))?;
    println!("wrote {}", path.display());
    Ok(())
}
