//! The arena in a model. A record that was given back is not used again, and can still be looked at.

use std::cell::RefCell;

use super::Record;

thread_local! {
    /// Of all executions of a model: its threads are coroutines of one thread.
    static RECORDS: RefCell<Vec<&'static Record>> = const { RefCell::new(Vec::new()) };
}

pub(crate) fn take() -> &'static Record {
    RECORDS.with_borrow_mut(|records| {
        let record: &'static Record = Box::leak(Box::new(Record::new(records.len() as u32)));
        records.push(record);
        record
    })
}
pub(crate) fn allocated() -> usize {
    0
}
pub(crate) fn all() -> impl Iterator<Item = &'static Record> {
    std::iter::empty()
}
pub(super) fn give_back(_record: &'static Record) {}
pub(crate) fn at(index: u32) -> Option<&'static Record> {
    RECORDS.with_borrow(|records| records.get(index as usize).copied())
}
