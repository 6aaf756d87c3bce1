//! Folders of other people: their manifests, and what is hostile in them.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::json;
use wharf_tests::Daemon;

fn manifest(root: &Path, folder: &str, text: &str) -> String {
    let path = root.join(folder).join("service.yaml");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn t14_unknown_fields_of_a_manifest_are_kept_and_a_duplicate_name_names_both_files() {
    let daemon = Daemon::start();
    let root = daemon.home.join("services");
    let text = "name: minimal-sd-api\ngpu_required: true\nvram_gb: 8.0\nport: 8000\nhealth_endpoint: /health\n\
                mcp:\n  enabled: true\n  port: 9000\n  transport: sse\nowner: {team: vision, since: 2024}\nx-tags: [a, 1, yes]\n";
    let path = manifest(&root, "minimal-sd-api", text);
    manifest(&root, "group/service-3", "name: service-3\ngpu_required: true\nvram_gb: \"?\"\n");
    let scan = |folder: &Path| daemon.ok("discovery.scan", json!({ "folders": [folder] }));
    let found = scan(&root);
    let names: Vec<&str> = found["manifests"].as_array().unwrap().iter().map(|m| m["name"].as_str().unwrap()).collect();
    assert_eq!(
        (names, &found["errors"], &found["complete"]),
        (vec!["minimal-sd-api", "service-3"], &json!([]), &json!(true))
    );
    let row = &found["manifests"][0];
    assert_eq!(row["path"], path);
    let whole = json!({
        "name": "minimal-sd-api", "gpu_required": true, "vram_gb": 8.0, "port": 8000, "health_endpoint": "/health",
        "mcp": { "enabled": true, "port": 9000, "transport": "sse" },
        "owner": { "team": "vision", "since": 2024 }, "x-tags": ["a", 1, true],
    });
    assert_eq!(row["manifest"], whole);
    let clean = daemon.cli_ok(&["discover", root.to_str().unwrap()]);
    assert!(clean.out.contains("minimal-sd-api") && clean.out.contains("8 GB") && clean.err.is_empty(), "{clean:?}");

    let (one, two) = (manifest(&root, "web", "name: web\n"), manifest(&root, "web-old", "name: web\nport: 81\n"));
    let found = scan(&root);
    assert_eq!(found["manifests"].as_array().unwrap().len(), 2, "neither is taken: {found}");
    let [error] = &found["errors"].as_array().unwrap()[..] else { panic!("{found}") };
    assert_eq!((&error["path"], &error["other_path"]), (&json!(two), &json!(one)));
    let said = daemon.cli(&["discover", root.to_str().unwrap()]);
    assert_eq!(said.code, 8, "{said:?}");
    assert!(said.err.contains(&one) && said.err.contains(&two) && said.err.contains("hint:"), "{said:?}");
    assert!(said.out.contains("service-3"), "the others are shown all the same: {said:?}");
}

#[test]
fn t14_what_is_hostile_in_a_folder_is_told_by_file_and_the_rest_is_found() {
    let daemon = Daemon::start();
    let root = daemon.home.join("services");
    let list = |of: String| vec![of; 9].join(",");
    let mut bomb = format!("name: bomb\na0: &a0 [{}]\n", list("x".into()));
    (1..12).for_each(|n| bomb += &format!("a{n}: &a{n} [{}]\n", list(format!("*a{}", n - 1))));
    let hostile = [
        (manifest(&root, "bomb", &bomb), "aliases unfold"),
        (
            manifest(&root, "deep", &format!("name: deep\na: {}{}", "[".repeat(90_000), "]".repeat(90_000))),
            "recursion limit",
        ),
        (manifest(&root, "large", &format!("name: large\n{}", "# padding\n".repeat(110_000))), "larger than 1 MiB"),
        (manifest(&root, "python", "name: python\na: !!python/object:os.system {x: 1}\n"), "has no meaning here"),
        (manifest(&root, "twice", "name: twice\nname: thrice\n"), "duplicate mapping key: name (line 2"),
        (manifest(&root, "nameless", "port: 80\n"), "missing field `name`"),
        (manifest(&root, "port", "name: port\nport: http\n"), "port: a port is a number from 1 to 65535"),
    ];
    manifest(&root, "fine", "name: fine\n");
    let pipe = root.join("pipe/service.yaml");
    fs::create_dir(root.join("pipe")).unwrap();
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    symlink(&root, root.join("fine/up")).unwrap();
    symlink("/dev/zero", root.join("endless")).unwrap();
    let began = Instant::now();
    let found = daemon.ok("discovery.scan", json!({ "folders": [root], "depth": 16 }));
    let took = began.elapsed();
    assert_eq!(found["manifests"].as_array().unwrap().len(), 1, "{found}");
    assert_eq!((&found["manifests"][0]["name"], &found["complete"]), (&json!("fine"), &json!(true)));
    let errors = found["errors"].as_array().unwrap();
    assert_eq!(errors.len(), hostile.len() + 1, "{errors:#?}");
    for (path, says) in
        hostile.iter().map(|(path, says)| (path.clone(), *says)).chain([(pipe.display().to_string(), "no plain file")])
    {
        let error = errors.iter().find(|e| e["path"] == path).unwrap_or_else(|| panic!("{path}: {errors:#?}"));
        assert!(error["message"].as_str().unwrap().contains(says), "{error}");
        assert!(!error["hint"].as_str().unwrap().is_empty(), "{error}");
    }
    println!("T14: eight hostile manifests were refused in {} ms", took.as_millis());
    assert!(took < Duration::from_secs(5), "{took:?}");
    for (params, says) in [
        (json!({ "folders": [] }), "folders is empty"),
        (json!({ "folders": ["services"] }), "no whole path"),
        (json!({ "folders": [root], "depth": 17 }), "too deep"),
    ] {
        let refused = daemon.err("discovery.scan", params);
        assert!(refused["code"] == -32602 && refused["message"].as_str().unwrap().contains(says), "{refused}");
    }
}
