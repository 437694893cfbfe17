#!/usr/bin/env bash
# Runs every linter, and fails at the end when one of them found something, so that one run shows it all.
set -euo pipefail
cd "$(dirname "$0")/.."
export REDOCLY_TELEMETRY=off REDOCLY_SUPPRESS_UPDATE_NOTICE=true

failed=()
check() {
	local name=$1
	shift
	echo "lint: $name"
	"$@" || failed+=("$name")
}

# What git knows or would add: not the caches.
files() {
	git ls-files --cached --others --exclude-standard -- "$@" | sort -u | while read -r file; do
		[[ ! -e $file ]] || echo "$file"
	done
}

formatted() {
	local wrong
	wrong=$(files '*.go' | xargs gofmt -l)
	[[ -z $wrong ]] || {
		echo "not formatted, run gofmt -w on: $wrong" >&2
		return 1
	}
}

shell_scripts() {
	{
		files '*.sh'
		files .ci/run
	} | xargs shellcheck
}

# The generated files must be what their source says. They are compared before and after: uncommitted work is no fault.
generated() {
	local before after
	before=$(generated_sums)
	make generate >/dev/null
	after=$(generated_sums)
	[[ $before == "$after" ]] || {
		echo "generated code was not up to date; it is now: commit it" >&2
		diff <(echo "$before") <(echo "$after") >&2
	}
}

generated_sums() {
	files '*.go' | xargs grep -lE '^// Code generated .* DO NOT EDIT\.$' | xargs --no-run-if-empty sha256sum
}

# A lock file with addresses in it would only work where these are reachable.
lock_files() {
	! files '*package-lock.json' | xargs grep -n '"resolved"' >&2 || {
		echo "lock files must not name a registry: npm install --omit-lockfile-registry-resolved" >&2
		return 1
	}
}

check gofmt formatted
check "go vet" go vet -tags bench ./...
check golangci-lint golangci-lint run
# The modules below tools/ are not tidied: that would fetch all that their tools' tests need.
check "go mod tidy" go mod tidy -diff
check shellcheck shell_scripts
check "lock files" lock_files
check redocly tools/npm/node_modules/.bin/redocly lint openapi.yaml
check "generated code" generated

if [[ ${#failed[@]} -gt 0 ]]; then
	printf 'lint: failed: %s\n' "${failed[@]}" >&2
	exit 1
fi
echo "lint: all passed"
