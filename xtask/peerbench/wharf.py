# Wharf as a peer of the bench that measures supervisors side by side.
#
#   WHARF_BIN=target/release/wharf PEERBENCH_ADAPTERS=xtask/peerbench/wharf.py \
#       ./peerbench.py --peers floor,s6,runit,systemd,zinit,supervisord,pm2,wharf --rounds 1 --out x.json
#
# The file is executed inside the bench: its names (Adapter, spawn, wr, uds, …) come from there.
#
# Units are instances of the service `command`. They are made before the timed part by a daemon whose
# program is a link to a sleeper; the link is turned to the real program afterwards, so that what is
# timed is what a reboot is: `wharf daemon`, which finds N units wanted, commits every intent and starts
# them. No intent is left out, no durability is switched off.


class Wharf(Adapter):
    name = "wharf"
    default_differs = True
    restart_default = "restart.delay_ms 1000, doubling to 30 s, 5 in 10 min"
    restart_min = "restart.delay_ms=0"
    http = True
    http_note = "probe_early_ms=10000, probe_steady_ms=10000"
    captures = True
    raw_keep = True
    raw_name = "HTTP JSON-RPC over UDS"
    log_note = "one O_APPEND file a run, written by the service itself"
    start_note = "wharf daemon with N wanted units in its journal"
    B = os.environ.get("WHARF_BIN", "/nonexistent/wharf")

    def available(self):
        return None if os.path.exists(self.B) else "set WHARF_BIN"

    def version(self):
        return run_cmd([self.B, "--version"])[1].strip()

    def env(self):
        return clean_env(HOME=self.dir, WHARF_HOME=self.dir, WHARF_LOG="warn")

    def sock(self):
        return self.dir + "/run/service.sock"

    def write_config(self, svcs, mode, http, capture):
        self.svcs, self.mode, self.checks = svcs, mode, http
        self.program = self.dir + "/svc"  # the bench knows its own program by this name
        self.sleeper = self.dir + "/sleeper"
        wr(self.sleeper, "#!/bin/sh\nexec sleep 100000\n")
        os.chmod(self.sleeper, 0o755)

    def turn(self, target):
        os.symlink(target, self.program + ".new")
        os.rename(self.program + ".new", self.program)

    def params(self, s):
        policy = {"ready_after_ms": 0, "restart": {"budget": 1000000, "flap_budget": 0, "stable_s": 1}}
        if self.mode == "fast":
            policy["restart"]["delay_ms"] = 0
        given = {"argv": [self.program] + s.argv[1:]}
        if self.checks:
            given["health"] = {"http": {"port": s.port, "path": "/health"}}
            policy.update(probe_early_ms=10000, probe_steady_ms=10000)
        return {"name": "command@" + s.name, "with": given, "policy": policy, "wait": False}

    def prepare(self):
        if not self.svcs:
            return
        self.turn(self.sleeper)
        daemon = self.daemon()
        c = self.wait_for_socket()
        for first in range(0, len(self.svcs), 50):
            batch = [{"jsonrpc": "2.0", "id": s.i, "method": "service.start", "params": self.params(s)} for s in self.svcs[first:first + 50]]
            for answer in json.loads(self.post(c, batch).split(b"\r\n\r\n", 1)[1]):
                if "error" in answer:
                    raise RuntimeError(str(answer["error"])[:500])
        c.close()
        time.sleep(0.5)
        rc, out = run_cmd([self.B, "down"], self.env())
        if rc:
            raise RuntimeError(out[:500])
        os.waitpid(daemon, 0)
        self.turn(SVC)
        # What the sleepers wrote and where is no part of the measurement.
        shutil.rmtree(self.dir + "/logs/command@svc000", ignore_errors=True)

    def wait_for_socket(self):
        for _ in range(2000):
            try:
                return uds(self.sock())
            except OSError:
                time.sleep(0.005)
        raise RuntimeError("no socket: " + tail(self.mgrlog))

    def daemon(self):
        return spawn([self.B, "daemon"], env=self.env(), out=self.mgrlog, cwd=self.dir)

    def launch(self):
        self.pids = [self.daemon()]

    def cli_status(self, name):
        return [self.B, "status", "command@" + name], self.env()

    def ok_status(self, text):
        return "running" in text and "error:" not in text

    def raw_open(self):
        return uds(self.sock())

    def post(self, c, body):
        b = json.dumps(body).encode()
        return http_call(c, b"POST /rpc HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(b), b)

    def raw_status(self, c, name):
        return self.post(c, {"jsonrpc": "2.0", "id": 1, "method": "service.status", "params": {"name": "command@" + name}})

    def stop_all(self):
        return [self.B, "stop", "--all"], self.env()

    def current_log(self, svc):
        logs = f"{self.dir}/logs/command@{svc.name}"
        runs = [int(f[:-4]) for f in (os.listdir(logs) if os.path.isdir(logs) else []) if f.endswith(".log") and f[:-4].isdigit()]
        return f"{logs}/{max(runs)}.log" if runs else svc.log

    def log_size(self, svc):
        try:
            return os.stat(self.current_log(svc)).st_size
        except FileNotFoundError:
            return 0

    def log_data(self, svc):
        # As a user reads it: what was put away by rotation is part of it.
        with open(self.current_log(svc), "rb") as f:
            return f.read()
