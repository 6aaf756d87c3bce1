//! Plays the programs of the catalogue that come from releases, each under its own name: it listens where that one would,
//! as far as its arguments, its environment and its configuration say, and answers what that one is asked.
//!
//! What the real one must be told and this one is not told ends it with code 90. It keeps one file in the folder of its
//! data, so that there is something to lose.

use std::{
    env, fs,
    io::{self, BufRead, BufReader, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    process::exit,
    thread,
};

use serde_json::Value;

type Told<T> = Result<T, String>;

/// Where a program listens, and what it answers there.
struct Part {
    /// The first speaks HTTP; the others take connections.
    listens: Vec<String>,
    udp: Option<String>,
    path: &'static str,
    body: &'static str,
    data: PathBuf,
}

fn main() {
    let name = env::args().next().map(PathBuf::from);
    let name = name.as_deref().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
    if let Err(why) = part(&name).and_then(|part| play(&name, &part).map_err(|e| e.to_string())) {
        eprintln!("{name}: {why}");
        exit(90);
    }
}

/// What each is told where, as its publisher's documentation has it.
fn part(name: &str) -> Told<Part> {
    match name {
        "inngest" => inngest(),
        "typesense-server" => typesense(),
        "dkron" => dkron(),
        "livekit-server" => livekit(),
        "qdrant" => qdrant(),
        "meilisearch" => meilisearch(),
        "ollama" => ollama(),
        "grafana" => grafana(),
        "minio" => minio(),
        // The Node that code-server brings.
        "node" => code_server(),
        _ => Err("no program that is played here".into()),
    }
}

fn http(listens: impl IntoIterator<Item = String>, path: &'static str, body: &'static str, data: PathBuf) -> Part {
    Part { listens: listens.into_iter().collect(), udp: None, path, body, data }
}

fn inngest() -> Told<Part> {
    word("start")?;
    variable("INNGEST_EVENT_KEY")?;
    let signing = variable("INNGEST_SIGNING_KEY")?;
    if signing.len() % 2 == 1 || !signing.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err("the signing key is no bytes in hex".into());
    }
    let host = option("--host")?;
    let at = |name: &str| option(name).map(|port| format!("{host}:{port}"));
    let listens = [
        at("--port")?,
        at("--connect-gateway-port")?,
        at("--connect-gateway-grpc-port")?,
        at("--connect-executor-grpc-port")?,
    ];
    Ok(http(listens, "/health", "{\"status\":200,\"message\":\"OK\"}", option("--sqlite-dir")?.into()))
}

fn typesense() -> Told<Part> {
    variable("TYPESENSE_API_KEY")?;
    let at = |what: &str| -> Told<String> {
        Ok(format!("{}:{}", option(&format!("--{what}-address"))?, option(&format!("--{what}-port"))?))
    };
    Ok(http([at("api")?, at("peering")?], "/health", "{\"ok\":true}", option("--data-dir")?.into()))
}

fn dkron() -> Told<Part> {
    word("agent")?;
    word("--server")?;
    let gossip = option("--bind-addr")?;
    let host = gossip.split(':').next().unwrap_or_default();
    let listens = [option("--http-addr")?, gossip.clone(), format!("{host}:{}", option("--rpc-port")?)];
    // What runs its jobs lies beside it.
    let own = env::current_exe().map_err(|e| e.to_string())?;
    if !own.with_file_name("dkron-executor-shell").is_file() {
        return Err("the executors are missing".into());
    }
    Ok(http(listens, "/health", "{\"status\":\"ok\"}", option("--data-dir")?.into()))
}

fn livekit() -> Told<Part> {
    if !variable("LIVEKIT_KEYS")?.contains(": ") {
        return Err("LIVEKIT_KEYS is no key and its secret".into());
    }
    let config = configuration("--config")?;
    let host = at(&config, "/bind_addresses/0")?;
    let listens = [format!("{host}:{}", at(&config, "/port")?), format!("{host}:{}", at(&config, "/rtc/tcp_port")?)];
    let udp = Some(format!("{host}:{}", at(&config, "/rtc/udp_port")?));
    Ok(Part { udp, ..http(listens, "/", "OK", PathBuf::new()) })
}

fn qdrant() -> Told<Part> {
    let config = configuration("--config-path")?;
    let host = at(&config, "/service/host")?;
    let of = |name: &str| at(&config, &format!("/service/{name}")).map(|port| format!("{host}:{port}"));
    let storage = at(&config, "/storage/storage_path")?;
    Ok(http([of("http_port")?, of("grpc_port")?], "/readyz", "all shards are ready", storage.into()))
}

