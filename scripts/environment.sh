# What the scripts share: where things are kept, how they say what they do. Sourced by bash scripts.
# Everything that is brought from outside goes to WHARF_CACHE and may be deleted at any time.

set -euo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
WHARF_CACHE=${WHARF_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/wharf}
export WHARF_CACHE

debian=$WHARF_CACHE/debian  # Debian packages, unpacked, not installed
tools=$WHARF_CACHE/tools    # programs built by `cargo install`

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

# lock NAME: one run at a time; a second one waits. The lock ends with the process, however it ends.
lock() {
    mkdir -p "$WHARF_CACHE/stamps"
    exec 9>"$WHARF_CACHE/$1.lock"
    flock --nonblock 9 || { say "waiting for another run to end"; flock 9; }
}
