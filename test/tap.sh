# shellcheck shell=sh
# Sourced by test scripts, on the host and in the lab (busybox sh): each test becomes one TAP line at once.
#
#   tap_run NAME COMMAND...   COMMAND (often a function) runs in a subshell. Status 0 is a pass, 77 a skip whose reason
#                             is its last line of output, all else a failure, with its output as lines that begin with #
#                             (TAP_ONLY, a shell pattern, chooses by NAME)
#   tap_skip NAME REASON      a test that cannot be run here
#   tap_done                  the plan, and the script's exit status

tap_count=0
tap_failed=0
tap_log=$(mktemp)

tap_run()
{
    tap_name=$1
    shift
    # shellcheck disable=SC2254 # a pattern
    case $tap_name in ${TAP_ONLY:-*}) ;; *) return ;; esac
    tap_count=$((tap_count + 1))
    set +e # and on again inside: behind || it would be off in the whole of COMMAND
    (
        set -e
        "$@"
    ) >"$tap_log" 2>&1 </dev/null
    tap_status=$?
    set -e
    case $tap_status in
    0) echo "ok $tap_count - $tap_name" ;;
    77) echo "ok $tap_count - $tap_name # SKIP $(tail -n 1 "$tap_log")" ;;
    *)
        tap_failed=$((tap_failed + 1))
        echo "not ok $tap_count - $tap_name"
        # A guest's console may hold anything: control characters out, the end is what matters.
        tail -n 60 "$tap_log" | tr -d '\000-\010\013-\037\177' | sed 's/^/# /'
        echo "# status $tap_status"
        ;;
    esac
}

tap_skip()
{
    tap_count=$((tap_count + 1))
    echo "ok $tap_count - $1 # SKIP $2"
}

tap_done()
{
    echo "1..$tap_count"
    rm -f "$tap_log"
    [ "$tap_failed" -eq 0 ]
}
