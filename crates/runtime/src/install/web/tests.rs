//! Downloads against a server of a few lines: redirects, tokens, limits, and connections that break off.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    sync::{Arc, Mutex},
    thread,
};

use super::*;

/// What was asked: path and headers in small letters.
type Seen = Arc<Mutex<Vec<(String, Vec<String>)>>>;

/// Answers each request with what `answer` writes for its path and number, and ends the connection.
fn serve(answer: impl Fn(&str, usize) -> Vec<u8> + Send + 'static) -> (String, Seen) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let base = format!("http://127.0.0.1:{}", listener.local_addr().unwrap().port());
    let seen = Seen::default();
    let told = seen.clone();
    thread::spawn(move || {
        for (n, stream) in listener.incoming().flatten().enumerate() {
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let path = lines.next().unwrap_or_default().split(' ').nth(1).unwrap_or_default().to_owned();
            let headers = lines.take_while(|l| !l.is_empty()).map(|l| l.to_ascii_lowercase()).collect();
            told.lock().unwrap().push((path.clone(), headers));
            let _ = { stream }.write_all(&answer(&path, n));
        }
    });
    (base, seen)
}

fn reply(status: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n{body}", body.len())
        .into_bytes()
}

/// Both servers stand for named hosts.
fn web(bases: &[(&str, &str)]) -> Web {
    let variable: Vec<String> = bases.iter().map(|(host, base)| format!("{host}={base}")).collect();
    Web::new(Mirrors::load(Path::new("/nowhere"), Some(&variable.join(","))).unwrap()).unwrap()
}

fn url(text: &str) -> Url {
    text.parse().unwrap()
}

#[tokio::test]
async fn five_redirects_are_followed_and_no_sixth() {
    let (base, seen) = serve(|path, _| {
        let left: u32 = path.trim_start_matches('/').parse().unwrap();
        match left {
            0 => reply("200 OK", "", "here"),
            _ => reply("302 Found", &format!("Location: /{}\r\n", left - 1), ""),
        }
    });
    let web = web(&[("named.example", &base)]);
    assert_eq!(web.read(&url("https://named.example/5"), None, 100).await.unwrap(), b"here");
    let refused = web.read(&url("https://named.example/6"), None, 100).await.unwrap_err();
    assert!(matches!(&refused, Trouble::Refused(why) if why.contains("more than 5 times")), "{refused:?}");
    assert_eq!(seen.lock().unwrap().len(), 6 + 6);
}

#[tokio::test]
async fn a_redirect_goes_neither_without_tls_nor_home() {
    for (to, why) in [
        ("http://example.com/x", "not https"),
        ("http://127.0.0.1:1/x", "not https"),
        ("https://127.0.0.1/x", "private network"),
        ("https://169.254.169.254/latest", "private network"),
        ("https://[::1]/x", "private network"),
        ("https://localhost/x", "private network"),
        ("https://user:pass@elsewhere.example/x", "password"),
        ("file:///etc/passwd", "not https"),
    ] {
        let (base, _) = serve(move |_, _| reply("301 Moved", &format!("Location: {to}\r\n"), ""));
        let refused =
            web(&[("named.example", &base)]).read(&url("https://named.example/"), None, 100).await.unwrap_err();
        assert!(matches!(&refused, Trouble::Refused(said) if said.contains(why)), "{to}: {refused:?}");
    }
    let refused = web(&[]).read(&url("http://example.com/"), None, 100).await.unwrap_err();
    assert!(matches!(&refused, Trouble::Refused(said) if said.contains("not https")), "{refused:?}");
}

/// CVE-2025-51471: what is for one host is shown to no other, and to the same one after a redirect too.
#[tokio::test]
async fn a_credential_is_shown_to_its_host_alone() {
    let (other, seen_there) = serve(|_, _| reply("200 OK", "", "theirs"));
    let to = other.clone();
    let (base, seen) = serve(move |path, _| match path {
        "/within" => reply("302 Found", "Location: /away\r\n", ""),
        _ => reply("302 Found", &format!("Location: {to}/file\r\n"), ""),
    });
    let web = web(&[("named.example", &base), ("cdn.example", &other)]);
    let from = url("https://named.example/within");
    let credential = Credential::new(&web.stands_for(&from), "token", "canary\n").unwrap();
    assert_eq!(web.read(&from, Some(&credential), 100).await.unwrap(), b"theirs");
    let shown = |seen: &Seen| -> Vec<bool> {
        let seen = seen.lock().unwrap();
        seen.iter().map(|(_, headers)| headers.iter().any(|h| h == "authorization: token canary")).collect()
    };
    assert_eq!((shown(&seen), shown(&seen_there)), (vec![true, true], vec![false]));
}

