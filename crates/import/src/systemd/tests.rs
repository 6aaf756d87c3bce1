//! Units as distributions write them.

use wharf_model::{OnExit, Requirement, Signal};

use super::*;

const WEB: &str = "[Unit]
Description=The web server
After=network.target cache.service
Requires=db.service
Wants=cache.service
After=db.service
ConditionPathExists=/etc/web.conf
StartLimitBurst=4
StartLimitIntervalSec=60
[Service]
Type=notify
ExecStartPre=/usr/bin/web --check
ExecStart=/usr/bin/web --root %S/web --socket %t/web/sock -n '%n' ${OPTS}
ExecStop=/bin/kill -s QUIT $MAINPID
ExecReload=/bin/kill -HUP $MAINPID
Environment=OPTS=-v \"NAME=two words\" PORT=8080
User=www-data
Group=www-data
StateDirectory=web
RuntimeDirectory=web
Restart=on-failure
RestartSec=3
SuccessExitStatus=143 SIGUSR1
RestartPreventExitStatus=78
TimeoutStopSec=1min 5s
WatchdogSec=20
LimitNOFILE=65536:524288
MemoryMax=1G
CPUQuota=150%
UMask=0027
ProtectSystem=strict
PrivateTmp=true
StandardOutput=journal
FancyNewThing=1
[Install]
WantedBy=multi-user.target
";

fn read_unit(name: &str, text: &str, beside: &[(&str, &str)]) -> Imported {
    let beside = beside.iter().map(|(n, t)| ((*n).to_owned(), (*t).to_owned())).collect();
    read(&File { name, text, folder: "/etc/systemd/system", beside, ..File::default() }).unwrap()
}

fn one(name: &str, text: &str) -> Program {
    read_unit(name, text, &[]).services.remove(0)
}

#[test]
fn a_unit_is_a_service() {
    let web = one("web.service", WEB);
    assert_eq!((web.name.as_str(), web.summary.as_str()), ("web", "The web server"));
    let root = Text(vec![Piece::Data]);
    let socket = Text(vec![Piece::Run, Piece::Text("/sock".into())]);
    let expected: Vec<Text> = vec![
        "/usr/bin/web".into(),
        "--root".into(),
        root,
        "--socket".into(),
        socket,
        "-n".into(),
        "web.service".into(),
        "-v".into(),
    ];
    assert_eq!(web.argv, expected);
    assert_eq!((web.value("NAME").as_deref(), web.ports[0].number), (Some("two words"), 8080));
    let policy = &web.policy;
    assert!(policy.notify && policy.preflight == ["/usr/bin/web", "--check"]);
    assert_eq!(
        (policy.stop_signal, policy.stop_timeout_ms, policy.watchdog_ms),
        (Some(Signal::Quit), 65_000, Some(20_000))
    );
    let restart = &policy.restart;
    assert_eq!((restart.delay_ms, restart.max_delay_s, restart.slow_retry_s), (3_000, 3, 0));
    assert_eq!((restart.budget, restart.window_s), (3, 60));
    assert_eq!(
        (policy.exits["0"], policy.exits["143"], policy.exits["78"]),
        (OnExit::Stop, OnExit::Stop, OnExit::Fail)
    );
    assert_eq!((policy.exits["SIGTERM"], policy.exits["SIGUSR1"]), (OnExit::Stop, OnExit::Stop));
    let limits = &policy.limits;
    assert_eq!((limits.open_files, limits.memory_bytes, limits.cpu_percent), (Some(65_536), Some(1 << 30), Some(150)));
    assert_eq!((limits.umask.as_deref(), policy.run_as.as_deref()), (Some("0027"), Some("www-data")));
    assert_eq!(policy.requires, [Requirement::File("/etc/web.conf".into())]);
    let need = |name: &str, soft| Needed { name: name.into(), soft };
    assert_eq!(web.needs, [need("db", false), need("cache", true)]);
    for says in
        ["ExecReload", "Group", "ProtectSystem, PrivateTmp", "wharf logs web", "FancyNewThing", "STATE_DIRECTORY"]
    {
        assert!(web.notes.iter().any(|note| note.contains(says)), "{says}: {:?}", web.notes);
    }
}

#[test]
fn a_drop_in_changes_it_and_a_timer_makes_it_a_job() {
    let text = "[Service]\nType=oneshot\nExecStart=/usr/bin/report\nEnvironment=A=1\n";
    let drop_in = "[Service]\nExecStart=\nExecStart=/usr/bin/report --all\nEnvironment=B=2\n";
    let timer = "[Timer]\nOnCalendar=*-*-* 04:10:00\nPersistent=true\n";
    let imported = read_unit("report.service", text, &[("10-all.conf", drop_in), ("report.timer", timer)]);
    let report = &imported.services[0];
    assert_eq!((report.argv.len(), report.env.len()), (2, 2));
    assert_eq!((report.policy.job, report.policy.schedule.as_deref()), (true, Some("10 4 * * *")));
    assert!(report.notes.iter().any(|note| note.contains("Persistent")));
}

#[test]
fn a_template_has_instances() {
    let text = "[Service]\nExecStart=/usr/bin/getty %i --name=%p\nRestart=always\nExecStop=/usr/bin/bye ${X}\n";
    let template = one("getty@.service", text);
    assert!(template.is_template && template.argv[1].has_instance());
    assert_eq!(template.argv[2].plain().as_deref(), Some("--name=getty"));
    assert!(template.policy.exits.is_empty() && template.stop.is_some());
    let instance = one("getty@tty1.service", text);
    assert_eq!(
        (instance.instances.as_slice(), instance.argv[1].plain().as_deref()),
        (&["tty1".to_owned()][..], Some("tty1"))
    );
}

#[test]
fn several_commands_go_to_a_shell() {
    let text = "[Service]\nType=oneshot\nExecStart=/bin/a 'x y'\nExecStart=-/bin/b\nExecStartPre=-/bin/c\n";
    let all = one("x.service", text);
    assert_eq!(all.argv[2].plain().as_deref(), Some("/bin/a 'x y' && { /bin/b || true; }"));
    assert_eq!(all.policy.preflight, ["/bin/sh", "-c", "{ /bin/c || true; }"]);
}

#[test]
fn what_is_no_unit_is_refused() {
    for text in ["", "[Unit]\nDescription=x\n", "nonsense"] {
        assert!(read(&File { name: "x.service", text, folder: "/", ..File::default() }).is_err(), "{text:?}");
    }
}
