//! A list that is empty most of the time.
//!
//! A node holds many thousand replicas, and nearly all of them rest. What only a replica at work fills
//! (writes in flight, promises, votes) costs it one word each while it rests: the memory comes with the
//! first element, stays while there is work, and goes back when the replica [rests](super::rest).

use std::ops::{Deref, DerefMut};

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Seldom<T>(Option<Box<List<T>>>);

#[derive(Debug, Clone)]
struct List<T>(Vec<T>);

impl<T> Default for Seldom<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> Seldom<T> {
    pub(super) fn push(&mut self, element: T) {
        self.list().push(element);
    }

    pub(super) fn insert(&mut self, at: usize, element: T) {
        self.list().insert(at, element);
    }

    fn list(&mut self) -> &mut Vec<T> {
        // A replica at its usual work has one write in flight, not the four a growing `Vec` begins with.
        &mut self.0.get_or_insert_with(|| Box::new(List(Vec::with_capacity(1)))).0
    }

    pub(super) fn pop(&mut self) -> Option<T> {
        self.0.as_mut()?.0.pop()
    }

    /// The first `count` elements are done with.
    pub(super) fn drop_front(&mut self, count: usize) {
        match &mut self.0 {
            Some(list) if count == list.0.len() => list.0.clear(),
            Some(list) => drop(list.0.drain(..count)),
            None => {}
        }
    }

    /// The elements from `at` on, removed.
    pub(super) fn split_off(&mut self, at: usize) -> Vec<T> {
        self.0.as_mut().map_or_else(Vec::new, |list| list.0.split_off(at))
    }

    pub(super) fn retain(&mut self, keep: impl FnMut(&T) -> bool) {
        if let Some(list) = &mut self.0 {
            list.0.retain(keep);
        }
    }

    pub(super) fn clear(&mut self) {
        if let Some(list) = &mut self.0 {
            list.0.clear();
        }
    }

    /// No memory is held.
    #[cfg(test)]
    pub(super) fn holds_nothing(&self) -> bool {
        self.0.is_none()
    }

    /// Gives the memory back if there is nothing in it.
    pub(super) fn rest(&mut self) {
        if self.is_empty() {
            self.0 = None;
        }
    }
}

impl<T> Deref for Seldom<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        self.0.as_ref().map_or(&[], |list| &list.0)
    }
}

impl<T> DerefMut for Seldom<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        self.0.as_mut().map_or(&mut [], |list| &mut list.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_list_is_one_word_and_holds_nothing() {
        assert_eq!(size_of::<Seldom<[u64; 9]>>(), size_of::<usize>());
        let mut list = Seldom::default();
        assert_eq!((list.len(), list.pop(), list.first().copied()), (0, None, None));
        list.push(3);
        list.insert(0, 2);
        list.push(5);
        list.rest();
        assert_eq!(*list, [2, 3, 5], "what is in it stays");
        list.drop_front(1);
        list.retain(|&element| element != 5);
        assert_eq!((list.last().copied(), list.split_off(0)), (Some(3), vec![3]));
        list.rest();
        assert!(list.0.is_none());
    }
}
