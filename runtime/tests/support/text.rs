//! What errors say.

/// Fails where an error does not say all of these.
#[track_caller]
pub(crate) fn assert_says(error: &str, texts: &[&str]) {
    for text in texts {
        assert!(error.contains(text), "{error:?} does not say {text:?}");
    }
}
