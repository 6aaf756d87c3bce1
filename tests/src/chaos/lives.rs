//! What the units wrote down of themselves: a book for each life. Read from the files, never from Wharf.

use std::{collections::BTreeMap, fs, path::Path};

/// One life of one unit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Life {
    /// Its name in the lines that it writes: birth in nanoseconds of the boot clock, and pid.
    pub name: String,
    /// When it was born.
    pub born_ns: u64,
    /// Its process.
    pub pid: i32,
    /// The kernel's start time of that process.
    pub ticks: u64,
    /// The parameter that it was started with.
    pub generation: u64,
    /// The run that Wharf says it is.
    pub run: u64,
    /// Signal, sender, when.
    pub signals: Vec<(i32, i32, u64)>,
    /// How it said that it would end: a code, or a signal below zero.
    pub planned: Option<i32>,
    /// Lines that it has written, as it counted after each.
    pub count: u64,
}

/// All lives of a unit, oldest first.
pub fn of(dir: &Path, unit: &str) -> Vec<Life> {
    let folder = dir.join("lives").join(unit);
    let names = fs::read_dir(&folder).into_iter().flatten().flatten();
    let mut lives: Vec<Life> =
        names.filter_map(|e| read(&folder, e.file_name().to_str().filter(|n| !n.ends_with(".n"))?)).collect();
    lives.sort_by_key(|life| life.born_ns);
    lives
}

/// The latest life of each unit, where there is one.
pub fn latest(dir: &Path, units: &[String]) -> BTreeMap<String, Life> {
    let newest = |unit: &String| {
        let folder = dir.join("lives").join(unit);
        let names =
            fs::read_dir(&folder).into_iter().flatten().flatten().filter_map(|e| e.file_name().into_string().ok());
        let name = names.filter(|n| !n.ends_with(".n")).max_by_key(|n| born(n))?;
        Some((unit.clone(), read(&folder, &name)?))
    };
    units.iter().filter_map(newest).collect()
}

fn born(name: &str) -> u64 {
    name.split('-').next().and_then(|ns| ns.parse().ok()).unwrap_or(0)
}

/// None for a life that ended before its first word: it wrote no line.
fn read(folder: &Path, name: &str) -> Option<Life> {
    let text = fs::read_to_string(folder.join(name)).ok()?;
    let mut life = Life { name: name.to_owned(), born_ns: born(name), ..Life::default() };
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words.get(at).and_then(|w| w.parse::<u64>().ok()).unwrap_or(0);
        let small = |at: usize| i32::try_from(number(at)).unwrap_or(0);
        match words[0] {
            "begin" => (life.pid, life.ticks, life.generation, life.run) = (small(1), number(2), number(3), number(4)),
            "signal" => life.signals.push((small(1), small(2), number(3))),
            "exit" => life.planned = Some(small(1)),
            "kill" => life.planned = Some(-small(1)),
            _ => {}
        }
    }
    let count = fs::read(folder.join(format!("{name}.n"))).unwrap_or_default();
    life.count = count.try_into().map_or(0, u64::from_le_bytes);
    (life.pid != 0).then_some(life)
}
