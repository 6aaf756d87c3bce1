//! A program that does what its arguments say, one after the other: it talks to NOTIFY_SOCKET, serves
//! HTTP, writes lines, waits and ends. For tests of health.
//!
//! ```text
//! say:TEXT            one datagram; \n is a line end
//! try:TEXT            the same, and nobody need hear it
//! every:MS:TEXT       one each MS milliseconds from now on, beside what follows
//! quiet               no more of them
//! serve:PORT:STATUS:BODY   HTTP on 127.0.0.1 from now on; PORT can be a path
//! log:TEXT            a line to stdout
//! mark:FILE           a line more in that file
//! sleep:MS  wait  exit:CODE
//! ```

use std::{
    fs::OpenOptions,
    io::{self, Read, Write},
    net::TcpListener,
    os::unix::net::{UnixDatagram, UnixListener},
    process::exit,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

static TALKS: AtomicBool = AtomicBool::new(true);

fn main() {
    for step in std::env::args().skip(1) {
        let (verb, rest) = step.split_once(':').unwrap_or((&step, ""));
        act(verb, rest).unwrap_or_else(|e| {
            eprintln!("{step}: {e}");
            exit(90);
        });
    }
}

fn act(verb: &str, rest: &str) -> io::Result<()> {
    match verb {
        "say" => say(rest),
        // A daemon that is gone is no reason to end.
        "try" => {
            let _ = say(rest);
            Ok(())
        }
        "every" => {
            let (ms, text) = rest.split_once(':').unwrap_or((rest, ""));
            let (pause, text) = (Duration::from_millis(number(ms)?), text.to_owned());
            TALKS.store(true, Ordering::SeqCst);
            thread::spawn(move || {
                while TALKS.load(Ordering::SeqCst) {
                    let _ = say(&text);
                    thread::sleep(pause);
                }
            });
            Ok(())
        }
        "quiet" => {
            TALKS.store(false, Ordering::SeqCst);
            Ok(())
        }
        "serve" => serve(rest),
        "log" => writeln!(io::stdout(), "{rest}"),
        "mark" => writeln!(OpenOptions::new().create(true).append(true).open(rest)?, "{}", std::process::id()),
        "sleep" => {
            thread::sleep(Duration::from_millis(number(rest)?));
            Ok(())
        }
        "wait" => loop {
            thread::park();
        },
        "exit" => exit(rest.parse().unwrap_or(91)),
        _ => Err(io::Error::other("no such verb")),
    }
}

fn number(text: &str) -> io::Result<u64> {
    text.parse().map_err(io::Error::other)
}

fn say(text: &str) -> io::Result<()> {
    let path = std::env::var_os("NOTIFY_SOCKET").ok_or_else(|| io::Error::other("no NOTIFY_SOCKET"))?;
    UnixDatagram::unbound()?.send_to(text.replace("\\n", "\n").as_bytes(), path).map(drop)
}

fn serve(rest: &str) -> io::Result<()> {
    let mut parts = rest.splitn(3, ':');
    let mut next = || parts.next().unwrap_or_default().to_owned();
    let (at, status, body) = (next(), next(), next());
    let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
    if let Ok(port) = at.parse::<u16>() {
        let listener = TcpListener::bind(("127.0.0.1", port))?;
        thread::spawn(move || listener.incoming().flatten().for_each(|stream| reply(stream, &answer)));
    } else {
        let listener = UnixListener::bind(at)?;
        thread::spawn(move || listener.incoming().flatten().for_each(|stream| reply(stream, &answer)));
    }
    Ok(())
}

fn reply(mut stream: impl Read + Write, answer: &str) {
    let _ = stream.read(&mut [0; 4096]);
    let _ = stream.write_all(answer.as_bytes());
}
