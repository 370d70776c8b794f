//! The ids of methods on the wire: FNV-1a (32 bits) of the name, as `docs/wire.md` defines it.

/// The id of the method named `name` (`Kv.get`) where `#[rpc(id = ...)]` gives none.
pub(crate) fn of(name: &str) -> u32 {
    name.bytes().fold(FNV_OFFSET, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(FNV_PRIME))
}

const FNV_OFFSET: u32 = 0x811c_9dc5;
const FNV_PRIME: u32 = 0x0100_0193;

#[cfg(test)]
mod tests {
    use super::of;

    #[test]
    fn the_hash_is_fnv_1a() {
        // From the authors' test suite, test_fnv.c of the reference implementation.
        assert_eq!(of(""), 0x811c_9dc5);
        assert_eq!(of("a"), 0xe40c_292c);
        assert_eq!(of("b"), 0xe70c_2de5);
        assert_eq!(of("foobar"), 0xbf9c_f968);
    }

    #[test]
    fn the_service_is_part_of_the_name() {
        assert_ne!(of("Kv.get"), of("Store.get"));
    }
}
