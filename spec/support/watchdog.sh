#!/bin/sh
# watchdog.sh DIR -- removes the private server in DIR when the process that started us is gone.
#
# Our stdin is a pipe from it.  The kernel closes the pipe however that process ends, kill -9
# included, and then we clean up.  We live in a session of our own and ignore the signals of a
# terminal, so that a Ctrl-C ends the specs and not us.
trap '' HUP INT QUIT TERM
dir=$1
heard=${FPC_TEST_HEARD:-} # where what was said is kept, to be searched for secrets (secrets.sh)
[ ! -d "$heard" ] || : >"$heard/watched-${dir##*/}"

cat >/dev/null

# An initdb may still be running: it holds the lock file until it ends.
[ ! -e "$dir/lock" ] || flock -w 60 "$dir/lock" true

# The server holds `alive` until its last process is gone.  Its number is looked up at each turn:
# it may only just be starting.
turn=0
while [ -e "$dir/alive" ] && ! flock -n "$dir/alive" true && [ $turn -lt 200 ]; do
    pid=$(head -n 1 "$dir/data/postmaster.pid" 2>/dev/null)
    pid=${pid#-} # the single-user mode writes it so
    if [ -n "$pid" ] && tr '\0' '\n' <"/proc/$pid/cmdline" 2>/dev/null | grep -qxF "$dir/data"; then
        if [ $turn -lt 100 ]; then kill -QUIT "$pid"; else kill -KILL "$pid"; fi
    fi
    turn=$((turn + 1))
    sleep 0.1
done

if [ -d "$heard" ]; then
    for log in "$dir"/log/*; do
        [ ! -f "$log" ] || cat "$log" >"$heard/${dir##*/}-${log##*/}"
    done
    rm -f "$heard/watched-${dir##*/}"
fi

# Only what carries the marker, and what is as young as to have none yet, is ours.
case $dir in
/tmp/fpcache-spec-*) rm -rf "$dir" ;;
esac
