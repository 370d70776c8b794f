//! The figures of one shard that other threads read: histograms, gauges, methods, slow calls.
//!
//! The shard writes them with plain stores, as its counters beside which they stand.

use std::sync::{Arc, Mutex, PoisonError};

use ringcall_codec::MethodInfo;

use super::{histogram::LiveHistogram, methods::ServiceFigures, slow::SlowCalls};
use crate::counters::Counter;

/// Services of a shard whose methods have figures of their own, in number: a client that serves
/// has one as well, and a shard may have many clients. The methods of others have none.
const SERVICES_MEASURED_MAX: usize = 32;

/// The live figures of one shard.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) queue_ns: LiveHistogram,
    pub(crate) service_ns: LiveHistogram,
    pub(crate) reply_ns: LiveHistogram,
    pub(crate) turn_ns: LiveHistogram,
    pub(crate) reactor_turn_ns: LiveHistogram,
    pub(crate) reactor_gap_ns: LiveHistogram,
    pub(crate) tasks_ns: LiveHistogram,
    pub(crate) calls_per_turn: LiveHistogram,
    pub(crate) calls_per_send: LiveHistogram,
    pub(crate) gauges: Gauges,
    pub(crate) slow: SlowCalls,
    services: Mutex<Vec<Arc<ServiceFigures>>>,
}

/// What is so much now.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    pub(crate) buffers: Counter,
    pub(crate) buffers_free: Counter,
    pub(crate) owned_bytes: Counter,
    pub(crate) connections_open: Counter,
    pub(crate) calls_running: Counter,
    pub(crate) measured_one_in: Counter,
    pub(crate) slow_from_ns: Counter,
}

impl Figures {
    /// The figures of a service's methods; none where there are too many services.
    pub(crate) fn service(&self, methods: &'static [MethodInfo]) -> Option<Arc<ServiceFigures>> {
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(service) = services.iter().find(|service| service.is_of(methods)) {
            return Some(Arc::clone(service));
        }
        if services.len() >= SERVICES_MEASURED_MAX {
            return None;
        }
        let service = ServiceFigures::new(methods);
        services.push(Arc::clone(&service));
        Some(service)
    }

    /// Every service with figures of its own.
    pub(crate) fn services(&self) -> Vec<Arc<ServiceFigures>> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_has_its_figures_once_and_services_are_bounded() {
        let figures = Figures::default();
        let of = |id| -> &'static [MethodInfo] { vec![MethodInfo::unary(id, "A.b", 0, 0)].leak() };
        let first = of(1);
        assert!(figures.service(first).is_some());
        assert!(figures.service(first).is_some());
        assert_eq!(figures.services().len(), 1);
        (2..)
            .take(SERVICES_MEASURED_MAX - 1)
            .for_each(|id| assert!(figures.service(of(id)).is_some()));
        assert!(figures.service(of(0)).is_none());
        assert!(figures.service(first).is_some());
    }
}
