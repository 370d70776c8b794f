//! Nesting: validation stops at 64 levels, on a stack of any size.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use ringcall_codec::{BodyError, access, limits::MESSAGE_DEPTH_MAX};
use support::{ArchivedNest, Body, Nest, aligned, archive};

/// The archive of `levels` values, each inside the next, written byte by byte.
fn nested(levels: usize) -> Body {
    let mut body = vec![0; 8];
    for _ in 1..levels {
        // `Some`, three bytes of padding, and a pointer to the eight bytes before.
        body.extend([1, 0, 0, 0]);
        body.extend((-12_i32).to_le_bytes());
    }
    aligned(&body)
}

fn levels_of(nest: &ArchivedNest) -> usize {
    let mut levels = 1;
    let mut at = nest;
    while let Some(inner) = at.inner.as_ref() {
        levels += 1;
        at = inner;
    }
    levels
}

/// Validates on a thread with 2 MiB of stack.
fn validate(body: Body) -> Result<usize, BodyError> {
    let thread = std::thread::Builder::new().stack_size(2 << 20);
    thread.spawn(move || access::<Nest>(&body).map(levels_of)).unwrap().join().unwrap()
}

#[test]
fn the_bytes_written_here_are_those_of_the_encoder() {
    for levels in [1, 2, 10] {
        let mut nest = Nest { inner: None };
        for _ in 1..levels {
            nest = Nest { inner: Some(Box::new(nest)) };
        }
        assert_eq!(archive(&nest)[..], nested(levels)[..]);
    }
}

#[test]
fn sixty_four_levels_are_read_and_sixty_five_refused() {
    assert_eq!(MESSAGE_DEPTH_MAX, 64);
    for levels in [1, 2, 63, 64] {
        assert_eq!(validate(nested(levels)), Ok(levels));
    }
    for levels in [65, 66, 1000] {
        assert_eq!(validate(nested(levels)), Err(BodyError::Invalid { body_len: 8 * levels }));
    }
}

#[test]
fn a_body_nested_200_000_deep_does_not_exhaust_the_stack() {
    assert_eq!(validate(nested(200_000)), Err(BodyError::Invalid { body_len: 1_600_000 }));
}

#[test]
fn a_body_that_points_to_itself_is_refused() {
    let mut body = nested(3);
    // Back to its own start.
    body[20..24].copy_from_slice(&(-4_i32).to_le_bytes());
    assert_eq!(validate(body), Err(BodyError::Invalid { body_len: 24 }));
}
