//! The tasks that an executor runs, so that they end with it.
//!
//! Beside the path of a call: a handler that waits is entered here when it becomes a task. The
//! executor itself forgets the tasks that it leaves behind, and with them the sockets, the ring
//! and the memory that they hold; so each is entered where it is spawned, and ended before the
//! executor ends. A panic of a task ends the executor in the same order, and does not unwind
//! through it.

use std::{
    any::Any,
    cell::RefCell,
    future::{Future, poll_fn},
    panic::{self, AssertUnwindSafe},
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
    thread,
};

use crate::{
    executor::{self, TaskHandle},
    slab::reserve,
};

/// Rounds of ending tasks: one that is dropped may spawn others, but not for ever.
const END_ROUNDS_MAX: usize = 100;

thread_local! {
    /// The tasks of the executor that this thread runs, where it is one of ours.
    static TASKS: RefCell<Option<Tasks>> = const { RefCell::new(None) };
}

/// Keeps the table of this thread's tasks for as long as its executor runs.
pub(crate) struct Kept(());

/// Spawns a task on this executor and lets it run on its own, until the executor ends at most.
///
/// On an executor that is not ours it is not ended, and its panic goes where that puts it.
pub(crate) fn spawn(future: impl Future<Output = ()> + 'static) {
    let Some(key) = with_tasks(Tasks::enter) else {
        return executor::spawn(future).forget();
    };
    let task = executor::spawn(Task { future, _entry: Entered(key) });
    // It was polled already, and may be done.
    let done = with_tasks(|tasks| tasks.keep(key, task)).flatten();
    done.into_iter().for_each(TaskHandle::forget);
}

/// Runs the future that an executor is for. Gives its panic, or that of a task, so that who runs
/// it can put things in order before the executor ends.
pub(crate) async fn guard<T>(future: impl Future<Output = T>) -> thread::Result<T> {
    let mut future = pin!(catch_panic(future));
    poll_fn(|cx| match with_tasks(|tasks| tasks.panic(cx.waker())).flatten() {
        Some(panic) => Poll::Ready(Err(panic)),
        None => future.as_mut().poll(cx),
    })
    .await
}

/// Ends every task, by dropping its future. To be awaited before the executor ends.
pub(crate) async fn end_all() {
    for _ in 0..END_ROUNDS_MAX {
        let tasks = with_tasks(Tasks::take).unwrap_or_default();
        if tasks.is_empty() {
            return;
        }
        for task in tasks {
            task.end().await;
        }
    }
}

/// Whether this thread runs an executor of ours.
pub(crate) fn are_kept() -> bool {
    with_tasks(|_| ()).is_some()
}

impl Kept {
    /// Enters tasks from now on.
    pub(crate) fn begin() -> Self {
        TASKS.set(Some(Tasks::default()));
        Self(())
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // What is left, after a panic of the executor itself, belongs to no executor any more, and
        // cannot be ended.
        let tasks = with_tasks(Tasks::take).unwrap_or_default();
        tasks.into_iter().for_each(std::mem::forget);
        TASKS.set(None);
    }
}

pin_project_lite::pin_project! {
    /// What runs as a task: a future whose panic is kept for who runs the executor.
    ///
    /// Not an async block, which would have a place for each step that the future is handed
    /// through.
    struct Task<F> {
        #[pin]
        future: F,
        _entry: Entered,
    }
}

impl<F: Future<Output = ()>> Future for Task<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut future = self.project().future;
        // The future is not polled again after a panic, so nothing sees it half-way.
        match panic::catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            Ok(poll) => poll,
            Err(panic) => {
                with_tasks(|tasks| tasks.panicked(panic));
                Poll::Ready(())
            }
        }
    }
}

#[derive(Default)]
struct Tasks {
    entries: Vec<Entry>,
    free: Vec<usize>,
    /// What the first task that panicked said.
    panic: Option<Box<dyn Any + Send>>,
    /// Who is to be told of a panic.
    guard: Option<Waker>,
}

enum Entry {
    Free,
    /// Polled for the first time now, or being ended.
    Bare,
    Running(TaskHandle),
}

/// A task's place in the table, free again when the task is done or dropped.
struct Entered(usize);

impl Drop for Entered {
    fn drop(&mut self) {
        let handle = with_tasks(|tasks| tasks.leave(self.0)).flatten();
        handle.into_iter().for_each(TaskHandle::forget);
    }
}

impl Tasks {
    fn enter(&mut self) -> usize {
        let key = self.free.pop().unwrap_or_else(|| {
            let key = self.entries.len();
            reserve(&mut self.entries, 1);
            self.entries.push(Entry::Free);
            key
        });
        self.entries[key] = Entry::Bare;
        key
    }

    /// Keeps a task's handle. Gives it back where the task is done.
    fn keep(&mut self, key: usize, task: TaskHandle) -> Option<TaskHandle> {
        match &mut self.entries[key] {
            Entry::Free => Some(task),
            entry => {
                *entry = Entry::Running(task);
                None
            }
        }
    }

    fn leave(&mut self, key: usize) -> Option<TaskHandle> {
        self.free.push(key);
        match std::mem::replace(&mut self.entries[key], Entry::Free) {
            Entry::Running(task) => Some(task),
            Entry::Free | Entry::Bare => None,
        }
    }

    /// The handles of all tasks that run; their places are taken until they are gone.
    fn take(&mut self) -> Vec<TaskHandle> {
        let running = self.entries.iter_mut().filter_map(|entry| match entry {
            Entry::Running(_) => match std::mem::replace(entry, Entry::Bare) {
                Entry::Running(task) => Some(task),
                Entry::Free | Entry::Bare => None,
            },
            Entry::Free | Entry::Bare => None,
        });
        running.collect()
    }

    fn panicked(&mut self, panic: Box<dyn Any + Send>) {
        self.panic.get_or_insert(panic);
        if let Some(guard) = self.guard.take() {
            guard.wake();
        }
    }

    /// The panic of a task, if there was one; else its guard is woken when there is.
    fn panic(&mut self, guard: &Waker) -> Option<Box<dyn Any + Send>> {
        let panic = self.panic.take();
        if panic.is_none() {
            self.guard = Some(guard.clone());
        }
        panic
    }
}

/// The table, where there is one. Nothing of users may run meanwhile.
fn with_tasks<R>(with: impl FnOnce(&mut Tasks) -> R) -> Option<R> {
    let tasks = TASKS.try_with(|tasks| tasks.borrow_mut().as_mut().map(with));
    tasks.ok().flatten()
}

/// Runs a future, and gives its panic.
async fn catch_panic<T>(future: impl Future<Output = T>) -> thread::Result<T> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        // The future is not polled again after a panic, so nothing sees it half-way.
        let poll = AssertUnwindSafe(|| future.as_mut().poll(cx));
        match panic::catch_unwind(poll) {
            Ok(poll) => poll.map(Ok),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    })
    .await
}
