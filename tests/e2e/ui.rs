//! The page of the services in a real browser, and what stands between the browser and the sockets.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use wharf_tests::{Browser, Daemon, eventually, fake_engine, free_port, get, post, signal};

const SOON: Duration = Duration::from_secs(20);

/// `wharf ui` while it runs.
struct Ui {
    child: Child,
    url: String,
    port: u16,
}

impl Ui {
    fn of(daemon: &Daemon, arguments: &[&str]) -> Self {
        let mut child = daemon.command().args(["--json", "ui"]).args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut text = String::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap) {
            text += &line;
            if line == "}" {
                break;
            }
        }
        let said: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
        let url = said["url"].as_str().unwrap().to_owned();
        Self { child, url, port: said["port"].as_u64().unwrap() as u16 }
    }

    fn token(&self) -> &str {
        self.url.split_once('#').unwrap().1
    }

    /// One request over the loopback; the headers as they are given.
    fn ask(&self, head: &str, headers: &[&str], body: &str) -> (u16, String) {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        let length = body.len();
        write!(stream, "{head} HTTP/1.1\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}")
            .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let status = text.split(' ').nth(1).unwrap().parse().unwrap();
        (status, text)
    }
}

impl Drop for Ui {
    fn drop(&mut self) {
        signal(self.child.id().cast_signed(), "TERM");
        _ = self.child.wait();
    }
}

