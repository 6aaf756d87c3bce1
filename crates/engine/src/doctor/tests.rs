//! The names of findings are those of the page, both ways; each is used by a check.

use std::{collections::BTreeSet, fs, path::Path};

use super::{ids::IDS, *};

#[test]
fn every_id_has_its_paragraph_in_the_page_and_a_check_that_says_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("../../docs/doctor.md")).unwrap();
    let described: Vec<&str> = page.lines().filter_map(|l| l.strip_prefix("### `")?.strip_suffix('`')).collect();
    assert_eq!(described, IDS, "left: docs/doctor.md, right: ids.rs");
    let source: String = fs::read_dir(root.join("src/doctor"))
        .unwrap()
        .flatten()
        .filter(|file| !matches!(file.file_name().to_str(), Some("ids.rs" | "tests.rs")))
        .map(|file| fs::read_to_string(file.path()).unwrap())
        .collect();
    let unused: BTreeSet<&str> = IDS.into_iter().filter(|id| !source.contains(&format!("\"{id}\""))).collect();
    assert_eq!(unused, BTreeSet::new(), "no check says these");
}

#[test]
fn an_installation_that_is_none_is_looked_at_without_being_made() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::below(&dir.path().join("nothing"));
    let diagnosis = offline(&layout, true);
    assert!(diagnosis.findings.iter().any(|f| f.id == "daemon-down" && f.fix.is_some()), "{diagnosis:#?}");
    assert!(!dir.path().join("nothing").exists(), "it was made");
}
