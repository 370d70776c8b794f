//! What a shard measures of each method: outcomes by code, and how long handlers took.

use std::sync::Arc;

use ringcall_codec::{Code, MethodInfo};

use super::histogram::LiveHistogram;
use crate::counters::Counter;

/// Methods of a service that have figures of their own, in number; the others have one row for
/// all of them. A row is 4.3 KiB for each shard.
const METHODS_MEASURED_MAX: usize = 256;

/// Outcomes that are told apart: a reply, and gRPC's sixteen codes.
pub(crate) const OUTCOMES: usize = 17;

/// The name of the row of methods that have none of their own: those beyond the limit, and ids
/// that no method has.
pub const OTHER_METHODS: &str = "other";

/// The figures of one service's methods on one shard.
#[derive(Debug)]
pub(crate) struct ServiceFigures {
    methods: &'static [MethodInfo],
    /// Open addressing by id: an id, and its row and one; zero where the place is free.
    places: Box<[(u32, u16)]>,
    /// A row for each method that is measured, and one for all others.
    rows: Box<[MethodFigures]>,
}

/// The figures of one method on one shard.
#[derive(Debug, Default)]
pub(crate) struct MethodFigures {
    /// Calls by how they ended; index zero is a reply, others are the code's number.
    pub(crate) outcomes: [Counter; OUTCOMES],
    /// From the handler's begin to its end, in nanoseconds.
    pub(crate) service_ns: LiveHistogram,
}

impl ServiceFigures {
    pub(crate) fn new(methods: &'static [MethodInfo]) -> Arc<Self> {
        let measured = methods.len().min(METHODS_MEASURED_MAX);
        let mut places = vec![(0, 0); (measured * 2).next_power_of_two()].into_boxed_slice();
        for (row, method) in (0..).zip(&methods[..measured]) {
            let free = probe(&places, method.id).find(|place| places[*place].1 == 0);
            // There are twice as many places as methods.
            if let Some(free) = free {
                places[free] = (method.id, row + 1);
            }
        }
        let rows = (0..=measured).map(|_| MethodFigures::default()).collect();
        Arc::new(Self { methods, places, rows })
    }

    /// The row of the method with this id.
    #[inline]
    pub(crate) fn row_of(&self, id: u32) -> u16 {
        let mut place = first_place(&self.places, id);
        loop {
            let (found, row) = self.places[place];
            if row == 0 {
                return self.other();
            }
            if found == id {
                return row - 1;
            }
            place = (place + 1) & (self.places.len() - 1);
        }
    }

    fn other(&self) -> u16 {
        (self.rows.len() - 1) as u16
    }

    /// The figures of a row.
    #[inline]
    pub(crate) fn row(&self, row: u16) -> &MethodFigures {
        &self.rows[usize::from(row).min(self.rows.len() - 1)]
    }

    /// The name of the method of a row.
    pub(crate) fn name_of(&self, row: u16) -> &'static str {
        let is_own = row < self.other();
        if is_own { self.methods[usize::from(row)].name } else { OTHER_METHODS }
    }

    pub(crate) fn is_of(&self, methods: &'static [MethodInfo]) -> bool {
        std::ptr::eq(self.methods, methods)
    }

    /// Each row with its method's name.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (&'static str, &MethodFigures)> {
        (0..).zip(&self.rows).map(|(row, figures)| (self.name_of(row), figures))
    }
}

/// Index of an outcome.
pub(crate) fn outcome_index(code: Option<Code>) -> usize {
    code.map_or(0, |code| (code as u32 as usize).min(OUTCOMES - 1))
}

/// The name of an outcome, as gRPC writes it.
pub(crate) fn outcome_name(index: usize) -> &'static str {
    const NAMES: [&str; OUTCOMES] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    NAMES.get(index).copied().unwrap_or("UNKNOWN")
}

#[inline]
fn first_place(places: &[(u32, u16)], id: u32) -> usize {
    // Ids are hashes, unless a user chose them; then their low bits differ all the more.
    id as usize & (places.len() - 1)
}

fn probe(places: &[(u32, u16)], id: u32) -> impl Iterator<Item = usize> + use<> {
    let (first, len) = (first_place(places, id), places.len());
    (0..len).map(move |step| (first + step) & (len - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn methods(ids: impl Iterator<Item = u32>) -> &'static [MethodInfo] {
        ids.map(|id| MethodInfo::unary(id, "Test.method", 0, 0)).collect::<Vec<_>>().leak()
    }

    #[test]
    fn each_method_has_its_row_and_unknown_ids_share_one() {
        // Some of them begin at the same place.
        let methods = methods([7, 7 + 64, 7 + 128, 0, u32::MAX, 1 << 31].into_iter());
        let figures = ServiceFigures::new(methods);
        for (row, method) in (0..).zip(methods) {
            assert_eq!(figures.row_of(method.id), row);
            assert_eq!(figures.name_of(row), "Test.method");
        }
        assert_eq!(figures.row_of(8), 6);
        assert_eq!(figures.name_of(6), OTHER_METHODS);
        assert_eq!(figures.rows().count(), 7);
    }

    #[test]
    fn methods_beyond_the_limit_share_a_row() {
        let methods = methods(0..1000);
        let figures = ServiceFigures::new(methods);
        assert_eq!(figures.row_of(255), 255);
        assert_eq!(figures.row_of(256), 256);
        assert_eq!(figures.row_of(999), 256);
        assert_eq!(figures.rows().count(), METHODS_MEASURED_MAX + 1);
    }

    #[test]
    fn a_service_without_methods_has_a_row_too() {
        let figures = ServiceFigures::new(&[]);
        assert_eq!(figures.row_of(3), 0);
        assert_eq!(figures.name_of(0), OTHER_METHODS);
    }
}
