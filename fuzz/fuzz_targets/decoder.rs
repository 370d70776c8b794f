//! `cargo xtask fuzz decoder`: see `src/decoder.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringcall_fuzz::decoder::run(data));
