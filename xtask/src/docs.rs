//! Documents that are made from the program. A test compares them with what it says now.

use std::fs;

use crate::ground::{cargo, root};

/// A document, and the verb that prints it.
const MADE: [(&str, &str); 2] = [("docs/man/wharf.1", "man"), ("docs/catalogue.md", "catalogue-page")];

/// Writes docs/man/wharf.1 and docs/catalogue.md anew.
pub fn run(_: &[String]) -> Result<(), String> {
    for (document, verb) in MADE {
        let made = cargo(&["run", "--quiet", "--package", "wharf", "--", verb]).output();
        let made = made.map_err(|e| format!("wharf {verb}: {e}"))?;
        if !made.status.success() {
            return Err(format!("wharf {verb}: {}", String::from_utf8_lossy(&made.stderr)));
        }
        let path = root().join(document);
        fs::create_dir_all(path.parent().unwrap_or(&path)).map_err(|e| e.to_string())?;
        fs::write(&path, made.stdout).map_err(|e| format!("{}: {e}", path.display()))?;
        println!("wrote {}", path.display());
    }
    Ok(())
}
