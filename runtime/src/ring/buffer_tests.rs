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
