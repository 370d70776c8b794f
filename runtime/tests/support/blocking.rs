//! What the tests of the blocking client share.

use ringcall::{Code, Status, blocking::Reply};

use super::echo::{Blob, EchoBlockingClient};

#[track_caller]
pub(crate) fn assert_status<T>(
    outcome: Result<T, Status>,
    code: Code,
    text: &str,
    not_executed: bool,
) {
    let status = outcome.err().unwrap();
    let seen = (status.code(), status.message(), status.is_not_executed());
    assert_eq!(seen, (code, text, not_executed));
}

#[track_caller]
pub(crate) fn assert_blob(reply: &Reply<Blob>, blob: &Blob) {
    assert_eq!(reply.id, blob.id);
    assert!(*reply.bytes == *blob.bytes, "other bytes of {}", blob.bytes.len());
}

pub(crate) fn grown(client: &mut EchoBlockingClient, id: u64) -> Result<Reply<Blob>, Status> {
    client.grow(&Blob::new(id, 0)).wait()
}
