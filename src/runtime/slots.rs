//! A table whose keys are never used twice, for connections and requests that are reported late.

/// Keys have this many bits for the slot; the rest counts how often the slot was used.
const SLOT_BITS: u32 = 24;
/// A key fits a poller's token, and a ring's user data, beside its kind.
pub const KEY_BITS: u32 = 60;

/// Values by key. A key names one value for the life of the table: a readiness report or a reply
/// that comes after its connection was closed finds nothing, never somebody else.
#[derive(Debug)]
pub struct Slots<T> {
    slots: Vec<Slot<T>>,
    free: Vec<usize>,
}

#[derive(Debug)]
struct Slot<T> {
    uses: u64,
    value: Option<T>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slots<T> {
    /// Put in what `make` makes of its key.
    pub fn insert(&mut self, make: impl FnOnce(u64) -> T) -> u64 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { uses: 0, value: None });
            self.slots.len() - 1
        });
        let entry = &mut self.slots[slot];
        entry.uses += 1;
        let key = (entry.uses << SLOT_BITS | slot as u64) & ((1 << KEY_BITS) - 1);
        entry.value = Some(make(key));
        key
    }

    /// The value of this key, if it is still there.
    pub fn get_mut(&mut self, key: u64) -> Option<&mut T> {
        let entry = self.slots.get_mut((key & ((1 << SLOT_BITS) - 1)) as usize)?;
        if entry.uses & ((1 << (KEY_BITS - SLOT_BITS)) - 1) != key >> SLOT_BITS {
            return None;
        }
        entry.value.as_mut()
    }

    /// Take the value of this key out.
    pub fn remove(&mut self, key: u64) -> Option<T> {
        self.get_mut(key)?;
        let slot = (key & ((1 << SLOT_BITS) - 1)) as usize;
        self.free.push(slot);
        self.slots[slot].value.take()
    }

    /// How many values there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Look at every value.
    pub fn each(&self, look: impl FnMut(&T)) {
        self.slots.iter().filter_map(|entry| entry.value.as_ref()).for_each(look);
    }

    /// The keys of all values for which `wanted` holds.
    pub fn keys(&self, wanted: impl Fn(&T) -> bool) -> Vec<u64> {
        let slots = self.slots.iter().enumerate();
        slots
            .filter(|(_, entry)| entry.value.as_ref().is_some_and(&wanted))
            .map(|(slot, entry)| (entry.uses << SLOT_BITS | slot as u64) & ((1 << KEY_BITS) - 1))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_key_finds_nothing() {
        let mut slots = Slots::default();
        let a = slots.insert(|_| "a");
        assert_eq!(slots.remove(a), Some("a"));
        let b = slots.insert(|_| "b");
        assert_ne!(a, b);
        assert_eq!(slots.get_mut(a), None);
        assert_eq!(slots.remove(a), None);
        assert_eq!(slots.get_mut(b), Some(&mut "b"));
        assert_eq!(slots.count(), 1);
        assert_eq!(slots.keys(|_| true), [b]);
    }
}
