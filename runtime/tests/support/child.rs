//! Processes of their own: the test binary again, with less than it usually has.

use std::{
    env,
    process::{Command, Stdio},
};

/// Set where this process is a child of a test.
const CHILD: &str = "RINGCALL_TEST_CHILD";

/// Whether this process is a child of a test. What only a child does is a test that does nothing
/// anywhere else.
pub(crate) fn is_child() -> bool {
    env::var_os(CHILD).is_some()
}

/// Has a command that takes a command line run one test of this binary, as a child.
pub(crate) fn as_child<'a>(command: &'a mut Command, test: &str) -> &'a mut Command {
    command
        .arg(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, "1")
        .stdin(Stdio::null())
}

/// A command that lowers a limit as `ulimit` does, and runs the command line that it is given.
pub(crate) fn limited(option: &str, limit: u64) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("ulimit {option} {limit} && exec \"$0\" \"$@\"")]);
    shell
}
