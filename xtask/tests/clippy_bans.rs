//! Clippy reads only the nearest `clippy.toml`, so that of codec has to repeat the workspace's.

#![allow(clippy::expect_used)]

use std::path::Path;

fn bans(path: &str) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = std::fs::read_to_string(root.join(path)).expect("the file exists");
    let bans = text.lines().filter(|line| line.trim_start().starts_with("{ path = "));
    bans.map(|line| line.trim().to_owned()).collect()
}

#[test]
fn codec_repeats_the_bans_of_the_workspace() {
    let workspace = bans("clippy.toml");
    let codec = bans("codec/clippy.toml");
    assert_eq!(workspace.len(), 12);
    for ban in workspace {
        assert!(codec.contains(&ban), "codec/clippy.toml lacks {ban}");
    }
}

#[test]
fn codec_has_no_clock() {
    let codec = bans("codec/clippy.toml").join("\n");
    assert!(codec.contains("std::time::Instant::now"));
    assert!(codec.contains("std::time::SystemTime::now"));
}
