//! What was kept of the fuzzer's work holds without it, and the seeds are those of the code.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    fs,
    path::{Path, PathBuf},
};

use ringcall_fuzz::{TARGETS, seeds};

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

#[test]
fn every_kept_input_holds() {
    for (name, run) in TARGETS {
        let files = fs::read_dir(corpus(name)).expect("every target has a corpus");
        let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        paths.sort();
        assert!((1..100).contains(&paths.len()), "{name} has {} inputs", paths.len());
        for path in paths {
            // Shown only where the test fails, and the last one is what it failed with.
            println!("{}", path.display());
            run(&fs::read(&path).unwrap());
        }
    }
}

#[test]
fn the_seeds_are_those_that_the_generator_makes() {
    for (target, name, bytes) in seeds::all() {
        let kept = fs::read(corpus(target).join(&name)).unwrap_or_default();
        assert!(kept == bytes, "{target}/{name} differs: run `cargo run --example seeds`");
    }
}
