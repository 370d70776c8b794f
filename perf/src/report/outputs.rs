//! Where a report goes: the terminal, and a file for each format that was asked for.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{Report, csv, destination::Destination, hgrm, hlog, html, json, print, table};
use crate::{args::OutputArgs, error::Failure};

/// Everything that a report is written to. Opened before anything is measured, so that a path that
/// cannot be written costs nobody a run.
pub(crate) struct Outputs {
    terminal: Terminal,
    files: Vec<(Format, Destination)>,
    /// Where files of percentiles go, one for each run.
    percentiles: Vec<Prefix>,
    /// A directory that was not there before; it goes where nothing came into it.
    made: Option<PathBuf>,
}

/// What standard output gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Terminal {
    Table,
    Json,
}

/// A format of a whole report in one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Html,
    Json,
    Csv,
    CoreLoad,
    Hlog,
}

/// What the paths of several files begin with.
struct Prefix(String);

impl Outputs {
    pub(crate) fn open(args: &OutputArgs) -> Result<Self, Failure> {
        let is_stdout = args.json.as_deref() == Some(Path::new("-"));
        let mut outputs = Self {
            terminal: if is_stdout { Terminal::Json } else { Terminal::Table },
            files: Vec::new(),
            percentiles: Vec::new(),
            made: None,
        };
        if let Some(directory) = &args.out {
            outputs.make(directory)?;
            for (format, name) in [
                (Format::Html, "report.html"),
                (Format::Json, "results.json"),
                (Format::Csv, "results.csv"),
                (Format::CoreLoad, "core-load.csv"),
                (Format::Hlog, "latencies.hlog"),
            ] {
                outputs.add(format, &directory.join(name))?;
            }
            outputs.percentiles.push(Prefix::open(directory)?);
        }
        for (format, path) in [
            (Format::Html, &args.html),
            (Format::Json, if is_stdout { &None } else { &args.json }),
            (Format::Csv, &args.csv),
            (Format::Hlog, &args.hlog),
        ] {
            if let Some(path) = path {
                outputs.add(format, path)?;
            }
        }
        if let Some(prefix) = &args.hgrm {
            outputs.percentiles.push(Prefix::open(prefix)?);
        }
        Ok(outputs)
    }

    /// Makes the directory that everything goes to, where it is not there.
    fn make(&mut self, directory: &Path) -> Result<(), Failure> {
        if !directory.is_dir() {
            fs::create_dir_all(directory)
                .map_err(|source| Failure::Write { path: directory.to_owned(), source })?;
            self.made = Some(directory.to_owned());
        }
        Ok(())
    }

    fn add(&mut self, format: Format, path: &Path) -> Result<(), Failure> {
        if path == Path::new("-") {
            return Err(Failure::OnlyJson);
        }
        let destination = Destination::open(path)?;
        let is_same = |other: &Destination| {
            // Of a device, each report gets what it is to get.
            matches!((other, &destination), (Destination::File(a), Destination::File(b)) if a == b)
        };
        if self.files.iter().any(|(_, other)| is_same(other)) {
            return Err(Failure::WrittenTwice { path: path.to_owned() });
        }
        self.files.push((format, destination));
        Ok(())
    }

    /// Writes the report everywhere. Where one place fails the others still get it; the first
    /// failure is given.
    pub(crate) fn write(self, report: &Report) -> Result<(), Failure> {
        self.write_as(report, &table::table(report))
    }

    /// As that, with another table for the terminal than that of a bench.
    pub(crate) fn write_as(self, report: &Report, table: &str) -> Result<(), Failure> {
        let mut written = match self.terminal {
            Terminal::Table => print(table),
            Terminal::Json => print(&json::json(report)),
        };
        for (format, destination) in &self.files {
            let bytes = format
                .bytes_of(report)
                .map_err(|source| Failure::Write { path: destination.path().to_owned(), source });
            written = written.and(bytes.and_then(|bytes| destination.write(&bytes)));
        }
        for prefix in &self.percentiles {
            for (name, text) in hgrm::files(report) {
                let destination = Destination::open(&prefix.path(&name));
                written = written.and(destination.and_then(|it| it.write(text.as_bytes())));
            }
        }
        written
    }
}

