//! Replies, written by hand into one buffer: the members are known, and ids and results are raw already.

use jsonrpsee_types::ErrorObjectOwned;
use serde_json::value::RawValue;

/// A response that carries a result.
pub fn result(id: &RawValue, result: &RawValue) -> Vec<u8> {
    let (id, result) = (id.get(), result.get());
    let mut out = Vec::with_capacity(id.len() + result.len() + 36);
    out.extend_from_slice(br#"{"jsonrpc":"2.0","id":"#);
    out.extend_from_slice(id.as_bytes());
    out.extend_from_slice(br#","result":"#);
    out.extend_from_slice(result.as_bytes());
    out.push(b'}');
    out
}

/// A response that carries an error. No id is written as null.
pub fn error(id: Option<&RawValue>, error: &ErrorObjectOwned) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    out.extend_from_slice(br#"{"jsonrpc":"2.0","id":"#);
    out.extend_from_slice(id.map_or("null", RawValue::get).as_bytes());
    out.extend_from_slice(br#","error":"#);
    // An error object is a number, a string and raw JSON: writing it into memory cannot fail.
    if serde_json::to_writer(&mut out, error).is_err() {
        out.extend_from_slice(br#"{"code":-32603,"message":"Internal error"}"#);
    }
    out.push(b'}');
    out
}

/// The replies of a batch as one array.
pub fn join(replies: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::with_capacity(replies.iter().map(|r| r.len() + 1).sum::<usize>() + 1);
    out.push(b'[');
    out.extend_from_slice(&replies.join(&b','));
    out.push(b']');
    out
}

/// Makes JSON fit one line of a stream. A line end in JSON is never inside a string, so that a
/// space can stand in its place.
pub fn one_line(json: &mut [u8]) {
    for byte in json {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
}
