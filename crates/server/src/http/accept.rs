//! Which framing of an answer the client prefers: one JSON body, or a stream.

use hyper::header::{self, HeaderMap};

/// How a stream is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// `text/event-stream`.
    Events,
    /// `application/x-ndjson`.
    Lines,
}

/// The stream that is preferred to plain JSON, if any: the greatest `q` wins, then what is named first.
pub(super) fn framing(headers: &HeaderMap) -> Option<Framing> {
    let mut best: Option<(f32, Option<Framing>)> = None;
    for value in headers.get_all(header::ACCEPT) {
        for range in value.to_str().unwrap_or_default().split(',') {
            let Some((framing, quality)) = read(range) else { continue };
            if quality > best.map_or(0.0, |(q, _)| q) {
                best = Some((quality, framing));
            }
        }
    }
    best.and_then(|(_, framing)| framing)
}

/// One media range. `*/*` says nothing about streams, so it is passed over.
fn read(range: &str) -> Option<(Option<Framing>, f32)> {
    let mut parts = range.split(';').map(str::trim);
    let name = parts.next()?;
    let framing = if name.eq_ignore_ascii_case("text/event-stream") {
        Some(Framing::Events)
    } else if name.eq_ignore_ascii_case("application/x-ndjson") {
        Some(Framing::Lines)
    } else if name.eq_ignore_ascii_case("application/json") {
        None
    } else {
        return None;
    };
    let quality = parts.find_map(|p| p.strip_prefix("q=").or(p.strip_prefix("Q=")));
    Some((framing, quality.map_or(1.0, |q| q.parse().unwrap_or(0.0))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    #[test]
    fn the_first_of_equals_is_preferred() {
        let cases = [
            ("text/event-stream", Some(Framing::Events)),
            ("application/x-ndjson", Some(Framing::Lines)),
            ("text/event-stream, application/json", Some(Framing::Events)),
            ("application/json, text/event-stream", None),
            ("application/json;q=0.5, text/event-stream", Some(Framing::Events)),
            ("text/event-stream;q=0", None),
            ("*/*, application/x-ndjson", Some(Framing::Lines)),
            ("*/*", None),
            ("", None),
        ];
        for (accept, wanted) in cases {
            let headers = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]);
            assert_eq!(framing(&headers), wanted, "{accept}");
        }
    }
}
