//! `cargo xtask fuzz message`: see `src/message.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringcall_fuzz::message::run(data));
