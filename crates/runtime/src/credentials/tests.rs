//! Secrets are delivered, are a user's own, and are gone.

use std::os::unix::fs::PermissionsExt;

use super::*;

fn policy(secrets: &[(&str, &str, bool)]) -> Policy {
    let one = |(name, from, env): &(&str, &str, bool)| {
        ((*name).to_owned(), SecretRef { from: (*from).to_owned(), env: *env })
    };
    Policy { secrets: secrets.iter().map(one).collect(), ..Policy::default() }
}

fn ground(dir: &Path) -> (Layout, Arc<Credentials>, UnitName) {
    let layout = Layout::below(dir);
    layout.create().unwrap();
    let credentials = Arc::new(Credentials::new(&layout));
    (layout, credentials, "command@web".parse().unwrap())
}

#[tokio::test]
async fn each_source_is_delivered_in_files_of_its_own_and_gone_afterwards() {
    let dir = tempfile::tempdir().unwrap();
    let (_, credentials, unit) = ground(dir.path());
    let file = dir.path().join("value");
    fs::write(&file, "from-a-file\n").unwrap();
    let from_file = format!("file:{}", file.display());
    let policy = policy(&[
        ("FILE", &from_file, true),
        ("cargo", "env:CARGO_PKG_VERSION", false),
        ("said", "command:printf '%s\\n' 'two words'", false),
        ("made", "generate:16", false),
    ]);
    let delivered = credentials.deliver(&unit, RunId(7), &policy, None).await.unwrap().unwrap();
    let folder = credentials.folder(RunId(7)).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&folder), mode(&folder.join("FILE"))), (0o500, 0o400));
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    assert_eq!((read("FILE"), read("cargo")), ("from-a-file\n".into(), env!("CARGO_PKG_VERSION").to_owned()));
    assert_eq!((read("said"), read("made").len()), ("two words".into(), 32));
    assert!(dir.path().join("secrets/command@web:made").exists());
    let variables = credentials.variables(RunId(7), &policy.secrets);
    assert_eq!(variables.get("FILE").map(String::as_str), Some("from-a-file"), "without the line's end");
    assert_eq!(variables.get(VARIABLE), Some(&folder.display().to_string()));
    assert_eq!(variables.len(), 2, "{variables:?}");
    assert!(redactor().is_told_by("it was: from-a-file!") && redactor().is_told_by(&read("made")));
    drop(delivered);
    assert!(!folder.exists(), "a run that did not begin leaves none");
    credentials.deliver(&unit, RunId(8), &policy, None).await.unwrap().unwrap().keep();
    assert_eq!(credentials.runs().len(), 1);
    credentials.remove(RunId(8));
    assert_eq!(credentials.runs(), []);
    Credentials::forget_generated(&dir.path().join("secrets"), &unit).unwrap();
    assert!(!dir.path().join("secrets/command@web:made").exists());
    assert!(!credentials.place().unwrap().exists(), "nothing is left in memory");
}

#[tokio::test]
async fn what_cannot_be_had_is_named_and_no_value_is() {
    let dir = tempfile::tempdir().unwrap();
    let (_, credentials, unit) = ground(dir.path());
    for (from, named) in [
        ("file:/nowhere/key", "file:/nowhere/key"),
        ("file:/dev/null", "no plain file"),
        ("env:WHARF_NO_SUCH_VARIABLE", "env:WHARF_NO_SUCH_VARIABLE"),
        ("command:false --token=canary-canary", "command:false: it ended with code 1"),
        ("command:no-such-program", "no such program"),
        ("command:true", "it is empty"),
        ("command:sh -c 'yes | head -c 70000'", "more than 64 KiB"),
        ("command:printf '\\377\\376canary'", "no text"),
    ] {
        let failure = credentials.deliver(&unit, RunId(1), &policy(&[("KEY", from, false)]), None).await.unwrap_err();
        assert_eq!(failure.kind, ErrorKind::Precondition, "{from}");
        assert!(failure.message.contains("the secret KEY") && failure.message.contains(named), "{from}: {failure}");
        assert!(!format!("{failure:?}").contains("canary"), "{from}: {failure:?}");
        assert!(failure.hint.is_some(), "{from}");
    }
    assert_eq!(credentials.runs(), []);
}

#[test]
fn a_folder_of_somebody_else_is_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("taken");
    std::os::unix::fs::symlink(dir.path(), &place).unwrap();
    assert!(place::write(&place, RunId(1), &[], None).is_err(), "a link is not followed");
}
