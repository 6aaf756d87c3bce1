//! The services that there are now: those that this Wharf was built with, and the executables of one folder.
//!
//! What an executable said of itself is kept beside the journal. The next daemon knows it from there at once, before it
//! looks at its runs, and asks all of them again in the background: a file that hangs holds up nobody.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::{ArcSwap, Guard};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use wharf_model::{Policy, UnitName};
use wharf_runtime::{
    Layout,
    executables::{self, Asked, Unusable},
};
use wharf_services::{Card, Catalogue, Executable};

use crate::{engine::Shared, habits};

/// The services by name, and how the folder of executables was found last.
pub struct Offer {
    /// Made at compile time.
    built: Catalogue,
    folder: PathBuf,
    kept: PathBuf,
    now: ArcSwap<Catalogue>,
    found: ArcSwap<Found>,
    /// One look at a time: two would each put away what the other one found.
    turn: tokio::sync::Mutex<()>,
    /// All files were asked since this daemon began.
    is_complete: watch::Sender<bool>,
}

/// How the folder was found.
#[derive(Debug, Default)]
pub struct Found {
    /// Services of executables: name, file, one line for people.
    pub services: Vec<(String, PathBuf, String)>,
    /// Files that are none.
    pub unusable: Vec<Unusable>,
}

/// A file, and what it said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Kept {
    path: PathBuf,
    /// As it was said; none where that was nonsense.
    card: Option<Card>,
}

impl Offer {
    /// What is known at once: the built ones, and what the files that are still there said to an earlier daemon.
    pub fn recall(built: Catalogue, layout: &Layout) -> Self {
        let (folder, kept) = (layout.services_dir(), layout.state().join("services.json"));
        let remembered = remembered(&kept);
        let there = executables::list(&folder);
        let is_new = there.files.iter().any(|file| remembered.iter().all(|kept| kept.path != *file));
        let cards = remembered.into_iter().filter(|kept| there.files.contains(&kept.path));
        let asked = cards.filter_map(|kept| Some(Asked { path: kept.path, card: kept.card? })).collect();
        let (catalogue, found) = offered(&built, asked, there.unusable);
        Self {
            built,
            folder,
            kept,
            now: ArcSwap::from_pointee(catalogue),
            found: ArcSwap::from_pointee(found),
            turn: tokio::sync::Mutex::new(()),
            is_complete: watch::Sender::new(!is_new),
        }
    }

    /// The services.
    pub fn load(&self) -> Guard<Arc<Catalogue>> {
        self.now.load()
    }

    /// The same, for whoever keeps them across a wait.
    pub fn load_full(&self) -> Arc<Catalogue> {
        self.now.load_full()
    }

