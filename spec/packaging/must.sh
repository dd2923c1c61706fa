# shellcheck shell=sh disable=SC2154
# must.sh -- counts the checks of a packaging test; sourced.  $work is a folder of the test's own.
passed=0 failed=0

# must WORDS COMMAND...: one test.
must() {
    what=$1
    shift
    if "$@" >"$work/log" 2>&1; then
        echo "ok      $what"
        passed=$((passed + 1))
    else
        echo "FAILED  $what"
        cat "$work/log"
        failed=$((failed + 1))
    fi
}

# finish: writes the counts for ./dev; fails when a check did.
finish() {
    [ -z "${FPC_TEST_COUNTS:-}" ] || echo "$passed $failed 0" >"$FPC_TEST_COUNTS"
    [ "$failed" = 0 ]
}
