//! JSON-RPC 2.0 to the letter.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::House;

fn error(id: Value, code: i64, message: &str) -> Value {
    json!({"jsonrpc": "2.0", "error": {"code": code, "message": message}, "id": id})
}

fn result(id: Value, result: Value) -> Value {
    json!({"jsonrpc": "2.0", "result": result, "id": id})
}

/// `error.data` is ours; the specification's examples have none.
fn without_data(mut reply: Value) -> Value {
    let replies = reply.as_array_mut().map_or_else(Vec::new, |all| all.iter_mut().collect());
    for one in replies {
        one["error"].as_object_mut().map(|e| e.remove("data"));
    }
    if let Some(e) = reply.get_mut("error").and_then(Value::as_object_mut) {
        e.remove("data");
    }
    strip_null_errors(&mut reply);
    reply
}

/// Indexing by `["error"]` above makes the member where it is not.
fn strip_null_errors(reply: &mut Value) {
    for one in reply.as_array_mut().into_iter().flatten() {
        if one["error"].is_null() {
            one.as_object_mut().map(|o| o.remove("error"));
        }
    }
}

/// The fifteen examples of <https://www.jsonrpc.org/specification#examples>; `None` is 204.
fn examples() -> Vec<(&'static str, Option<Value>)> {
    let parse = || error(Value::Null, -32700, "Parse error");
    let invalid = || error(Value::Null, -32600, "Invalid Request");
    vec![
        (r#"{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 1}"#, Some(result(json!(1), json!(19)))),
        (
            r#"{"jsonrpc": "2.0", "method": "subtract", "params": [23, 42], "id": 2}"#,
            Some(result(json!(2), json!(-19))),
        ),
        (
            r#"{"jsonrpc": "2.0", "method": "subtract", "params": {"subtrahend": 23, "minuend": 42}, "id": 3}"#,
            Some(result(json!(3), json!(19))),
        ),
        (
            r#"{"jsonrpc": "2.0", "method": "subtract", "params": {"minuend": 42, "subtrahend": 23}, "id": 4}"#,
            Some(result(json!(4), json!(19))),
        ),
        (r#"{"jsonrpc": "2.0", "method": "update", "params": [1,2,3,4,5]}"#, None),
        (r#"{"jsonrpc": "2.0", "method": "foobar"}"#, None),
        (r#"{"jsonrpc": "2.0", "method": "foobar", "id": "1"}"#, Some(error(json!("1"), -32601, "Method not found"))),
        (r#"{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]"#, Some(parse())),
        (r#"{"jsonrpc": "2.0", "method": 1, "params": "bar"}"#, Some(invalid())),
        (
            r#"[{"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},{"jsonrpc": "2.0", "method"]"#,
            Some(parse()),
        ),
        ("[]", Some(invalid())),
        ("[1]", Some(json!([invalid()]))),
        ("[1,2,3]", Some(json!([invalid(), invalid(), invalid()]))),
        (
            r#"[
                {"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},
                {"jsonrpc": "2.0", "method": "notify_hello", "params": [7]},
                {"jsonrpc": "2.0", "method": "subtract", "params": [42,23], "id": "2"},
                {"foo": "boo"},
                {"jsonrpc": "2.0", "method": "foo.get", "params": {"name": "myself"}, "id": "5"},
                {"jsonrpc": "2.0", "method": "get_data", "id": "9"}
            ]"#,
            Some(json!([
                result(json!("1"), json!(7)),
                result(json!("2"), json!(19)),
                invalid(),
                error(json!("5"), -32601, "Method not found"),
                result(json!("9"), json!(["hello", 5])),
            ])),
        ),
        (
            r#"[
                {"jsonrpc": "2.0", "method": "notify_sum", "params": [1,2,4]},
                {"jsonrpc": "2.0", "method": "notify_hello", "params": [7]}
            ]"#,
            None,
        ),
    ]
}

#[test]
fn the_fifteen_examples_of_the_specification() {
    let house = House::new();
    let mut client = house.client();
    let examples = examples();
    assert_eq!(examples.len(), 15);
    for (sent, wanted) in examples {
        let got = client.rpc(sent.as_bytes());
        match wanted {
            None => assert_eq!((got.status, got.text()), (204, ""), "{sent}"),
            Some(wanted) => {
                assert_eq!(got.status, 200, "{sent}");
                assert_eq!(without_data(got.json()), wanted, "{sent}");
            }
        }
    }
}

#[test]
fn t30_ids_are_kept_byte_for_byte() {
    let house = House::new();
    let mut client = house.client();
    let ids = [
        "1",
        "0",
        "-0",
        "-1",
        "1.5",
        "1.50",
        "1e3",
        "1E+3",
        "\"\"",
        "\"a\"",
        "null",
        "18446744073709551616",
        "123456789012345678901234567890123456789012345678901234567890.1e-400",
        "\"\\u00e9\\n\\\"\"",
        "\"é\"",
        "\"\\ud800\"",
    ];
    for id in ids {
        let sent = format!(r#"{{"id" : {id} ,"jsonrpc":"2.0","method":"ping"}}"#);
        let got = client.rpc(sent.as_bytes());
        assert_eq!(
            (got.status, got.text()),
            (200, format!(r#"{{"jsonrpc":"2.0","id":{id},"result":"pong"}}"#).as_str())
        );
        let got = client.rpc(sent.replace("ping", "nope").as_bytes());
        assert!(
            got.text().starts_with(&format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32601,"#)),
            "{}",
            got.text()
        );
    }
    assert_eq!(house.ran(), 2 * ids.len());
}

#[test]
fn t30_other_ids_and_repeated_members_are_invalid_and_run_nothing() {
    let house = House::new();
    let mut client = house.client();
    for id in ["true", "false", "{}", "[]", "[1]", "{\"a\":1}"] {
        let got = client.rpc(format!(r#"{{"jsonrpc":"2.0","method":"ping","id":{id}}}"#).as_bytes());
        assert_eq!((got.status, got.code(), &got.json()["id"]), (200, -32600, &Value::Null), "{id}");
    }
    for sent in [
        r#"{"jsonrpc":"2.0","method":"ping","id":1,"id":1}"#,
        r#"{"jsonrpc":"2.0","method":"ping","id":1,"i\u0064":2}"#,
        r#"{"jsonrpc":"2.0","method":"ping","id":null,"id":2}"#,
        r#"{"jsonrpc":"2.0","jsonrpc":"2.0","method":"ping","id":1}"#,
        r#"{"jsonrpc":"2.0","method":"ping","method":"ping","id":1}"#,
        r#"{"jsonrpc":"2.0","method":"ping","params":[],"params":[],"id":1}"#,
    ] {
        let got = client.rpc(sent.as_bytes());
        assert_eq!((got.status, got.code(), &got.json()["id"]), (200, -32600, &Value::Null), "{sent}");
    }
    assert_eq!(house.ran(), 0);
}

#[test]
fn t31_notifications_run_and_get_204_without_a_body() {
    let house = House::new();
    let mut client = house.client();
    for sent in [
        r#"{"jsonrpc":"2.0","method":"update"}"#,
        r#"{"jsonrpc":"2.0","method":"nope"}"#,
        r#"{"jsonrpc":"2.0","method":"panic"}"#,
        r#"[{"jsonrpc":"2.0","method":"update"},{"jsonrpc":"2.0","method":"subtract","params":["x"]}]"#,
    ] {
        let got = client.rpc(sent.as_bytes());
        assert_eq!((got.status, got.text(), got.header("content-length")), (204, "", None), "{sent}");
    }
    assert_eq!(house.ran(), 5);
}

#[test]
fn t32_json_that_is_no_request_is_invalid_and_no_parse_error() {
    let house = House::new();
    let mut client = house.client();
    for sent in [
        "1",
        "-1.5e3",
        "\"x\"",
        "true",
        "null",
        "{}",
        "[[]]",
        r#"{"method":1}"#,
        r#"{"a":1}"#,
        r#"{"jsonrpc":"1.0","method":"ping","id":1}"#,
        r#"{"jsonrpc":2.0,"method":"ping","id":1}"#,
        r#"{"method":"ping","id":1}"#,
        r#"{"jsonrpc":"2.0","id":1}"#,
        r#"{"jsonrpc":"2.0","method":"ping","params":1,"id":1}"#,
        r#"{"jsonrpc":"2.0","method":"ping","params":null,"id":1}"#,
        r#"{"jsonrpc":"2.0","method":"ping","params":"x"}"#,
        r#"{"jsonrpc":"2.0","method":"ping","id":1,"parms":[]}"#,
    ] {
        let got = client.rpc(sent.as_bytes());
        let reply = if sent == "[[]]" { got.json()[0].clone() } else { got.json() };
        assert_eq!((got.status, &reply["error"]["code"]), (200, &json!(-32600)), "{sent}");
    }
    for sent in ["", " ", "{", "nul", "{}{}", "{'a':1}", "[1,]", "\u{feff}{}", r#"{"a":01}"#] {
        let got = client.rpc(sent.as_bytes());
        assert_eq!((got.status, got.code(), &got.json()["id"]), (200, -32700, &Value::Null), "{sent}");
    }
    assert_eq!(client.rpc(b"{\"a\":\"\xff\"}").code(), -32700);
    assert_eq!(house.ran(), 0);
}

#[test]
fn depth_beyond_128_is_a_parse_error() {
    let house = House::new();
    let mut client = house.client();
    for deep in [200, 500_000] {
        assert_eq!(client.rpc("[".repeat(deep).as_bytes()).code(), -32700);
        let params = format!("{}{}", "[".repeat(deep), "]".repeat(deep));
        let sent = format!(r#"{{"jsonrpc":"2.0","method":"ping","params":{params},"id":1}}"#);
        assert_eq!(client.rpc(sent.as_bytes()).code(), -32700);
    }
    assert_eq!(client.rpc(br#"{"jsonrpc":"2.0","method":"ping","id":1}"#).json()["result"], "pong");
}

#[test]
fn a_panic_is_an_internal_error_with_the_id_and_without_its_text() {
    let house = House::new();
    let mut client = house.client();
    let got = client.rpc(br#"{"jsonrpc":"2.0","method":"panic","id":"p"}"#);
    assert_eq!((got.status, got.code(), &got.json()["id"]), (200, -32603, &json!("p")));
    assert!(!got.text().contains("secret"));
    assert_eq!(client.rpc(br#"{"jsonrpc":"2.0","method":"ping","id":1}"#).status, 200);
}

#[test]
fn a_batch_runs_together_and_answers_in_order() {
    let house = House::new();
    let calls: Vec<_> =
        (0..10).map(|n| json!({"jsonrpc":"2.0","method":"sleep","params":[300 - 20 * n],"id":n})).collect();
    let begun = std::time::Instant::now();
    let got = house.rpc(&json!(calls).to_string());
    assert!(begun.elapsed().as_millis() < 1500, "one after another");
    let ids: Vec<_> = got.json().as_array().unwrap().iter().map(|r| r["id"].as_u64().unwrap()).collect();
    assert_eq!(ids, (0..10).collect::<Vec<_>>());
}

#[test]
fn a_batch_over_the_limit_is_one_error_and_runs_nothing() {
    let house = House::new();
    let call = r#"{"jsonrpc":"2.0","method":"ping","id":1}"#;
    let batch = |n: usize| format!("[{}]", vec![call; n].join(","));
    assert_eq!(house.rpc(&batch(65)).code(), -32600);
    assert_eq!(house.rpc(&format!("[{}0]", "0,".repeat(300_000))).code(), -32600);
    assert_eq!(house.ran(), 0);
    assert_eq!(house.rpc(&batch(64)).json().as_array().unwrap().len(), 64);
}

#[test]
fn results_are_passed_on_as_they_are() {
    let got = House::new().rpc(r#"{"jsonrpc":"2.0","method":"raw","id":1}"#);
    assert_eq!(got.text(), "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\n \"a\": 1.50,\n \"b\": 1e3\n}}");
}

/// Bytes that are nearly a request.
fn nearly() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"jsonrpc\"",
        "\"2.0\"",
        "\"method\"",
        "\"ping\"",
        "\"id\"",
        "\"params\"",
        "1",
        "null",
        "\\",
        "\"",
        " ",
        "1e9",
        "{\"jsonrpc\":\"2.0\",\"method\":\"ping\"",
        ",\"id\":7}",
        "}",
        "\u{fffd}",
    ]);
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        prop::collection::vec(piece, 0..20).prop_map(|pieces| pieces.concat().into_bytes()),
    ]
}

fn is_reply(reply: &Value) -> bool {
    let Some(members) = reply.as_object() else { return false };
    members.len() == 3
        && members["jsonrpc"] == "2.0"
        && members.contains_key("id")
        && (members.contains_key("result")
            || members["error"]["code"].is_i64() && members["error"]["message"].is_string())
}

#[test]
fn any_bytes_get_valid_json_rpc_or_204() {
    let house = House::new();
    let client = std::cell::RefCell::new(house.client());
    proptest!(ProptestConfig { cases: 2000, failure_persistence: None, ..Default::default() }, |(body in nearly())| {
        let got = client.borrow_mut().rpc(&body);
        if got.status == 204 {
            prop_assert!(got.body.is_empty());
        } else {
            prop_assert_eq!(got.status, 200);
            let reply = got.json();
            let valid = match reply.as_array() {
                Some(replies) => !replies.is_empty() && replies.iter().all(is_reply),
                None => is_reply(&reply),
            };
            prop_assert!(valid, "{}", got.text());
        }
    });
}
