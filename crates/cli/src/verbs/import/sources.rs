//! The files that are imported, and what lies beside them: drop-ins, timers, `.env`. A pm2 file in JavaScript is run by
//! the machine's node, as pm2 itself does.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use wharf_import::{File, Kind};
use wharf_model::{ErrorKind, Failure};

/// No such file is larger.
const LARGEST: u64 = 4 << 20;

/// A file with all that it means.
#[derive(Debug)]
pub(super) struct Given {
    kind: Kind,
    name: String,
    text: String,
    folder: String,
    beside: Vec<(String, String)>,
    has_dot_env: bool,
}

impl Given {
    pub(super) fn as_file(&self) -> (Kind, File<'_>) {
        let Self { kind, name, text, folder, beside, has_dot_env } = self;
        (*kind, File { name, text, folder, beside: beside.clone(), has_dot_env: *has_dot_env })
    }
}

/// A file, or what a folder has.
pub(super) fn read(path: &Path, kind: Option<Kind>) -> Result<Vec<Given>, Failure> {
    let path = std::path::absolute(path)?;
    if !path.is_dir() {
        return Ok(vec![file(&path, kind)?]);
    }
    let entries = fs::read_dir(&path).map_err(|e| unreadable(&path, e))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|p| p.is_file()).collect();
    files.sort();
    let is = |path: &PathBuf, wanted: Kind| {
        path.file_name().is_some_and(|n| Kind::detect(&n.to_string_lossy(), "") == Some(wanted))
    };
    let units: Vec<PathBuf> = files.iter().filter(|p| is(p, Kind::Systemd)).cloned().collect();
    if !units.is_empty() && kind.is_none_or(|kind| kind == Kind::Systemd) {
        return units.iter().map(|unit| file(unit, Some(Kind::Systemd))).collect();
    }
    let known = |p: &&PathBuf| Kind::ALL.into_iter().any(|k| is(p, k) && kind.is_none_or(|kind| kind == k));
    match files.iter().filter(known).collect::<Vec<_>>()[..] {
        [one] => Ok(vec![file(one, kind)?]),
        _ => Err(Failure::new(ErrorKind::Precondition, format!("{} does not say which file is meant", path.display()))
            .hint(
                "name the file: a Procfile, process-compose.yaml, ecosystem.config.js, supervisord.conf, NAME.service",
            )),
    }
}

fn file(path: &Path, kind: Option<Kind>) -> Result<Given, Failure> {
    let text = text(path)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let kind = kind.or_else(|| Kind::detect(&name, &text)).ok_or_else(|| {
        let kinds = Kind::ALL.map(Kind::word).join(", ");
        Failure::new(
            ErrorKind::Precondition,
            format!("{} is of no kind that is known by its name or content", path.display()),
        )
        .hint(format!("say what it is: --kind, one of {kinds}"))
    })?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    let text = if kind == Kind::Pm2 && is_javascript(&name, &text) { run_by_node(path)? } else { text };
    let beside = if kind == Kind::Systemd { beside(folder, &name)? } else { vec![] };
    let has_dot_env = folder.join(".env").is_file();
    Ok(Given { kind, name, text, folder: folder.display().to_string(), beside, has_dot_env })
}

fn text(path: &Path) -> Result<String, Failure> {
    let found = fs::metadata(path).map_err(|e| unreadable(path, e))?;
    if !found.is_file() || found.len() > LARGEST {
        let text = format!("{} is no file of at most 4 MiB", path.display());
        return Err(Failure::new(ErrorKind::Precondition, text).hint("name a file of text"));
    }
    fs::read_to_string(path).map_err(|e| unreadable(path, e))
}

fn unreadable(path: &Path, e: std::io::Error) -> Failure {
    let kind =
        if e.kind() == std::io::ErrorKind::PermissionDenied { ErrorKind::Permission } else { ErrorKind::Precondition };
    Failure::new(kind, format!("could not read {}: {e}", path.display())).hint("is that its path? `ls -l` shows it")
}

/// The drop-ins of a unit in their order, its timer and its socket.
fn beside(folder: &Path, name: &str) -> Result<Vec<(String, String)>, Failure> {
    let mut found = vec![];
    let mut drop_ins: Vec<PathBuf> = fs::read_dir(folder.join(format!("{name}.d")))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "conf"))
        .collect();
    drop_ins.sort();
    let stem = name.strip_suffix(".service").unwrap_or(name);
    let others = ["timer", "socket"].map(|kind| folder.join(format!("{stem}.{kind}")));
    for path in drop_ins.into_iter().chain(others.into_iter().filter(|path| path.is_file())) {
        found.push((path.file_name().unwrap_or_default().to_string_lossy().into_owned(), text(&path)?));
    }
    Ok(found)
}

fn is_javascript(name: &str, text: &str) -> bool {
    let has = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
    has(&[".js", ".cjs", ".mjs"]) || (!has(&[".json", ".yaml", ".yml"]) && text.contains("module.exports"))
}

/// What it prints besides does not come between.
const SCRIPT: &str = "console.log = console.error; \
    import(require('url').pathToFileURL(process.argv[1]).href) \
    .then(m => process.stdout.write(JSON.stringify(m.default ?? m))) \
    .catch(e => { console.error(e); process.exitCode = 1; });";

/// What a JavaScript file comes to, as JSON.
fn run_by_node(path: &Path) -> Result<String, Failure> {
    let by_hand = "save it as JSON and import that: node -p 'JSON.stringify(require(\"./ecosystem.config.js\"))' > ecosystem.json";
    let said = Command::new("node")
        .args(["-e", SCRIPT])
        .arg(path)
        .current_dir(path.parent().unwrap_or(Path::new("/")))
        .stdin(Stdio::null())
        .output()
        .map_err(|e| {
            let text = format!("{} is JavaScript, and node cannot be run: {e}", path.display());
            Failure::new(ErrorKind::Precondition, text).hint(format!("install node, or where there is one, {by_hand}"))
        })?;
    if !said.status.success() {
        let last: Vec<String> = String::from_utf8_lossy(&said.stderr).lines().take(10).map(str::to_owned).collect();
        let text = format!("node could not read {}", path.display());
        return Err(Failure::new(ErrorKind::Precondition, text).hint(by_hand).causes(last));
    }
    Ok(String::from_utf8_lossy(&said.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_units_comes_with_its_drop_ins() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("a.service", "[Service]\nExecStart=/a\n");
        put("a.service.d/20.conf", "two");
        put("a.service.d/10.conf", "one");
        put("a.service.d/readme", "no");
        put("a.timer", "[Timer]\n");
        put("b.service", "[Service]\nExecStart=/b\n");
        put(".env", "A=1\n");
        let given = read(dir.path(), None).unwrap();
        assert_eq!(given.iter().map(|g| g.name.as_str()).collect::<Vec<_>>(), ["a.service", "b.service"]);
        let names: Vec<&str> = given[0].beside.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["10.conf", "20.conf", "a.timer"]);
        assert!(given[0].has_dot_env && given[1].beside.is_empty());
        let failure = read(dir.path(), Some(Kind::Pm2)).unwrap_err();
        assert!(failure.hint.unwrap().contains("name the file"));
    }

    #[test]
    fn a_file_that_says_nothing_of_itself_needs_a_kind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        fs::write(&path, "hello").unwrap();
        assert!(read(&path, None).unwrap_err().hint.unwrap().contains("--kind"));
        assert!(read(&dir.path().join("gone"), None).unwrap_err().message.contains("gone"));
        assert!(read(&path, Some(Kind::Procfile)).is_ok());
    }
}
