//! Sends back what it is sent, a line at a time, on 127.0.0.1.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    thread,
};

fn main() -> std::io::Result<()> {
    let port: u16 = std::env::args().nth(1).and_then(|p| p.parse().ok()).unwrap_or(7007);
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    println!("echo listens on {port}");
    for stream in listener.incoming() {
        let mut stream = stream?;
        thread::spawn(move || {
            let reader = BufReader::new(stream.try_clone()?);
            for line in reader.lines() {
                writeln!(stream, "{}", line?)?;
            }
            Ok::<_, std::io::Error>(())
        });
    }
    Ok(())
}
