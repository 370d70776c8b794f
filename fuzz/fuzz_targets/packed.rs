//! `cargo xtask fuzz packed`: see `src/packed.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringcall_fuzz::packed::run(data));
