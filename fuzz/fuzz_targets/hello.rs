//! `cargo xtask fuzz hello`: see `src/hello.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringcall_fuzz::hello::run(data));
