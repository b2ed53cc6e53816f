//! What the tests share: the frozen bytes, messages as plain CBOR values, and a writer with foreign habits.

pub mod corpus;
pub mod foreign;
pub mod messages;
pub mod readers;

use ciborium::Value;
use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngSeed, TestRunner};

/// Where this run's randomness starts: `WEIR_SEED`, or anywhere. Printed, so that a failure can be repeated.
pub fn seed() -> u64 {
    let seed = match std::env::var("WEIR_SEED") {
        Ok(text) => text.parse().expect("WEIR_SEED is a number"),
        Err(_) => fastrand::u64(..),
    };
    println!("seed {seed}: WEIR_SEED={seed} repeats this");
    seed
}

/// Holds `property` against `cases` values of `strategy`; it fails by panicking.
pub fn for_all<S: Strategy>(cases: u32, strategy: S, property: impl Fn(S::Value)) {
    let config =
        Config { cases, rng_seed: RngSeed::Fixed(seed()), failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&strategy, |value| {
        property(value);
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}

/// As ciborium writes it: definite lengths, everything in its shortest form.
pub fn cbor(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).expect("writing to a Vec cannot fail");
    bytes
}

/// As ciborium reads it; all of it.
pub fn value(bytes: &[u8]) -> Value {
    let mut rest = bytes;
    let value = ciborium::from_reader(&mut rest).expect("CBOR");
    assert!(rest.is_empty(), "{} bytes after the item", rest.len());
    value
}
