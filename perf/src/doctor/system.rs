//! The files in which the kernel shows how it is set, under a root that tests choose.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::parse::{self, CoreList};

/// Longest file that is read, in bytes: those of the kernel are a few lines.
const TEXT_MAX: usize = 4 << 20;

/// The system whose files stand under a root.
pub(super) struct System {
    root: PathBuf,
}

impl System {
    pub(super) fn at(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The text of a file; none where it cannot be read.
    pub(super) fn text(&self, path: &str) -> Option<String> {
        let bytes = fs::read(self.root.join(path)).ok()?;
        let bytes = bytes.get(..bytes.len().min(TEXT_MAX)).unwrap_or_default();
        Some(String::from_utf8_lossy(bytes).into_owned())
    }

    /// The text of a file of one line; none where it cannot be read or is empty.
    pub(super) fn line(&self, path: &str) -> Option<String> {
        Some(self.text(path)?.trim().to_owned()).filter(|text| !text.is_empty())
    }

    /// A number that stands alone in a file.
    pub(super) fn number(&self, path: &str) -> Option<u64> {
        self.line(path)?.parse().ok()
    }

    /// Cores as the kernel lists them, `0-3,8`; none where it cannot be read.
    pub(super) fn cores(&self, path: &str) -> Option<Vec<usize>> {
        let CoreList(cores) = parse::cores(&self.line(path)?).ok()?;
        Some(cores)
    }

    /// The names in a directory, in order; none where it cannot be read.
    pub(super) fn names(&self, path: &str) -> Option<Vec<String>> {
        let entries = fs::read_dir(self.root.join(path)).ok()?.flatten();
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        Some(names)
    }

    pub(super) fn has(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }

    /// The name of what a link leads to.
    pub(super) fn target_name(&self, path: &str) -> Option<String> {
        let target = fs::canonicalize(self.root.join(path)).ok()?;
        Some(target.file_name()?.to_string_lossy().into_owned())
    }
}

/// Cores as people write them: `0-3,8`.
pub(super) fn ranges(cores: &[usize]) -> String {
    let mut cores = cores.to_vec();
    cores.sort_unstable();
    cores.dedup();
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for core in cores {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == core => *last = core,
            _ => ranges.push((core, core)),
        }
    }
    let text = |(first, last): (usize, usize)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    ranges.into_iter().map(text).collect::<Vec<_>>().join(",")
}

/// Cores as a mask of the kernel: hexadecimal, in groups of 32 bits.
pub(super) fn mask(cores: &[usize]) -> String {
    let groups = cores.iter().max().map_or(1, |core| core / 32 + 1);
    let group = |index: usize| {
        let bit = |core: &usize| if core / 32 == index { 1_u32 << (core % 32) } else { 0 };
        cores.iter().map(bit).fold(0, |mask, bit| mask | bit)
    };
    let mut text = format!("{:x}", group(groups - 1));
    for index in (0..groups - 1).rev() {
        text += &format!(",{:08x}", group(index));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{mask, ranges};

    #[test]
    fn cores_are_written_as_ranges() {
        assert_eq!(ranges(&[3, 1, 2, 8, 1]), "1-3,8");
        assert_eq!(ranges(&[5]), "5");
        assert_eq!(ranges(&[]), "");
    }

    #[test]
    fn cores_are_written_as_a_mask() {
        assert_eq!(mask(&[0, 1, 4]), "13");
        assert_eq!(mask(&[0, 33]), "2,00000001");
        assert_eq!(mask(&[]), "0");
    }
}
