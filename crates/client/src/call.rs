//! Requests as they are sent, and replies as they are read. No IO.

use std::collections::BTreeMap;

use bytes::Bytes;
use hyper::StatusCode;
use jsonrpsee_types::ErrorObjectOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, value::RawValue};

use crate::{Answer, ClientFailure};

#[derive(Serialize)]
struct Call<'a> {
    jsonrpc: &'static str,
    id: u64,
    method: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    params: Option<&'a RawValue>,
}

/// A line that comes back: an answer, or with a method a notification.
#[derive(Deserialize)]
pub(crate) struct Line {
    #[serde(default)]
    id: Option<Value>,
    pub(crate) method: Option<String>,
    pub(crate) params: Option<Value>,
    // `Option` alone would take a null result for none.
    #[serde(default, deserialize_with = "present")]
    result: Option<Box<RawValue>>,
    error: Option<ErrorObjectOwned>,
}

fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(from).map(Some)
}

impl Line {
    pub(crate) fn read(text: &[u8]) -> Result<Self, ClientFailure> {
        serde_json::from_slice(text).map_err(|e| not_understood(text, &e.to_string()))
    }

    pub(crate) fn answer(self) -> Option<Answer> {
        match (self.result, self.error) {
            (_, Some(error)) => Some(Err(error)),
            (Some(result), None) => Some(Ok(result)),
            (None, None) => None,
        }
    }
}

pub(crate) fn raw(value: &impl Serialize) -> Result<Box<RawValue>, ClientFailure> {
    serde_json::value::to_raw_value(value).map_err(unwritable)
}

pub(crate) fn one(id: u64, method: &str, params: Option<&RawValue>) -> Result<Bytes, ClientFailure> {
    body(&Call { jsonrpc: "2.0", id, method, params })
}

pub(crate) fn notification(method: &str, params: Option<&RawValue>) -> Result<Bytes, ClientFailure> {
    let params = params.map_or(Value::Null, |p| serde_json::from_str(p.get()).unwrap_or_default());
    let mut call = serde_json::json!({ "jsonrpc": "2.0", "method": method });
    if !params.is_null() {
        call["params"] = params;
    }
    body(&call)
}

/// The id of each call is its place.
pub(crate) fn many(calls: &[(String, Option<Box<RawValue>>)]) -> Result<Bytes, ClientFailure> {
    let calls: Vec<Call<'_>> = calls
        .iter()
        .zip(0..)
        .map(|((method, params), id)| Call { jsonrpc: "2.0", id, method, params: params.as_deref() })
        .collect();
    body(&calls)
}

pub(crate) fn answer(status: StatusCode, body: &[u8]) -> Result<Answer, ClientFailure> {
    if body.is_empty() {
        return Err(ClientFailure::Malformed { what: format!("the daemon answered HTTP {status} without a word") });
    }
    Line::read(body)?.answer().ok_or_else(|| not_understood(body, "neither result nor error"))
}

pub(crate) fn answers(status: StatusCode, body: &[u8], calls: usize) -> Result<Vec<Answer>, ClientFailure> {
    // A batch that is refused as a whole is answered by one object.
    if body.trim_ascii_start().first() != Some(&b'[') {
        return match answer(status, body)? {
            Err(error) => Err(ClientFailure::Answered(error)),
            Ok(_) => Err(not_understood(body, "one answer to several calls")),
        };
    }
    let lines: Vec<Line> = serde_json::from_slice(body).map_err(|e| not_understood(body, &e.to_string()))?;
    let mut by_place = BTreeMap::new();
    for line in lines {
        if let Some(place) = line.id.as_ref().and_then(Value::as_u64)
            && let Some(answer) = line.answer()
        {
            by_place.insert(place, answer);
        }
    }
    (0..calls as u64)
        .map(|place| by_place.remove(&place).ok_or_else(|| not_understood(body, "an answer is missing")))
        .collect()
}

fn body(value: &impl Serialize) -> Result<Bytes, ClientFailure> {
    serde_json::to_vec(value).map(Bytes::from).map_err(unwritable)
}

fn unwritable(e: serde_json::Error) -> ClientFailure {
    ClientFailure::Malformed { what: format!("the params cannot be written: {e}") }
}

fn not_understood(text: &[u8], why: &str) -> ClientFailure {
    let shown: String = String::from_utf8_lossy(text).chars().take(200).collect();
    ClientFailure::Malformed { what: format!("the daemon's answer was not understood ({why}): {shown}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_null_result_is_a_result() {
        let answer = answer(StatusCode::OK, br#"{"jsonrpc":"2.0","id":1,"result":null}"#).unwrap();
        assert_eq!(answer.unwrap().get(), "null");
    }

    #[test]
    fn a_batch_is_put_in_the_order_of_its_calls() {
        let body = br#"[{"jsonrpc":"2.0","id":1,"result":"b"},{"jsonrpc":"2.0","id":0,"error":{"code":-32001,"message":"no"}}]"#;
        let answers = answers(StatusCode::OK, body, 2).unwrap();
        assert_eq!(answers[0].as_ref().unwrap_err().code(), -32001);
        assert_eq!(answers[1].as_ref().unwrap().get(), r#""b""#);
        assert!(super::answers(StatusCode::OK, body, 3).is_err());
    }

    #[test]
    fn a_call_without_params_has_none() {
        assert_eq!(one(7, "rpc.health", None).unwrap(), r#"{"jsonrpc":"2.0","id":7,"method":"rpc.health"}"#);
        assert_eq!(notification("a", None).unwrap(), r#"{"jsonrpc":"2.0","method":"a"}"#);
    }
}
