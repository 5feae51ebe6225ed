#!/bin/bash
# Runs every suite of the workspace, one after the other, and prints what each took, what failed and what was skipped.
#
#   tests/suites.sh quick|full|long
#
# quick: unit tests and tidy tests. full: everything within 15 minutes. long: also tests marked `#[ignore = "long: ..."]`,
# and 3000 seeds of the simulation of the safety core, 2000 of that of an iSCSI session, 5000 of that of several paths and 5000 of that of replicas,
# a million steps of the file system against its reference, every shape of cut between three, four and five nodes, and twice ten
# minutes of programs on three nodes under faults, no suite longer than 20 minutes.
# What long leaves out fails it.
# A test that cannot run here prints `skipped: REASON` (or `SKIPPED NAME: REASON`) and passes; REQUIRE_ALL=1 makes that
# a failure, as it does an ignored test whose reason does not begin with "long: ".
# The tests are built once and run as programs: one build whatever the suite, and plain `cargo` is all it takes.
set -u -o pipefail
cd "$(dirname "$0")/.." || exit 1

MODE="${1:-full}"
case "$MODE" in quick | full | long) ;; *) echo "suites.sh: quick, full or long" >&2; exit 2 ;; esac
CARGO="${CARGO:-cargo}"
TARGET="${CARGO_TARGET_DIR:-target}"
LOGS="$TARGET/test-logs"
# The long run of the file system against its reference.
MODEL=client::data::tests::whole::d80_of_twenty_seeds_and_50_000_steps_each
# The long run of programs on three nodes under faults.
TORTURE=torture::one_volume_could_have_answered_what_programs_on_three_nodes_were_told_in_ten_minutes_of_faults
# Every shape of cut between so many nodes, each a suite of its own; what its tests have in their names, and nothing else has.
CUTS=_nodes_every_shape_of_cut
# A suite that takes longer hangs; it is ended, and what it printed is shown.
case "$MODE" in long) LIMIT=1200 ;; *) LIMIT=600 ;; esac

mkdir -p "$LOGS"
rm -f "$LOGS"/*.log
ROWS=() FAILED=() SKIPPED=() PASSED_ALL=0 FAILED_ALL=0

seconds() { date +%s.%N; }
since() { awk -v a="$1" -v b="$(seconds)" 'BEGIN { printf "%.1f", b - a }'; }

build() {
    local start
    start=$(seconds)
    echo "Building the tests..."
    if ! "$CARGO" test --workspace --no-run --message-format=json-render-diagnostics >"$LOGS/build.json"; then
        echo "The tests do not build."
        echo "0 passed, 1 failed"
        exit 1
    fi
    # The demo runs the program that came with its integration tests. `cargo build` would compile most of it once more:
    # without the tests' own dependencies, libraries that both share have other features.
    if ! [ -x "$TARGET/debug/shorefast" ]; then
        echo "The tests were built, and $TARGET/debug/shorefast is not there."
        echo "0 passed, 1 failed"
        exit 1
    fi
    ROWS+=("build|$(since "$start")|-|-|-")
}

# Lines "PACKAGE-FOLDER KIND PROGRAM", from cargo's own account of what it built.
programs() {
    sed -n '/"reason":"compiler-artifact"/{/"test":true/{/"executable":"/p}}' "$LOGS/build.json" |
        sed -E 's/.*"manifest_path":"([^"]*)\/Cargo.toml".*"kind":\["([a-z]*)"\].*"executable":"([^"]*)".*/\1 \2 \3/'
}

count() { awk -v want="$2" '/^test result:/ { for (i = 2; i < NF; i++) if ($(i + 1) ~ "^" want) n += $i } END { print n + 0 }' "$1"; }

# The demo's own checks are its tests.
conclude_demo() { echo "test result: $(grep -c '^ok   ' "$1") passed; $(grep -c '^FAIL ' "$1") failed"; }

skip_lines() { grep -E '^(skipped: |SKIPPED )' "$1" | sed -E 's/^(skipped: |SKIPPED )//' | sort -u; }

# suite NAME LOG COMMAND...: runs it, keeps its log, adds a row.
suite() {
    local name=$1 log=$2 start status skips
    shift 2
    start=$(seconds)
    timeout --kill-after=10 "$LIMIT" "$@" >>"$log" 2>&1
    status=$?
    [ "$status" = 124 ] && echo "ended after $LIMIT s" >>"$log"
    case "$name" in demo*) conclude_demo "$log" >>"$log" ;; esac
    local took passed failed
    took=$(since "$start") passed=$(count "$log" passed) failed=$(count "$log" failed)
    if [ "$status" != 0 ] && [ "$failed" = 0 ]; then failed=1; fi
    skips=$(skip_lines "$log" | wc -l)
    ROWS+=("$name|$took|$passed|$failed|$skips")
    PASSED_ALL=$((PASSED_ALL + passed)) FAILED_ALL=$((FAILED_ALL + failed))
    printf '%-28s %7s s  ' "$name" "$took"
    grep -E '^test result:' "$log" | tail -n 1 || echo "no result"
    while IFS= read -r line; do SKIPPED+=("$name: $line"); done < <(skip_lines "$log")
    while IFS= read -r line; do SKIPPED+=("$name: $line"); done < <(grep -E '^test .* \.\.\. ignored' "$log" | sed 's/^test //; s/ \.\.\. ignored,\{0,1\}/:/')
    if [ "$status" != 0 ]; then
        FAILED+=("$name")
        sed -n '/^failures:/,$p' "$log" | head -n 150
        grep -q '^failures:' "$log" || tail -n 60 "$log"
        echo "(the whole of it: $log)"
    fi
}