fn meilisearch() -> Told<Part> {
    if option("--env")? == "production" && variable("MEILI_MASTER_KEY")?.len() < 16 {
        return Err("the master key is too short".into());
    }
    Ok(http([option("--http-addr")?], "/health", "{\"status\":\"available\"}", option("--db-path")?.into()))
}

fn ollama() -> Told<Part> {
    word("serve")?;
    let body = "{\"version\":\"0.30.0\"}";
    Ok(http([variable("OLLAMA_HOST")?], "/api/version", body, variable("OLLAMA_MODELS")?.into()))
}

fn grafana() -> Told<Part> {
    word("server")?;
    variable("GF_SECURITY_ADMIN_PASSWORD")?;
    let defaults = Path::new(&option("--homepath")?).join("conf/defaults.ini");
    fs::metadata(&defaults).map_err(|e| format!("{}: {e}", defaults.display()))?;
    let at = format!("{}:{}", variable("GF_SERVER_HTTP_ADDR")?, variable("GF_SERVER_HTTP_PORT")?);
    Ok(http([at], "/api/health", "{\"database\":\"ok\",\"version\":\"12.0.1\"}", variable("GF_PATHS_DATA")?.into()))
}

fn minio() -> Told<Part> {
    word("server")?;
    if variable("MINIO_ROOT_USER")?.len() < 3 || variable("MINIO_ROOT_PASSWORD")?.len() < 8 {
        return Err("the user or the password is too short".into());
    }
    let folder = env::args().next_back().unwrap_or_default();
    Ok(http([option("--address")?, option("--console-address")?], "/minio/health/ready", "", folder.into()))
}

fn code_server() -> Told<Part> {
    variable("PASSWORD")?;
    let script = PathBuf::from(env::args().nth(1).unwrap_or_default()).join("out/node/entry.js");
    fs::metadata(&script).map_err(|e| format!("{}: {e}", script.display()))?;
    let body = "{\"status\":\"expired\",\"lastHeartbeat\":0}";
    Ok(http([option("--bind-addr")?], "/healthz", body, option("--user-data-dir")?.into()))
}

/// An argument that must be there.
fn word(word: &str) -> Told<()> {
    env::args().any(|arg| arg == word).then_some(()).ok_or_else(|| format!("it is not told {word}"))
}

/// `--name value`, `--name=value`.
fn option(name: &str) -> Told<String> {
    let args: Vec<String> = env::args().collect();
    let joined = args.iter().find_map(|arg| arg.strip_prefix(name)?.strip_prefix('='));
    let parted = args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1)).map(String::as_str);
    joined.or(parted).map(str::to_owned).ok_or_else(|| format!("it is not told {name}"))
}

fn variable(name: &str) -> Told<String> {
    env::var(name).ok().filter(|value| !value.is_empty()).ok_or_else(|| format!("it is not told {name}"))
}

/// Of YAML only what JSON has.
fn configuration(name: &str) -> Told<Value> {
    let path = option(name)?;
    let text = fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
    serde_json::from_str(&text).map_err(|e| format!("{path}: {e}"))
}

fn at(config: &Value, pointer: &str) -> Told<String> {
    let value = config.pointer(pointer).ok_or_else(|| format!("its configuration has no {pointer}"))?;
    Ok(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

/// Listens everywhere, and answers until it is ended.
fn play(name: &str, part: &Part) -> io::Result<()> {
    if !part.data.as_os_str().is_empty() {
        fs::create_dir_all(&part.data)?;
        fs::write(part.data.join("kept"), name)?;
    }
    let _udp = part.udp.as_ref().map(UdpSocket::bind).transpose()?;
    let mut listeners = part.listens.iter().map(TcpListener::bind).collect::<io::Result<Vec<_>>>()?.into_iter();
    let Some(first) = listeners.next() else { return Err(io::Error::other("it listens nowhere")) };
    let _others: Vec<TcpListener> = listeners.collect();
    println!("{name} is played at {}", part.listens.join(", "));
    let (path, body) = (part.path, part.body);
    for stream in first.incoming().flatten() {
        thread::spawn(move || reply(stream, path, body));
    }
    Ok(())
}

fn reply(stream: TcpStream, path: &str, body: &str) -> io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let asked = lines.next().transpose()?.unwrap_or_default();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let (status, body) = if asked == format!("GET {path} HTTP/1.1") { ("200 OK", body) } else { ("404 Not Found", "") };
    let mut out = stream;
    write!(out, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}
