//! Services and the machine that they are on: what does not fit is refused, an address is found when it is there.

use std::{process::Command, time::Duration};

use serde_json::json;
use wharf_tests::{Daemon, FakeGpus, cannot, eventually};

const SOON: Duration = Duration::from_secs(60);
/// Of a network that is nobody's: it stands in documents.
const ADDRESS: &str = "198.51.100.77";

/// LM-125: what could never run here is refused when it is installed, with the reason.
#[test]
fn an_install_that_does_not_fit_the_machine_is_refused() {
    let daemon = Daemon::start();
    let has_nvidia =
        daemon.ok("gpu.list", json!({}))["devices"].as_array().unwrap().iter().any(|d| d["vendor"] == "nvidia");
    if has_nvidia {
        cannot("LM-125", "this machine has an NVIDIA GPU: vllm is not refused");
    } else {
        let error = daemon.err("service.install", json!({ "name": "vllm" }));
        let text = error["message"].as_str().unwrap();
        assert!(text.contains("vllm does not fit this machine") && text.contains("a GPU of NVIDIA"), "LM-125: {error}");
        assert!(error["data"]["hint"].as_str().unwrap().contains("requires=[]"), "{error}");
        assert_eq!(daemon.state("vllm"), "not_installed");
        assert!(!daemon.home.join("store/vllm").exists(), "nothing was fetched");
    }
    let with = json!({ "argv": ["/bin/sleep", "60"] });
    for (requires, named) in [
        (json!([{ "system": "plan9-mips" }]), "plan9-mips"),
        (json!([{ "device": "/dev/no-such-device" }]), "/dev/no-such-device"),
        (json!(["display"]), "no display"),
    ] {
        let params = json!({ "name": "command@tray", "with": with, "policy": { "requires": requires } });
        let error = daemon.err("service.install", params);
        let text = error["message"].as_str().unwrap();
        assert!(text.contains("does not fit this machine") && text.contains(named), "LM-125: {error}");
    }
    // A file can still come: that is a start's business.
    let policy = json!({ "requires": [{ "file": "/no/such/model" }] });
    daemon.ok("service.install", json!({ "name": "command@later", "with": with, "policy": policy }));
}

/// LM-125: where the machine has what is asked for, nothing stands in the way.
#[test]
fn a_machine_with_the_gpu_takes_what_needs_one() {
    let (mut daemon, _gpus) = FakeGpus::daemon(&["GPU-00000000-0000-0000-0000-00000000000c"]);
    daemon.launch();
    let with = json!({ "argv": ["/bin/sleep", "60"] });
    let install = |vendor: &str| {
        let policy = json!({ "requires": [{ "gpu": vendor }] });
        daemon.call("service.install", json!({ "name": format!("command@{vendor}"), "with": with, "policy": policy }))
    };
    install("nvidia").unwrap();
    let error = install("intel").unwrap_err();
    assert!(error["message"].as_str().unwrap().contains("a GPU of Intel"), "{error}");
    let params = json!({ "name": "command@late", "with": with, "policy": { "requires": [{ "gpu": "amd" }] } });
    let error = daemon.err("service.start", params);
    assert!(
        error["message"].as_str().unwrap().contains("a GPU of AMD"),
        "it is looked for before a start too: {error}"
    );
}

/// The address on the loopback interface, and off it with the value.
struct Address;

impl Address {
    fn ip(verb: &str) -> bool {
        let address = format!("{ADDRESS}/32");
        Command::new("ip").args(["address", verb, &address, "dev", "lo"]).output().is_ok_and(|o| o.status.success())
    }

    fn take() -> Option<Self> {
        Self::ip("add").then_some(Self)
    }
}

impl Drop for Address {
    fn drop(&mut self) {
        Self::ip("delete");
    }
}

/// HS-106: it listens at the address that it finds; when that goes it waits, and comes back with it by itself.
#[test]
fn node_exporter_listens_on_an_address_that_is_found_when_it_starts() {
    if Address::take().is_none() {
        return cannot("HS-106", "an address cannot be added to an interface here");
    }
    Address::ip("delete");
    let daemon = Daemon::start();
    let with = json!({ "listen": "198.51.100.0/24", "ports": { "main": "auto" } });
    daemon.ok("service.install", json!({ "name": "node-exporter", "with": with }));
    let error = daemon.err("service.start", json!({ "name": "node-exporter" }));
    assert!(error["message"].as_str().unwrap().contains("an address in 198.51.100.0/24"), "{error}");
    let address = Address::take().unwrap();
    let policy = json!({ "probe_early_ms": 100, "failure_threshold": 1, "restart": { "delay_ms": 10 } });
    daemon.ok("service.start", json!({ "name": "node-exporter", "policy": policy }));
    let status = daemon.ok("service.status", json!({ "name": "node-exporter" }));
    let health = daemon.ok("service.health", json!({ "name": "node-exporter" }));
    assert_eq!(health["healthy"], true, "{health}");
    let port = status["port"].as_u64().unwrap() as u16;
    assert!(std::net::TcpStream::connect((ADDRESS, port)).is_ok(), "HS-106");
    let verify = daemon.ok("service.verify", json!({ "name": "node-exporter" }));
    let row = verify["checks"].as_array().unwrap().iter().find(|c| c["check"] == "listens on loopback only").unwrap();
    assert!(row["detail"].as_str().unwrap().contains(ADDRESS), "and verify says so: {row}");
    drop(address);
    eventually("it waits for its address", SOON, || daemon.state("node-exporter") == "blocked");
    let status = daemon.ok("service.status", json!({ "name": "node-exporter" }));
    assert!(status["error_message"].as_str().unwrap().contains("198.51.100.0/24"), "{status}");
    let _address = Address::take().unwrap();
    eventually("it has found its address", SOON, || daemon.state("node-exporter") == "running");
}
