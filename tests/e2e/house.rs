//! Tests that read the house: the crates' direction, what a pure crate must not have, names, docs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use wharf_tests::{Daemon, root};

fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    packages
        .iter()
        .map(|p| {
            let normal = p["dependencies"].as_array().unwrap().iter().filter(|d| d["kind"].is_null());
            let names = normal.map(|d| d["name"].as_str().unwrap().to_owned()).collect();
            (p["name"].as_str().unwrap().to_owned(), names)
        })
        .collect()
}

fn rust_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() && !path.ends_with("target") {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// Every file of Rust that is Wharf's own.
pub(super) fn sources() -> Vec<PathBuf> {
    let mut found = vec![];
    for dir in ["crates", "xtask", "tests"] {
        rust_files(&root().join(dir), &mut found);
    }
    found
}

#[test]
fn crates_point_one_way() {
    let may: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("wharf-model", &[] as &[&str]),
        ("wharf-sys", &[]),
        ("wharf-core", &["wharf-model"]),
        ("wharf-services", &["wharf-model"]),
        ("wharf-api", &["wharf-model"]),
        ("wharf-import", &["wharf-model"]),
        ("wharf-shim", &["wharf-sys"]),
        ("wharf-fake-nvml", &[]),
        ("wharf-sim", &["wharf-core", "wharf-model"]),
        ("wharf-runtime", &["wharf-model", "wharf-services", "wharf-shim", "wharf-sys"]),
        ("wharf-server", &["wharf-api", "wharf-model", "wharf-sys"]),
        ("wharf-client", &["wharf-api", "wharf-model"]),
        ("wharf-engine", &["wharf-api", "wharf-core", "wharf-model", "wharf-runtime", "wharf-services", "wharf-sys"]),
    ]);
    let found = dependencies();
    for (name, allowed) in may {
        let ours = found[name].iter().filter(|d| d.starts_with("wharf"));
        for dependency in ours {
            assert!(allowed.contains(&dependency.as_str()), "{name} must not see {dependency}");
        }
    }
    for pure in ["wharf-core", "wharf-import", "wharf-model"] {
        for banned in ["tokio", "nix", "rustix", "libc", "rusqlite", "hyper"] {
            assert!(!found[pure].contains(banned), "{pure} must not have {banned}");
        }
    }
}

#[test]
fn the_core_has_no_clock_no_io_no_async_no_order_by_chance() {
    let mut files = vec![];
    rust_files(&root().join("crates/core/src"), &mut files);
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        for banned in [
            "tokio",
            "std::fs",
            "std::net",
            "std::process",
            "Instant::now",
            "SystemTime",
            "HashMap",
            "HashSet",
            "Mutex",
            "async fn",
        ] {
            assert!(!text.contains(banned), "{} has {banned}", path.display());
        }
    }
}

#[test]
fn no_file_is_named_for_what_it_is_not_and_every_module_says_what_it_owns() {
    for path in sources() {
        let stem = path.file_stem().unwrap().to_str().unwrap();
        assert!(!["util", "utils", "common", "helpers", "misc", "manager"].contains(&stem), "{}", path.display());
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("//!"), "{} does not begin with what it owns", path.display());
        let banned = ["#[ign", "ore"].concat();
        assert!(!text.contains(&banned), "{} ignores a test", path.display());
    }
}

#[test]
fn only_sys_is_unsafe() {
    for path in sources() {
        let text = fs::read_to_string(&path).unwrap();
        let word = ["uns", "afe {"].concat();
        if text.contains(&word) {
            // A stand-in for a C library is one, and nothing that ships has it.
            let may = ["crates/sys", "crates/fake-nvml"].iter().any(|dir| path.starts_with(root().join(dir)));
            assert!(may, "{} has unsafe code", path.display());
        }
    }
}

#[test]
fn the_paths_that_the_architecture_names_exist() {
    let text = fs::read_to_string(root().join("docs/ARCHITECTURE.md")).unwrap();
    let mut count = 0;
    for word in text.split(['`', ' ', '\n', '(', ')', ',']) {
        let is_path = ["crates/", "static/", "docs/", "tests/", "xtask/", ".ci/"].iter().any(|p| word.starts_with(p));
        if is_path && !word.contains(['*', '<']) {
            assert!(root().join(word.trim_end_matches(['.', ':'])).exists(), "docs/ARCHITECTURE.md names {word}");
            count += 1;
        }
    }
    assert!(count > 10, "it names {count} paths");
    for entry in fs::read_dir(root().join("crates")).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        assert!(text.contains(&format!("crates/{name}")), "docs/ARCHITECTURE.md does not name crates/{name}");
    }
}

#[test]
fn the_man_page_is_what_the_program_says() {
    let kept = fs::read_to_string(root().join("docs/man/wharf.1")).unwrap();
    let said = Daemon::prepare().cli_ok(&["man"]).out;
    assert!(kept == said, "docs/man/wharf.1 is old: cargo xtask docs");
}

#[test]
fn every_dependency_of_the_workspace_has_its_reason() {
    let text = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let section = text.split("[workspace.dependencies]").nth(1).unwrap().split("\n[").next().unwrap();
    let mut reasoned = false;
    for line in section.lines() {
        if line.starts_with('#') {
            reasoned = true;
        } else if line.trim().is_empty() {
            reasoned = false;
        } else {
            assert!(reasoned, "no reason stands above: {line}");
        }
    }
}
