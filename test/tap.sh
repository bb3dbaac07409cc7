# shellcheck shell=sh
# Sourced by test scripts, on the host and in the lab (busybox sh): each test becomes one TAP line at once.
#
#   tap_run NAME COMMAND...   COMMAND (often a function) runs in a subshell. Status 0 is a pass, 77 a skip whose reason
#                             is its last line of output, all else a failure, with its output as lines that begin with #
#                             (TAP_ONLY, a shell pattern, chooses by NAME)
#                             (TAP_AFTER: the tests up to this one have been told already, and are only counted)
#   tap_skip NAME REASON      a test that cannot be run here
#   tap_done                  the plan, and the script's exit status

tap_count=0
tap_failed=0
tap_log=$(mktemp)
tap_after=${TAP_AFTER:-}

# True if test NAME was told by an earlier run.
tap_told()
{
    [ -n "$tap_after" ] || return 1
    [ "$1" != "$tap_after" ] || tap_after=''
}

tap_run()
{
    tap_name=$1
    shift
    # shellcheck disable=SC2254 # a pattern
    case $tap_name in ${TAP_ONLY:-*}) ;; *) return ;; esac
    tap_count=$((tap_count + 1))
    if tap_told "$tap_name"; then return; fi
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
    if tap_told "$1"; then return; fi
    echo "ok $tap_count - $1 # SKIP $2"
}

tap_done()
{
    echo "1..$tap_count"
    rm -f "$tap_log"
    [ "$tap_failed" -eq 0 ]
}
