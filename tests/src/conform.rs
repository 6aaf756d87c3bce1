//! Holds what goes over the wire against the OpenRPC documents of service.sock and rpc.sock.
//!
//! It knows the document and nothing of the code behind it: what it accepts is what a reader of
//! the document may rely on.

use std::collections::BTreeMap;

use jsonschema::Validator;
use serde_json::{Map, Value, json};

/// The codes that JSON-RPC gives before a method is reached, or where it fails.
const STANDARD_CODES: [i64; 5] = [-32700, -32600, -32601, -32602, -32603];

/// The document with its schemas compiled.
pub struct Document {
    json: Value,
    methods: BTreeMap<String, Method>,
    events: BTreeMap<String, Validator>,
    error_data: Validator,
}

struct Method {
    /// Names of the params, in their order.
    names: Vec<String>,
    params: Validator,
    result: Validator,
    codes: Vec<i64>,
}

/// An example of the document, its references resolved: its method, its own name, its params by
/// name (an object), its result.
pub type Example = (String, String, Value, Value);

impl Document {
    /// The document of service.sock that is compiled into Wharf.
    ///
    /// # Panics
    /// Where the document cannot be used: nothing can be tested against it then.
    pub fn load() -> Self {
        Self::parse(wharf_api::SERVICE_DOCUMENT).unwrap_or_else(|e| panic!("static/service.openrpc.json: {e}"))
    }

    /// The document of rpc.sock that is compiled into Wharf.
    ///
    /// # Panics
    /// As `load`.
    pub fn load_rpc() -> Self {
        Self::parse(wharf_api::RPC_DOCUMENT).unwrap_or_else(|e| panic!("static/rpc.openrpc.json: {e}"))
    }

    /// A document from its text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let json: Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
        let mut methods = BTreeMap::new();
        for method in array(&json, "/methods")? {
            let name = text_of(method, "/name")?;
            let compiled = Method::compile(&json, method).map_err(|e| format!("{name}: {e}"))?;
            if methods.insert(name.to_owned(), compiled).is_some() {
                return Err(format!("{name} is described twice"));
            }
        }
        let mut events = BTreeMap::new();
        for (name, event) in json.pointer("/x-events").and_then(Value::as_object).into_iter().flatten() {
            events.insert(name.clone(), compile(&json, &event["params"])?);
        }
        let error_data = compile(&json, &json["x-error-data"]["schema"])?;
        Ok(Self { json, methods, events, error_data })
    }

    /// The document as it is written.
    pub fn json(&self) -> &Value {
        &self.json
    }

    /// Whether these params may be sent: an object, an array, or null for none.
    pub fn check_call(&self, method: &str, params: &Value) -> Result<(), String> {
        let found = self.method(method)?;
        let by_name = match params {
            Value::Null => json!({}),
            Value::Array(values) if values.len() > found.names.len() => {
                return Err(format!("{method} takes {} params, {} were sent", found.names.len(), values.len()));
            }
            Value::Array(values) => {
                found.names.iter().cloned().zip(values.iter().cloned()).collect::<Map<_, _>>().into()
            }
            named => named.clone(),
        };
        check(&found.params, &by_name).map_err(|e| format!("params of {method}: {e}"))
    }

    /// Whether this may be the result.
    pub fn check_result(&self, method: &str, result: &Value) -> Result<(), String> {
        check(&self.method(method)?.result, result).map_err(|e| format!("result of {method}: {e}"))
    }

    /// Whether this error object may come back: its code is among the method's errors, or JSON-RPC's
    /// own; its data, which only JSON-RPC's own may lack, has the shape of the document.
    pub fn check_error(&self, method: &str, error: &Value) -> Result<(), String> {
        let code =
            error["code"].as_i64().ok_or_else(|| format!("error of {method}: its code is no integer: {error}"))?;
        if error["message"].as_str().is_none_or(str::is_empty) {
            return Err(format!("error of {method}: it has no message: {error}"));
        }
        // A method that the document does not name can only be answered with a standard error.
        let declared = self.methods.get(method).is_some_and(|m| m.codes.contains(&code));
        let standard = STANDARD_CODES.contains(&code);
        if !declared && !standard {
            return Err(format!("error of {method}: {code} is not among its errors: {error}"));
        }
        match error.get("data") {
            Some(data) if declared => {
                check(&self.error_data, data).map_err(|e| format!("data of {code} of {method}: {e}"))
            }
            None if declared && !standard => Err(format!("error of {method}: {code} has no data: {error}")),
            Some(_) | None => Ok(()),
        }
    }

    /// Whether this notification may come before a result.
    pub fn check_event(&self, event: &str, params: &Value) -> Result<(), String> {
        let found = self.events.get(event).ok_or_else(|| format!("{event} is not among the document's x-events"))?;
        check(found, params).map_err(|e| format!("params of {event}: {e}"))
    }

    /// All examples, in the order of the document.
    pub fn examples(&self) -> Vec<Example> {
        let methods = self.json["methods"].as_array().into_iter().flatten();
        methods.flat_map(|method| self.examples_of(method)).collect()
    }

    fn examples_of<'a>(&'a self, method: &'a Value) -> impl Iterator<Item = Example> + 'a {
        method["examples"].as_array().into_iter().flatten().map(move |example| {
            let example = self.resolve(example);
            let params = example["params"].as_array().into_iter().flatten().map(|param| {
                let param = self.resolve(param);
                (param["name"].as_str().unwrap_or_default().to_owned(), param["value"].clone())
            });
            (
                method["name"].as_str().unwrap_or_default().to_owned(),
                example["name"].as_str().unwrap_or_default().to_owned(),
                params.collect::<Map<_, _>>().into(),
                self.resolve(&example["result"])["value"].clone(),
            )
        })
    }

    fn resolve<'a>(&'a self, value: &'a Value) -> &'a Value {
        resolve(&self.json, value).unwrap_or(value)
    }

    fn method(&self, name: &str) -> Result<&Method, String> {
        self.methods.get(name).ok_or_else(|| format!("{name} is not in the document"))
    }
}

