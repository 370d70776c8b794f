//! What names an operation, and why nobody guesses it.

use std::{cell::RefCell, fmt, fs::File, io, io::Read};

use ringcall_codec::{Code, Status};

/// Names an operation; a message, so that it travels in those of the service.
///
/// Who has it may ask for the operation, read its result and cancel it: there is no other check.
/// The 128 bits of the secret are the kernel's random numbers. So who was not given a token cannot
/// find one by trying, nor work one out from any number of others: callers of one service are kept
/// from each other's operations. It does not protect against who reads it on its way, or in a log;
/// its `Debug` output leaves the secret out. Where callers are known, a service that wants an
/// operation to be its starter's alone keeps the starter beside it.
#[ringcall::message]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token {
    /// Number of the shard that the operation is on.
    pub shard: u16,
    /// What is not to be guessed.
    pub secret: u128,
}

impl From<&ArchivedToken> for Token {
    fn from(token: &ArchivedToken) -> Self {
        Self { shard: token.shard.to_native(), secret: token.secret.to_native() }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("shard", &self.shard).finish_non_exhaustive()
    }
}

/// Where secrets come from: the kernel, for each of them.
///
/// Not std's `RandomState`, whose seeds and hashes make no promise of being hard to guess; and not
/// a generator of our own, which would have a state to lose.
#[derive(Default)]
pub(super) struct Secrets(RefCell<Option<File>>);

impl Secrets {
    /// A secret that was never given before, and that nothing tells of.
    pub(super) fn next(&self) -> Result<u128, Status> {
        self.read().map_err(|error| {
            Status::new(Code::Unavailable, format!("no token can be made: {SOURCE}: {error}"))
        })
    }

    fn read(&self) -> io::Result<u128> {
        let mut file = self.0.borrow_mut();
        let file = match &mut *file {
            Some(file) => file,
            none => none.insert(File::open(SOURCE)?),
        };
        // The kernel's generator answers at once from a second after boot on.
        let mut secret = [0; 16];
        file.read_exact(&mut secret)?;
        Ok(u128::from_le_bytes(secret))
    }
}

const SOURCE: &str = "/dev/urandom";
