# What the start scripts of servers share; sourced by them with their arguments. The script that sources it sets
# `folder` from the first argument, defines `write_configuration` and `command_of_server`, and calls `serve`.
#
# The script stays in the foreground; it and the server end on TERM or INT, and with the process that started the
# script.

if [[ -z ${SERVER_START_IS_BOUND:-} ]]; then
    SERVER_START_IS_BOUND=yes exec setpriv --pdeathsig TERM "$0" "$@"
fi
unset SERVER_START_IS_BOUND

source "$(dirname "${BASH_SOURCE[0]}")/../../scripts/environment.sh"

# A port that was free a moment ago may be taken by now: then with another one.
start_attempts=5
start_timeout_s=20
# Longer than any test, shorter than anybody could forget it.
certificate_days=7

# Where servers listen for data: below the ports that the system gives to clients, and to servers that ask for any, so
# that nobody else comes there by chance.
passive_ports=(10000 32000)

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

accepts() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

in_debian() { LD_LIBRARY_PATH=$debian/usr/lib/x86_64-linux-gnu:$debian/usr/lib exec "$@"; }

# make_certificates: an authority and a certificate of it for localhost in $folder/tls, unless they are there.
make_certificates() {
    local tls=$folder/tls
    [[ ! -f $tls/server.pem ]] || return 0
    mkdir -p "$tls"
    local new_key=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc)
    {
        openssl req -x509 "${new_key[@]}" -keyout "$tls/ca.key" -out "$tls/ca.pem" -days "$certificate_days" \
            -subj "/CN=test authority"
        openssl req "${new_key[@]}" -keyout "$tls/server.key" -out "$tls/server.request" -subj /CN=localhost
        openssl x509 -req -in "$tls/server.request" -CA "$tls/ca.pem" -CAkey "$tls/ca.key" -CAcreateserial \
            -out "$tls/server.pem" -days "$certificate_days" \
            -extfile <(printf 'basicConstraints=CA:FALSE\nsubjectAltName=DNS:localhost,IP:127.0.0.1\n')
    } >"$tls/log" 2>&1 || { say "cannot make certificates: read $tls/log"; exit 1; }
}

server=
stop() {
    trap - TERM INT EXIT
    # The server ends its sessions, too.
    [[ -z $server ]] || { kill -TERM "$server" 2>/dev/null && wait "$server" 2>/dev/null; }
    exit 0
}

# serve NAME LINE...: starts the server on a free port, or $WHARF_TEST_PORT. When it accepts connections, prints host=,
# port=, the lines, log= and pid=, one each, and waits for its end.
serve() {
    local name=$1 attempt until
    shift
    trap stop TERM INT EXIT
    for ((attempt = 1; ; attempt++)); do
        port=${WHARF_TEST_PORT:-$(free_port)}
        # What already answers there is not ours.
        if ! accepts "$port"; then
            write_configuration
            command_of_server </dev/null >>"$folder/log" 2>&1 &
            server=$!
            until=$((SECONDS + start_timeout_s))
            while kill -0 "$server" 2>/dev/null && ((SECONDS < until)); do
                if accepts "$port"; then break 2; fi
                sleep 0.02
            done
            kill -KILL "$server" 2>/dev/null || true
            server=
        fi
        if ((attempt == start_attempts)); then
            say "$name did not start on port $port: read $folder/log"
            trap - EXIT
            exit 1
        fi
    done
    printf '%s\n' host=127.0.0.1 "port=$port" "$@" "log=$folder/log" "pid=$server"
    wait "$server" || true
    say "$name ended: read $folder/log"
    server=
    trap - EXIT
    exit 1
}