fn row(name: &str) -> String {
    format!(r#"tr[data-unit="{name}"]"#)
}

fn deed(name: &str, verb: &str) -> String {
    format!(r#"{} button[data-deed="{verb}"]"#, row(name))
}

/// HS-108, HS-28, HS-122: the page of the services, on the socket for people, driven by service.sock.
#[test]
fn the_page_shows_the_services_and_starts_and_stops_them() {
    let mut daemon = Daemon::start();
    let port = free_port();
    daemon.ok("service.start", json!({ "name": "hello", "with": { "ports": { "http": port } } }));
    let ui = Ui::of(&daemon, &[]);
    let browser = Browser::start();
    browser.open(&ui.url);
    browser.shows("#link", "live");
    browser.shows(&row("hello"), "running");
    browser.shows(&row("hello"), &port.to_string());
    assert_eq!(browser.script("return location.hash + document.cookie"), "", "the token is in neither");
    // By the page, and the daemon knows.
    browser.click(&deed("hello", "stop"));
    browser.shows(&row("hello"), "stopped");
    assert_eq!(daemon.ok("service.status", json!({ "name": "hello" }))["state"], "stopped");
    browser.click(&deed("hello", "start"));
    browser.shows(&row("hello"), "running");
    let ops = daemon.ok("service.inspect", json!({ "name": "hello" }))["recent_ops"].clone();
    assert_eq!((&ops[0]["kind"], &ops[0]["outcome"]), (&json!("start"), &json!("done")), "{ops}");
    // By somebody else, and the page knows without being loaded again.
    daemon.ok("service.stop", json!({ "name": "hello" }));
    browser.shows(&row("hello"), "stopped");
    // Another program has its port: the page says who is in the way, and what would help.
    let taken = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    browser.click(&deed("hello", "start"));
    browser.shows("#alerts", &port.to_string());
    browser.shows("#alerts .hint", "wharf");
    drop(taken);
    browser.click("#alerts button");
    browser.shows_no("#alerts > div");
    // A unit that is made now appears, and one that is deleted goes.
    daemon.ok("service.start", json!({ "name": "command@new", "with": { "argv": ["/bin/sleep", "1000"] } }));
    browser.shows(&row("command@new"), "running");
    daemon.ok("service.delete", json!({ "name": "command@new" }));
    browser.shows_no(&row("command@new"));
    // What is not installed is in the catalogue, and found by its name.
    browser.click("button[data-filter=catalogue]");
    browser.types("input[type=search]", "redi");
    browser.shows("tbody", "redis");
    assert_eq!(browser.script("return document.querySelectorAll('tbody tr').length"), 1);
    // The daemon is killed, and another one comes: the page says so, and goes on by itself.
    browser.script("document.querySelector('input[type=search]').value = ''");
    browser.click("button[data-filter=here]");
    daemon.kill_9();
    browser.shows("#link", "does not answer");
    daemon.launch();
    browser.shows("#link", "live");
    daemon.ok("service.start", json!({ "name": "hello", "with": { "ports": { "http": "auto" } } }));
    browser.shows(&row("hello"), "running");
}

/// What a service writes is text, whatever it writes; the log goes on while it is looked at.
#[test]
fn one_of_them_is_shown_in_detail_with_its_log() {
    let mut daemon = Daemon::start();
    let file = daemon.home.join("more");
    let script = format!(
        r#"echo '<img src=x onerror="document.title=1"> <b>bold</b>'; printf '\033[31mred\033[0m\n'
           while ! [ -e {0} ]; do sleep 0.05; done; cat {0}
           while ! [ -e {1} ]; do sleep 0.05; done; cat {1}; exec sleep 1000"#,
        file.display(),
        daemon.home.join("much").display()
    );
    daemon.ok("service.start", json!({ "name": "command@talk", "with": { "argv": ["/bin/sh", "-c", script] } }));
    let ui = Ui::of(&daemon, &[]);
    let browser = Browser::start();
    browser.open(&ui.url);
    browser.click(&format!("{} button.name", row("command@talk")));
    browser.shows("aside pre", r#"<img src=x onerror="document.title=1"> <b>bold</b>"#);
    browser.shows("aside pre", "\nred");
    assert_eq!(browser.script("return document.querySelectorAll('aside pre img, aside pre b').length"), 0);
    browser.shows("aside", "command@talk runs");
    browser.shows("aside", "starting → running");
    browser.shows("aside dl", daemon.home.to_str().unwrap());
    // Written later, shown without a click.
    fs::write(&file, "and this came later\n").unwrap();
    browser.shows("aside pre", "and this came later");
    // Another daemon takes over: the log goes on, and what happened is there once.
    daemon.kill_9();
    browser.shows("#link", "does not answer");
    daemon.launch();
    browser.shows("#link", "live");
    fs::write(daemon.home.join("much"), "and this much later\n").unwrap();
    browser.shows("aside pre", "and this much later");
    assert_eq!(browser.text("aside pre").unwrap().matches("and this came later").count(), 1);
    assert_eq!(browser.text("#alerts").unwrap(), "", "that is nobody's fault");
    browser.types("aside h3 input", "b.ld\n");
    eventually("only what matches", SOON, || {
        browser.text("aside pre").is_some_and(|text| text.contains("bold") && !text.contains("later"))
    });
    // The unit is part of the address: a link to it opens it.
    let address = browser.script("return location.href").as_str().unwrap().to_owned();
    assert!(address.ends_with("/services?unit=command%40talk"), "{address}");
    browser.open(&address);
    browser.shows("aside h2", "command@talk");
    // It fits a telephone, and the keyboard does as well as the mouse.
    browser.resize(360, 700);
    let wide = browser.script("return document.documentElement.scrollWidth - document.documentElement.clientWidth");
    assert_eq!(wide, 0, "nothing is wider than the window");
    browser.types("body", "\u{e00c}");
    browser.shows_no("aside");
    browser.types("body", "/");
    assert_eq!(browser.script("return document.activeElement.type"), "search");
}

/// What takes long holds no connection: however many are begun, the page goes on.
#[test]
fn many_starts_at_once_hold_nothing_up() {
    let daemon = Daemon::start();
    let ui = Ui::of(&daemon, &[]);
    let browser = Browser::start();
    let names: Vec<String> = (0..8).map(|n| format!("command@slow{n}")).collect();
    for name in &names {
        let with = json!({
            "argv": ["/bin/sleep", "1000"], "ports": { "main": "auto" }, "health": { "tcp": { "port": "main" } },
            "start_timeout_s": 600,
        });
        daemon.ok("service.start", json!({ "name": name, "with": with, "wait": false }));
        daemon.ok("service.stop", json!({ "name": name }));
    }
    daemon.ok("service.start", json!({ "name": "hello", "with": { "ports": { "http": "auto" } } }));
    browser.open(&ui.url);
    browser.shows("#link", "live");
    for name in &names {
        browser.click(&deed(name, "start"));
        browser.shows(&row(name), "starting");
    }
    // None of them gets ready; this one does, and is told.
    browser.click(&deed("hello", "restart"));
    eventually("it is another run", SOON, || {
        daemon.ok("service.status", json!({ "name": "hello" }))["restart_count"] == 1
    });
    browser.shows(&row("hello"), "running");
    browser.click(&deed(&names[0], "stop"));
    browser.shows(&row(&names[0]), "stopped");
    assert_eq!(browser.text("#alerts").unwrap(), "", "who stops a start knows that it did not come to its end");
}

/// A browser has six connections for all tabs of one address: those that nobody looks at hold none.
#[test]
fn many_tabs_do_not_stand_in_each_others_way() {
    let daemon = Daemon::start();
    let file = daemon.home.join("more");
    let script =
        format!("echo begins; while ! [ -e {0} ]; do sleep 0.05; done; cat {0}; exec sleep 1000", file.display());
    daemon.ok("service.start", json!({ "name": "command@talk", "with": { "argv": ["/bin/sh", "-c", script] } }));
    let ui = Ui::of(&daemon, &[]);
    let browser = Browser::start();
    let address = ui.url.replace("/services#", "/services?unit=command%40talk#");
    browser.open(&address);
    browser.shows("aside pre", "begins");
    for _ in 0..5 {
        browser.open_beside(&address);
        browser.shows("#link", "live");
        browser.shows("aside pre", "begins");
    }
    fs::write(&file, "and this came later\n").unwrap();
    browser.shows("aside pre", "and this came later");
    daemon.ok("service.stop", json!({ "name": "command@talk" }));
    browser.shows(&row("command@talk"), "stopped");
}

/// The devices with who has what of them, and who waits.
#[test]
fn the_gpus_are_drawn_and_change_as_they_are_had() {
    let daemon = Daemon::prepare();
    fs::create_dir_all(daemon.home.join("config")).unwrap();
    fs::write(daemon.home.join("config/gpus.toml"), "[[device]]\nid = \"sim-0\"\ntotal = \"8GiB\"\n").unwrap();
    let mut daemon = daemon;
    daemon.launch();
    let ui = Ui::of(&daemon, &[]);
    let browser = Browser::start();
    browser.open(&ui.url);
    browser.shows("#link", "live");
    browser.click("nav a[href='/gpus']");
    browser.shows("article", "sim-0");
    assert_eq!(browser.script("return document.querySelectorAll('.meter span').length"), 0);
    let bytes = 4_u64 << 30;
    daemon.ok(
        "service.start",
        json!({
            "name": "command@model",
            "with": { "argv": [fake_engine().display().to_string(), "--bytes", (bytes - (1 << 28)).to_string()] },
            "policy": { "gpu": { "vram_bytes": bytes, "min_residency_ms": 0 } },
        }),
    );
    browser.shows("article", "command@model");
    browser.shows("article", "4.0 GiB");
    let share = browser.script("return document.querySelector('.meter span').getBoundingClientRect().width / document.querySelector('.meter').clientWidth");
    assert!((0.45..0.55).contains(&share.as_f64().unwrap()), "half of it: {share}");
    browser.click("nav a[href='/events']");
    browser.shows("tbody", "gpu.lease");
}

/// Who only looks gets a page without buttons; and it is not the page that keeps it from more.
#[test]
fn a_page_that_may_only_look_changes_nothing() {
    let daemon = Daemon::start();
    daemon.ok("service.start", json!({ "name": "hello", "with": { "ports": { "http": "auto" } } }));
    let ui = Ui::of(&daemon, &["--read-only"]);
    let browser = Browser::start();
    browser.open(&ui.url);
    browser.shows(&row("hello"), "running");
    browser.shows("#machine", "read only");
    assert_eq!(browser.script("return document.querySelectorAll('button[data-deed]').length"), 0);
    let token = format!("Authorization: Bearer {}", ui.token());
    let host = format!("Host: 127.0.0.1:{}", ui.port);
    let ask = |method: &str| {
        let call = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": { "name": "hello" } });
        ui.ask("POST /service/rpc", &[&host, &token, "Content-Type: application/json"], &call.to_string())
    };
    assert_eq!(ask("service.status").0, 200);
    let (status, text) = ask("service.stop");
    assert_eq!(status, 403, "{text}");
    assert!(text.contains("look and change nothing"), "{text}");
    assert_eq!(daemon.ok("service.status", json!({ "name": "hello" }))["state"], "running");
}

/// A page from elsewhere, a name that was led here, another user without the token: none gets through.
#[test]
fn the_port_is_for_who_has_the_address_and_for_no_other_page() {
    let daemon = Daemon::start();
    let ui = Ui::of(&daemon, &[]);
    let (host, json) = (format!("Host: 127.0.0.1:{}", ui.port), "Content-Type: application/json");
    let token = format!("Authorization: Bearer {}", ui.token());
    let list = r#"{"jsonrpc":"2.0","id":1,"method":"service.list"}"#;
    let call = |headers: &[&str]| ui.ask("POST /service/rpc", headers, list);
    let (status, text) = call(&[&host, &token, json]);
    assert!(status == 200 && text.contains("redis"), "{text}");
    assert_eq!(call(&[&host, json]).0, 401);
    assert_eq!(call(&[&host, json, "Authorization: Bearer 0000"]).0, 401);
    assert_eq!(call(&[&host, json, "Cookie: wharf.token=0"]).0, 401);
    assert_eq!(call(&["Host: evil.example", &token, json]).0, 403, "a name that was led here");
    assert_eq!(call(&[&host, &token, json, "Origin: http://evil.example"]).0, 403);
    assert_eq!(call(&[&host, &token, json, "Sec-Fetch-Site: cross-site"]).0, 403);
    let (status, text) = ui.ask("OPTIONS /service/rpc", &[&host, "Origin: http://evil.example"], "");
    assert!(status == 403 && !text.to_lowercase().contains("access-control"), "{text}");
    // A browser without the address sees the page, and nothing on it.
    let browser = Browser::start();
    browser.open(&format!("http://127.0.0.1:{}/services", ui.port));
    browser.shows("#alerts", "has not the token");
    assert_eq!(browser.script("return document.querySelectorAll('tbody tr').length"), 0);
}

/// The wall between the sockets: no HTML where there are calls, no calls where there is HTML.
#[test]
fn the_socket_for_people_has_the_page_and_no_calls() {
    let daemon = Daemon::start();
    let admin = daemon.admin_socket();
    for path in ["/", "/services", "/gpus", "/events"] {
        let page = get(&admin, path).unwrap();
        assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")), "{path}");
        let policy = page.header("content-security-policy").unwrap();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert!(!page.body.contains("<style") && !page.body.contains("onclick"), "all of it is in files");
    }
    assert!(get(&admin, "/health").unwrap().body.contains("\"healthy\""));
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"service.list"}"#;
    assert_eq!(post(&admin, call).unwrap().status, 404);
    assert_eq!(get(&admin, "/openrpc.json").unwrap().status, 404);
    assert_eq!(get(&admin, "/app/../../etc/passwd").unwrap().status, 404);
    for socket in [daemon.socket(), daemon.rpc_socket()] {
        for path in ["/", "/services", "/app/app.js"] {
            assert_eq!(get(&socket, path).unwrap().status, 404, "{path}");
        }
    }
    // Nothing is loaded from elsewhere.
    for file in ["/app/app.js", "/app/link.js", "/app/parts.js", "/app/services.js", "/app/machine.js", "/app/app.css"]
    {
        let body = get(&admin, file).unwrap().body;
        assert!(!body.contains("http://") && !body.contains("https://"), "{file}");
    }
}

/// Without a daemon it says so; a port that is taken is named.
#[test]
fn what_keeps_it_from_beginning_is_said() {
    let daemon = Daemon::prepare();
    let said = daemon.cli(&["ui"]);
    assert_eq!(said.code, 6, "{said:?}");
    assert!(said.err.contains("wharf up"), "{said:?}");
    let mut daemon = daemon;
    daemon.launch();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let said = daemon.cli(&["ui", "--port", &port]);
    assert_eq!(said.code, 4, "{said:?}");
    assert!(said.err.contains(&port) && said.err.contains("--port"), "{said:?}");
}
