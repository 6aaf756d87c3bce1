//! The hand-written documents of service.sock and rpc.sock say what the code does: names, params, results,
//! errors and examples are compared both ways.

#[path = "../../../tests/src/conform.rs"]
mod conform;
mod fake;
mod schema;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use conform::Document;
use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Value, json, value::to_raw_value};
use wharf_api::{
    Caller, Class, ErrorData, EventRow, LogLine, MethodSchema, Methods, Peer, ProgressRow, RpcMethods, ServiceMethods,
    error_object, rpc::gpu::GpuProgress, rpc_methods, service_methods,
};
use wharf_model::{ErrorKind, Failure};

const META_SCHEMA: &str = include_str!("../../../tests/openrpc-meta-schema.json");
const META_SCHEMA_1_4: &str = include_str!("../../../tests/openrpc-meta-schema-1.4.json");

/// A notification's method, and the schema that the code has for its params.
type Notice = (&'static str, fn() -> Value);

/// A document, and the code that it says it describes.
struct Contract {
    file: &'static str,
    text: &'static str,
    json: Value,
    coded: fn() -> Vec<MethodSchema>,
    served: fn(Arc<fake::Fake>) -> Box<dyn Methods>,
    /// Its notifications, and the schema that the code has for each.
    events: &'static [Notice],
}

impl Contract {
    fn service() -> Self {
        Self {
            file: "static/service.openrpc.json",
            text: wharf_api::SERVICE_DOCUMENT,
            json: serde_json::from_str(wharf_api::SERVICE_DOCUMENT).expect("static/service.openrpc.json is JSON"),
            coded: service_methods,
            served: |fake| Box::new(ServiceMethods::new(fake, nothing, nothing)),
            events: &[("service.log", written::<LogLine>), ("service.progress", written::<ProgressRow>)],
        }
    }

    fn rpc() -> Self {
        Self {
            file: "static/rpc.openrpc.json",
            text: wharf_api::RPC_DOCUMENT,
            json: serde_json::from_str(wharf_api::RPC_DOCUMENT).expect("static/rpc.openrpc.json is JSON"),
            coded: rpc_methods,
            served: |fake| Box::new(RpcMethods::new(fake, nothing, nothing)),
            events: &[
                ("event.notice", written::<EventRow>),
                ("gpu.progress", written::<GpuProgress>),
                ("service.progress", written::<ProgressRow>),
            ],
        }
    }

    fn compiled(&self) -> Document {
        if self.file == "static/service.openrpc.json" { Document::load() } else { Document::load_rpc() }
    }
}

fn nothing(_: &fake::Fake) -> Box<serde_json::value::RawValue> {
    to_raw_value(&()).unwrap()
}

fn written<T: JsonSchema>() -> Value {
    SchemaSettings::default().for_serialize().into_generator().into_root_schema_for::<T>().to_value()
}

/// Each of these is a test of either document.
macro_rules! of_both {
    (now $($test:ident),*; later $($later:ident),*;) => {
        mod service {
            $( #[test] fn $test() { super::$test(&super::Contract::service()); } )*
            $( #[tokio::test] async fn $later() { super::$later(&super::Contract::service()).await; } )*
        }
        mod rpc {
            $( #[test] fn $test() { super::$test(&super::Contract::rpc()); } )*
            $( #[tokio::test] async fn $later() { super::$later(&super::Contract::rpc()).await; } )*
        }
    };
}

of_both! {
    now it_is_a_valid_openrpc_document,
        it_is_valid_as_version_1_4_too,
        an_object_of_the_document_has_each_key_once,
        its_methods_are_those_of_the_code_in_the_same_order,
        its_classes_are_those_of_the_code,
        its_params_are_those_of_the_code,
        its_results_are_those_of_the_code,
        its_error_data_and_its_events_are_those_of_the_code,
        what_takes_time_tells_its_progress,
        its_errors_are_the_kinds_of_the_code,
        its_methods_declare_their_errors_once_and_in_order,
        every_reference_leads_somewhere_and_stands_alone,
        every_component_is_used,
        every_method_says_what_a_person_needs,
        every_schema_has_a_title_and_a_description,
        every_link_leads_to_a_method_with_values_that_are_there,
        every_extension_is_declared,
        every_example_fits_the_document,
        every_failure_of_the_code_fits_the_document;
    later every_example_fits_the_code,
        params_by_position_are_those_by_name;
}

fn it_is_a_valid_openrpc_document(contract: &Contract) {
    let document = contract.json.clone();
    assert_eq!(document["openrpc"], "1.3.2", "most tools read this version");
    assert_valid(META_SCHEMA, &document);
}

fn it_is_valid_as_version_1_4_too(contract: &Contract) {
    let mut document = contract.json.clone();
    document["openrpc"] = json!("1.4.1");
    assert_valid(META_SCHEMA_1_4, &document);
}

fn an_object_of_the_document_has_each_key_once(contract: &Contract) {
    schema::assert_keys_are_unique(contract.text);
}

fn its_methods_are_those_of_the_code_in_the_same_order(contract: &Contract) {
    let document = contract.json.clone();
    let described: Vec<&str> = methods(&document).map(name_of).collect();
    let coded: Vec<&str> = (contract.coded)().iter().map(|m| m.name).collect();
    assert_eq!(described, coded, "left: the document, right: the tables in crates/api/src");
    if contract.file == "static/service.openrpc.json" {
        assert_eq!(coded.len(), 16, "HS-53: fourteen service.* and two rpc.*");
    }
}

fn its_classes_are_those_of_the_code(contract: &Contract) {
    for (method, code) in pairs(contract, &contract.json) {
        let class = match code.class {
            Class::Read => "read",
            Class::Logs => "logs",
            Class::Control => "control",
            Class::Install => "install",
        };
        assert_eq!(method["x-class"], class, "x-class of {}", code.name);
        let changes = matches!(code.class, Class::Control | Class::Install);
        assert_eq!(method["x-effects"] != "read", changes, "x-effects of {}", code.name);
    }
}

fn its_params_are_those_of_the_code(contract: &Contract) {
    let document = contract.json.clone();
    for (method, code) in pairs(contract, &document) {
        let name = code.name;
        assert_eq!(code.params["additionalProperties"], false, "{name} takes params that it does not know");
        let described = params_of(&document, method);
        let none = json!({});
        let coded = code.params.get("properties").unwrap_or(&none).as_object().unwrap();

        let names: BTreeSet<&str> = described.iter().map(|p| name_of(p)).collect();
        assert_eq!(names.len(), described.len(), "{name} describes a param twice");
        assert_eq!(names, coded.keys().map(String::as_str).collect(), "params of {name}: document, code");

        let required: BTreeSet<&str> = described.iter().filter(|p| p["required"] == true).map(|p| name_of(p)).collect();
        let owed = code.params["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        assert_eq!(required, owed, "required params of {name}: document, code");
        assert!(described.is_sorted_by_key(|p| p["required"] != true), "{name}: required params come first");

        for param in described {
            let path = format!("{name}.params.{}", name_of(param));
            let coded = &coded[name_of(param)];
            schema::assert_same(&path, (&param["schema"], &document), (coded, &code.params));
            let default = schema::default_of(&param["schema"], &document);
            assert_eq!(default, coded.get("default"), "{path}.default: document, code");
        }
    }
}

fn its_results_are_those_of_the_code(contract: &Contract) {
    let document = contract.json.clone();
    for (method, code) in pairs(contract, &document) {
        let result = &method["result"]["schema"];
        schema::assert_same(&format!("{}.result", code.name), (result, &document), (&code.result, &code.result));
    }
}

fn its_error_data_and_its_events_are_those_of_the_code(contract: &Contract) {
    let document = contract.json.clone();
    assert_derived::<ErrorData>("x-error-data", &document["x-error-data"]["schema"], &document);
    let events: BTreeSet<&str> = document["x-events"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(events, contract.events.iter().map(|(name, _)| *name).collect(), "x-events: document, code");
    for (name, coded) in contract.events {
        let (described, coded) = (&document["x-events"][name]["params"], coded());
        schema::assert_same(name, (described, &document), (&coded, &coded));
    }
    for method in methods(&document).filter(|m| m.get("x-streaming").is_some()) {
        let event = method["x-streaming"]["event"].as_str().unwrap();
        let params = document["x-events"].get(event).map(|e| &e["params"]);
        assert_eq!(params, Some(&method["x-streaming"]["item"]), "x-streaming of {}", name_of(method));
    }
}

fn what_takes_time_tells_its_progress(contract: &Contract) {
    for (method, code) in pairs(contract, &contract.json) {
        let event = method["x-streaming"]["event"].as_str();
        let expected = match (code.class, code.name) {
            // What it clears away is gone at once.
            (_, "infra.mend") => None,
            (_, "gpu.acquire") => Some("gpu.progress"),
            (_, "gpu.watch" | "port.watch") => Some("event.notice"),
            // What is asked of the arbiter is done, or refused, at once.
            (_, name) if name.starts_with("gpu.") => None,
            // A look at a folder is as long as the folder; what nobody needs is removed at once.
            (_, "discovery.rescan" | "store.gc") => None,
            // It is not the canceller's operation.
            (_, "op.cancel") => None,
            // And so are ports.
            (_, name) if name.starts_with("port.") => None,
            (Class::Control | Class::Install, _) => Some("service.progress"),
            (_, "service.logs") => Some("service.log"),
            (_, "event.watch") => Some("event.notice"),
            (Class::Read | Class::Logs, _) => None,
        };
        assert_eq!(event, expected, "x-streaming of {}", code.name);
    }
}

fn its_errors_are_the_kinds_of_the_code(contract: &Contract) {
    let mut kinds: Vec<ErrorKind> =
        [&ErrorKind::SERVICE[..], &[ErrorKind::InvalidParams, ErrorKind::Internal]].concat();
    if contract.file == "static/rpc.openrpc.json" {
        kinds.extend(ErrorKind::GPU.into_iter().chain(ErrorKind::PORT));
    }
    let coded: BTreeMap<String, (i32, Value)> = kinds
        .iter()
        .map(|k| (format!("{k:?}"), (k.code(), json!({ "kind": k, "retryable": k.is_retryable() }))))
        .collect();
    let document = contract.json.clone();
    let described: BTreeMap<String, (i32, Value)> = components(&document, "errors")
        .map(|(name, e)| (name.clone(), (e["code"].as_i64().unwrap() as i32, e["data"].clone())))
        .collect();
    if contract.file == "static/service.openrpc.json" {
        assert_eq!(described, coded, "components.errors: document, code");
    }
    // What no method of a socket can give is not in its document.
    for (name, error) in &described {
        assert_eq!(Some(error), coded.get(name), "components.errors.{name}: document, code");
    }
    for (name, error) in components(&document, "errors") {
        assert!(is_said(&error["message"]), "{name} has no message");
    }
}

fn its_methods_declare_their_errors_once_and_in_order(contract: &Contract) {
    let document = contract.json.clone();
    for method in methods(&document) {
        let name = name_of(method);
        let errors = method["errors"].as_array().unwrap();
        assert!(errors.iter().all(|e| e.get("$ref").is_some()), "{name} has an error of its own");
        let codes: Vec<i64> = errors.iter().map(|e| resolve(&document, e)["code"].as_i64().unwrap()).collect();
        assert!(codes.is_sorted_by(|a, b| a > b), "errors of {name} are not from -32001 on: {codes:?}");
        // Every method refuses params that it does not know, and any can meet a fault of Wharf.
        assert!(codes.ends_with(&[-32602, -32603]), "errors of {name} lack -32602 or -32603: {codes:?}");
        let params = params_of(&document, method);
        let takes = |wanted: &str| params.iter().any(|p| name_of(p) == wanted);
        // Of a lease that is held, what is not there is stale.
        let named = ["name", "unit", "device"].into_iter().any(takes) || takes("lease") && !takes("epoch");
        let named = named || matches!(name, "op.cancel" | "store.list" | "store.outdated");
        assert_eq!(codes.contains(&-32001), named, "-32001 of {name}: what takes a name may not find it");
    }
}

fn every_reference_leads_somewhere_and_stands_alone(contract: &Contract) {
    let document = contract.json.clone();
    schema::walk(&document, &mut |path, value| {
        if let Some(reference) = value.get("$ref") {
            let target = reference.as_str().and_then(|r| r.strip_prefix('#')).and_then(|p| document.pointer(p));
            assert!(target.is_some(), "{path}: {reference} leads nowhere");
            // Draft 7 ignores what stands beside it.
            assert_eq!(value.as_object().unwrap().len(), 1, "{path}: something stands beside the $ref");
        }
    });
}

fn every_component_is_used(contract: &Contract) {
    let document = contract.json.clone();
    let mut used = BTreeSet::new();
    schema::walk(&document, &mut |_, value| {
        used.extend(value.get("$ref").and_then(Value::as_str).map(str::to_owned));
    });
    for section in document["components"].as_object().unwrap().keys() {
        for (name, _) in components(&document, section) {
            assert!(used.contains(&format!("#/components/{section}/{name}")), "nothing uses {section}/{name}");
        }
    }
}

fn every_method_says_what_a_person_needs(contract: &Contract) {
    let document = contract.json.clone();
    for method in methods(&document) {
        let name = name_of(method);
        assert!(method["summary"].as_str().is_some_and(|s| (1..=80).contains(&s.chars().count())), "summary of {name}");
        assert!(is_said(&method["description"]), "description of {name}");
        assert_eq!(method["paramStructure"], "by-name", "{name}");
        for list in ["tags", "links", "examples", "errors"] {
            assert!(method[list].as_array().is_some_and(|l| !l.is_empty()), "{name} has no {list}");
        }
        assert!(method["x-idempotent"].is_boolean(), "x-idempotent of {name}");
        assert!(is_said(&method["x-cli"]), "x-cli of {name}");
        assert!(is_said(&method["result"]["name"]) && is_said(&method["result"]["summary"]), "result of {name}");
        for param in params_of(&document, method) {
            assert!(is_said(&param["summary"]), "{name}: the param {} has no summary", name_of(param));
        }
    }
}

fn every_schema_has_a_title_and_a_description(contract: &Contract) {
    let document = contract.json.clone();
    for (name, schema) in components(&document, "schemas") {
        assert_eq!(schema["title"], name.as_str(), "generators name types by the title");
        assert!(is_said(&schema["description"]), "description of {name}");
        for (field, schema) in schema["properties"].as_object().into_iter().flatten() {
            let described = schema.get("$ref").is_some() || is_said(&schema["description"]);
            assert!(described, "{name}.{field} has no description");
        }
        for variant in schema["oneOf"].as_array().into_iter().flatten() {
            assert!(is_said(&variant["title"]) && is_said(&variant["description"]), "a variant of {name}");
        }
        if let Some(values) = schema["enum"].as_array() {
            let words: BTreeSet<&str> = values.iter().filter_map(Value::as_str).collect();
            let meanings = schema["x-values"].as_object().map(|m| m.keys().map(String::as_str).collect());
            assert_eq!(Some(words), meanings, "x-values of {name}");
        }
    }
    let mut titles = BTreeSet::new();
    for method in methods(&document) {
        let params = params_of(&document, method);
        for schema in params.iter().map(|p| &p["schema"]).chain([&method["result"]["schema"]]) {
            if schema.get("$ref").is_none() {
                assert!(
                    is_said(&schema["title"]) && is_said(&schema["description"]),
                    "a schema of {}",
                    name_of(method)
                );
                titles.insert((schema["title"].as_str().unwrap().to_owned(), schema.to_string()));
            }
        }
    }
    let names: BTreeSet<&String> = titles.iter().map(|(title, _)| title).collect();
    assert_eq!(names.len(), titles.len(), "two schemas have one title: {titles:#?}");
    for (name, _) in components(&document, "schemas") {
        assert!(!names.contains(name), "the title {name} is a component's");
    }
}

fn every_link_leads_to_a_method_with_values_that_are_there(contract: &Contract) {
    let document = contract.json.clone();
    let all = contract.compiled();
    for method in methods(&document) {
        let name = name_of(method);
        let (_, _, params, result) = all.examples().into_iter().find(|(of, ..)| of == name).unwrap();
        let known = json!({ "params": params, "result": result });
        for link in method["links"].as_array().unwrap() {
            let mut next = serde_json::Map::new();
            for (param, value) in link["params"].as_object().unwrap() {
                let value = match value.as_str() {
                    Some(expression) => schema::evaluate(expression, &known)
                        .unwrap_or_else(|| panic!("links of {name}: {expression} is nothing in {known}")),
                    None => value.clone(),
                };
                next.insert(param.clone(), value);
            }
            let target = link["method"].as_str().unwrap();
            if let Err(e) = all.check_call(target, &next.into()) {
                panic!("links of {name}: {e}");
            }
        }
    }
}

fn every_extension_is_declared(contract: &Contract) {
    let document = contract.json.clone();
    let declared: BTreeMap<&str, jsonschema::Validator> = document["x-extensions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| (name_of(e), jsonschema::draft7::new(&e["schema"]).unwrap()))
        .collect();
    let mut used = BTreeSet::new();
    schema::walk(&document, &mut |path, value| {
        for (key, value) in value.as_object().into_iter().flatten() {
            if key.starts_with("x-") && key != "x-extensions" {
                let extension = declared.get(key.as_str()).unwrap_or_else(|| panic!("{path}: {key} is not declared"));
                assert!(extension.is_valid(value), "{path}/{key}: {value}");
                used.insert(key.clone());
            }
        }
    });
    assert_eq!(used, declared.keys().map(|&k| k.to_owned()).collect(), "x-extensions: used, declared");
}

fn every_example_fits_the_document(contract: &Contract) {
    let document = contract.compiled();
    let mut names = BTreeSet::new();
    for (method, name, params, result) in document.examples() {
        assert!(names.insert((method.clone(), name.clone())), "{method} has two examples that are called {name}");
        document.check_call(&method, &params).unwrap_or_else(|e| panic!("example {name:?}: {e}"));
        document.check_result(&method, &result).unwrap_or_else(|e| panic!("example {name:?}: {e}"));
    }
}

/// Through the real dispatch: params become their Rust types; the result becomes its Rust type and
/// comes back as it was, so an example has every field that the daemon writes, and no other.
async fn every_example_fits_the_code(contract: &Contract) {
    for (method, name, params, result) in contract.compiled().examples() {
        let fake = Arc::new(fake::Fake::answering(result.clone()));
        let reply = call(contract, &fake, &method, &params)
            .await
            .unwrap_or_else(|e| panic!("example {name:?} of {method}: {e}"));
        schema::assert_equal(&format!("example {name:?} of {method}: document, code"), &result, &reply);
        let seen = fake.seen();
        for (param, value) in params.as_object().unwrap() {
            let kept = seen.get(param).unwrap_or(&Value::Null);
            assert!(holds(kept, value), "example {name:?} of {method}: the param {param}: {kept} lacks {value}");
        }
    }
}

/// The same; of objects, all fields that were given: the others have their defaults.
fn holds(kept: &Value, given: &Value) -> bool {
    match (kept, given) {
        (Value::Object(kept), Value::Object(given)) => {
            given.iter().all(|(field, value)| kept.get(field).is_some_and(|kept| holds(kept, value)))
        }
        (kept, given) => kept == given,
    }
}

/// Params by position are read in the document's order.
async fn params_by_position_are_those_by_name(contract: &Contract) {
    let document = contract.json.clone();
    for method in methods(&document) {
        let name = name_of(method);
        let params = params_of(&document, method);
        let values: Vec<Value> = params.iter().map(|p| schema::sample(p, &document)).collect();
        let named: Value = params.iter().zip(&values).map(|(p, v)| (name_of(p).to_owned(), v.clone())).collect();
        for sent in [named.clone(), values.into()] {
            let fake = Arc::new(fake::Fake::refusing());
            let refusal = call(contract, &fake, name, &sent).await.expect_err("the fake refuses");
            assert_eq!(fake.seen(), named, "{name} with {sent}: {refusal}");
        }
    }
}

/// Each kind of failure, as the code writes it, is an error that the document knows.
fn every_failure_of_the_code_fits_the_document(contract: &Contract) {
    let document = contract.compiled();
    let mut kinds: Vec<ErrorKind> =
        [&ErrorKind::SERVICE[..], &[ErrorKind::InvalidParams, ErrorKind::Internal]].concat();
    if contract.file == "static/rpc.openrpc.json" {
        kinds.extend(ErrorKind::GPU.into_iter().chain(ErrorKind::PORT));
    }
    for kind in kinds {
        let failure = Failure::new(kind, "could not").hint("do").cause("because").about(&"hello".parse().unwrap());
        let failure = failure.detail(json!({ "blockers": [] }));
        for failure in [failure, Failure::new(kind, "could not")] {
            let error = serde_json::to_value(error_object(failure)).unwrap();
            let code = i64::from(kind.code());
            let declares =
                |m: &&Value| m["errors"].as_array().unwrap().iter().any(|e| resolve(&contract.json, e)["code"] == code);
            // Every kind has a method of the service socket that can give it.
            match methods(&contract.json).find(declares) {
                Some(method) => document.check_error(name_of(method), &error).unwrap(),
                None => assert_eq!(contract.file, "static/rpc.openrpc.json", "nothing gives {kind:?}"),
            }
        }
    }
}

/// A type that both sockets speak of is the same on both.
#[test]
fn what_both_documents_describe_is_the_same() {
    let (service, rpc) = (Contract::service().json, Contract::rpc().json);
    let mut count = 0;
    for section in ["schemas", "errors", "tags"] {
        for (name, described) in components(&rpc, section) {
            if let Some(other) = service["components"][section].get(name) {
                schema::assert_equal(&format!("{section}/{name}: service.sock, rpc.sock"), other, described);
                count += 1;
            }
        }
    }
    assert!(count > 10, "they share {count} components");
    assert_eq!(service["x-error-data"], rpc["x-error-data"]);
    for extension in rpc["x-extensions"].as_array().unwrap() {
        assert!(service["x-extensions"].as_array().unwrap().contains(extension), "{extension}");
    }
}

#[test]
fn what_the_document_does_not_say_is_refused() {
    let document = Document::load();
    let error = |code: i32, data: Value| json!({ "code": code, "message": "no", "data": data });
    let data = json!({ "kind": "port_taken", "service": null, "retryable": true, "hint": null, "causes": [] });
    let refused = [
        document.check_call("service.reboot", &json!({})),
        document.check_call("service.start", &json!({})),
        document.check_call("service.start", &json!({ "name": "hello", "forced": true })),
        document.check_call("service.start", &json!({ "name": "Hello" })),
        document.check_call("rpc.health", &json!(["hello"])),
        document.check_result("service.list", &json!({})),
        document.check_result("service.list", &json!([{ "name": "hello", "status": "exited" }])),
        document.check_result("service.start", &json!({ "operation": {} })),
        document.check_error("service.status", &error(-32003, data.clone())),
        document.check_error("service.start", &error(-32003, json!({ "kind": "port" }))),
        document.check_error("service.start", &json!({ "code": -32003, "message": "no" })),
        document.check_error("service.start", &json!({ "code": "-32003", "message": "no" })),
        document.check_event("service.log", &json!({ "name": "hello" })),
        document.check_event("service.died", &json!({})),
    ];
    for (n, outcome) in refused.iter().enumerate() {
        assert!(outcome.is_err(), "number {n} was taken");
    }
    document.check_error("service.start", &error(-32003, data)).unwrap();
    document.check_error("service.start", &json!({ "code": -32601, "message": "no" })).unwrap();
    document.check_call("rpc.health", &Value::Null).unwrap();
    document.check_call("service.logs", &json!(["hello", 5])).unwrap();
    let line = json!({
        "name": "hello", "run": 1, "line": "", "cursor": "hello/1/1", "at": null, "level": null, "msg": null,
        "fields": null, "gap_bytes": 0
    });
    document.check_event("service.log", &line).unwrap();
    assert_eq!(document.json()["info"]["version"], "1.0.0");
    assert!(Document::parse("{}").is_err());
}

fn methods(document: &Value) -> impl Iterator<Item = &Value> {
    document["methods"].as_array().unwrap().iter()
}

/// Each method of the code with its entry in the document.
fn pairs<'a>(contract: &Contract, document: &'a Value) -> Vec<(&'a Value, MethodSchema)> {
    let entry = |name: &str| methods(document).find(|m| name_of(m) == name);
    let all = (contract.coded)().into_iter();
    all.map(|code| (entry(code.name).unwrap_or_else(|| panic!("{} is not in the document", code.name)), code)).collect()
}

fn params_of<'a>(document: &'a Value, method: &'a Value) -> Vec<&'a Value> {
    method["params"].as_array().unwrap().iter().map(|p| resolve(document, p)).collect()
}

fn components<'a>(document: &'a Value, section: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    document["components"][section].as_object().unwrap().iter()
}

fn resolve<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(reference) => document.pointer(&reference[1..]).unwrap_or_else(|| panic!("{reference} leads nowhere")),
        None => value,
    }
}

fn name_of(value: &Value) -> &str {
    value["name"].as_str().unwrap_or_else(|| panic!("it has no name: {value}"))
}

fn is_said(text: &Value) -> bool {
    text.as_str().is_some_and(|t| !t.trim().is_empty())
}

fn assert_valid(meta_schema: &str, document: &Value) {
    let schema = serde_json::from_str(meta_schema).unwrap();
    let validator = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
    let faults: Vec<String> =
        validator.iter_errors(document).map(|e| format!("{}: {}", e.instance_path(), e.masked())).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

fn assert_derived<T: JsonSchema>(path: &str, described: &Value, document: &Value) {
    let coded = written::<T>();
    schema::assert_same(path, (described, document), (&coded, &coded));
}

async fn call(contract: &Contract, fake: &Arc<fake::Fake>, method: &str, params: &Value) -> Result<Value, String> {
    let methods = (contract.served)(fake.clone());
    let caller = Caller { peer: Peer { uid: 0, gid: 0, pid: 1, identity: None }, stream: None, client: None };
    let params = to_raw_value(params).unwrap();
    let reply = methods.call(&caller, method, Some(&params)).await.map_err(|e| e.to_string())?;
    Ok(serde_json::from_str(reply.get()).unwrap())
}
