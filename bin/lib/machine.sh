# What the scripts in bin/ ask of the machine. To be sourced; stops the script with a plain message where something
# cannot be had.

die() { echo "error: $*" >&2; exit 2; }

# The folder with Postgres' server programs: the newest packaged one, else what stands on the path.
postgres_bin() {
    local dir
    for dir in $(ls -d /usr/lib/postgresql/*/bin /usr/pgsql-*/bin 2>/dev/null | sort -rV) $(dirname "$(command -v initdb 2>/dev/null)" 2>/dev/null); do
        [ -x "$dir/initdb" ] && [ -x "$dir/postgres" ] && { echo "$dir"; return 0; }
    done
    return 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif command -v sudo >/dev/null 2>&1; then sudo "$@"
    else die "'$*' needs root; install it by hand and start again"
    fi
}

# install WHAT DEBIAN FEDORA ALPINE ARCH BREW: by package name, through whichever package manager is here.
install_package() {
    local what=$1
    echo "installing $what …" >&2
    if command -v apt-get >/dev/null 2>&1; then
        as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq >&2 || die "apt-get update failed"
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $2 >&2
    elif command -v dnf >/dev/null 2>&1; then as_root dnf install -y -q $3 >&2
    elif command -v apk >/dev/null 2>&1; then as_root apk add -q $4 >&2
    elif command -v pacman >/dev/null 2>&1; then as_root pacman -S --noconfirm --needed -q $5 >&2
    elif command -v brew >/dev/null 2>&1; then brew install -q $6 >&2
    else die "$what is missing, and no package manager that this script knows is here: install it and start again"
    fi || die "installing $what failed"
}

need_postgres() {
    postgres_bin >/dev/null || install_package "Postgres" postgresql postgresql-server postgresql postgresql postgresql
    postgres_bin >/dev/null || die "Postgres' server programs (initdb, postgres) are not to be found"
}

need_rust() {
    command -v cargo >/dev/null 2>&1 ||
        die "cargo is missing: install Rust 1.94 or newer (package rustup or rust; see README.md) and start again"
    local have
    have=$(rustc --version 2>/dev/null | cut -d' ' -f2)
    [ "$(printf '%s\n1.94\n' "$have" | sort -V | head -n 1)" = 1.94 ] || die "Rust 1.94 or newer is needed, here is ${have:-none}"
    command -v cc >/dev/null 2>&1 ||
        install_package "a C compiler and linker" "gcc libc6-dev" "gcc glibc-devel" "gcc musl-dev" gcc gcc
}

# Runs a program as an ordinary user also when root starts it: Postgres refuses to run as root.
unprivileged() {
    if [ "$(id -u)" != 0 ]; then "$@"; return; fi
    local user=nobody
    id postgres >/dev/null 2>&1 && user=postgres
    (cd / && setpriv --reuid "$user" --regid "$(id -g "$user")" --clear-groups -- "$@")
}

# A port that nobody listens on, below those that outgoing connections take.
free_port() {
    local port
    for port in $(seq $((10000 + RANDOM % 15000)) 30000); do
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
    done
}

# start_postgres DIR [settings of postgres]: a cluster of its own in DIR, on a free port; sets POSTGRES_URL (without a
# database) and POSTGRES_PORT. stop_postgres DIR ends it.
start_postgres() {
    local dir=$1 bin user
    shift
    bin=$(postgres_bin)
    mkdir -p "$dir" && chmod 755 "$dir"
    if [ "$(id -u)" = 0 ]; then
        user=nobody
        id postgres >/dev/null 2>&1 && user=postgres
        chown "$user" "$dir"
    fi
    unprivileged "$bin/initdb" -U primetrade -A trust -E UTF8 --locale=C --no-sync -D "$dir/data" >/dev/null ||
        die "initdb failed"
    POSTGRES_PORT=$(free_port)
    POSTGRES_URL=postgres://primetrade@127.0.0.1:$POSTGRES_PORT
    unprivileged "$bin/pg_ctl" -s -w -t 60 -D "$dir/data" -l "$dir/log" \
        -o "-p $POSTGRES_PORT -c listen_addresses=127.0.0.1 -c unix_socket_directories='' $*" start ||
        { cat "$dir/log" >&2; die "Postgres did not start"; }
}

stop_postgres() {
    [ -d "$1/data" ] || return 0
    unprivileged "$(postgres_bin)/pg_ctl" -s -m immediate -D "$1/data" stop >/dev/null 2>&1 || true
}
