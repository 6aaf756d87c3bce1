"""Plays ComfyUI's main.py in the tests: it listens where it is told to, and says what that one says of itself."""

import argparse
import http.server
import json
import pathlib

flags = argparse.ArgumentParser()
for name in ("--listen", "--port", "--base-directory", "--database-url"):
    flags.add_argument(name, required=True)
flags.add_argument("--disable-auto-launch", action="store_true", required=True)
flags.add_argument("--cpu", action="store_true")
told = flags.parse_args()
(pathlib.Path(told.base_directory) / "kept").write_text("comfyui")


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        is_known = self.path == "/system_stats"
        body = json.dumps({"system": {"comfyui_version": "0.33.1"}, "devices": []}).encode() if is_known else b""
        self.send_response(200 if is_known else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


http.server.ThreadingHTTPServer((told.listen, int(told.port)), Answer).serve_forever()