#[tokio::test]
async fn more_than_the_limit_is_not_read_whatever_the_server_says_of_it() {
    let (base, _) = serve(|path, _| match path {
        "/said" => reply("200 OK", "", &"x".repeat(101)),
        _ => format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{}", "x".repeat(5_000)).into_bytes(),
    });
    let web = web(&[("named.example", &base)]);
    let dir = tempfile::tempdir().unwrap();
    for path in ["said", "unsaid"] {
        let from = url(&format!("https://named.example/{path}"));
        assert!(matches!(web.read(&from, None, 100).await, Err(Trouble::TooLarge { most: 100 })));
        let wanted = Wanted { url: &from, credential: None, bytes: None, most: 100, sha512: false, is_checked: false };
        assert!(matches!(web.save(&wanted, &dir.path().join("f"), &|_, _| ()).await, Err(Trouble::TooLarge { .. })));
    }
}

#[tokio::test]
async fn what_may_pass_is_tried_again_and_what_may_not_is_not() {
    let (base, seen) = serve(|path, n| match (path, n) {
        ("/busy", 0 | 1) => reply("503 Service Unavailable", "", ""),
        ("/busy", _) => reply("200 OK", "", "at last"),
        _ => reply("404 Not Found", "", "no such thing"),
    });
    let web = web(&[("named.example", &base)]);
    assert_eq!(web.read(&url("https://named.example/busy"), None, 100).await.unwrap(), b"at last");
    let absent = web.read(&url("https://named.example/x"), None, 100).await.unwrap_err();
    assert!(absent.is_absent());
    assert_eq!(seen.lock().unwrap().len(), 4);
    let failure = absent.failure("x of release v1");
    assert!(
        failure.message.starts_with("x of release v1: 127.0.0.1:")
            && failure.message.ends_with("answered 404 Not Found")
    );
    assert_eq!(failure.causes, ["it said: no such thing"]);
}

/// A server that names no version of the file: what was got is kept only where a digest will judge the whole.
#[tokio::test]
async fn a_rest_is_asked_for_only_where_it_can_be_judged() {
    let cut = |_: &str, n: usize| match n {
        0 => b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234".to_vec(),
        _ => reply("206 Partial Content", "Content-Range: bytes 5-9/10\r\n", "56789"),
    };
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("f");
    let (base, _) = serve(cut);
    let from = url("https://named.example/f");
    let wanted = |is_checked| Wanted { url: &from, credential: None, bytes: None, most: 100, sha512: true, is_checked };
    let saved = web(&[("named.example", &base)]).save(&wanted(true), &to, &|_, _| ()).await.unwrap();
    assert_eq!(std::fs::read(&to).unwrap(), b"0123456789");
    assert_eq!((saved.bytes, saved.sha512.unwrap().len()), (10, 128));
    assert_eq!(saved.sha256, crate::install::receipt::digest_of(&to).unwrap().0);

    let whole = |_: &str, n: usize| match n {
        0 => b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234".to_vec(),
        _ => reply("200 OK", "", "abcdefghij"),
    };
    let (base, seen) = serve(whole);
    web(&[("named.example", &base)]).save(&wanted(false), &to, &|_, _| ()).await.unwrap();
    assert_eq!(std::fs::read(&to).unwrap(), b"abcdefghij");
    assert!(seen.lock().unwrap().iter().all(|(_, headers)| !headers.iter().any(|h| h.starts_with("range"))));
}

#[tokio::test]
async fn too_many_requests_are_told_apart_from_forbidden_ones() {
    let (base, _) = serve(|path, _| match path {
        "/limited" => reply("403 Forbidden", "X-RateLimit-Remaining: 0\r\nX-RateLimit-Reset: 4102444800\r\n", ""),
        _ => reply("403 Forbidden", "", "private"),
    });
    let web = web(&[("named.example", &base)]);
    let limited = web.read(&url("https://named.example/limited"), None, 100).await.unwrap_err();
    assert!(matches!(limited, Trouble::Limited { until_s: Some(4_102_444_800), .. }), "{limited:?}");
    assert!(limited.failure("x").hint.unwrap().contains("GITHUB_TOKEN"));
    let forbidden = web.read(&url("https://named.example/x"), None, 100).await.unwrap_err();
    assert!(forbidden.failure("x").hint.unwrap().contains("it asks for a token"));
}
