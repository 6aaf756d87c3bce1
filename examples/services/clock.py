#!/usr/bin/env python3
"""clock: a service of Wharf in Python. It tells the time over HTTP.

Put this file into ~/.config/wharf/services, `chmod 755` it, then:

    wharf discover --own && wharf install clock && wharf start clock

docs/adding/executable.md describes every field.
"""

import json
import os
import sys
import urllib.request

VERSION = "1.0"

# The program that is run. A real service would fetch one; this brings its own.
SERVER = '''#!/usr/bin/env python3
import http.server, sys, time

class Clock(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = time.strftime(sys.argv[2]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Clock).serve_forever()
'''


def facts(_):
    return {
        "summary": "Tells the time over HTTP",
        "source": "it brings its own program",
        "commands": ["python3"],
        "ports": {"main": 8791},
        "installs": True,
        "params": {
            "type": "object",
            "properties": {
                "format": {"type": "string", "default": "%H:%M:%S", "description": "How the time is written."},
            },
        },
        "policy": {"stop_timeout_ms": 3000},
        "limitations": ["it listens on 127.0.0.1 only."],
    }


def install(request):
    """Fills the staging folder. Wharf checks it, and makes it visible by one rename."""
    wanted = request["version"] or VERSION
    if wanted != VERSION:
        return {"error": f"there is no version {wanted}", "hint": f"on offer: {VERSION}"}
    path = os.path.join(request["staging"], "bin", "clock-server")
    os.makedirs(os.path.dirname(path))
    with open(path, "w") as file:
        file.write(SERVER)
    os.chmod(path, 0o755)
    print(f"made {path}", file=sys.stderr)
    return {"version": VERSION, "paths": ["bin/clock-server"]}


def start(request):
    """What is to be run. Wharf runs it, and keeps it running."""
    port, written = str(request["ports"]["main"]), request["with"]["format"]
    return {"argv": [request["installed"]["binaries"]["clock-server"], port, written], "env": {"PYTHONUNBUFFERED": "1"}}


def health(request):
    """Asked until it is ready, and then again and again."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{request['ports']['main']}/", timeout=2) as answer:
            return {"ok": True, "why": answer.read().decode()}
    except OSError as error:
        return {"ok": False, "why": str(error)}


def stop(_):
    """Python ends at INT as it does at Ctrl-C."""
    return {"signal": "INT"}


if __name__ == "__main__":
    verbs = {"facts": facts, "install": install, "start": start, "stop": stop, "health": health}
    json.dump(verbs[sys.argv[1]](json.load(sys.stdin)), sys.stdout)
