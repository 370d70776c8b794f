//! A bystander: a client of its own thread, whose calls must go on being answered.

use std::{
    net::SocketAddr,
    sync::{Arc, Condvar, Mutex},
    thread::{self, JoinHandle},
    time::Duration,
};

use ringcall::{RunConfig, ShardConfig};

use super::echo::{Blob, EchoClient};

/// A wait that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// Calls on one connection, one after the other, until it is dropped.
pub(crate) struct Bystander {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    answered: u64,
    failure: Option<String>,
    is_over: bool,
}

impl Bystander {
    /// Connects; returns once its first calls were answered.
    pub(crate) fn start(address: SocketAddr) -> Self {
        let shared = Arc::<Shared>::default();
        let theirs = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            // Few buffers, so that they are all used soon, and memory does not grow any more.
            let shard = ShardConfig::new().receive_buffers(16, 16 * 1024);
            let run = RunConfig::new().shard(shard);
            let outcome = run.run(call_on(address, Arc::clone(&theirs)));
            let failure = match outcome {
                Ok(Ok(())) => return,
                Ok(Err(failure)) => failure,
                Err(error) => error.to_string(),
            };
            theirs.state.lock().unwrap().failure = Some(failure);
            theirs.changed.notify_all();
        });
        let bystander = Self { shared, thread: Some(thread) };
        bystander.is_served();
        bystander
    }

    /// Waits until a call that is made after this was answered; fails where one failed.
    #[track_caller]
    pub(crate) fn is_served(&self) {
        let state = self.shared.state.lock().unwrap();
        // The next may have been made before.
        let wanted = state.answered + 2;
        let waiting = |state: &mut State| state.failure.is_none() && state.answered < wanted;
        let waited = self.shared.changed.wait_timeout_while(state, PATIENCE, waiting);
        let (state, timeout) = waited.unwrap();
        if let Some(failure) = &state.failure {
            panic!("a call of the bystander: {failure}");
        }
        assert!(!timeout.timed_out(), "the bystander is not served");
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        if let Ok(mut state) = self.shared.state.lock() {
            state.is_over = true;
        }
        let outcome = self.thread.take().map(JoinHandle::join);
        if !thread::panicking() {
            outcome.unwrap().unwrap();
            assert_eq!(self.shared.state.lock().unwrap().failure, None);
        }
    }
}

async fn call_on(address: SocketAddr, shared: Arc<Shared>) -> Result<(), String> {
    let echo = EchoClient::connect(address).await;
    let echo = echo.map_err(|error| error.to_string())?;
    for id in 0.. {
        // Now and then one that no receive buffer holds whole.
        let len = if id % 64 == 63 { 40_000 } else { 48 };
        let blob = Blob::new(id, len);
        let reply = echo.echo(&blob).await.map_err(|status| status.to_string())?;
        if reply.id != id || *reply.bytes != *blob.bytes {
            return Err(format!("another reply to call {id}"));
        }
        {
            let mut state = shared.state.lock().unwrap();
            state.answered += 1;
            shared.changed.notify_all();
            if state.is_over {
                return Ok(());
            }
        }
        ringcall::sleep(Duration::from_micros(100)).await;
    }
    Ok(())
}
