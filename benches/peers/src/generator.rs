//! When calls are to be made in an open loop, and who makes them.
//!
//! [`Arrivals`] says when: at Poisson times, whatever became of the calls before, as independent
//! users would. [`Desk`] is where due arrivals wait, in order, for a caller that is idle. Neither
//! knows of systems or of sockets; both stay on the client's thread.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    task::{Poll, Waker},
    time::{Duration, Instant},
};

/// Gaps in the table, which is gone through again and again: at 200,000 calls per second more than
/// a second's.
const GAPS: usize = 1 << 18;

/// The same gaps in every run, so that each system is offered the same load.
const SEED: u64 = 0x7269_6e67_6361_6c6c;

/// Poisson arrivals: the gaps between them are computed beforehand.
pub(crate) struct Arrivals {
    gaps_ns: Box<[u32]>,
    position: usize,
    next: Instant,
}

/// Where arrivals that are due meet callers that are idle.
#[derive(Default)]
pub(crate) struct Desk {
    /// Times at which calls were to be made, oldest first.
    due: RefCell<VecDeque<Instant>>,
    /// Callers without a call, idle for longest first: so the calls go around the connections.
    idle: RefCell<VecDeque<Waker>>,
    is_closed: Cell<bool>,
}

impl Arrivals {
    /// Arrivals from `start` on, `rate` in a second on average.
    pub(crate) fn poisson(rate: u32, start: Instant) -> Self {
        let mean_ns = 1e9 / f64::from(rate);
        let mut random = fastrand::Rng::with_seed(SEED);
        let (mut exact_ns, mut rounded_ns) = (0.0, 0u64);
        let gaps_ns = (0..GAPS)
            .map(|_| {
                exact_ns -= (1.0 - random.f64()).ln() * mean_ns;
                // Rounding the sum and not each gap keeps the rate.
                let gap_ns = exact_ns as u64 - rounded_ns;
                rounded_ns += gap_ns;
                u32::try_from(gap_ns).unwrap_or(u32::MAX)
            })
            .collect();
        let mut arrivals = Self { gaps_ns, position: 0, next: start };
        arrivals.advance();
        arrivals
    }

    /// The next arrival, if it is due. Asked again, it is the one after.
    #[inline]
    pub(crate) fn due(&mut self, now: Instant) -> Option<Instant> {
        if self.next > now {
            return None;
        }
        let due = self.next;
        self.advance();
        Some(due)
    }

    #[inline]
    fn advance(&mut self) {
        self.next += Duration::from_nanos(u64::from(self.gaps_ns[self.position]));
        self.position = (self.position + 1) % self.gaps_ns.len();
    }
}

impl Desk {
    /// Hands an arrival to the caller that has been idle for longest; it waits where none is.
    #[inline]
    pub(crate) fn arrive(&self, intended: Instant) {
        self.due.borrow_mut().push_back(intended);
        let caller = self.idle.borrow_mut().pop_front();
        if let Some(caller) = caller {
            caller.wake();
        }
    }

    /// The oldest arrival that is due, as soon as there is one; none when the desk is closed.
    ///
    /// Dropped while it waits, its caller is woken for an arrival in vain; no arrival is lost.
    pub(crate) async fn next(&self) -> Option<Instant> {
        poll_fn(|context| {
            if self.is_closed.get() {
                return Poll::Ready(None);
            }
            match self.due.borrow_mut().pop_front() {
                Some(intended) => Poll::Ready(Some(intended)),
                None => {
                    self.idle.borrow_mut().push_back(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Tells every caller that no call is to be made any more, and drops the arrivals that wait.
    pub(crate) fn close(&self) {
        self.is_closed.set(true);
        let idle = self.idle.take();
        idle.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::{pin::pin, task::Context};

    use super::*;

    #[test]
    fn arrivals_keep_the_rate_and_differ_as_poisson_arrivals_do() {
        for rate in [10, 1_000, 1_000_000] {
            let start = Instant::now();
            let arrivals = Arrivals::poisson(rate, start);
            let gaps: Vec<f64> = arrivals.gaps_ns.iter().map(|gap| f64::from(*gap)).collect();
            let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
            let wanted = 1e9 / f64::from(rate);
            assert!((mean / wanted - 1.0).abs() < 0.01, "{rate}: {mean}");
            // The deviation of exponential gaps is their mean.
            let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>();
            let deviation = (variance / gaps.len() as f64).sqrt();
            assert!((deviation / mean - 1.0).abs() < 0.02, "{rate}: {deviation}");
        }
    }

    #[test]
    fn an_arrival_is_due_once_and_never_early() {
        let start = Instant::now();
        let mut arrivals = Arrivals::poisson(1_000, start);
        assert_eq!(arrivals.due(start), None);
        let later = start + Duration::from_secs(1);
        let mut before = start;
        let mut count = 0;
        while let Some(due) = arrivals.due(later) {
            assert!(before <= due && due <= later);
            before = due;
            count += 1;
        }
        assert!((800..1200).contains(&count), "{count}");
        assert!(arrivals.due(later).is_none());
    }

    #[test]
    fn arrivals_wait_in_order_for_callers() {
        let desk = Desk::default();
        let times: Vec<Instant> =
            (0..3).map(|at| Instant::now() + Duration::from_secs(at)).collect();
        let mut context = Context::from_waker(Waker::noop());
        assert!(pin!(desk.next()).poll(&mut context).is_pending());
        times.iter().for_each(|time| desk.arrive(*time));
        for time in times {
            assert_eq!(pin!(desk.next()).poll(&mut context), Poll::Ready(Some(time)));
        }
        desk.close();
        assert_eq!(pin!(desk.next()).poll(&mut context), Poll::Ready(None));
    }
}
