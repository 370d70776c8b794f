//! Starting other programs, always from the root of the workspace and always shown.

use std::fmt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// What a command of xtask ends with: nothing, or one message for the user.
pub(crate) type Outcome = Result<(), String>;

/// The root of the workspace.
pub(crate) fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// A program to start, with its arguments.
pub(crate) struct Step(Command);

/// A step that is `cargo` with these arguments: the same cargo that runs xtask.
pub(crate) fn cargo<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Step {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(arguments).current_dir(root());
    Step(command)
}

/// A step that is a program with these arguments, found as a shell finds it.
pub(crate) fn program<'a>(name: &str, arguments: impl IntoIterator<Item = &'a str>) -> Step {
    let mut command = Command::new(name);
    command.args(arguments).current_dir(root());
    Step(command)
}

/// A step that is a script of this workspace, by its path from the root.
pub(crate) fn script(path: &str) -> Step {
    let mut command = Command::new(root().join(path));
    command.current_dir(root());
    Step(command)
}

impl Step {
    /// Adds an environment variable.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.0.env(name, value);
        self
    }

    /// Adds arguments.
    pub(crate) fn args(mut self, arguments: &[String]) -> Self {
        self.0.args(arguments);
        self
    }

    /// Shows the step and runs it to its end; its output goes to the user.
    ///
    /// Fails when the program cannot be started, or ends with another exit code than 0.
    pub(crate) fn run(mut self) -> Outcome {
        eprintln!("$ {self}");
        let status = self.0.status().map_err(|error| self.not_started(&error))?;
        if status.success() { Ok(()) } else { Err(format!("`{self}` failed ({status})")) }
    }

    /// Runs the step with no input and keeps what it prints, whatever its exit code.
    ///
    /// Fails when the program cannot be started.
    pub(crate) fn capture(mut self) -> Result<Output, String> {
        self.0.stdin(Stdio::null());
        self.0.output().map_err(|error| self.not_started(&error))
    }

    fn not_started(&self, error: &std::io::Error) -> String {
        format!("`{self}` could not be started: {error}")
    }
}

impl fmt::Display for Step {
    /// The step as a line of a shell (without quoting: it is for eyes only).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in self.0.get_envs() {
            if let Some(value) = value {
                write!(f, "{}='{}' ", name.display(), value.display())?;
            }
        }
        let program = Path::new(self.0.get_program());
        let program = program.strip_prefix(root()).unwrap_or(program);
        match program.file_name().filter(|_| program.is_absolute()) {
            Some(name) => write!(f, "{}", name.display())?,
            None => write!(f, "{}", program.display())?,
        }
        for argument in self.0.get_args() {
            write!(f, " {}", argument.display())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_shown_as_it_would_be_typed() {
        let step = cargo(["doc", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings");
        assert_eq!(step.to_string(), "RUSTDOCFLAGS='-D warnings' cargo doc --no-deps");
        assert_eq!(script(".ci/run").to_string(), ".ci/run");
    }

    #[test]
    fn a_program_that_is_missing_is_an_error_that_names_it() {
        let error = script("no-such-program").run().expect_err("it does not exist");
        assert!(error.starts_with("`no-such-program` could not be started"), "{error}");
    }
}
