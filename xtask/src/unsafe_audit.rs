//! `cargo xtask unsafe`: unsafe code stands in two places only, and says there why it is sound.
//!
//! The compiler keeps `unsafe` out of the crates that forbid it; this keeps it out of the rest of
//! the crate that may use it, and out of tests and tools, where an `allow` would let it in. Clippy
//! asks for a comment on each block; this asks for it on unsafe implementations, attributes and
//! foreign blocks too. What an `unsafe fn` asks of its caller is clippy's `missing_safety_doc`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::commands::no_arguments;
use crate::shell::{Outcome, root};
use crate::source::{Source, is_word};

/// Where unsafe code may stand: memory shared with the kernel, and futures polled in place.
const ALLOWED: [&str; 2] = ["runtime/src/ring", "runtime/src/slots.rs"];

/// How many lines above `unsafe` its comment may end.
const COMMENT_DISTANCE_MAX: usize = 6;

/// Checks every Rust file of the workspace.
///
/// Fails with one line for each place that breaks a rule.
pub(crate) fn audit(arguments: &[String]) -> Outcome {
    no_arguments(arguments)?;
    let mut files = Vec::new();
    collect(root(), &mut files)?;
    files.sort();
    let mut findings = Vec::new();
    for file in &files {
        let text = fs::read_to_string(file).map_err(|error| unreadable(file, &error))?;
        findings.extend(audit_file(file.strip_prefix(root()).unwrap_or(file), &text));
    }
    if findings.is_empty() {
        println!("unsafe: {} files keep the rules", files.len());
        return Ok(());
    }
    Err(format!("{} places break the rules\n{}", findings.len(), findings.join("\n")))
}

