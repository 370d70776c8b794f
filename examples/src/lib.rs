//! What the examples share: each is a server too, and ends in order.

use std::{
    env, io,
    io::Read,
    os::unix::net::UnixStream,
    sync::{Arc, atomic::AtomicBool},
    thread,
    time::Duration,
};

use ringcall::{ServeError, ServerHandle};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag, low_level,
};

/// Time for the calls that run when a server is told to end.
const GRACE: Duration = Duration::from_secs(10);

/// Why an example does not serve.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServingError {
    /// Signals cannot be watched for.
    #[error("cannot watch for signals: {0}")]
    Signals(#[from] io::Error),
    /// The server ended badly.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// Where to serve: the first argument of the command line, or a local port that the kernel chooses.
pub fn address() -> String {
    env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned())
}

/// Where the command line has an address: prints it, serves until SIGTERM or Ctrl-C, and gives
/// nothing. Else gives the server back, to be called from here.
///
/// # Errors
///
/// Where signals cannot be watched for, or a shard has panicked.
pub fn serve_if_asked(server: ServerHandle) -> Result<Option<ServerHandle>, ServingError> {
    drain_on_signals(&server)?;
    if env::args().nth(1).is_none() {
        return Ok(Some(server));
    }
    println!("{}", server.address());
    server.join()?;
    Ok(None)
}

/// Drains a server when the process is told to end, by SIGTERM or Ctrl-C: calls that run are
/// answered, others are refused so that their callers turn elsewhere, and `join` returns. A second
/// signal ends the process at once.
///
/// # Errors
///
/// Where signals cannot be watched for.
pub fn drain_on_signals(server: &ServerHandle) -> io::Result<()> {
    let (mut is_told, tells) = UnixStream::pair()?;
    let is_ending = Arc::<AtomicBool>::default();
    for signal in [SIGINT, SIGTERM] {
        // In this order: the first signal only sets the flag, which arms the second.
        flag::register_conditional_default(signal, Arc::clone(&is_ending))?;
        flag::register(signal, Arc::clone(&is_ending))?;
        low_level::pipe::register(signal, tells.try_clone()?)?;
    }
    let stopper = server.stopper();
    thread::spawn(move || {
        // It fails where nobody is left to tell.
        if is_told.read_exact(&mut [0]).is_ok() {
            stopper.drain(GRACE);
        }
    });
    Ok(())
}
