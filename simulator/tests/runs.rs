//! Runs of the simulator: repeated exactly, and without a fault.

use simulator::machine;

#[test]
fn a_seed_repeats_a_run_exactly() {
    for seed in [3, 5] {
        let [first, second] = [(); 2].map(|()| machine::run(seed, 3_000));
        assert_eq!(first.fault, None, "seed {seed}");
        let differs = first.log.iter().zip(&second.log).position(|(a, b)| a != b);
        assert_eq!(differs.map(|at| (&first.log[at], &second.log[at])), None, "seed {seed}");
        assert_eq!((first.log.len(), first.digest), (second.log.len(), second.digest), "seed {seed}");
        assert!(first.acknowledged > 100 && first.arrivals > 100, "seed {seed}: something happened: {first:?}");
    }
}

#[test]
fn seeds_differ() {
    assert_ne!(machine::run(1, 300).digest, machine::run(2, 300).digest);
}