impl Method {
    fn compile(document: &Value, method: &Value) -> Result<Self, String> {
        let mut names = vec![];
        let mut properties = Map::new();
        let mut required = vec![];
        for param in array(method, "/params")? {
            let param = resolve(document, param)?;
            let name = text_of(param, "/name")?;
            if param["required"] == true {
                required.push(name);
            }
            names.push(name.to_owned());
            properties.insert(name.to_owned(), param["schema"].clone());
        }
        let params = json!({
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": false,
        });
        let mut codes = vec![];
        for error in array(method, "/errors")? {
            codes.push(resolve(document, error)?["code"].as_i64().ok_or("an error has no code")?);
        }
        let result = resolve(document, &method["result"])?;
        Ok(Self {
            params: compile(document, &params)?,
            result: compile(document, result.get("schema").ok_or("the result has no schema")?)?,
            names,
            codes,
        })
    }
}

/// Compiles a schema of the document. Draft 7 ignores what stands beside a `$ref`, so the
/// components go around it, and the schema itself into `allOf`.
fn compile(document: &Value, schema: &Value) -> Result<Validator, String> {
    let whole = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "allOf": [schema],
        "components": { "schemas": document["components"]["schemas"] },
    });
    jsonschema::options().should_validate_formats(true).build(&whole).map_err(|e| e.to_string())
}

/// All that is wrong with a value: where, and what.
fn check(validator: &Validator, value: &Value) -> Result<(), String> {
    let faults: Vec<String> = validator.iter_errors(value).map(|e| format!("{} {e}", e.instance_path())).collect();
    if faults.is_empty() { Ok(()) } else { Err(format!("{} in {value}", faults.join("; "))) }
}

/// What a reference object stands for; anything else stands for itself.
fn resolve<'a>(document: &'a Value, value: &'a Value) -> Result<&'a Value, String> {
    let Some(reference) = value.get("$ref") else { return Ok(value) };
    let path =
        reference.as_str().and_then(|r| r.strip_prefix('#')).ok_or_else(|| format!("{reference} leads outside"))?;
    document.pointer(path).ok_or_else(|| format!("{reference} leads nowhere"))
}

fn array<'a>(value: &'a Value, path: &str) -> Result<&'a Vec<Value>, String> {
    value.pointer(path).and_then(Value::as_array).ok_or_else(|| format!("{path} is no array"))
}

fn text_of<'a>(value: &'a Value, path: &str) -> Result<&'a str, String> {
    value.pointer(path).and_then(Value::as_str).ok_or_else(|| format!("{path} is no text"))
}
