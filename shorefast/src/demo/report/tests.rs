use super::*;

fn node(n: u8) -> Node {
    Node::new(n).expect("a node")
}

/// Throughput of a made-up demo of forty seconds: node 2 loses its path, node 3 is killed.
fn samples() -> Vec<Sample> {
    let mut samples = Vec::new();
    for t_ms in (200..=40_000).step_by(200) {
        for n in 1..=3 {
            let (route, mut rate) = match (n, t_ms) {
                (2, 9_000..=9_600) => (Some(Route::Draining), 0.0),
                (2, 9_601..=18_000) => (Some(Route::BlockRedirected), 31e6),
                (3, 27_000..=32_000) => (None, 0.0),
                (_, 27_000..=27_800) => (Some(Route::Direct), 40e6),
                _ => (Some(Route::Direct), 62e6),
            };
            rate *= 0.8 + 0.2 * (((t_ms / 200 * 7919 + u64::from(n) * 31) % 17) as f64 / 17.0);
            samples.push(Sample { t_ms, node: node(n), route, bytes_per_s: rate });
        }
    }
    samples
}

fn marks() -> Vec<Mark> {
    let mark = |t_ms, n: Option<u8>, kind, text: &str| Mark { t_ms, node: n.map(node), kind, text: text.to_owned() };
    vec![
        mark(500, Some(1), MarkKind::Done, "a tree of 560 files is copied in"),
        mark(8_800, Some(2), MarkKind::Done, "its disk hangs"),
        mark(9_600, Some(2), MarkKind::Reported, "block-redirected: <no-path>"),
        mark(17_900, Some(2), MarkKind::Done, "its disk heals"),
        mark(22_000, None, MarkKind::Done, "the coordinator moves to node-3"),
        mark(27_000, Some(3), MarkKind::Done, "SIGKILL"),
        mark(27_300, Some(1), MarkKind::Reported, "takes office, epoch 3"),
    ]
}

fn phase(name: &str, from_ms: u64, to_ms: u64, ops: [u64; 3], third: Option<u64>) -> Phase {
    let floor = |n| if n == 3 { third } else { Some(100) };
    let writer = |(verified_ops, n)| WriterPhase { node: node(n), verified_ops, floor: floor(n) };
    Phase { name: name.to_owned(), from_ms, to_ms, writers: ops.into_iter().zip(1..).map(writer).collect() }
}

fn stall(n: u8, longest_ms: u64, at_ms: u64, phase: &str) -> Stall {
    Stall { node: node(n), longest_ms, at_ms, phase: phase.to_owned() }
}

fn moved(n: u8, route: Route, read: u64, written: u64) -> RouteBytes {
    RouteBytes { node: node(n), route, read_bytes: read << 20, written_bytes: written << 20 }
}

fn check(name: &str, detail: &str) -> Check {
    Check { name: name.to_owned(), ok: true, detail: detail.to_owned() }
}

fn sample() -> DemoReport {
    let dead = FailedCalls {
        node: node(3),
        phase: "kill".to_owned(),
        call: "pwrite".to_owned(),
        error: "ENOTCONN".to_owned(),
        count: 41,
        expected: true,
    };
    DemoReport {
        started: WallTime(1_767_225_599_000),
        took_ms: 40_600,
        nodes: vec![node(1), node(2), node(3)],
        samples: samples(),
        marks: marks(),
        phases: vec![
            phase("tree", 500, 4_000, [300, 290, 280], Some(100)),
            phase("disk hangs", 8_800, 17_900, [900, 410, 880], Some(100)),
            phase("move", 22_000, 25_000, [500, 480, 510], Some(100)),
            phase("kill", 27_000, 33_000, [700, 690, 12], None),
        ],
        stalls: vec![stall(1, 410, 27_500, "kill"), stall(2, 830, 9_640, "disk hangs"), stall(3, 120, 22_100, "move")],
        bytes_by_route: vec![
            moved(1, Route::Direct, 900, 700),
            moved(2, Route::Direct, 600, 400),
            moved(2, Route::BlockRedirected, 90, 80),
            moved(2, Route::FileRedirected, 0, 0),
        ],
        failed_calls: vec![dead],
        bytes_verified: 3 << 30,
        faults: Vec::new(),
        checks: vec![
            check("no call failed on a living node", "0 of 7411"),
            check("every writer did 100 operations in every phase", ""),
        ],
        notes: vec!["A mount does not outlive its daemon yet.".to_owned()],
    }
}

#[test]
fn a_report_is_ok_only_if_every_check_held() {
    let mut report = sample();
    assert!(report.ok());
    report.checks[1].ok = false;
    assert!(!report.ok());
    assert!(terminal(&report).contains("FAIL every writer") && page(&report).contains("Not all of it held"));
}

#[test]
fn a_writer_below_its_floor_is_shown_and_a_killed_nodes_writer_has_none() {
    let mut report = sample();
    report.phases[0].writers[1].verified_ops = 99;
    let text = terminal(&report);
    assert!(text.contains("node-2 99 (too few)") && text.contains("node-3 12\n"), "{text}");
}

