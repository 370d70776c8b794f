//! Waiting for events, and for no time.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{
        Arc,
        mpsc::{RecvTimeoutError, channel},
    },
    task::{Context, Poll, Wake, Waker},
    thread,
    time::{Duration, Instant},
};

/// Time after which a test hangs, rather than being slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a test on a thread of its own, so that one that hangs fails.
pub(crate) fn watched<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
    watched_for(PATIENCE, body)
}

/// [`watched`], for a test that takes its time.
pub(crate) fn watched_for<T: Send + 'static>(
    patience: Duration,
    body: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (done, is_done) = channel();
    let name = thread::current().name().unwrap_or("test").to_owned();
    let thread = thread::Builder::new().name(name).spawn(move || {
        let output = body();
        // Nobody listens where the patience is over.
        let _ = done.send(());
        output
    });
    let thread = thread.expect("a thread starts");
    match is_done.recv_timeout(patience) {
        Err(RecvTimeoutError::Timeout) => panic!("not done after {patience:?}"),
        Ok(()) | Err(RecvTimeoutError::Disconnected) => match thread.join() {
            Ok(output) => output,
            Err(panic) => std::panic::resume_unwind(panic),
        },
    }
}

/// Waits until something holds that another thread brings about.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let since = Instant::now();
    while !holds() {
        assert!(since.elapsed() < PATIENCE, "not yet: {what}");
        thread::sleep(Duration::from_micros(200));
    }
}

/// [`until`], for a task: the executor goes on meanwhile.
pub(crate) async fn until_async(what: &str, mut holds: impl FnMut() -> bool) {
    let since = Instant::now();
    while !holds() {
        assert!(since.elapsed() < PATIENCE, "not yet: {what}");
        ringcall::sleep(Duration::from_micros(200)).await;
    }
}

/// Runs a future on this thread, without any executor of ours.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(thread::Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut cx = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
        thread::park();
    }
}

/// Awaits all futures at once; calls among them are pipelined.
pub(crate) async fn all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut pending: Vec<_> =
        futures.into_iter().map(|future| (Some(Box::pin(future)), None)).collect();
    poll_fn(|cx| {
        for (future, output) in &mut pending {
            if let Some(running) = future
                && let Poll::Ready(done) = Pin::as_mut(running).poll(cx)
            {
                *output = Some(done);
                *future = None;
            }
        }
        match pending.iter().all(|(_, output)| output.is_some()) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
    pending.into_iter().filter_map(|(_, output)| output).collect()
}