/// Finds the Rust files below a folder, leaving out what is built or hidden.
pub(crate) fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Outcome {
    for entry in fs::read_dir(folder).map_err(|error| unreadable(folder, &error))? {
        let entry = entry.map_err(|error| unreadable(folder, &error))?;
        let path = entry.path();
        let kind = entry.file_type().map_err(|error| unreadable(&path, &error))?;
        let name = entry.file_name();
        if kind.is_dir() {
            if name != "target" && !name.as_encoded_bytes().starts_with(b".") {
                collect(&path, files)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

pub(crate) fn unreadable(path: &Path, error: &std::io::Error) -> String {
    format!("cannot read {}: {error}", path.display())
}

/// The findings in one file, by its path from the root of the workspace.
fn audit_file(path: &Path, text: &str) -> Vec<String> {
    let source = Source::parse(text);
    let allowed = ALLOWED.iter().any(|allowed| path.starts_with(allowed));
    let explained = explained_lines(&source);
    let mut findings = Vec::new();
    for (line, after) in unsafe_places(&source.code) {
        let at = format!("  {}:{}", path.display(), line + 1);
        if !allowed {
            findings.push(format!("{at}: `unsafe` outside {}", ALLOWED.join(" and ")));
        } else if !declares(after) {
            let from = line.saturating_sub(COMMENT_DISTANCE_MAX);
            if !explained[from..=line].contains(&true) {
                findings.push(format!("{at}: `unsafe` without a `// SAFETY:` comment above it"));
            }
        }
    }
    findings
}

/// Each `unsafe` of the code: its line, counted from 0, and the code after it.
fn unsafe_places(code: &str) -> impl Iterator<Item = (usize, &str)> {
    code.match_indices("unsafe").filter_map(|(at, word)| {
        let (before, after) = (&code[..at], &code[at + word.len()..]);
        let alone = !before.ends_with(is_word) && !after.starts_with(is_word);
        alone.then(|| (before.matches('\n').count(), after))
    })
}

/// Whether what follows `unsafe` only declares: the duty to explain is the caller's or the
/// implementor's.
fn declares(after: &str) -> bool {
    let after = after.trim_start();
    let after = after.strip_prefix("extern").map_or(after, str::trim_start);
    ["fn", "trait"]
        .iter()
        .any(|keyword| after.strip_prefix(keyword).is_some_and(|rest| !rest.starts_with(is_word)))
}

/// For each line, whether a `SAFETY:` comment stands on it, or one that began above goes on.
fn explained_lines(source: &Source) -> Vec<bool> {
    let mut explained = Vec::with_capacity(source.comments.len());
    let mut code = source.code.split('\n');
    for comment in &source.comments {
        let comment_alone = code.next().is_none_or(|code| code.trim().is_empty());
        let goes_on = comment_alone && !comment.is_empty() && explained.last() == Some(&true);
        explained.push(goes_on || comment.contains("SAFETY:"));
    }
    explained
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> usize {
        audit_file(Path::new(path), text).len()
    }

    const RING: &str = "runtime/src/ring/pool.rs";

    #[test]
    fn unsafe_code_outside_its_places_is_found() {
        let text = "fn f() {\n    // SAFETY: fine\n    unsafe { g() }\n}\n";
        for path in ["runtime/src/shard.rs", "runtime/src/ring_stats.rs", "codec/src/lib.rs"] {
            let found = audit_file(Path::new(path), text);
            assert_eq!(found.len(), 1, "{path}");
            assert!(found[0].starts_with(&format!("  {path}:3: ")), "{found:?}");
        }
        for path in [RING, "runtime/src/ring/mod.rs", "runtime/src/slots.rs"] {
            assert_eq!(findings(path, text), 0, "{path}");
        }
    }

    #[test]
    fn a_declaration_outside_its_places_is_found_too() {
        assert_eq!(findings("perf/src/main.rs", "unsafe fn f() {}\nunsafe impl T for X {}"), 2);
        assert_eq!(findings("macros/src/lib.rs", "quote! { unsafe { f() } }"), 1);
    }

    #[test]
    fn the_word_in_comments_strings_and_names_is_no_code() {
        let text = "//! unsafe { }\n#![deny(unsafe_code)]\nconst A: &str = \"unsafe { }\";\n\
                    mod unsafe_audit; /* unsafe */ fn not_unsafe() {}\nlet r = r#\"unsafe {\"#;\n";
        assert_eq!(findings("runtime/src/lib.rs", text), 0);
        assert_eq!(findings(RING, text), 0);
    }

    #[test]
    fn a_block_without_a_comment_is_found() {
        assert_eq!(findings(RING, "fn f() {\n    unsafe { g() }\n}\n"), 1);
        assert_eq!(findings(RING, "// It is safe.\nfn f() { unsafe { g() } }\n"), 1);
        assert_eq!(findings(RING, "fn f() {\n    unsafe { g() }\n    // SAFETY: late\n}\n"), 1);
        assert_eq!(findings(RING, "const A: &str = \"SAFETY: no comment\";\nunsafe { g() }"), 1);
    }

    #[test]
    fn a_comment_counts_up_to_six_lines_above() {
        let text =
            |between: usize| format!("// SAFETY: x\n{}unsafe {{ g() }}", "h();\n".repeat(between));
        assert_eq!(findings(RING, &text(0)), 0);
        assert_eq!(findings(RING, &text(5)), 0);
        assert_eq!(findings(RING, &text(6)), 1);
    }

    #[test]
    fn a_long_comment_counts_from_its_end() {
        let list = "// - the caller keeps this true\n".repeat(20);
        assert_eq!(findings(RING, &format!("// SAFETY:\n{list}unsafe {{ g() }}")), 0);
        assert_eq!(findings(RING, &format!("// SAFETY:\n{list}\n{list}unsafe {{ g() }}")), 1);
    }

    #[test]
    fn implementations_attributes_and_foreign_blocks_need_a_comment() {
        for item in ["unsafe impl Send for X {}", "#[unsafe(no_mangle)]", "unsafe extern \"C\" {}"]
        {
            assert_eq!(findings(RING, item), 1, "{item}");
            assert_eq!(findings(RING, &format!("// SAFETY: x\n{item}")), 0, "{item}");
        }
    }

    #[test]
    fn declarations_leave_the_explaining_to_their_users() {
        for item in ["unsafe fn f() {}", "unsafe trait T {}", "unsafe extern \"C\" fn f() {}"] {
            assert_eq!(findings(RING, item), 0, "{item}");
        }
        assert_eq!(findings(RING, "struct V { drop: unsafe\n    fn(*mut u8) }"), 0);
        assert_eq!(findings(RING, "unsafe fnord!()"), 1);
    }
}
