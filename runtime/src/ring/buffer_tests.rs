//! What buffers of one's own and leases promise, without the kernel.

use super::*;

#[test]
fn buffers_of_ones_own_are_recycled_by_size_up_to_a_limit() {
    let pool = OwnedPool::new(80 * 1024);
    let buffer = pool.take(40_000);
    assert_eq!((buffer.len(), pool.outstanding_bytes()), (65_536, 65_536));
    assert!(buffer.as_ptr().addr().is_multiple_of(4096));
    assert!(buffer.iter().all(|byte| *byte == 0));
    let place = buffer.as_ptr();
    let shared = buffer.share();
    let clone = shared.clone();
    drop(shared);
    assert_eq!((pool.outstanding_bytes(), pool.retained_bytes()), (65_536, 0));
    drop(clone);
    assert_eq!((pool.outstanding_bytes(), pool.retained_bytes()), (0, 65_536));
    assert_eq!(pool.take(65_536).as_ptr(), place);
    drop((pool.take(1), pool.take(8192), pool.take(8000)));
    assert_eq!(pool.retained_bytes(), 65_536 + 4096 + 8192, "what exceeds the limit is freed");
    let small = pool.take(0);
    assert_eq!(small.len(), 4096);
    assert!(small.as_ptr().addr().is_multiple_of(64));
    let huge = pool.take((64 << 20) + 1);
    assert!(huge.len() > 64 << 20);
    drop(huge);
    assert!(pool.retained_bytes() <= 80 * 1024);
    assert!(pool.try_take(isize::MAX as usize).is_err());
    let survivor = pool.take(100);
    drop(pool);
    assert_eq!(survivor.len(), 4096, "a buffer may outlive everything but its pool's memory");
}

#[test]
fn leases_stay_within_their_chunk() {
    let pool = OwnedPool::new(0);
    let mut buffer = pool.take(100);
    buffer[..10].copy_from_slice(b"0123456789");
    let chunk = Chunk::of_owned(buffer.share(), 10);
    assert_eq!(*chunk, *b"0123456789");
    assert_eq!(*Lease::new(&chunk, 2..5), *b"234");
    assert_eq!(*Lease::new(&chunk, 8..50), *b"89");
    assert_eq!(*Lease::new(&chunk, 50..60), *b"");
    #[expect(clippy::reversed_empty_ranges, reason = "a range that is wrong")]
    let reversed = Lease::new(&chunk, 5..2);
    assert_eq!(*reversed, *b"");
    assert!(!Lease::new(&chunk, 0..1).in_pool());
}

#[test]
fn a_detached_body_is_a_copy_or_the_buffer_itself() {
    let pool = OwnedPool::new(1 << 20);
    for len in [0, 1, 16, 1000, 100_000] {
        let mut buffer = pool.take(len + 32);
        let bytes: Vec<u8> = (0..len + 32).map(|at| at as u8).collect();
        buffer[..len + 32].copy_from_slice(&bytes);
        let chunk = Chunk::of_owned(buffer.share(), len + 32);
        let body = Lease::new(&chunk, 32..len + 32);
        let body = Detached::take(body, 16).expect_err("the chunk reads it too");
        let copied = Detached::copy(&body, 16, vec![1; 3]);
        assert_eq!((copied.metadata(), copied.body()), (&bytes[16..32], &bytes[32..]));
        assert!(copied.metadata().as_ptr().addr().is_multiple_of(16));
        let place = body.as_ptr();
        let outstanding = pool.outstanding_bytes();
        drop(chunk);
        let taken = Detached::take(body, 16).expect("nobody else reads it");
        assert!(pool.outstanding_bytes() < outstanding, "the pool has lost it");
        assert_eq!(pool.retained_bytes(), 0);
        assert_eq!((taken.metadata(), taken.body()), (&bytes[16..32], &bytes[32..]));
        assert_eq!(taken.body().as_ptr(), place);
        let elsewhere = std::thread::spawn(move || taken.body().len()).join();
        assert_eq!(elsewhere.unwrap(), len);
    }
    // More metadata than there are bytes before the body is none.
    let chunk = Chunk::of_owned(pool.take(100).share(), 100);
    let detached = Detached::copy(&Lease::new(&chunk, 16..20), 32, Vec::new());
    assert_eq!((detached.metadata().len(), detached.body().len()), (0, 4));
}

#[test]
fn a_detached_view_reads_its_own_bytes_and_no_others() {
    let pool = OwnedPool::new(0);
    let mut buffer = pool.take(16);
    buffer[..4].copy_from_slice(&7_u32.to_le_bytes());
    let chunk = Chunk::of_owned(buffer.share(), 4);
    let detached = || Detached::copy(&Lease::new(&chunk, 0..4), 0, Vec::new());
    let view = DetachedView::<Number>::new(detached()).unwrap();
    let view = std::thread::spawn(move || view).join().unwrap();
    assert_eq!(view.number, 7);
    let short = Detached::copy(&Lease::new(&chunk, 0..3), 0, Vec::new());
    assert!(DetachedView::<Number>::new(short).is_err());
}

#[ringcall::message]
struct Number {
    number: u32,
}
