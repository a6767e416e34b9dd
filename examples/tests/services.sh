#!/bin/sh
# Starts a private server for tests: services.sh postgres|redis PORT. It listens on 127.0.0.1 at that port and on a
# Unix socket, in a new directory. Prints one line: `ready DIRECTORY`, `failed`, with the reasons on standard error,
# or `skipped: WHY`.
#
# The server lives until standard input ends. That happens when the process that has asked for it ends, in whatever
# way, so nothing is left behind.
set -u
# Whatever else happens, it is the end of the input that ends it, and then it cleans up.
trap '' HUP INT PIPE TERM
umask 022
port=$2

# Debian keeps most of PostgreSQL off the PATH.
PATH=$PATH:/usr/sbin:/sbin
for directory in /usr/lib/postgresql/*/bin; do
    PATH=$PATH:$directory
done

skip() {
    echo "skipped: $1"
    exit 0
}

fail() {
    cat "$directory/log" >&2
    rm -rf "$directory"
    echo failed
    exit 1
}

new_directory() {
    directory=$(mktemp -d "${TMPDIR:-/tmp}/mainspring-$1.XXXXXX") || exit 1
    : >"$directory/log"
}

ready_until_end() {
    echo "ready $directory"
    while read -r _; do :; done
}

case $1 in
postgres)
    command -v initdb >/dev/null && command -v pg_ctl >/dev/null || skip 'no PostgreSQL (initdb, pg_ctl)'
    as=
    # It refuses to run as root.
    if [ "$(id -u)" = 0 ]; then
        id postgres >/dev/null 2>&1 || skip 'no PostgreSQL: it does not run as root, and there is no user postgres'
        as='runuser -u postgres --'
    fi
    new_directory postgres
    [ -z "$as" ] || chown postgres "$directory" "$directory/log"
    cd "$directory" || exit 1
    options="-c listen_addresses=127.0.0.1 -c port=$port -c unix_socket_directories=$directory -c fsync=off"
    $as initdb -D data -U test --auth=trust --no-sync -E UTF8 --locale=C >>log 2>&1 || fail
    # Its output goes to the log, because pg_ctl would keep standard output open.
    $as pg_ctl -D data -w -t 60 -l log -o "$options" start >>log 2>&1 </dev/null || fail
    ready_until_end
    $as pg_ctl -D data -w -m immediate stop >>log 2>&1
    ;;
redis)
    command -v redis-server >/dev/null || skip 'no Redis (redis-server)'
    new_directory redis
    cd "$directory" || exit 1
    redis-server --bind 127.0.0.1 --port "$port" --unixsocket "$directory/redis.sock" --save '' --dir "$directory" \
        >>log 2>&1 </dev/null &
    server=$!
    until grep -q 'ready to accept connections' log; do
        kill -0 "$server" 2>/dev/null || fail
        sleep 0.05
    done
    ready_until_end
    kill "$server"
    wait "$server"
    ;;
*)
    echo "usage: services.sh postgres|redis PORT" >&2
    exit 2
    ;;
esac
cd /
rm -rf "$directory"
