#!/usr/bin/env bash
# A live cluster on this machine: sluice with its embedded etcd, an nginx that it keeps, and three Socket.IO nodes that
# register themselves. Ctrl-C stops all of it. Ports: PORT (nginx), API_PORT (sluice), NODE_PORT (the first node; the
# others follow). State and logs are in .run/, which may be deleted when nothing runs.
# shellcheck disable=SC2317 # stop, and what it calls, runs from a trap
set -euo pipefail
cd "$(dirname "$0")/.."

port=${PORT:-8080}
api_port=${API_PORT:-7070}
node_port=${NODE_PORT:-6001}
nodes=3

dir=$PWD/.run
logs=$dir/log
sluice=$PWD/bin/sluice
example=$PWD/examples/socketio
url=http://127.0.0.1:$port
api=http://127.0.0.1:$api_port

say() { echo "run: $*"; }

# Starts a part in a session of its own, so that Ctrl-C reaches this script alone and it can stop the parts in order.
# The mark in the environment finds them again, should this script be killed.
start() {
	local name=$1
	shift
	RUN_SLUICE_DIR=$dir setsid "$@" </dev/null >>"$logs/$name.log" 2>&1 9>&- &
	pids[$name]=$!
}

# Prints the ids of the processes of a cluster in our directory, whoever started it: by the mark, or, as nginx overwrites
# its environment, by the files that it has open.
ours() {
	local proc
	for proc in /proc/[0-9]*; do
		if grep -qzFx "RUN_SLUICE_DIR=$dir" "$proc/environ" 2>/dev/null ||
			{ grep -qx nginx "$proc/comm" && find "$proc/fd" -lname "$dir/*" | grep -q .; } 2>/dev/null; then
			echo "${proc#/proc/}"
		fi
	done
}

# Ends what still runs of a cluster in our directory.
end_rest() {
	local -a rest
	mapfile -t rest < <(ours)
	[[ ${#rest[@]} -eq 0 ]] || kill -KILL "${rest[@]}" 2>/dev/null || true
}

# Waits for processes that were told to stop, ten seconds at most.
gone_soon() {
	local pid deadline=$((SECONDS + 10))
	for pid in "$@"; do
		while kill -0 "$pid" 2>/dev/null && [[ $SECONDS -lt $deadline ]]; do
			sleep 0.1
		done
	done
}

stop() {
	local code=$? pid
	trap '' INT TERM HUP
	trap - EXIT
	say "stopping"
	local -a registered=()
	for ((i = 1; i <= nodes; i++)); do
		pid=${pids[n$i]:-}
		[[ -z $pid ]] || registered+=("$pid")
	done
	# The nodes leave while there is still somebody to tell.
	if [[ ${#registered[@]} -gt 0 ]]; then
		kill -TERM "${registered[@]}" 2>/dev/null || true
		gone_soon "${registered[@]}"
	fi
	if [[ -n ${pids[sluice]:-} ]]; then
		kill -TERM "${pids[sluice]}" 2>/dev/null || true
		gone_soon "${pids[sluice]}"
	fi
	end_rest
	say "stopped"
	exit "$code"
}

fail() {
	say "$1" >&2
	local log=$logs/$2.log
	[[ ! -s $log ]] || { say "the end of $log:" && tail -n 20 "$log"; } >&2
	exit 1
}

alive() { kill -0 "${pids[$1]}" 2>/dev/null; }

# Runs a command until it succeeds, one minute at most, as long as sluice lives.
wait_for() {
	local what=$1 deadline=$((SECONDS + 60))
	shift
	until "$@" >"$logs/wait.log" 2>&1; do
		alive sluice || fail "sluice has ended" sluice
		[[ $SECONDS -lt $deadline ]] || { cat "$logs/wait.log" >&2 && fail "$what did not happen within a minute" sluice; }
		sleep 0.2
	done
}

declare -A pids=()
mkdir -p "$logs"
# The lock is this script's alone (start closes it): it is free as soon as the script is gone, however it went.
exec 9>"$dir/lock"
if ! flock --nonblock 9; then
	say "a cluster of this directory runs already: stop it with Ctrl-C where it was started" >&2
	exit 1
fi
if [[ -n $(ours) ]]; then
	say "ending what an earlier run left behind when it was killed"
	end_rest
fi
taken=("PORT=$port" "API_PORT=$api_port")
for ((i = 0; i < nodes; i++)); do
	taken+=("NODE_PORT=$((node_port + i))")
done
node scripts/check-ports.js "${taken[@]}"
rm -f "$logs"/*.log

trap stop EXIT
trap 'exit 0' INT TERM HUP

# nginx's workers run as whoever runs this: another user could not get to a home directory. Without root they do anyway.
user=()
[[ $(id -u) -ne 0 ]] || user=(--user root)

say "starting sluice, its etcd and nginx"
start sluice "$sluice" run --name local --state-dir "$dir/state" --listen "127.0.0.1:$api_port" --on-exit quit \
	--worker-shutdown-timeout 3s "${user[@]}"
wait_for "an answer of sluice's API" "$sluice" status --api "$api"

sed "s/port: 8080/port: $port/" "$example/sluice.yaml" >"$dir/sluice.yaml"
"$sluice" apply --api "$api" -f "$dir/sluice.yaml"

say "starting $nodes Socket.IO nodes, which register themselves"
for ((i = 1; i <= nodes; i++)); do
	at=$((node_port + i - 1))
	start "n$i" env "PORT=$at" "NODE_ID=n$i" \
		"$sluice" register --api "$api" --service io --id "n$i" --address "127.0.0.1:$at" -- node "$example/server.js"
done
wait_for "a Socket.IO client's way through nginx" node "$example/client.js" --once "$url"

rm -f "$logs/wait.log"
next=$((node_port + nodes))
cat <<TEXT

  a page that shows your node    $url/
  Socket.IO                      $url/socket.io/
  sluice's API                   $api
  logs                           .run/log/

Try next, in another terminal:

  bin/sluice status --api $api
  node examples/socketio/client.js $url
  PORT=$next NODE_ID=n4 bin/sluice register --api $api --service io --id n4 --address 127.0.0.1:$next -- node examples/socketio/server.js

Ctrl-C stops all of it.
TEXT

# A part that ends by itself is told; without sluice there is nothing left to show.
while alive sluice; do
	wait -n || true
	for name in "${!pids[@]}"; do
		[[ $name == sluice ]] || alive "$name" || {
			say "node $name has ended; its log is $logs/$name.log"
			unset "pids[$name]"
		}
	done
done
fail "sluice has ended" sluice
