//! Every form is found, and nothing innocent is.

use serde_json::json;

use super::*;

fn knowing(values: &[&str]) -> Redactor {
    let redactor = Redactor::default();
    values.iter().for_each(|value| redactor.learn(value.as_bytes()));
    redactor
}

#[test]
fn a_value_is_found_in_each_of_its_forms() {
    let redactor = knowing(&["cana\"ry/42 ü+secret"]);
    let basic = ["dXNlcjpjYW5hInJ5LzQyIMO8K3NlY3JldA==", "eDpjYW5hInJ5LzQyIMO8K3NlY3JldA=="];
    for said in [
        "it is cana\"ry/42 ü+secret.",
        "cana%22ry%2F42%20%C3%BC%2Bsecret",
        "cana%22ry%2f42%20%c3%bc%2bsecret",
        "Y2FuYSJyeS80MiDDvCtzZWNyZXQ=",
        r#"{"said":"cana\"ry/42 ü+secret"}"#,
        r#"{"said":"{\"inner\":\"cana\\\"ry/42 ü+secret\"}"}"#,
        basic[0],
        basic[1],
    ] {
        let clean = redactor.text(said);
        assert!(clean.contains(REDACTED), "{said} -> {clean}");
        assert!(!clean.contains("ry/42") && !clean.contains("LzQyIMO8"), "{said} -> {clean}");
    }
    assert_eq!(redactor.text("it is cana\"ry/42 ü+secret."), "it is [redacted].");
    assert!(matches!(redactor.text("nothing of it: canary secret"), Cow::Borrowed(_)));
}

#[test]
fn every_offset_of_base64_is_found() {
    let redactor = knowing(&["hunter2hunter2"]);
    let encoded = |text: &str| base64(text.as_bytes())[0].clone();
    for before in ["", "a", "ab", "abc", "user:"] {
        for after in ["", "\n", "zz"] {
            let said = encoded(&format!("{before}hunter2hunter2{after}"));
            assert!(redactor.is_told_by(&said), "{before:?} {after:?}: {said}");
        }
    }
}

#[test]
fn a_secret_of_several_lines_is_found_line_by_line_and_a_long_one_whole() {
    let long: String = (0..3000).map(|n| char::from(b'a' + (n * 7 % 26) as u8)).collect();
    let pem = "-----BEGIN KEY-----\nMIIBVwIBADANBgkq\nhkiG9w0BAQEFAASC\n-----END KEY-----\n";
    let redactor = knowing(&[pem, &long]);
    assert_eq!(redactor.text("x MIIBVwIBADANBgkq y"), "x [redacted] y");
    assert!(!redactor.is_told_by("-----BEGIN KEY-----"));
    assert_eq!(redactor.text(&format!("<{long}>")), "<[redacted]>");
}

#[test]
fn short_values_and_names_stay() {
    let redactor = knowing(&["short", "postgres", "12345678"]);
    assert_eq!(redactor.text("short"), "short");
    let mut reply = json!({ "name": "postgres", "with": { "password": "postgres" }, "n": 12_345_678, "pid": 12 });
    redactor.value(&mut reply, &["name"]);
    let kept = json!({ "name": "postgres", "with": { "password": REDACTED }, "n": REDACTED, "pid": 12 });
    assert_eq!(reply, kept);
}

#[test]
fn json_without_a_secret_is_not_touched() {
    let redactor = knowing(&["line\none of two"]);
    let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
    assert!(redactor.json(&raw(r#"{"a": 1}"#), &[]).is_none());
    let clean = redactor.json(&raw(r#"{"a": "one of two", "b": [1.5, "x"]}"#), &[]).unwrap();
    assert_eq!(clean.get(), r#"{"a":"[redacted]","b":[1.5,"x"]}"#);
}
