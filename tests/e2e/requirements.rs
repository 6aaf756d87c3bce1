//! docs/requirements.md has each requirement once, and the tests and documents that it cites are there.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use wharf_tests::root;

use super::house;

/// HS-1 to HS-149.
const COUNT: u32 = 149;
/// What must be held by a test or, where it is a matter of words, by a document.
const HELD: [&str; 4] = ["must", "plan", "limit", "fault"];
/// What only had to be decided.
const DECIDED: [&str; 3] = ["fact", "context", "conflict"];

/// The rows: number, kind, what is asked, where it is held.
fn rows() -> Vec<(u32, [String; 3])> {
    let text = fs::read_to_string(root().join("docs/requirements.md")).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| HS-"));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_end_matches(" |").split(" | ").collect();
        let [id, kind, what, held] = &cells[..] else { panic!("a row has four cells: HS-{row}") };
        (id.parse().unwrap(), [kind, what, held].map(|cell| (*cell).to_owned()))
    })
    .collect()
}

/// What stands in backticks behind this word.
fn quoted<'a>(cell: &'a str, word: &str) -> Vec<&'a str> {
    cell.split('`').skip(1).step_by(2).filter_map(|text| text.strip_prefix(word)).collect()
}

/// Where a page leads to.
fn links(cell: &str) -> Vec<PathBuf> {
    cell.split("](").skip(1).filter_map(|rest| Some(root().join("docs").join(rest.split([')', '#']).next()?))).collect()
}

/// The file of a module: the deepest one that there is, since modules can stand inside a file.
fn file_of(folder: &Path, modules: &[&str]) -> Option<PathBuf> {
    let mut files = (1..=modules.len()).rev().map(|depth| folder.join(modules[..depth].join("/") + ".rs"));
    files.find(|path| path.is_file())
}

/// Whether a test of this name is there; `*` are all tests of a file.
fn is_there(folders: &[PathBuf], name: &str) -> bool {
    let mut modules: Vec<&str> = name.split("::").collect();
    let Some(test) = modules.pop() else { return false };
    folders.iter().any(|folder| {
        let file = match test {
            "*" => Some(folder.join(modules.join("/") + ".rs")).filter(|path| path.is_file()),
            _ => file_of(folder, &modules),
        };
        let Some(text) = file.and_then(|path| fs::read_to_string(path).ok()) else { return false };
        if test == "*" { text.contains("#[test]") } else { text.contains(&format!("fn {test}(")) }
    })
}

/// Where the tests of a package are.
fn folders_of(package: &str) -> [PathBuf; 2] {
    let name = if package == "wharf" { "cli" } else { package.trim_start_matches("wharf-") };
    ["src", "tests"].map(|folder| root().join("crates").join(name).join(folder))
}

/// What a row cites and is not there, and how many things it cites.
fn missing(held: &str) -> (Vec<String>, usize) {
    let (e2e, unit, links) = (quoted(held, "e2e: "), quoted(held, "unit: "), links(held));
    let count = e2e.len() + unit.len() + links.len();
    let mut missing = vec![];
    for name in e2e.iter().filter(|name| !is_there(&[root().join("tests/e2e")], name)) {
        missing.push(format!("there is no test {name}"));
    }
    for cited in unit {
        let is_known = cited.split_once(' ').is_some_and(|(package, name)| is_there(&folders_of(package), name));
        if !is_known {
            missing.push(format!("there is no test {cited}"));
        }
    }
    for path in links.iter().filter(|path| !path.exists()) {
        missing.push(format!("there is no {}", path.display()));
    }
    (missing, count)
}

#[test]
fn each_requirement_is_there_once_and_what_it_cites_exists() {
    let mut faults = vec![];
    let mut seen = BTreeMap::<u32, u32>::new();
    for (id, [kind, what, held]) in rows() {
        *seen.entry(id).or_default() += 1;
        let (missing, cited) = missing(&held);
        faults.extend(missing.into_iter().map(|fault| format!("HS-{id}: {fault}")));
        let (must, may) = (HELD.contains(&kind.as_str()), DECIDED.contains(&kind.as_str()));
        if must == may || what.is_empty() || held.is_empty() {
            faults.push(format!("HS-{id}: its kind, its matter or its place is not said"));
        }
        if must && cited == 0 && !held.starts_with("Not built yet") {
            faults.push(format!("HS-{id}: nothing holds it"));
        }
    }
    for id in 1..=COUNT {
        match seen.get(&id) {
            Some(1) => {}
            Some(_) => faults.push(format!("HS-{id} is there twice")),
            None => faults.push(format!("HS-{id} is missing")),
        }
    }
    assert!(faults.is_empty(), "docs/requirements.md:\n{}", faults.join("\n"));
    assert_eq!(seen.len(), COUNT as usize, "there are others: {:?}", seen.keys().last());
}

/// HS-134: its 125 tests were counted; here are more.
#[test]
fn there_are_more_tests_than_there_were() {
    let count = |path: PathBuf| {
        let text = fs::read_to_string(path).unwrap();
        text.lines().filter(|line| ["#[test]", "#[tokio::test]"].contains(&line.trim())).count()
    };
    let count: usize = house::sources().into_iter().map(count).sum();
    assert!(count > 125, "{count} tests");
}