run_programs() {
    # Programs on three nodes under faults are a suite of their own: `run_torture`.
    local folder kind program name threads args=(--show-output --skip torture::)
    # What takes longer than a suite may is run in parts: `run_model`, `run_cuts`.
    [ "$MODE" = long ] && args+=(--include-ignored --skip "$MODEL" --skip "$CUTS")
    while read -r folder kind program; do
        if [ "$MODE" = quick ] && [ "$kind" = test ] && [ "$(basename "$folder")" != tests ]; then continue; fi
        name="$(basename "$folder")"
        [ "$kind" = test ] && name="$name/$(basename "$program" | sed -E 's/-[0-9a-f]{16}$//')"
        [ "$kind" = bench ] && continue
        # Its daemons mostly wait: for timers, disks that hang and cut networks.
        threads=()
        [ "$name" = shorefast/it ] && threads=(--test-threads "$(($(nproc) + 1))")
        suite "$name" "$LOGS/${name//\//-}.log" env -C "$folder" "$program" "${args[@]}" "${threads[@]}"
    done < <(programs | sort)
}

# 3000 seeds on all cores, in three parts of some minutes each (a part of 1000 is also held to what is rare); what they
# came to is printed. A part that ran other than its 1000 seeds fails: a test of another name would pass unrun.
run_simulation() {
    local folder kind program part log
    read -r folder kind program < <(programs | grep '/csv-fs lib ')
    for part in 1/3 2/3 3/3; do
        log="$LOGS/simulation-${part%/*}.log"
        suite "simulation $part" "$log" env -C "$folder" SHOREFAST_SIM_SEEDS=3000 SHOREFAST_SIM_SHARD="$part" \
            "$program" --exact sim::tests::seeds_under_faults_violate_nothing_and_heal --nocapture
        grep -E '^[0-9]+ seeds, ' "$log"
        if ! grep -qE '^1000 seeds, ' "$log"; then
            echo "simulation $part did not run 1000 seeds"
            FAILED+=("simulation $part: not 1000 seeds") FAILED_ALL=$((FAILED_ALL + 1))
        fi
    done
    read -r folder kind program < <(programs | grep '/iscsi lib ')
    log="$LOGS/simulation-iscsi.log"
    suite "simulation iscsi" "$log" env -C "$folder" SHOREFAST_ISCSI_SEEDS=2000 \
        "$program" --exact sim::tests::seeds_under_faults_violate_nothing_and_everything_is_answered --nocapture
    grep -E '^[0-9]+ seeds, ' "$log"
    read -r folder kind program < <(programs | grep '/block lib ')
    log="$LOGS/simulation-paths.log"
    suite "simulation paths" "$log" env -C "$folder" SHOREFAST_PATH_SEEDS=5000 \
        "$program" --exact multipath::tests::seeds_under_faults_violate_nothing_and_everything_is_answered --nocapture
    grep -E '^[0-9]+ seeds, ' "$log"
    read -r folder kind program < <(programs | grep '/replicator lib ')
    log="$LOGS/simulation-replicas.log"
    suite "simulation replicas" "$log" env -C "$folder" SHOREFAST_REPL_SEEDS=5000 SHOREFAST_REPL_FIRST=1 \
        "$program" --exact sim::tests::seeds_under_faults_violate_nothing_and_everything_heals --nocapture
    grep -E '^[0-9]+ seeds' "$log"
}

# A million steps, in parts of two seeds; a part that did not run its 100 000 steps fails: a test of another name would pass unrun.
run_model() {
    local folder kind program part log
    read -r folder kind program < <(programs | grep '/csv-fs lib ')
    for part in {1..10}; do
        log="$LOGS/model-$part.log"
        suite "model $part/10" "$log" env -C "$folder" SHOREFAST_MODEL_SHARD="$part/10" \
            "$program" --exact "$MODEL" --ignored --nocapture
        grep -E '^[0-9]+ steps agree' "$log"
        if ! grep -qE '^100000 steps agree' "$log"; then
            echo "model $part did not run 100000 steps"
            FAILED+=("model $part: not 100000 steps") FAILED_ALL=$((FAILED_ALL + 1))
        fi
    done
}

