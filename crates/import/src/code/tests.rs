//! What is written, as a person reads it. That it compiles and runs is for the end-to-end tests.

use crate::{File, Kind, import};

fn written(kind: Kind, name: &str, text: &str) -> String {
    let file = File { name, text, folder: "/srv/app", has_dot_env: kind == Kind::Procfile, ..File::default() };
    let imported = import(&[(kind, file)]).unwrap();
    imported.services.iter().map(|program| super::write(program).text).collect::<Vec<_>>().join("\n// ----\n\n")
}

#[test]
fn a_line_of_a_procfile() {
    insta::assert_snapshot!(written(Kind::Procfile, "Procfile", "web: python3 -m http.server $PORT\n"));
}

#[test]
fn a_process_with_probes() {
    let text = "processes:\n  api:\n    command: ./api --port 8081\n    environment: {WHO: 'n{{.PC_REPLICA_NUM}} {x}'}\n    replicas: 2\n    readiness_probe: {http_get: {port: 8081, path: /ready, status_code: 204}}\n    liveness_probe: {exec: {command: ./alive}, period_seconds: 5}\n    depends_on: {db: {condition: process_healthy}}\n  db:\n    command: ./db\n    ready_log_line: 'ready [ok]'\n    availability: {restart: always}\n    shutdown: {command: ./db stop}\n";
    insta::assert_snapshot!(written(Kind::ProcessCompose, "process-compose.yaml", text));
}

#[test]
fn instances_with_ports_of_their_own() {
    let text =
        "{\"apps\": [{\"name\": \"api\", \"script\": \"main.js\", \"instances\": 2, \"env\": {\"PORT\": 3000}}]}";
    insta::assert_snapshot!(written(Kind::Pm2, "ecosystem.json", text));
}

#[test]
fn a_numbered_program() {
    let text = "[program:worker]\ncommand=worker --n %(process_num)02d\nnumprocs=2\nautorestart=true\n";
    insta::assert_snapshot!(written(Kind::Supervisord, "supervisord.conf", text));
}

#[test]
fn a_template_with_folders_and_limits() {
    let text = "[Unit]\nDescription=It says \"hi\"\nAfter=x.service\n[Service]\nType=notify\nExecStart=/usr/bin/x %i --state /var/lib/x/%i\nStateDirectory=x\nEnvironmentFile=-/etc/default/x\nRestart=on-failure\nMemoryMax=1G\nUser=www\n";
    insta::assert_snapshot!(written(Kind::Systemd, "x@.service", text));
}