    /// How the folder was found last.
    pub fn found(&self) -> Arc<Found> {
        self.found.load_full()
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether every file was asked that no earlier daemon has heard.
    pub fn is_complete(&self) -> bool {
        *self.is_complete.borrow()
    }

    /// Until every file that no earlier daemon has heard was asked.
    pub async fn complete(&self) {
        // A sender that is gone ends it, too: then the daemon ends.
        let _ = self.is_complete.subscribe().wait_for(|is| *is).await;
    }

    /// Asks every file of the folder anew, and offers what came of it.
    pub async fn look_again(&self) -> Arc<Found> {
        let _turn = self.turn.lock().await;
        let listed = executables::list(&self.folder);
        let (mut asked, mut unusable) = executables::ask(listed.files.clone()).await;
        let before = remembered(&self.kept);
        let told = |path: &Path, asked: &[Asked]| asked.iter().find(|one| one.path == path).map(|one| one.card.clone());
        // What was a service and is silent for once stays one: its runs must still be asked how they are.
        for path in &listed.files {
            let card = before.iter().find(|kept| kept.path == *path).and_then(|kept| kept.card.clone());
            if let (None, Some(card)) = (told(path, &asked), card) {
                asked.push(Asked { path: path.clone(), card });
                let silent = unusable.iter_mut().filter(|one| one.path == *path);
                silent.for_each(|one| one.hint = format!("{}; until then what it said last holds", one.hint));
            }
        }
        let keep = |path: &PathBuf| Kept { path: path.clone(), card: told(path, &asked) };
        remember(&self.kept, &listed.files.iter().map(keep).collect::<Vec<_>>());
        unusable.extend(listed.unusable);
        let (catalogue, found) = offered(&self.built, asked, unusable);
        for one in &found.unusable {
            tracing::warn!("no service: {} ({})", one.message, one.hint);
        }
        self.now.store(Arc::new(catalogue));
        self.found.store(Arc::new(found));
        self.is_complete.send_replace(true);
        self.found()
    }
}

/// Looks at the folder for the first time.
pub fn keep(shared: &Arc<Shared>) {
    let shared = shared.clone();
    shared.tasks.clone().spawn(async move { shared.catalogue.look_again().await });
}

/// The built ones, and those of the executables whose names nobody else has.
fn offered(built: &Catalogue, mut asked: Vec<Asked>, mut unusable: Vec<Unusable>) -> (Catalogue, Found) {
    asked.sort_by(|a, b| a.path.cmp(&b.path));
    let mut of_name: BTreeMap<String, Vec<Asked>> = BTreeMap::new();
    for one in asked {
        of_name.entry(one.card.service().to_owned()).or_default().push(one);
    }
    let (mut catalogue, mut services) = (built.clone(), vec![]);
    for (name, all) in of_name {
        match single(built, &name, all) {
            Ok((path, service, summary)) => {
                catalogue = catalogue.with(service);
                services.push((name, path, summary));
            }
            Err(faults) => unusable.extend(faults),
        }
    }
    unusable.sort_by(|a, b| a.path.cmp(&b.path));
    (catalogue, Found { services, unusable })
}

/// The one file of a name, as a service.
fn single(built: &Catalogue, name: &str, mut all: Vec<Asked>) -> Result<(PathBuf, Executable, String), Vec<Unusable>> {
    if all.len() > 1 {
        return Err(all.iter().map(|one| twice(name, one, &all)).collect());
    }
    let Some(Asked { path, card }) = all.pop() else { return Err(vec![]) };
    if built.get(name).is_some() {
        let what = format!("there is a service {name:?} in this Wharf already");
        return Err(vec![Unusable::new(&path, what, "answer another \"name\" to facts")]);
    }
    let policy = UnitName::new(name, None)
        .map_err(|e| (e.to_string(), None))
        .and_then(|unit| habits::policy(&unit, Policy::default(), &card.policy).map_err(|f| (f.message, f.hint)));
    match policy {
        Ok(policy) => Ok((path.clone(), Executable::new(&path, &card, policy), card.summary)),
        Err((why, hint)) => {
            Err(vec![Unusable::new(&path, why, hint.unwrap_or_else(|| "docs/policy.md has every field".into()))])
        }
    }
}

fn twice(name: &str, one: &Asked, all: &[Asked]) -> Unusable {
    let others = all.iter().filter(|other| other.path != one.path).map(|other| other.path.display().to_string());
    let what = format!("other files are the service {name:?} too: {}", others.collect::<Vec<_>>().join(", "));
    Unusable::new(&one.path, what, "give it another name; until then none of them is taken")
}

fn remembered(path: &Path) -> Vec<Kept> {
    // Written by another version, or torn: then all are asked, and that is all.
    fs::read(path).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

/// What is not kept is asked again by the next daemon.
fn remember(path: &Path, kept: &[Kept]) {
    if remembered(path) == kept {
        return;
    }
    let draft = path.with_extension("draft");
    let written = serde_json::to_vec(kept).map_err(std::io::Error::from).and_then(|text| {
        fs::write(&draft, text)?;
        fs::rename(&draft, path)
    });
    if let Err(e) = written {
        tracing::warn!("{}: {e}", path.display());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn asked(file: &str, card: serde_json::Value) -> Asked {
        let output = wharf_services::Output { code: 0, stdout: card.to_string(), stderr: String::new() };
        let path = Path::new("/services").join(file);
        Asked { card: Card::from_answer(&path, &output).unwrap(), path }
    }

    #[test]
    fn a_name_that_two_have_is_nobodys_and_a_built_one_stays() {
        let all = vec![
            asked("clock.py", json!({ "summary": "one" })),
            asked("clock.sh", json!({ "summary": "two" })),
            asked("third", json!({ "summary": "x", "name": "hello" })),
            asked("good", json!({ "summary": "good", "policy": { "stop_timeout_ms": 1500 } })),
            asked("bad", json!({ "summary": "x", "policy": { "stop_timeout": 1 } })),
            asked("late", json!({ "summary": "x", "policy": { "schedule": "every day" } })),
        ];
        let (catalogue, found) = offered(&Catalogue::built_in(), all, vec![]);
        assert!(catalogue.get("clock").is_none() && catalogue.get("bad").is_none());
        assert_eq!(catalogue.get("hello").unwrap().facts().summary, "Says hello; for a first try");
        assert_eq!(catalogue.get("good").unwrap().policy(&json!({})).stop_timeout_ms, 1500);
        assert_eq!(found.services.len(), 1);
        let files: Vec<&str> =
            found.unusable.iter().map(|one| one.path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(files, ["bad", "clock.py", "clock.sh", "late", "third"]);
        assert!(found.unusable[1].message.contains("/services/clock.sh"), "{:?}", found.unusable[1]);
        assert!(found.unusable[2].message.contains("/services/clock.py"), "{:?}", found.unusable[2]);
    }
}