#[test]
fn failures_of_a_killed_node_are_shown_and_not_counted() {
    let mut report = sample();
    assert_eq!(report.unexpected_failures(), 0);
    report.failed_calls[0].expected = false;
    assert_eq!(report.unexpected_failures(), 41);
    assert!(terminal(&sample()).contains("ENOTCONN  41     its daemon was killed"), "{}", terminal(&sample()));
}

#[test]
fn the_page_escapes_what_nodes_say_and_loads_nothing() {
    let html = page(&sample());
    assert!(html.contains("&lt;no-path&gt;") && !html.contains("<no-path>"));
    for outside in ["http://", "https://", "src=", "url(", "@import", "<script"] {
        assert!(!html.contains(outside), "{outside} in the page");
    }
}

#[test]
fn the_chart_shows_each_route_and_each_mark_once() {
    let html = page(&sample());
    let count = |what: &str| html.matches(what).count();
    assert_eq!(count("class=\"area block\""), 1);
    assert_eq!(count("class=\"area draining\""), 1);
    assert_eq!(count("class=\"area away\""), 1);
    assert_eq!(count("class=\"area direct\""), 5);
    assert_eq!(count("<line class=\"mark\""), 5);
    assert_eq!(count("class=\"report\""), 2);
    assert!(!html.contains("NaN") && !html.contains("inf\""));
    // What a person looks at after a change of the page.
    if let Some(path) = std::env::var_os("SHOREFAST_SAMPLE_REPORT") {
        std::fs::write(path, html).expect("writes the sample");
    }
}

#[test]
fn every_phase_has_its_name_in_the_chart_however_short_it_is() {
    let mut report = sample();
    let names = ["disk hangs", "disk heals", "planned move", "SIGKILL", "node is back", "verify"];
    // As on a slow machine, where the shortest phase of 2.5 s stands in a demo of nearly two minutes.
    let begins = (0..).step_by(900);
    report.phases = names.iter().zip(begins).map(|(name, t)| phase(name, t, t + 900, [1, 1, 1], None)).collect();
    let html = page(&report);
    for name in names {
        assert!(html.contains(&format!(">{name}</text>")), "{name} has no label");
    }
}

#[test]
fn an_idle_direct_route_is_a_line_and_an_idle_other_one_is_still_seen() {
    let drawn = |route| {
        let mut report = sample();
        for sample in &mut report.samples {
            (sample.route, sample.bytes_per_s) = (route, 0.0);
        }
        let html = page(&report);
        let path =
            html.split("class=\"area ").nth(1).and_then(|p| p.split(" d=\"").nth(1)).expect("an area").to_owned();
        let heights: std::collections::BTreeSet<String> = path
            .split('"')
            .next()
            .expect("a path")
            .split(['M', 'L', 'Z'])
            .filter_map(|point| point.split(' ').nth(1).map(str::to_owned))
            .collect();
        heights.len()
    };
    assert_eq!((drawn(Some(Route::Direct)), drawn(Some(Route::BlockRedirected))), (1, 2));
}

#[test]
fn marks_are_explained_below_the_chart_and_counts_have_separators() {
    let mut report = sample();
    report.phases[0].writers[0].verified_ops = 12_345;
    let html = page(&report);
    assert!(html.contains("<b>5</b> node-3: SIGKILL"), "{html}");
    assert!(html.contains(">12,345<") && terminal(&report).contains("node-1 12,345"));
}

#[test]
fn what_happened_is_told_once() {
    let report = sample();
    assert!(story(&report.marks).contains("node-3: SIGKILL") && !terminal(&report).contains("node-3: SIGKILL"));
}

#[test]
fn an_empty_report_still_renders() {
    let empty = DemoReport {
        started: WallTime(0),
        took_ms: 0,
        nodes: vec![node(1)],
        samples: Vec::new(),
        marks: Vec::new(),
        phases: Vec::new(),
        stalls: Vec::new(),
        bytes_by_route: Vec::new(),
        failed_calls: Vec::new(),
        bytes_verified: 0,
        faults: Vec::new(),
        checks: Vec::new(),
        notes: Vec::new(),
    };
    assert!(page(&empty).ends_with("</html>\n") && !page(&empty).contains("NaN"));
    assert!(terminal(&empty).contains("0 B verified"));
}

#[test]
fn a_fault_that_did_not_go_as_it_had_to_fails_the_demo_and_is_shown_with_what_was_seen() {
    let seen = |ok| FaultSeen {
        fault: "<both> storage networks cut".into(),
        seen: vec!["paused".into(), "direct".into()],
        ok,
    };
    let mut report = DemoReport { faults: vec![seen(true)], ..sample() };
    assert!(report.ok() && terminal(&report).contains("paused") && terminal(&report).contains("direct"));
    assert!(page(&report).contains("&lt;both&gt; storage networks cut") && page(&report).contains("paused<br>direct"));
    report.faults.push(seen(false));
    assert!(!report.ok() && terminal(&report).contains("FAIL") && page(&report).contains("FAILED"));
}
