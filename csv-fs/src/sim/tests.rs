//! Seeds.
use super::*;
use crate::core::rules::Rules;

#[test]
fn one_seed() {
    let seed = std::env::var("SHOREFAST_SIM_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1u64);
    let mut setup = setup_of(seed, Rules::all());
    setup.loud = std::env::var("LOUD").is_ok();
    println!("{setup:?}");
    let out = run_seed(setup);
    if !matches!(out.verdict, Verdict::Good) {
        for l in &out.trace {
            println!("{l}");
        }
    }
    println!(
        "{:?} events {} faults {} reads {} evictions {}",
        out.verdict, out.events, out.faults, out.reads, out.evictions
    );
    println!("{}", out.coverage);
}