# A minute of faults, and a coordinator with a defect that must be found; in long mode also twenty minutes in two runs, each with
# a seed of its own. The logs name the seeds.
run_torture() {
    local folder kind program part log skip=()
    # What is run below is not missing here.
    [ "$MODE" = long ] && skip=(--skip "$TORTURE")
    read -r folder kind program < <(programs | grep -E '/shorefast test .*/it-[0-9a-f]{16}$')
    suite torture "$LOGS/torture.log" env -C "$folder" "$program" torture:: "${skip[@]}" --test-threads 1 --nocapture
    grep -E '^seed ' "$LOGS/torture.log"
    [ "$MODE" = long ] || return 0
    for part in 1 2; do
        log="$LOGS/torture-$part.log"
        run_one_long "torture $part/2" "$log" "$folder" "$program" "$TORTURE"
        grep -E '^(seed |[0-9]+ calls on |acknowledged and lost|executed after)' "$log"
    done
}

# Clusters that are taken through every shape of cut.
run_cuts() {
    local folder kind program test
    read -r folder kind program < <(programs | grep -E '/shorefast test .*/it-[0-9a-f]{16}$')
    for test in three"$CUTS"_one_way_too four"$CUTS" five"$CUTS"; do
        run_one_long "cuts of ${test%%_*}" "$LOGS/cuts-${test%%_*}.log" "$folder" "$program" "cuts::of_$test"
    done
}

# run_one_long NAME LOG FOLDER PROGRAM TEST: one long test as a suite. A test that was not there to be run fails.
run_one_long() {
    suite "$1" "$2" env -C "$3" "$4" --exact "$5" --ignored --nocapture
    if ! grep -qE '^running 1 test' "$2"; then
        echo "$1 did not run"
        FAILED+=("$1: not run") FAILED_ALL=$((FAILED_ALL + 1))
    fi
}

run_demo() {
    suite demo "$LOGS/demo.log" "$TARGET/debug/shorefast" demo --report "$LOGS/demo-report.html"
    if [ "$(id -u)" = 0 ]; then run_demo_as_nobody; fi
}

# The same as a user without any right, from a folder that user can read.
run_demo_as_nobody() {
    local log="$LOGS/demo-as-nobody.log" home
    if ! setpriv --reuid=65534 --regid=65534 --clear-groups test -w /dev/fuse 2>/dev/null; then
        SKIPPED+=("demo as nobody: users other than root may not open /dev/fuse here")
        return
    fi
    home=$(mktemp -d) || return
    cp "$TARGET/debug/shorefast" "$home/" && chown -R 65534:65534 "$home"
    suite "demo as nobody" "$log" setpriv --reuid=65534 --regid=65534 --clear-groups \
        env -C "$home" HOME="$home" TMPDIR="$home" ./shorefast demo --report "$home/report.html"
    if grep -q " $home/" /proc/self/mountinfo; then echo "mounts are left below $home" >&2; else rm -rf "$home"; fi
}

report() {
    local row name took passed failed skips required=0 unrun=0
    printf '\n%-28s %9s %8s %8s %8s\n' SUITE SECONDS PASSED FAILED SKIPPED
    for row in "${ROWS[@]}"; do
        IFS='|' read -r name took passed failed skips <<<"$row"
        printf '%-28s %9s %8s %8s %8s\n' "$name" "$took" "$passed" "$failed" "$skips"
    done
    if [ "${#SKIPPED[@]}" -gt 0 ]; then
        printf '\nNot run here, each with its reason:\n'
        for row in "${SKIPPED[@]}"; do
            printf '  %s\n' "$row"
            case "$row" in
            *": long: "*) unrun=$((unrun + 1)) ;;
            *": bench: "*) ;;
            *) required=$((required + 1)) ;;
            esac
        done
    fi
    if [ "$MODE" = long ] && [ "$unrun" -gt 0 ]; then
        printf '\n%s long tests were not run.\n' "$unrun"
        FAILED_ALL=$((FAILED_ALL + unrun))
    fi
    if [ "${REQUIRE_ALL:-0}" = 1 ] && [ "$required" -gt 0 ]; then
        printf '\nREQUIRE_ALL=1, and %s tests were skipped.\n' "$required"
        FAILED_ALL=$((FAILED_ALL + required))
    fi
    printf '\n%s passed, %s failed, %s skipped\n' "$PASSED_ALL" "$FAILED_ALL" "${#SKIPPED[@]}"
    [ "${#FAILED[@]}" = 0 ] || echo "Failed: ${FAILED[*]}"
    [ "$FAILED_ALL" = 0 ] && [ "${#FAILED[@]}" = 0 ]
}

build
run_programs
if [ "$MODE" != quick ]; then run_torture; fi
if [ "$MODE" = long ]; then run_cuts; run_simulation; run_model; fi
if [ "$MODE" != quick ]; then run_demo; fi
report
