//! `cargo xtask check`: every test that SECURITY.md names exists, and every threat has one.
//!
//! A test is named `crate/file::test`. Its file is found below `crate/tests` or `crate/src`, as
//! `file.rs` or as any file of the folder `file`. Where a threat's test is still to be written its
//! row says so: `not shown yet`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::shell::{Outcome, root};
use crate::source::{Source, is_word};
use crate::unsafe_audit::{collect, unreadable};

/// The document that names tests.
const DOCUMENT: &str = "SECURITY.md";

/// What the last column of a table is called in which each row names what shows it.
const COLUMN: &str = "shown by";

/// What a row says in place of a test that is not there.
const NOT_SHOWN: &str = "not shown yet";

/// Checks SECURITY.md against the tests of the workspace.
///
/// Fails with one line for each test that is not there, and for each row that names none.
pub(crate) fn check() -> Outcome {
    let path = root().join(DOCUMENT);
    let text = fs::read_to_string(&path).map_err(|error| unreadable(&path, &error))?;
    let names = names_in(&text);
    let mut findings = rows_that_show_nothing(&text);
    for name in &names {
        if !tests_of(name.folder, name.file)?.contains(name.test) {
            findings
                .push(format!("there is no test `{}/{}::{}`", name.folder, name.file, name.test));
        }
    }
    if findings.is_empty() {
        println!("security: {} tests are named, and all are there", names.len());
        return Ok(());
    }
    Err(format!("{DOCUMENT}: {} places are wrong\n  {}", findings.len(), findings.join("\n  ")))
}

/// The name of a test: `folder/file::test`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Name<'a> {
    folder: &'a str,
    file: &'a str,
    test: &'a str,
}

impl<'a> Name<'a> {
    /// Reads what stands between two backticks; none where it is something else.
    fn parse(text: &'a str) -> Option<Self> {
        let (path, test) = text.split_once("::")?;
        let (folder, file) = path.split_once('/')?;
        let is_name = |part: &str| !part.is_empty() && part.chars().all(is_word);
        [folder, file, test].into_iter().all(is_name).then_some(Self { folder, file, test })
    }
}

/// Every test that a text names, once.
fn names_in(text: &str) -> BTreeSet<Name<'_>> {
    text.lines()
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .filter_map(Name::parse)
        .collect()
}

/// What is wrong with the tables of threats: the rows without a test.
fn rows_that_show_nothing(text: &str) -> Vec<String> {
    let (mut in_table, mut findings) = (false, Vec::new());
    for (line, row) in (1..).zip(text.lines()) {
        let cells = row.trim().trim_matches('|');
        let last = cells.rsplit('|').next().unwrap_or_default().trim();
        if !row.starts_with('|') {
            in_table = false;
        } else if last == COLUMN {
            in_table = true;
        } else if in_table && !cells.trim_start().starts_with('-') {
            let shows = !names_in(last).is_empty() || last.contains(NOT_SHOWN);
            if !shows {
                findings.push(format!("line {line} names no test and does not say `{NOT_SHOWN}`"));
            }
        }
    }
    findings
}

/// The tests in the files that a name can mean.
fn tests_of(folder: &str, file: &str) -> Result<BTreeSet<String>, String> {
    let mut files: Vec<PathBuf> = Vec::new();
    for part in ["tests", "src"] {
        let base = root().join(folder).join(part);
        let (one, many) = (base.join(file).with_extension("rs"), base.join(file));
        if one.is_file() {
            files.push(one);
        }
        if many.is_dir() {
            collect(&many, &mut files)?;
        }
    }
    let mut tests = BTreeSet::new();
    for file in files {
        tests.extend(tests_in(&read(&file)?));
    }
    Ok(tests)
}

fn read(file: &Path) -> Result<String, String> {
    fs::read_to_string(file).map_err(|error| unreadable(file, &error))
}

/// The names of the test functions in a Rust file.
fn tests_in(text: &str) -> BTreeSet<String> {
    let code = Source::parse(text).code;
    let functions = code.split("#[test]").skip(1).filter_map(|after| after.split("fn ").nth(1));
    let names = functions.map(|function| function.chars().take_while(|c| is_word(*c)).collect());
    names.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_test_that_the_document_names_is_there() {
        assert_eq!(check(), Ok(()));
    }

    #[test]
    fn a_name_is_a_folder_a_file_and_a_test() {
        let name = |folder, file, test| Some(Name { folder, file, test });
        assert_eq!(Name::parse("codec/header::a_test"), name("codec", "header", "a_test"));
        for text in ["codec/src/header.rs", "crate::a", "codec/::a", "a/b::c()", "a/b::c::d", "a"] {
            assert_eq!(Name::parse(text), None, "{text}");
        }
        let text = "Named `crate/file::test`: `a` and `c/f::one`, `c/f::two`.\n`c/f::one`";
        let names: Vec<_> = names_in(text).into_iter().map(|name| name.test).collect();
        assert_eq!(names, ["one", "two", "test"]);
    }

    #[test]
    fn tests_are_found_in_code_and_not_in_comments() {
        let text = "#[test]\n#[ignore = \"fn no() takes long\"]\nfn one() {}\n// #[test]\nfn two() {}\n\
                    mod t {\n    #[test]\n    fn three() { let a = \"#[test] fn four()\"; }\n}\n";
        assert_eq!(tests_in(text).into_iter().collect::<Vec<_>>(), ["one", "three"]);
    }

    #[test]
    fn a_file_of_a_folder_is_found_too() {
        let has = |folder, file, test: &str| tests_of(folder, file).is_ok_and(|t| t.contains(test));
        assert!(has("xtask", "security", "a_file_of_a_folder_is_found_too"));
        assert!(has("runtime", "ring", "leases_stay_within_their_chunk"));
        assert!(has("codec", "sim", "a_few_hundred_seeds_keep_every_promise"));
        assert!(!has("codec", "sim", "there_is_no_such_test"));
        assert!(!has("codec", "there_is_no_such_file", "a"));
    }

    #[test]
    fn a_row_without_a_test_is_found() {
        let table = |row: &str| format!("| threat | shown by |\n|---|---|\n{row}\n\n| a | b |\n");
        for row in ["| x | `c/f::t` |", "| x | not shown yet |"] {
            assert_eq!(rows_that_show_nothing(&table(row)), [""; 0], "{row}");
        }
        for row in ["| x | |", "| `c/f::t` | a test |"] {
            assert_eq!(rows_that_show_nothing(&table(row)).len(), 1, "{row}");
        }
    }
}
