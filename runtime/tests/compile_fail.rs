//! What `#[message]` and `#[service]` refuse, with the errors that users read, and what they take.
//!
//! The errors that rustc words itself can change with its version: run with `TRYBUILD=overwrite`
//! and read the difference.

#[test]
fn a_mistake_is_a_compile_error_at_the_users_line() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/compile_fail/*.rs");
    cases.pass("tests/compile_pass/*.rs");
}
