//! A table whose keys are indices with a generation, so that a stale key finds nothing; and how
//! tables grow of which there is one entry for each of thousands.

/// Values by key. A key is `index | generation << 32`, with fewer than 31 bits of generation, so
/// that the highest bit of a ring token is left to say what kind it is.
pub(crate) struct Slab<T> {
    entries: Vec<Entry<T>>,
    free: Vec<u32>,
}

struct Entry<T> {
    generation: u32,
    value: Option<T>,
}

impl<T: Clone> Slab<T> {
    /// Enters the value that `make` gives for its key.
    pub(crate) fn insert_with(&mut self, make: impl FnOnce(u64) -> T) -> T {
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push(Entry { generation: 0, value: None });
            self.entries.len() as u32 - 1
        });
        let entry = &mut self.entries[index as usize];
        entry.generation = (entry.generation + 1) & GENERATION_MASK;
        let value = make(u64::from(index) | u64::from(entry.generation) << 32);
        entry.value = Some(value.clone());
        value
    }

    /// The value with this key.
    #[inline]
    pub(crate) fn get(&self, key: u64) -> Option<&T> {
        let entry = self.entries.get(key as u32 as usize)?;
        if u64::from(entry.generation) == key >> 32 { entry.value.as_ref() } else { None }
    }

    /// Takes the value with this key out.
    pub(crate) fn remove(&mut self, key: u64) -> Option<T> {
        self.get(key)?;
        self.free.push(key as u32);
        self.entries[key as u32 as usize].value.take()
    }

    /// Every value, cloned, so that the table may change meanwhile.
    pub(crate) fn values(&self) -> Vec<T> {
        self.entries.iter().filter_map(|entry| entry.value.clone()).collect()
    }

    /// How many values there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), free: Vec::new() }
    }
}

const GENERATION_MASK: u32 = 0x3fff_ffff;

/// Lengthens a table to this many places, at least. Short ones grow by as much again, from one place
/// on: most connections have few calls in flight, and some have none. Long ones grow as by
/// [`reserve`].
pub(crate) fn grow<T>(table: &mut Box<[T]>, len: usize, empty: impl FnMut() -> T) {
    let had = table.len();
    if len <= had {
        return;
    }
    let more = if had < LONG_LEN { had } else { had / 8 };
    let mut longer = std::mem::take(table).into_vec();
    longer.reserve_exact(more.max(len - had));
    longer.resize_with(len.max(had + more), empty);
    *table = longer.into_boxed_slice();
}

/// Length from which on a table is long.
const LONG_LEN: usize = 1024;

/// Makes room for so many more. Long tables grow by an eighth and not by as much again: most of
/// them stay as long as they were once, and their slack is memory of each entry.
pub(crate) fn reserve<T>(table: &mut Vec<T>, more: usize) {
    if table.len() + more > table.capacity() && table.capacity() >= LONG_LEN {
        table.reserve_exact(more.max(table.len() / 8));
    }
}
