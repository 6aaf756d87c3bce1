#!/bin/sh
# beacon: a service of Wharf in a shell. It writes down that it lives.
#
# Put this file into ~/.config/wharf/services, `chmod 755` it, then:
#
#     wharf discover --own && wharf start beacon
#
# Every verb begins in the unit's data folder, and has what it needs in its environment: PORT_MAIN, WITH_EVERY_S, and so
# on. So nothing has to read the JSON on stdin. docs/adding/executable.md describes every field.

case "$1" in
facts)
    cat <<'JSON'
{
  "summary": "Writes down that it lives",
  "source": "this machine",
  "commands": ["sh"],
  "data": "beat: when it was last alive",
  "params": {
    "type": "object",
    "properties": {
      "every_s": { "type": "integer", "minimum": 1, "maximum": 30, "default": 1, "description": "Between two beats, in seconds." }
    }
  },
  "policy": { "restart": { "delay_ms": 500 } }
}
JSON
    ;;
start)
    echo "a beat every $WITH_EVERY_S s" >&2
    printf '{ "argv": ["sh", "-c", "echo begins; while :; do date > beat; sleep %s; done"] }\n' "$WITH_EVERY_S"
    ;;
health)
    if [ -n "$(find beat -mmin -1 2>/dev/null)" ]; then
        printf '{ "ok": true, "why": "the last beat: %s" }\n' "$(cat beat)"
    else
        echo '{ "ok": false, "why": "no beat within a minute" }'
    fi
    ;;
*)
    # `stop` the usual way, nothing to `install`.
    echo '{}'
    ;;
esac
