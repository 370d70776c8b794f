//! The items of one stream, as they must come.

use std::sync::atomic::Ordering::Relaxed;

use crate::{
    book::{Book, Fault},
    letter::{ArchivedLetter, Letter, item_id, item_of},
    post::count_body,
};

/// The item of a call at this place.
pub(crate) fn item(call: u64, index: u32, len: u32) -> Letter {
    Letter::new(item_id(call, index.into()), len).sealed()
}

/// What has come of a stream in one direction: each item once, in order.
pub(crate) struct Items<'a> {
    call: u64,
    count: u64,
    book: &'a Book,
}

impl<'a> Items<'a> {
    pub(crate) fn of(call: u64, book: &'a Book) -> Self {
        Self { call, count: 0, book }
    }

    /// An item has come.
    pub(crate) fn take(&mut self, item: &ArchivedLetter) {
        let (call, index) = item_of(item.id.to_native());
        let fault = if !item.is_whole() || call != self.call {
            Some(Fault::Crossed)
        } else if index < self.count {
            Some(Fault::Duplicated)
        } else if index > self.count {
            Some(Fault::Lost)
        } else {
            None
        };
        if let Some(fault) = fault {
            let Self { call: of, count, .. } = self;
            self.book.fault(fault, format!("item {index} of {call} came as {count} of {of}"));
        }
        count_body(self.book, item);
        self.book.items.fetch_add(1, Relaxed);
        self.count += 1;
    }

    pub(crate) fn count(&self) -> u32 {
        self.count as u32
    }
}