impl Drop for Outputs {
    fn drop(&mut self) {
        if let Some(made) = &self.made {
            // Refused where there is something in it.
            let _ = fs::remove_dir(made);
        }
    }
}

impl Format {
    fn bytes_of(self, report: &Report) -> io::Result<Vec<u8>> {
        match self {
            Self::Html => Ok(html::html(report).into_bytes()),
            Self::Json => Ok(json::json(report).into_bytes()),
            Self::Csv => csv::csv(report),
            Self::CoreLoad => csv::core_load(report),
            Self::Hlog => hlog::hlog(report),
        }
    }
}

impl Prefix {
    /// A directory, or what the names of files in one begin with.
    fn open(path: &Path) -> Result<Self, Failure> {
        let text = path.to_str().ok_or_else(|| Failure::Write {
            path: path.to_owned(),
            source: io::ErrorKind::InvalidFilename.into(),
        })?;
        let is_directory = path.is_dir() || text.ends_with('/');
        let prefix = Self(match is_directory {
            true => format!("{}/", text.trim_end_matches('/')),
            false => format!("{text}-"),
        });
        // Whether files can be made there; their names are not known yet.
        Destination::open(&prefix.path("any")).map(|_| prefix)
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("{}{name}.hgrm", self.0))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use crate::report::sample::{self, Directory};

    #[test]
    fn a_directory_gets_every_format_and_nothing_else() {
        let parent = Directory::new("outputs-all");
        let directory = Directory(parent.0.join("made"));
        let args = OutputArgs { out: Some(directory.0.clone()), ..OutputArgs::default() };
        let outputs = Outputs::open(&args).unwrap();
        assert_eq!(directory.names(), Vec::<String>::new());
        outputs.write(&sample::report()).unwrap();
        let expected = [
            "1x16-64B-floor.hgrm",
            "1x16-64B-ringcall.hgrm",
            "64x16-64B-ringcall.hgrm",
            "core-load.csv",
            "latencies.hlog",
            "report.html",
            "results.csv",
            "results.json",
        ];
        assert_eq!(directory.names(), expected);
    }

    #[test]
    fn a_directory_that_was_made_for_no_report_is_removed_and_an_old_one_kept() {
        let parent = Directory::new("outputs-none");
        let made = parent.0.join("made");
        for directory in [&made, &parent.0] {
            let args = OutputArgs { out: Some(directory.clone()), ..OutputArgs::default() };
            drop(Outputs::open(&args).unwrap());
        }
        assert!(!made.exists() && parent.0.exists());
    }

    #[test]
    fn a_place_that_fails_keeps_no_other_from_its_report() {
        let directory = Directory::new("outputs-full");
        let args = OutputArgs {
            html: Some("/dev/full".into()),
            csv: Some(directory.0.join("a.csv")),
            hgrm: Some(directory.0.join("run")),
            ..OutputArgs::default()
        };
        let failure = Outputs::open(&args).unwrap().write(&sample::report()).unwrap_err();
        assert!(failure.to_string().starts_with("cannot write /dev/full: No space left"));
        let expected = [
            "a.csv",
            "run-1x16-64B-floor.hgrm",
            "run-1x16-64B-ringcall.hgrm",
            "run-64x16-64B-ringcall.hgrm",
        ];
        assert_eq!(directory.names(), expected);
    }

    #[test]
    fn a_page_does_not_go_to_standard_output() {
        let args = OutputArgs { html: Some("-".into()), ..OutputArgs::default() };
        assert!(matches!(Outputs::open(&args), Err(Failure::OnlyJson)));
    }

    #[test]
    fn one_path_for_two_formats_is_refused() {
        let directory = Directory::new("outputs-twice");
        let path = Some(directory.0.join("a"));
        fs::write(directory.0.join("a"), "").unwrap();
        let args = OutputArgs { csv: path.clone(), html: path, ..OutputArgs::default() };
        let failure = Outputs::open(&args).err().unwrap().to_string();
        assert!(failure.ends_with("a is to be two reports at once: give each a path of its own"));
    }
}
