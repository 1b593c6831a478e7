# Sourced by ./test and ./demo: sees to what Debian's or Ubuntu's packages must provide. Elsewhere it names what is missing.

# need COMMAND PACKAGE: collects the packages whose command is not there.
missing=()
need() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || missing+=("$2"); }

install_missing() {
    [ ${#missing[@]} -eq 0 ] && return 0
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        if sudo -n true 2>/dev/null; then as_root=(sudo -n); else
            echo "missing packages: ${missing[*]} (no root here to install them)" >&2
            return 1
        fi
    fi
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "missing: ${missing[*]}; this system has no apt-get, please install them" >&2
        return 1
    fi
    echo "installing ${missing[*]}" >&2
    "${as_root[@]}" apt-get update -qq >&2 || true
    DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

need_rust() {
    command -v cargo >/dev/null 2>&1 && return 0
    [ -f "$HOME/.cargo/env" ] && . "$HOME/.cargo/env" && command -v cargo >/dev/null 2>&1 && return 0
    echo "Rust is missing: install it from your distribution or with rustup (1.88 or newer)" >&2
    exit 1
}
