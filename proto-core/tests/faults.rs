//! Random operations of both sides over connections that are lost at random: what must hold for every seed.

use farref_conformance::sim::{LIMITS, Played, Random, config, play};
use farref_core::message::Limits;
use farref_core::session::{Config, Host, Micro, Storage};

type Small = Micro<24, 24, 8, 768, 640>;

fn seeds<S: Storage + 'static>(config: Config, seeds: u64) {
    let mut all = Played::default();
    for seed in 0..seeds {
        let played = std::panic::catch_unwind(|| play::<S>(config, Random::new(seed), 300));
        let Ok(played) = played else { panic!("seed {seed}") };
        all.cuts += played.cuts;
        all.calls += played.calls;
    }
    println!("{seeds} seeds, {all:?}");
    assert!(u64::from(all.cuts) > 5 * seeds && all.calls > 20 * seeds);
}

/// LNK-2, LNK-4, CAL-2, REL-1, REF-3: each message takes effect once, each call ends once, tables agree, nothing leaks.
#[test]
fn random_operations_and_cuts_of_hosts() {
    seeds::<Host>(config(LIMITS), 400);
}

/// The same where tables, output and replay are often full (ADM-2, ADM-3, LNK-3).
#[test]
fn random_operations_and_cuts_of_small_devices() {
    let limits = Limits { max_message: 256, imports: 24, answers: 8, call_bytes: 320, handles: 8, levels: 4 };
    seeds::<Small>(Config { out_bytes: 768, store_bytes: 640, ..config(limits) }, 400);
}
