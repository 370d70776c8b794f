//! `cargo xtask fuzz session`: see `src/session.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringcall_fuzz::session::run(data));
