//! A service has as many methods as a HELLO lists at most.
//!
//! In a file of its own, as it takes the compiler a while to read that many.

#![allow(clippy::unwrap_used, missing_docs)]

use std::{fmt::Write, fs, path::Path};

use ringcall::limits::HELLO_METHODS_MAX;

/// A program with a service of so many methods.
fn service_of(methods: usize) -> String {
    let mut source = String::from(
        "use ringcall::prelude::*;\n\n#[ringcall::message]\npub struct Empty;\n\n\
         #[ringcall::service]\npub trait Kv {\n",
    );
    for number in 0..methods {
        writeln!(
            source,
            "    async fn get_{number}(\n        &self,\n        cx: &Context,\n        \
             request: Request<'_, Empty>,\n    ) -> Result<Empty, Status>;"
        )
        .unwrap();
    }
    source + "}\n\nfn main() {}\n"
}

#[test]
fn one_method_more_than_a_hello_lists_is_a_compile_error_at_the_services_name() {
    let case = Path::new(env!("CARGO_TARGET_TMPDIR")).join("too_many_methods.rs");
    fs::write(&case, service_of(HELLO_METHODS_MAX + 1)).unwrap();
    let error = format!(
        "error[E0080]: evaluation panicked: the service `Kv` has more methods than the two ends \
         of a connection can compare, which is `ringcall::limits::HELLO_METHODS_MAX`; make it \
         several services\n \
         --> {}:7:11\n  \
           |\n\
         7 | pub trait Kv {{\n  \
           |           ^^ evaluation of `_` failed here\n",
        case.display()
    );
    fs::write(case.with_extension("stderr"), error).unwrap();
    trybuild::TestCases::new().compile_fail(case);
}
