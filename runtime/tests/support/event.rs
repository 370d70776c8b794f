//! What happens on a shard, to be waited for there: gates, and calls that go on in the background.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

/// Closed until it is opened; each time for those who wait then.
#[derive(Clone, Default)]
pub(crate) struct Gate(Rc<GateState>);

#[derive(Default)]
struct GateState {
    opened: Cell<u64>,
    waiting: RefCell<Vec<Waker>>,
}

impl Gate {
    /// Waits until it is opened.
    pub(crate) async fn wait(&self) {
        let opened = self.0.opened.get();
        poll_fn(|cx| {
            if self.0.opened.get() != opened {
                return Poll::Ready(());
            }
            self.0.waiting.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Lets everybody who waits go on.
    pub(crate) fn open(&self) {
        self.0.opened.set(self.0.opened.get() + 1);
        self.0.waiting.take().into_iter().for_each(Waker::wake);
    }

    /// How often it was opened.
    pub(crate) fn opened(&self) -> u64 {
        self.0.opened.get()
    }
}

/// A future that runs as a task, and whose output can be awaited.
pub(crate) struct Background<T>(Rc<BackgroundState<T>>);

struct BackgroundState<T> {
    output: RefCell<Option<T>>,
    is_done: Cell<bool>,
    waiting: RefCell<Option<Waker>>,
}

/// Runs a future as a task of this executor.
pub(crate) fn background<T: 'static>(future: impl Future<Output = T> + 'static) -> Background<T> {
    let state = Rc::new(BackgroundState {
        output: RefCell::new(None),
        is_done: Cell::new(false),
        waiting: RefCell::new(None),
    });
    let theirs = Rc::clone(&state);
    ringcall::spawn(async move {
        *theirs.output.borrow_mut() = Some(future.await);
        theirs.is_done.set(true);
        theirs.waiting.take().into_iter().for_each(Waker::wake);
    });
    Background(state)
}

impl<T> Background<T> {
    pub(crate) fn is_done(&self) -> bool {
        self.0.is_done.get()
    }
}

impl<T> Future for Background<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        match self.0.output.take() {
            Some(output) => Poll::Ready(output),
            None => {
                *self.0.waiting.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// A waker that only notes that it was woken, for futures that a test polls itself.
#[derive(Default)]
pub(crate) struct Noted(AtomicBool);

impl Noted {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Whether it was woken since this was last asked.
    pub(crate) fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }

    /// Polls a future once, with this as the one to be woken.
    pub(crate) fn poll<F: Future>(self: &Arc<Self>, future: Pin<&mut F>) -> Poll<F::Output> {
        let waker = Waker::from(Arc::clone(self));
        future.poll(&mut Context::from_waker(&waker))
    }

    /// Polls a future once; it must wait.
    #[track_caller]
    pub(crate) fn begin<F: Future>(self: &Arc<Self>, future: Pin<&mut F>) {
        assert!(self.poll(future).is_pending(), "it does not wait");
    }
}

impl Wake for Noted {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}
